//! Selects the listed files that are part of the record: the files in their segment's manifest, less those that a newer
//! segment supersedes.
//!
//! A manifest's list of files hardly ever changes, so it is fetched once and again only when it does not fit.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{TimeDelta, Utc};
use datafusion::error::{DataFusionError, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use netverdict_flowlog::{
    manifest::{MAX_BYTES, Manifest, ManifestError},
    path::{ManifestPath, SegmentPath},
};
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path};

use super::segment::{Segment, left_out};
use crate::notes::Notes;

/// Manifests that are fetched at once.
const FETCHES_AT_ONCE: usize = 16;
/// Manifests that are remembered: two weeks of a node, or a few hours of a large cluster.
const MAX_KNOWN: usize = 20_000;
/// A segment's files are in place a moment before its manifest. A manifest that is missing for longer is worth a note.
const COMMIT_WITHIN: TimeDelta = TimeDelta::minutes(2);

/// The manifests seen so far.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    known: Mutex<HashMap<ManifestPath, Arc<Manifest>>>,
}

/// Whether a file counts.
enum Standing {
    /// By its name alone: it names no manifest, as files of format version 1.
    ByName,
    Listed(Arc<Manifest>),
    /// Its segment is not committed yet.
    Pending,
    LeftOut(String),
}

impl Manifests {
    /// The segments that count, in the order given. Segments that should count but cannot be checked are noted.
    pub(super) async fn committed(
        &self,
        objects: &dyn ObjectStore,
        segments: Vec<Segment>,
        notes: &Notes,
    ) -> Result<Vec<Segment>> {
        let standings: Vec<(Segment, Standing)> = stream::iter(segments)
            .map(|segment| async move {
                let standing = self.standing(objects, &segment).await?;
                Ok::<_, DataFusionError>((segment, standing))
            })
            .buffered(FETCHES_AT_ONCE)
            .try_collect()
            .await?;
        let mut superseded = HashSet::<SegmentPath>::new();
        let mut counting = Vec::with_capacity(standings.len());
        for (segment, standing) in standings {
            match standing {
                Standing::ByName => counting.push(segment),
                Standing::Listed(manifest) => {
                    superseded.extend(manifest.supersedes().iter().cloned());
                    counting.push(segment);
                }
                Standing::Pending => {}
                Standing::LeftOut(reason) => left_out(notes, &segment.path, &reason),
            }
        }
        counting.retain(|segment| !superseded.contains(&segment.path));
        Ok(counting)
    }

    async fn standing(&self, objects: &dyn ObjectStore, segment: &Segment) -> Result<Standing> {
        let Some(path) = &segment.contents.manifest else { return Ok(Standing::ByName) };
        let path: ManifestPath = match path.parse() {
            Ok(path) => path,
            Err(error) => return Ok(Standing::LeftOut(format!("it names no manifest: {error}"))),
        };
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&path).cloned();
        if let Some(manifest) = known
            && lists(&manifest, segment).is_ok()
        {
            return Ok(Standing::Listed(manifest));
        }
        // A collector that died between manifest and commit record writes the segment again, under the same name.
        let manifest = match self.fetch(objects, &path).await? {
            Ok(Some(manifest)) => manifest,
            Ok(None) if Utc::now() - segment.object.last_modified < COMMIT_WITHIN => return Ok(Standing::Pending),
            Ok(None) => {
                return Ok(Standing::LeftOut(format!("its manifest {path} is missing: restore it from a copy")));
            }
            Err(error) => return Ok(Standing::LeftOut(error.to_string())),
        };
        Ok(match lists(&manifest, segment) {
            Ok(()) => Standing::Listed(manifest),
            Err(reason) => Standing::LeftOut(reason),
        })
    }

    /// `None`: there is none.
    async fn fetch(
        &self,
        objects: &dyn ObjectStore,
        path: &ManifestPath,
    ) -> Result<std::result::Result<Option<Arc<Manifest>>, ManifestError>> {
        let got = match objects.get(&Path::from(path.to_string())).await {
            Ok(got) if got.meta.size > MAX_BYTES => {
                return Ok(Err(ManifestError::TooLarge { found: got.meta.size }));
            }
            Ok(got) => got.bytes().await,
            Err(error) => Err(error),
        };
        let bytes = match got {
            Ok(bytes) => bytes,
            Err(object_store::Error::NotFound { .. }) => return Ok(Ok(None)),
            Err(error) => return Err(error.into()),
        };
        let manifest = match Manifest::parse(path, &bytes) {
            Ok(manifest) => Arc::new(manifest),
            Err(error) => return Ok(Err(error)),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(path.clone(), Arc::clone(&manifest));
        Ok(Ok(Some(manifest)))
    }
}

/// Whether the manifest lists the file as it is; or why not.
fn lists(manifest: &Manifest, segment: &Segment) -> std::result::Result<(), String> {
    let found = segment.object.size;
    match manifest.file(&segment.path) {
        Some(file) if file.bytes == found => Ok(()),
        Some(file) => Err(format!("it has {found} bytes, its manifest says {}: restore it from a copy", file.bytes)),
        None => Err(format!("its manifest {} does not list it", manifest.path())),
    }
}

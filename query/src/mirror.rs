//! Copies of the collectors' files in the service's own directory (`--mirror`), so that one service sees the record of
//! all nodes, also of those that are gone.
//!
//! A collector's newest manifest is asked for, and from there the chain of manifests is followed back to the newest one
//! that is here. Then segments are copied, the oldest first: files, each compared with the digest that its manifest has,
//! and the manifest last, so that a reader sees a segment as a whole. Each manifest is compared with the digest that its
//! successor has: a record that was changed on its node is not taken.

use std::{io, path::Path, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use netverdict_flowlog::{
    answer::CollectorStatus,
    manifest::{CopyError, Link, Manifest, ManifestError},
    path::{ManifestPath, SegmentPath},
};
use netverdict_service::{error_chain::chain, shutdown::Shutdown};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};

use crate::{
    addresses::CollectorAddress,
    copies::Copies,
    unflushed::{Collectors, RequestError},
};

/// Between rounds: a collector writes a segment a minute, and one that a question needs is copied at once.
const EVERY: Duration = Duration::from_secs(10);
/// Between two looks at the space that is used.
const REMOVE_EVERY: Duration = Duration::from_secs(60);
/// Collectors that are asked at once: each may have a file in memory.
const AT_ONCE: usize = 32;
/// Segments of one node that are copied in one round at most: years of a collector.
const MOST_SEGMENTS: usize = 5_000_000;

#[derive(Debug, thiserror::Error)]
enum MirrorError {
    #[error("{0}")]
    Request(#[from] RequestError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error(transparent)]
    File(#[from] netverdict_flowlog::file::FileError),
    #[error("{path} is not of node {node}, whose collector gave it")]
    Foreign { path: String, node: String },
    #[error("manifest {0} is another than its successor was written with: the record was changed")]
    Changed(ManifestPath),
    #[error("a task of the copy failed")]
    Task,
}

/// Copies until the end.
pub(crate) async fn run(collectors: Arc<Collectors>, copies: Arc<Copies>, end: Shutdown) -> anyhow::Result<()> {
    let mut removal = Instant::now();
    loop {
        let (addresses, _) = collectors.addresses().await;
        copies.forget_all_but(addresses.iter().map(|address| &address.name));
        let room = copies.share(addresses.len());
        let (all, copies_here) = (&collectors, &copies);
        let round = stream::iter(&addresses).for_each_concurrent(AT_ONCE, |address| async move {
            let copied = Copying { collectors: all, copies: copies_here, address, room }.run().await;
            all.metrics().mirrored(copied.is_ok());
            copies_here.report(&address.name, copied.err().map(|error| chain(&error)));
        });
        tokio::select! {
            () = end.requested() => return Ok(()),
            () = round => {}
        }
        if removal.elapsed() >= REMOVE_EVERY {
            make_room(&copies).await;
            removal = Instant::now();
        }
        tokio::select! {
            () = end.requested() => return Ok(()),
            () = sleep(EVERY) => {}
            () = copies.wanted() => {}
        }
    }
}

/// One round with one collector.
struct Copying<'a> {
    collectors: &'a Collectors,
    copies: &'a Arc<Copies>,
    address: &'a CollectorAddress,
    /// Bytes that are copied at most, the newest.
    room: u64,
}

impl Copying<'_> {
    async fn run(&self) -> Result<(), MirrorError> {
        let status: CollectorStatus = self.collectors.status_at(self.address).await?;
        let Some(newest) = status.newest else { return Ok(()) };
        let mut missing = self.missing(newest, &status.node).await?;
        while let Some(link) = missing.pop() {
            if let Some(manifest) = self.manifest(&link, &status.node).await? {
                let bytes = size(&manifest);
                self.copy(manifest).await?;
                self.copies.has_advanced(bytes);
                if self.copies.needs_room() {
                    make_room(self.copies).await;
                }
            }
        }
        Ok(())
    }

    /// Segments that are not here, the newest first.
    async fn missing(&self, newest: Link, node: &str) -> Result<Vec<Link>, MirrorError> {
        let (mut missing, mut bytes, mut next) = (Vec::new(), 0_u64, Some(newest));
        while let Some(link) = next.take() {
            let path = link.path.clone();
            match self.on_disk(move |data_dir| Manifest::read(data_dir, &path)).await? {
                Ok(own) if own.link() == link => break,
                Ok(_) => return Err(MirrorError::Changed(link.path)),
                Err(ManifestError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            // One that is not there any more ends the chain.
            let Some(manifest) = self.manifest(&link, node).await? else { break };
            bytes = bytes.saturating_add(size(&manifest));
            missing.push(link);
            if bytes > self.room || missing.len() >= MOST_SEGMENTS {
                break;
            }
            next = manifest.previous().cloned();
        }
        Ok(missing)
    }

    /// `None`: it is not there any more.
    async fn manifest(&self, link: &Link, node: &str) -> Result<Option<Manifest>, MirrorError> {
        let foreign = |path: String| MirrorError::Foreign { path, node: node.to_owned() };
        if link.path.node() != node {
            return Err(foreign(link.path.to_string()));
        }
        let Some(bytes) = self.collectors.file_at(self.address, &link.path.to_string()).await? else { return Ok(None) };
        let manifest = Manifest::parse(&link.path, &bytes)?;
        if manifest.link() != *link {
            return Err(MirrorError::Changed(link.path.clone()));
        }
        let is_own = |path: &SegmentPath| path.manifest() == link.path;
        match manifest.files().iter().find(|file| !is_own(&file.path)) {
            Some(file) => Err(foreign(file.path.to_string())),
            None => Ok(Some(manifest)),
        }
    }

    async fn copy(&self, manifest: Manifest) -> Result<(), MirrorError> {
        for file in manifest.files() {
            let wanted = file.clone();
            if self.on_disk(move |data_dir| wanted.is_in(data_dir)).await? {
                continue;
            }
            // One that is gone has made room for others; what the segment has beside it still counts.
            let Some(bytes) = self.collectors.file_at(self.address, &file.path.to_string()).await? else { continue };
            let file = file.clone();
            self.on_disk(move |data_dir| file.place(data_dir, &bytes)).await??;
        }
        self.on_disk(move |data_dir| manifest.publish(data_dir)).await??;
        Ok(())
    }

    /// Files are read and written on other threads than sockets.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Result<T, MirrorError> {
        let copies = Arc::clone(self.copies);
        spawn_blocking(move || work(copies.data_dir())).await.map_err(|_| MirrorError::Task)
    }
}

/// Bytes of its files.
fn size(manifest: &Manifest) -> u64 {
    manifest.files().iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
}

async fn make_room(copies: &Arc<Copies>) {
    let copies = Arc::clone(copies);
    // It logs what it cannot do.
    let _ = spawn_blocking(move || copies.make_room()).await;
}

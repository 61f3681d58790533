//! The source that is a folder of manifest files. It is polled, since mounted ConfigMaps change by a swap of symbolic
//! links that no file watch follows well.
//!
//! A file counts as a whole: if anything in it is refused, as an API server would refuse it, its last good objects
//! stay, over a restart too. A file is read once it has not changed for a moment, so that no half-written file is in
//! force.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    error::Error as StdError,
    fs, io,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use netverdict_manifest::{Finding, Object, Severity, code};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    source::{Change, Fault, Scope, Source, Update},
    state_file::{self, StateError},
};

/// Largest file that is read; larger than the manifest reader takes.
const MOST_BYTES: u64 = 64 << 20;
/// Files that are followed.
const MOST_FILES: usize = 100_000;
/// Folders within folders.
const MOST_LEVELS: usize = 16;
/// A file that changed more recently may still be being written.
const SETTLED: Duration = Duration::from_millis(100);
/// A file that never rests is read all the same after this long.
const PATIENCE: Duration = Duration::from_secs(3);
const LEAST_INTERVAL: Duration = Duration::from_millis(10);
const GOOD_FOLDER: &str = "manifests";

#[derive(Debug, Error)]
pub enum ManifestsError {
    #[error("manifest folder {path} cannot be read; name another with --manifests")]
    Folder { path: PathBuf, source: io::Error },
    #[error(transparent)]
    State(#[from] StateError),
}

/// A folder of manifests, and its last content.
pub struct Manifests {
    folder: PathBuf,
    /// Copies of the last good content of each file.
    good_folder: PathBuf,
    interval: Duration,
    files: BTreeMap<PathBuf, Known>,
    /// Why the folder itself cannot be listed.
    outage: Option<String>,
    /// Since when a changed file has been waited for.
    waiting: Option<Instant>,
    /// Whether the folder was read as a whole once.
    in_sync: bool,
    /// Found, and not handed out yet.
    updates: VecDeque<Update>,
}

/// Tells whether a file may have changed without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// A file as it was read.
struct Known {
    stamp: Stamp,
    content: u128,
    /// Faults of the file as it is now.
    faults: Vec<Fault>,
}

/// Result of a listing of the folder.
enum Found {
    File(Stamp),
    Unreadable(io::Error),
}

impl Source for Manifests {
    type Error = Infallible;

    fn name(&self) -> &'static str {
        "manifests"
    }

    async fn next(&mut self) -> Result<Option<Update>, Infallible> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return Ok(Some(update));
            }
            if self.in_sync {
                tokio::time::sleep(self.interval).await;
            }
            self.poll();
        }
    }
}

impl Manifests {
    /// `interval`: between polls of the folder.
    ///
    /// # Errors
    /// The folder cannot be listed, or the state directory not used.
    pub fn open(folder: &Path, state_dir: &Path, interval: Duration) -> Result<Self, ManifestsError> {
        fs::read_dir(folder).map_err(|source| ManifestsError::Folder { path: folder.into(), source })?;
        let good_folder = state_dir.join(GOOD_FOLDER);
        state_file::make_private_folder(&good_folder)?;
        Ok(Self {
            folder: folder.into(),
            good_folder,
            interval: interval.max(LEAST_INTERVAL),
            files: BTreeMap::new(),
            outage: None,
            waiting: None,
            in_sync: false,
            updates: VecDeque::new(),
        })
    }

    /// Reads the files that have changed, and queues updates. The first time it waits for files that are being written,
    /// and ends with [`Update::InSync`].
    fn poll(&mut self) {
        self.read_changed();
        while !self.in_sync && self.waiting.is_some() {
            thread::sleep(SETTLED);
            self.read_changed();
        }
        if !std::mem::replace(&mut self.in_sync, true) {
            // A folder that can never be listed whole does not keep the rest from coming into force.
            self.updates.push_back(Update::InSync);
            let outage = self.outage.clone();
            self.updates.extend(outage.map(|reason| Update::Stale { since_ns: now_ns(), reason }));
        }
    }

    fn read_changed(&mut self) {
        let mut found = BTreeMap::new();
        let listed = list(&self.folder, MOST_LEVELS, &mut found);
        self.note_outage(listed.err());
        let impatient = self.waiting.is_some_and(|since| since.elapsed() >= PATIENCE);
        let mut waits = false;
        for (path, found) in &found {
            let stamp = match found {
                Found::File(stamp) => *stamp,
                Found::Unreadable(error) => {
                    self.cannot_read(path, error);
                    continue;
                }
            };
            if self.files.get(path).is_some_and(|known| known.stamp == stamp) {
                continue;
            }
            if !stamp.is_settled() && !impatient {
                waits = true;
                continue;
            }
            match read(path) {
                // Swapped or written while it was read: at the next poll.
                Ok((read, _)) if read != stamp && !impatient => waits = true,
                Ok((stamp, text)) => self.take(path, stamp, &text),
                Err(error) => self.cannot_read(path, &error),
            }
        }
        // Of a folder that could not be listed whole nothing is known to be gone. And a file that an editor is about to
        // put back is missing for a moment only.
        let gone: Vec<_> = self.files.keys().filter(|path| !found.contains_key(*path)).cloned().collect();
        if self.outage.is_none() && !gone.is_empty() {
            if self.waiting.is_some_and(|since| since.elapsed() >= SETTLED) {
                gone.iter().for_each(|path| self.remove(path));
            } else {
                waits = true;
            }
        }
        self.waiting = if waits { self.waiting.or_else(|| Some(Instant::now())) } else { None };
    }

    fn note_outage(&mut self, error: Option<io::Error>) {
        let outage = error.map(|error| format!("manifest folder {}: {error}", self.folder.display()));
        if self.outage == outage {
            return;
        }
        self.updates.push_back(match &outage {
            Some(reason) => Update::Stale { since_ns: now_ns(), reason: reason.clone() },
            None => Update::InSync,
        });
        self.outage = outage;
    }

    /// Takes the content of a file, unless it is unchanged.
    fn take(&mut self, path: &Path, stamp: Stamp, text: &[u8]) {
        let content = xxh3_128(text);
        if let Some(known) = self.files.get_mut(path)
            && known.content == content
        {
            known.stamp = stamp;
            return;
        }
        let name = self.name_of(path);
        let (mut objects, faults) = objects_of(text, &name);
        if faults.is_empty() {
            if let Err(error) = state_file::replace(&self.good_file(path), text) {
                tracing::warn!(error = &error as &dyn StdError, "last good manifest not kept");
            }
        } else {
            let shown: Vec<String> = faults.iter().map(ToString::to_string).collect();
            tracing::warn!(file = %name, faults = ?shown, "manifest refused; its last good objects stay");
            objects = self.last_good(path, &name).unwrap_or(objects);
        }
        let scope = scope_of(path);
        let mut changes = Change::replace(&scope, objects);
        changes.push(Change::Fault(scope, None, faults.clone()));
        self.updates.push_back(Update::Changes(changes));
        self.files.insert(path.into(), Known { stamp, content, faults });
    }

    /// Reports that a file cannot be read; its last good objects stay.
    fn cannot_read(&mut self, path: &Path, error: &io::Error) {
        let name = self.name_of(path);
        let text = format!("{name} cannot be read: {error}");
        let known = self.files.get(path);
        if known.is_some_and(|known| matches!(&known.faults[..], [Fault::Unreadable(known)] if *known == text)) {
            return;
        }
        tracing::warn!(file = %name, %error, "manifest cannot be read; its last good objects stay");
        let scope = scope_of(path);
        let last_good = if known.is_none() { self.last_good(path, &name) } else { None };
        let mut changes = last_good.map_or_else(Vec::new, |objects| Change::replace(&scope, objects));
        let faults = vec![Fault::Unreadable(text)];
        changes.push(Change::Fault(scope, None, faults.clone()));
        self.updates.push_back(Update::Changes(changes));
        let stamp = Stamp { device: 0, inode: 0, length: 0, modified: (0, 0) };
        self.files.insert(path.into(), Known { stamp, content: 0, faults });
    }

    fn remove(&mut self, path: &Path) {
        self.files.remove(path);
        let scope = scope_of(path);
        let mut changes = Change::replace(&scope, Vec::new());
        changes.push(Change::Fault(scope, None, Vec::new()));
        self.updates.push_back(Update::Changes(changes));
        if let Err(error) = state_file::remove(&self.good_file(path)) {
            tracing::warn!(error = &error as &dyn StdError, "last good manifest not removed");
        }
    }

    /// The file's objects when it was last good, in this run or an earlier one.
    fn last_good(&self, path: &Path, name: &str) -> Option<Vec<Object>> {
        let text = fs::read(self.good_file(path)).ok()?;
        let (objects, faults) = objects_of(&text, name);
        faults.is_empty().then_some(objects)
    }

    fn good_file(&self, path: &Path) -> PathBuf {
        self.good_folder.join(format!("{:032x}", xxh3_128(path.as_os_str().as_encoded_bytes())))
    }

    /// Its path below the folder, as findings and rows name it.
    fn name_of(&self, path: &Path) -> String {
        path.strip_prefix(&self.folder).unwrap_or(path).display().to_string()
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    /// A time to come is a clock that was wrong, not a file that is being written.
    fn is_settled(self) -> bool {
        let (seconds, nanoseconds) = self.modified;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let modified = Duration::new(u64::try_from(seconds).unwrap_or(0), u32::try_from(nanoseconds).unwrap_or(0));
        now.checked_sub(modified).is_none_or(|age| age >= SETTLED)
    }
}

/// The objects of a file, and why it is not good as a whole.
fn objects_of(text: &[u8], name: &str) -> (Vec<Object>, Vec<Fault>) {
    let (objects, findings) = netverdict_manifest::read_bytes(text, name);
    let broken =
        |finding: &Finding| [code::BROKEN_DOCUMENT, code::TOO_LARGE, code::INVALID_OBJECT].contains(&finding.code);
    let mut refused: Vec<Finding> = findings.into_iter().filter(broken).collect();
    for object in &objects {
        if let (None, findings) = netverdict_manifest::policy(object) {
            refused.extend(findings.into_iter().filter(|finding| finding.severity == Severity::Error));
        }
    }
    (objects, refused.into_iter().map(|finding| Fault::Refused(Box::new(finding))).collect())
}

fn scope_of(path: &Path) -> Scope {
    Scope::File(path.into())
}

fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// Lists manifests below a folder. Names that begin with a dot are left out: the folders of a mounted ConfigMap's old
/// and new content, and leftovers of editors.
fn list(folder: &Path, levels: usize, found: &mut BTreeMap<PathBuf, Found>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        let is_manifest = [".yaml", ".yml", ".json"].iter().any(|ending| name.ends_with(ending));
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => match levels.checked_sub(1) {
                Some(levels) => list(&path, levels, found)?,
                None => return Err(io::Error::other(format!("{} is nested too deep", path.display()))),
            },
            Ok(metadata) if is_manifest && metadata.is_file() => {
                if found.len() >= MOST_FILES {
                    return Err(io::Error::other(format!("more than {MOST_FILES} manifests")));
                }
                found.insert(path, Found::File(Stamp::of(&metadata)));
            }
            Ok(_) => {}
            // Gone since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&path).is_err() => {}
            Err(error) if is_manifest => _ = found.insert(path, Found::Unreadable(error)),
            Err(_) => {}
        }
    }
    Ok(())
}

/// A file's bytes, and the stamp that it had before and after it was read.
fn read(path: &Path) -> io::Result<(Stamp, Vec<u8>)> {
    let file = fs::File::open(path)?;
    let mut text = Vec::new();
    (&file).take(MOST_BYTES + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!("it has more than {MOST_BYTES} bytes; split it")));
    }
    Ok((Stamp::of(&fs::metadata(path)?), text))
}

#[cfg(test)]
mod tests;

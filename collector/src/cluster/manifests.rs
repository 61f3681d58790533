//! The cluster source that is a folder of files. Looked at again and again, since mounted ConfigMaps change by a swap of
//! symbolic links that no watch follows well.
//!
//! A file counts as a whole: if anything in it is refused, as an API server would refuse it, its last good objects
//! stay, over a restart too. A file that is being written is waited for, so that half of one is never in force.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant, SystemTime},
};

use netverdict_manifest::{Finding, Object, Severity, code};
use netverdict_service::error_chain::chain;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

use crate::{
    cluster::{ClusterState, assembly::Assembly, generations::Generations},
    state::{self, StateError},
};

/// Largest file that is read; beyond what the manifest reader takes.
const MOST_BYTES: u64 = 64 << 20;
/// Files that are followed.
const MOST_FILES: usize = 100_000;
/// Folders within folders.
const MOST_LEVELS: usize = 16;
/// A file that changed more recently may still be being written.
const SETTLED: Duration = Duration::from_millis(100);
/// A file that never rests is read all the same after this long.
const PATIENCE: Duration = Duration::from_secs(3);
const GOOD_FOLDER: &str = "manifests";

#[derive(Debug, Error)]
pub enum ManifestsError {
    #[error("manifest folder {path} cannot be read; name another with --manifests")]
    Folder { path: PathBuf, source: io::Error },
    #[error(transparent)]
    State(#[from] StateError),
}

/// A folder of manifests, and what it said last.
pub struct Manifests {
    folder: PathBuf,
    good_folder: PathBuf,
    generations: Generations,
    files: BTreeMap<PathBuf, Known>,
    /// What the files say together: of each the last objects that were good as a whole, or what could be read if there
    /// never were such.
    assembly: Assembly,
    /// What kept the folder itself from being read.
    trouble: Option<String>,
    /// Since when a change has been waited for.
    waiting: Option<Instant>,
    looked: bool,
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
    /// What is wrong with the file as it is now.
    troubles: Vec<String>,
}

/// What a look at the folder finds.
enum Found {
    File(Stamp),
    Unreadable(io::Error),
}

impl Manifests {
    /// # Errors
    /// The folder cannot be listed, or the state directory not used.
    pub fn open(folder: &Path, state_dir: &Path) -> Result<Self, ManifestsError> {
        fs::read_dir(folder).map_err(|source| ManifestsError::Folder { path: folder.into(), source })?;
        let good_folder = state_dir.join(GOOD_FOLDER);
        state::make_folder(&good_folder)?;
        Ok(Self {
            folder: folder.into(),
            good_folder,
            generations: Generations::open(state_dir)?,
            files: BTreeMap::new(),
            assembly: Assembly::default(),
            trouble: None,
            waiting: None,
            looked: false,
        })
    }

    /// Looks at the folder: the cluster as it is now, or `None` if it says what it said before. The first look always
    /// says something, and waits for files that are being written.
    pub fn look(&mut self) -> Option<ClusterState> {
        let mut changed = self.look_once();
        while !self.looked && self.waiting.is_some() {
            thread::sleep(SETTLED);
            changed |= self.look_once();
        }
        let first = !std::mem::replace(&mut self.looked, true);
        (changed || first).then(|| self.state())
    }

    /// Takes note of what has changed. Says whether anything has.
    fn look_once(&mut self) -> bool {
        let mut found = BTreeMap::new();
        let listed = list(&self.folder, MOST_LEVELS, &mut found);
        let trouble = listed.err().map(|error| format!("manifest folder {}: {error}", self.folder.display()));
        let mut changed = self.trouble != trouble;
        self.trouble = trouble;
        let impatient = self.waiting.is_some_and(|since| since.elapsed() >= PATIENCE);
        let mut waits = false;
        for (path, found) in &found {
            let stamp = match found {
                Found::File(stamp) => *stamp,
                Found::Unreadable(error) => {
                    changed |= self.cannot_read(path, error);
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
                // Swapped or written while it was read: at the next look.
                Ok((read, _)) if read != stamp && !impatient => waits = true,
                Ok((stamp, text)) => changed |= self.read(path, stamp, text),
                Err(error) => changed |= self.cannot_read(path, &error),
            }
        }
        // Of a folder that could not be listed whole nothing is known to be gone. And a file that an editor is about to
        // put back is missing for a moment only.
        let gone: Vec<_> = self.files.keys().filter(|path| !found.contains_key(*path)).cloned().collect();
        if self.trouble.is_none() && !gone.is_empty() {
            if self.waiting.is_some_and(|since| since.elapsed() >= SETTLED) {
                for path in gone {
                    self.files.remove(&path);
                    self.assembly.replace(&path, Vec::new(), &mut self.generations);
                    if let Err(error) = state::remove(&self.good_file(&path)) {
                        tracing::warn!(error = %chain(&error), "last good manifest not removed");
                    }
                    changed = true;
                }
            } else {
                waits = true;
            }
        }
        self.waiting = if waits { self.waiting.or_else(|| Some(Instant::now())) } else { None };
        changed
    }

    /// Takes a file that was read. Says whether it says anything else than before.
    fn read(&mut self, path: &Path, stamp: Stamp, text: Vec<u8>) -> bool {
        let content = xxh3_128(&text);
        if let Some(known) = self.files.get_mut(path)
            && known.content == content
        {
            known.stamp = stamp;
            return false;
        }
        let name = self.name_of(path);
        let (mut objects, troubles) = objects_of(&text, &name);
        if troubles.is_empty() {
            if let Err(error) = state::replace(&self.good_file(path), &text) {
                tracing::warn!(error = %chain(&error), "last good manifest not kept");
            }
        } else {
            tracing::warn!(file = %name, troubles = ?troubles, "manifest refused; its last good objects stay");
            objects = self.last_good(path, &name).unwrap_or(objects);
        }
        self.assembly.replace(path, objects, &mut self.generations);
        self.files.insert(path.into(), Known { stamp, content, troubles });
        true
    }

    /// Takes note that a file cannot be read; what it said last stays.
    fn cannot_read(&mut self, path: &Path, error: &io::Error) -> bool {
        let name = self.name_of(path);
        let troubles = vec![format!("{name} cannot be read: {error}")];
        let known = self.files.get(path);
        if known.is_some_and(|known| known.troubles == troubles) {
            return false;
        }
        tracing::warn!(file = %name, %error, "manifest cannot be read; its last good objects stay");
        if known.is_none()
            && let Some(objects) = self.last_good(path, &name)
        {
            self.assembly.replace(path, objects, &mut self.generations);
        }
        let stamp = Stamp { device: 0, inode: 0, length: 0, modified: (0, 0) };
        self.files.insert(path.into(), Known { stamp, content: 0, troubles });
        true
    }

    /// What the file said when it was last good, in this run or an earlier one.
    fn last_good(&self, path: &Path, name: &str) -> Option<Vec<Object>> {
        let text = fs::read(self.good_file(path)).ok()?;
        let (objects, troubles) = objects_of(&text, name);
        troubles.is_empty().then_some(objects)
    }

    fn good_file(&self, path: &Path) -> PathBuf {
        self.good_folder.join(format!("{:032x}", xxh3_128(path.as_os_str().as_encoded_bytes())))
    }

    /// As findings and the record name it: its path below the folder.
    fn name_of(&self, path: &Path) -> String {
        path.strip_prefix(&self.folder).unwrap_or(path).display().to_string()
    }

    fn state(&mut self) -> ClusterState {
        let mut troubles: Vec<String> = self.trouble.iter().cloned().collect();
        troubles.extend(self.files.values().flat_map(|known| known.troubles.iter().cloned()));
        if let Err(error) = self.generations.save() {
            troubles.push(chain(&error));
        }
        ClusterState::of(&self.assembly, troubles)
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

/// The objects of a text, and why it is not good as a whole.
fn objects_of(text: &[u8], name: &str) -> (Vec<Object>, Vec<String>) {
    let text = String::from_utf8_lossy(text);
    let (objects, findings) = netverdict_manifest::read(&text, name);
    let broken =
        |finding: &&Finding| [code::BROKEN_DOCUMENT, code::TOO_LARGE, code::INVALID_OBJECT].contains(&finding.code);
    let mut troubles: Vec<String> = findings.iter().filter(broken).map(ToString::to_string).collect();
    for object in &objects {
        if let (None, findings) = netverdict_manifest::policy(object) {
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
            troubles.extend(errors.map(ToString::to_string));
        }
    }
    (objects, troubles)
}

/// Lists manifests below a folder. Names that begin with a dot are left out: the folders of a mounted ConfigMap's old
/// and new content, and what editors leave.
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

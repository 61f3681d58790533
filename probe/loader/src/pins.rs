//! The paths of pins, and the lock that admits one probe. Does not load, attach or read anything.
//!
//! Pins are `<root>/v<ABI>/{programs,maps,links,uplinks}/…` on a BPF file system, which refuses names with a dot. The lock is
//! on the root folder itself, so that it also works between containers that mount the same file system.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use netverdict_abi::ABI_VERSION;
use rustix::{
    fs::{FlockOperation, flock, fstat, lstat, statfs},
    io::Errno,
    mount::{MountFlags, mount},
    process::geteuid,
};

use crate::error::ProbeError;

/// `statfs(2)`: BPF_FS_MAGIC.
const BPF_FS: u64 = 0xcafe_4a11;
const MOUNT_POINT: &str = "/sys/fs/bpf";
/// Mode bits of the group and of all others.
const WRITABLE_BY_OTHERS: u32 = 0o022;
const FOLDER_MODE: u32 = 0o755;
/// How long to wait between two attempts to take the lock.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// The pins of one ABI version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pins {
    version_folder: PathBuf,
}

impl Pins {
    /// The pins of this build's ABI version.
    pub(crate) fn of(root: &Path) -> Self {
        Self { version_folder: root.join(format!("v{ABI_VERSION}")) }
    }

    /// The pins of every ABI version that has a folder.
    pub(crate) fn every(root: &Path) -> Result<Vec<Self>, ProbeError> {
        let folders = entries(root)?.into_iter().filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.strip_prefix('v').is_some_and(|version| version.parse::<u8>().is_ok())
        });
        Ok(folders.map(|version_folder| Self { version_folder }).collect())
    }

    pub(crate) fn version_folder(&self) -> &Path {
        &self.version_folder
    }

    pub(crate) fn programs(&self) -> PathBuf {
        self.version_folder.join("programs")
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.programs().join(name)
    }

    pub(crate) fn maps(&self) -> PathBuf {
        self.version_folder.join("maps")
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.version_folder.join("links")
    }

    /// Links of interfaces that are no pod's.
    pub(crate) fn uplinks(&self) -> PathBuf {
        self.version_folder.join("uplinks")
    }

    pub(crate) fn create(&self) -> Result<(), ProbeError> {
        for folder in [self.programs(), self.maps(), self.links(), self.uplinks()] {
            create_folder(&folder)?;
        }
        Ok(())
    }

    /// Removes every pin of this version. Detach the links first, or packets are judged with some of the maps missing.
    pub(crate) fn remove(&self) -> Result<Counts, ProbeError> {
        remove_all(&self.links())?;
        remove_all(&self.uplinks())?;
        let counts = Counts { programs: remove_all(&self.programs())?, maps: remove_all(&self.maps())? };
        remove_folder(&self.version_folder)?;
        Ok(counts)
    }
}

/// How many pins were removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) programs: u32,
    pub(crate) maps: u32,
}

/// The lock on a root folder; released when dropped, or by the kernel when the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _folder: File,
}

impl Lock {
    /// Takes the lock. Creates the folder, and mounts the BPF file system at its usual place, if they are missing.
    pub(crate) fn take(root: &Path, wait: Duration) -> Result<Self, ProbeError> {
        let deadline = Instant::now() + wait;
        loop {
            prepare(root)?;
            if let Some(lock) = Self::try_take(root)? {
                return Ok(lock);
            }
            if Instant::now() >= deadline {
                return Err(ProbeError::Locked { path: root.to_owned() });
            }
            thread::sleep(LOCK_POLL);
        }
    }

    /// Whether a process holds the lock.
    pub(crate) fn is_held(root: &Path) -> Result<bool, ProbeError> {
        Ok(root.exists() && Self::try_take(root)?.is_none())
    }

    fn try_take(root: &Path) -> Result<Option<Self>, ProbeError> {
        let folder = match File::open(root) {
            Ok(folder) => folder,
            // Removed by a probe that has just cleaned up: try again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(root, "open", source)),
        };
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(failed(root, "lock", error.into())),
        }
        let held = fstat(&folder).map_err(|error| failed(root, "inspect", error.into()))?;
        // A user who can write to the folder could replace the pins.
        if is_others(held.st_uid, held.st_mode) {
            return Err(ProbeError::NotOurs { path: root.to_owned() });
        }
        // The folder may have been replaced between opening and locking it. `lstat`, so that a symbolic link does not match.
        let still_there = lstat(root).is_ok_and(|now| (now.st_dev, now.st_ino) == (held.st_dev, held.st_ino));
        Ok(still_there.then_some(Self { _folder: folder }))
    }
}

/// Creates the root folder on a BPF file system.
fn prepare(root: &Path) -> Result<(), ProbeError> {
    if root.starts_with(MOUNT_POINT) && !is_bpf(Path::new(MOUNT_POINT)) {
        fs::create_dir_all(MOUNT_POINT).map_err(|source| no_file_system(root, source))?;
        mount("bpf", MOUNT_POINT, "bpf", MountFlags::empty(), None)
            .map_err(|error| no_file_system(root, error.into()))?;
    }
    if fs::symlink_metadata(root).is_ok_and(|found| found.is_symlink()) {
        return Err(ProbeError::NotOurs { path: root.to_owned() });
    }
    create_folder(root)?;
    if is_bpf(root) {
        Ok(())
    } else {
        let found = io::Error::other("it is on another kind of file system");
        Err(no_file_system(root, found))
    }
}

/// Creates a folder and its parents, writable for the owner only, independently of the umask.
fn create_folder(folder: &Path) -> Result<(), ProbeError> {
    let made = DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder);
    made.map_err(|source| failed(folder, "create folder", source))
}

fn is_bpf(path: &Path) -> bool {
    // The type of the field differs between architectures; the magic number fits all of them.
    statfs(path).is_ok_and(|found| u64::try_from(found.f_type).is_ok_and(|kind| kind & 0xffff_ffff == BPF_FS))
}

/// The entries of a folder, sorted; none if it does not exist.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, ProbeError> {
    let listing = match fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(folder, "list", source)),
    };
    let mut paths = listing
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| failed(folder, "list", source))?;
    paths.sort_unstable();
    Ok(paths)
}

/// Removes a pin; `false` if there is none.
pub(crate) fn remove(pin: &Path) -> Result<bool, ProbeError> {
    match fs::remove_file(pin) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(failed(pin, "remove", source)),
    }
}

/// Removes every pin in a folder, and the folder.
fn remove_all(folder: &Path) -> Result<u32, ProbeError> {
    let mut removed = 0;
    for pin in entries(folder)? {
        removed += u32::from(remove(&pin)?);
    }
    remove_folder(folder)?;
    Ok(removed)
}

/// Removes an empty folder if it exists.
pub(crate) fn remove_folder(folder: &Path) -> Result<(), ProbeError> {
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(folder, "remove folder", error)),
        _ => Ok(()),
    }
}

/// # Errors
/// It is a symbolic link, or another user can write to it.
pub(crate) fn is_ours(folder: &Path) -> Result<(), ProbeError> {
    let found = lstat(folder).map_err(|error| failed(folder, "inspect", error.into()))?;
    let is_link = fs::symlink_metadata(folder).is_ok_and(|found| found.is_symlink());
    if is_link || is_others(found.st_uid, found.st_mode) {
        return Err(ProbeError::NotOurs { path: folder.to_owned() });
    }
    Ok(())
}

fn is_others(owner: u32, mode: u32) -> bool {
    (owner != 0 && owner != geteuid().as_raw()) || mode & WRITABLE_BY_OTHERS != 0
}

pub(crate) fn failed(path: &Path, action: &'static str, source: io::Error) -> ProbeError {
    ProbeError::Pin { path: path.to_owned(), action, source }
}

fn no_file_system(root: &Path, source: io::Error) -> ProbeError {
    ProbeError::NoBpfFileSystem { path: root.to_owned(), source }
}

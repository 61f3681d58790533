//! Small files of a state directory: read whole, replaced whole, readable by their owner alone.
//!
//! They hold copies of manifests, Secrets among them, so they are not made with the umask's rights.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

#[derive(Debug, Error)]
pub enum StateError {
    #[error(
        "state file {path} cannot be {action}; make the state directory writable, or name another with --state-dir"
    )]
    File { path: PathBuf, action: &'static str, source: io::Error },
    #[error("state file {path} cannot be understood; remove it to begin anew")]
    Content { path: PathBuf, source: serde_json::Error },
}

/// Reads a file as JSON; `None` if it is not there.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(path, "read", source)),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|source| StateError::Content { path: path.into(), source })
}

/// Replaces a file by the JSON of a value, atomically: a reader finds the whole old file or the whole new one, after a
/// crash too.
pub fn save<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), StateError> {
    let bytes = serde_json::to_vec(value).map_err(|source| StateError::Content { path: path.into(), source })?;
    replace(path, &bytes)
}

/// [`save`], and a power failure does not bring the old file back.
pub fn save_durably<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), StateError> {
    save(path, value)?;
    let folder = path.parent().unwrap_or(path);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| failed(folder, "written", source))
}

/// [`save`] for a file that others are meant to read, as far as the umask lets them.
pub fn save_for_others<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), StateError> {
    let bytes = serde_json::to_vec(value).map_err(|source| StateError::Content { path: path.into(), source })?;
    write(path, &bytes, None)
}

/// Replaces a file, atomically.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    write(path, bytes, Some(FILE_MODE))
}

/// `mode`: `None` for the mode that the umask leaves.
fn write(path: &Path, bytes: &[u8], mode: Option<u32>) -> Result<(), StateError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    let next = PathBuf::from(name);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode.unwrap_or(0o666));
    let written = options.open(&next).and_then(|mut file| {
        if let Some(mode) = mode {
            // A file that a crash left may have other rights.
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        file.write_all(bytes)?;
        file.sync_data()
    });
    written.map_err(|source| failed(&next, "written", source))?;
    fs::rename(&next, path).map_err(|source| failed(path, "replaced", source))
}

/// Makes a folder with all above it.
pub fn make_folder(path: &Path) -> Result<(), StateError> {
    fs::create_dir_all(path).map_err(|source| failed(path, "made", source))
}

/// Makes a folder that only its owner may enter, or takes the rights of others away.
pub fn make_private_folder(path: &Path) -> Result<(), StateError> {
    make_folder(path)?;
    fs::set_permissions(path, Permissions::from_mode(FOLDER_MODE))
        .map_err(|source| failed(path, "made private", source))
}

/// Removes a file, if it exists.
pub fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed(path, "removed", source)),
        _ => Ok(()),
    }
}

pub fn failed(path: &Path, action: &'static str, source: io::Error) -> StateError {
    StateError::File { path: path.into(), action, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn nobody_but_the_owner_may_read_what_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("state/manifests");
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        make_private_folder(&folder).unwrap();
        assert_eq!(mode(&folder), 0o700);
        let file = folder.join("a");
        // As a release that used the umask left them.
        for path in [&file, &folder.join("a.next")] {
            fs::write(path, "old").unwrap();
            fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        }
        replace(&file, b"new").unwrap();
        assert_eq!((mode(&file), fs::read(&file).unwrap()), (0o600, b"new".to_vec()));
        assert!(!folder.join("a.next").exists());
    }
}

//! Small files of the state directory: read whole, replaced whole. What they mean is their readers' business.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use netverdict_flowlog::file::sync_folder;
use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

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

/// Replaces a file by the JSON of a value: whoever reads it finds the old or the new whole, after a crash too.
pub fn save<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), StateError> {
    let bytes = serde_json::to_vec(value).map_err(|source| StateError::Content { path: path.into(), source })?;
    replace(path, &bytes)
}

/// The same; and a loss of power does not bring the old file back.
pub fn save_durably<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<(), StateError> {
    save(path, value)?;
    let folder = path.parent().unwrap_or(path);
    sync_folder(folder).map_err(|source| failed(folder, "written", source))
}

/// Replaces a file.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    let next = PathBuf::from(name);
    let written = File::create(&next).and_then(|mut file| {
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

/// Removes a file, if it is there.
pub fn remove(path: &Path) -> Result<(), StateError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed(path, "removed", source)),
        _ => Ok(()),
    }
}

pub fn failed(path: &Path, action: &'static str, source: io::Error) -> StateError {
    StateError::File { path: path.into(), action, source }
}

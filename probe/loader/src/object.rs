//! Finds the BPF object to load: the option, then the environment variable, then the embedded object.

use std::{
    borrow::Cow,
    env, fs,
    path::{Path, PathBuf},
};

use crate::error::ProbeError;

/// Path of an object that replaces the embedded one, at build time and at run time.
pub(crate) const VARIABLE: &str = "NETVERDICT_BPF_OBJECT";

/// Empty if there was no object at build time.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netverdict.bpf.o"));

/// The object's bytes; `None` if no path is given and no object is embedded.
///
/// # Errors
/// A path is given and cannot be read.
pub(crate) fn find(given: Option<&Path>) -> Result<Option<Cow<'static, [u8]>>, ProbeError> {
    let path = given.map(Path::to_owned).or_else(|| env::var_os(VARIABLE).map(PathBuf::from));
    match path {
        Some(path) => match fs::read(&path) {
            Ok(bytes) => Ok(Some(Cow::Owned(bytes))),
            Err(source) => Err(ProbeError::ReadObject { path, source }),
        },
        None if EMBEDDED.is_empty() => Ok(None),
        None => Ok(Some(Cow::Borrowed(EMBEDDED))),
    }
}

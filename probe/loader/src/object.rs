//! Which BPF object to load: the option, the environment, or the embedded one.

use std::{
    borrow::Cow,
    env, fs,
    path::{Path, PathBuf},
};

use crate::error::ProbeError;

/// Overrides the embedded object, at build time and at run time.
pub(crate) const VARIABLE: &str = "NETVERDICT_BPF_OBJECT";

/// Empty where none was there at build time.
static EMBEDDED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netverdict.bpf.o"));

/// The object's bytes; `None` if there is none anywhere.
///
/// # Errors
/// A path was given and cannot be read.
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

//! Opens pinned maps and checks that they have the layout that this build expects.

use std::{io, path::Path};

use aya::maps::{Map, MapData, MapError};
use netverdict_abi::ABI_VERSION;

use crate::error::ProbeError;

/// A value whose every bit pattern is valid and that has no padding, for aya.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub(crate) struct Raw<T>(pub(crate) T);

#[expect(unsafe_code, reason = "aya marks plain data with an unsafe trait; zerocopy has proved it for these types")]
// SAFETY: zerocopy's derives of `FromBytes` and `IntoBytes` prove that any bytes are a valid `T` and that none is padding.
unsafe impl<T: zerocopy::FromBytes + zerocopy::IntoBytes + Copy + 'static> aya::Pod for Raw<T> {}

/// Opens a pinned map by its name.
pub(crate) fn open(folder: &Path, name: &'static str) -> Result<MapData, ProbeError> {
    MapData::from_pin(folder.join(name)).map_err(|error| failed(name, "open", error))
}

/// Opens a pinned map as one of aya's own types, which check the sizes of key and value.
pub(crate) fn open_as<M: TryFrom<Map, Error = MapError>>(folder: &Path, name: &'static str) -> Result<M, ProbeError> {
    let map = Map::from_map_data(open(folder, name)?).map_err(|error| failed(name, "open", error))?;
    M::try_from(map).map_err(|error| ProbeError::MapLayout {
        name,
        expected: format!("the layout of ABI version {ABI_VERSION}"),
        found: error.to_string(),
    })
}

/// An error of aya's with the map's name.
pub(crate) fn failed(name: &'static str, action: &'static str, error: MapError) -> ProbeError {
    ProbeError::Map { name, action, source: into_io(error) }
}

pub(crate) fn into_io(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(error) => error.io_error,
        MapError::IoError(error) => error,
        MapError::KeyNotFound | MapError::ElementNotFound => io::Error::from(io::ErrorKind::NotFound),
        other => io::Error::other(other),
    }
}

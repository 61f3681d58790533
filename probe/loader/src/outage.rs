//! Pinned programs without a probe: the CNI plugin attaches them while no collector answers.
//!
//! An endpoint without a record is not ready: the programs deny its packets in enforce mode, and record them in any. The
//! next collector adopts the links and finds their pods.

use std::path::Path;

use crate::{
    error::ProbeError,
    links::{self, Links},
    maps::Maps,
    pins::Pins,
    programs,
    published::PublishedMaps,
    status::mode_name,
};

/// Attaches the pinned programs to interfaces, and returns the name of the mode that is in force. Needs no lock: a link that
/// a collector attaches meanwhile is as good.
///
/// # Errors
/// [`ProbeError::NothingPinned`], or the kernel refuses a link.
pub fn attach_pinned(pin_root: &Path, interfaces: &[u32]) -> Result<&'static str, ProbeError> {
    let pins = pinned(pin_root)?;
    let mode = mode_name(Maps::open(&pins.maps())?.settings()?.mode);
    let mut published = PublishedMaps::open(&pins.maps())?;
    let mut links = Links::open(&pins)?;
    for &ifindex in interfaces {
        let mut forgotten = Ok(false);
        if !links.are_alive(ifindex)? {
            // Of an interface that had the same index before.
            forgotten = published.endpoints.table.remove(&ifindex);
        }
        links.ensure(ifindex)?;
        forgotten?;
    }
    Ok(mode)
}

/// Whether both programs are attached to every one of the interfaces.
///
/// # Errors
/// [`ProbeError::NothingPinned`], or a link cannot be read.
pub fn are_attached(pin_root: &Path, interfaces: &[u32]) -> Result<bool, ProbeError> {
    let mut links = Links::open(&pinned(pin_root)?)?;
    for &ifindex in interfaces {
        if links::interface_name(ifindex).is_none() || !links.are_alive(ifindex)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The mode in force; `None` if nothing is pinned or it cannot be read.
pub fn pinned_mode(pin_root: &Path) -> Option<&'static str> {
    let pins = pinned(pin_root).ok()?;
    Some(mode_name(Maps::open(&pins.maps()).ok()?.settings().ok()?.mode))
}

fn pinned(pin_root: &Path) -> Result<Pins, ProbeError> {
    let pins = Pins::of(pin_root);
    if programs::are_complete(&pins) {
        Ok(pins)
    } else {
        Err(ProbeError::NothingPinned { path: pins.version_folder().to_owned() })
    }
}

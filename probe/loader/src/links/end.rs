//! Ends a pinned link at once.
//!
//! Removing the pin would end it too, but some time later: the kernel lets go of a pinned object after a grace period,
//! on a worker. Here nothing is judged any more once this returns. aya has neither of the two commands for tcx links.

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper for these commands")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::libc;

/// `enum bpf_cmd` of `linux/bpf.h`.
const OBJ_GET: libc::c_int = 7;
const LINK_DETACH: libc::c_int = 34;

/// The part of `union bpf_attr` for [`OBJ_GET`].
#[repr(C)]
struct ObjectGet {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// The part of `union bpf_attr` for [`LINK_DETACH`].
#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// Ends the link pinned at `path`; its pin stays. Nothing happens if there is no pin.
pub(super) fn end(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // The kernel takes every pointer as 64 bits.
    let get = ObjectGet { pathname: path.as_ptr().addr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: `OBJ_GET` reads `ObjectGet`, and through it the string, which lives until after the call.
    let link = match unsafe { bpf(OBJ_GET, &get) } {
        // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
        Ok(descriptor) => unsafe { OwnedFd::from_raw_fd(descriptor) },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Ok(link_fd) = u32::try_from(link.as_raw_fd()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    // SAFETY: `LINK_DETACH` reads `LinkDetach`, which holds no pointer.
    unsafe { bpf(LINK_DETACH, &LinkDetach { link_fd }) }.map(drop)
}

/// # Safety
/// `attributes` must be what the command reads, and pointers in it must be good for the call.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: as the caller promises; the size says how much of the union is there.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { RawFd::try_from(result).map_err(io::Error::other) }
}

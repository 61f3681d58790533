//! Detaches a pinned link synchronously.
//!
//! Removing the pin would detach the link too, but later: the kernel releases a pinned object on a worker, after a
//! grace period. `BPF_LINK_DETACH` has taken effect when it returns. aya offers neither of the two commands for tcx
//! links.

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

/// Detaches the link pinned at `path`; the pin stays. Does nothing if there is no pin.
pub(super) fn detach(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // Pointers in `bpf_attr` are 64 bits on every architecture.
    let get = ObjectGet { pathname: path.as_ptr().addr() as u64, bpf_fd: 0, file_flags: 0 };
    // SAFETY: `OBJ_GET` reads an `ObjectGet` and the string that it points to, which lives until after the call.
    let link = match unsafe { bpf(OBJ_GET, &get) } {
        // SAFETY: the kernel has just created this descriptor, and nothing else owns it.
        Ok(descriptor) => unsafe { OwnedFd::from_raw_fd(descriptor) },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Ok(link_fd) = u32::try_from(link.as_raw_fd()) else { return Err(io::ErrorKind::InvalidInput.into()) };
    // SAFETY: `LINK_DETACH` reads a `LinkDetach`, which contains no pointer.
    unsafe { bpf(LINK_DETACH, &LinkDetach { link_fd }) }.map(drop)
}

/// # Safety
/// `attributes` must be the struct that the command reads, and pointers in it must be valid during the call.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<RawFd> {
    // SAFETY: promised by the caller; the size tells the kernel how much of the union is present.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { RawFd::try_from(result).map_err(io::Error::other) }
}

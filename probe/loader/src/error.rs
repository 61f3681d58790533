//! Errors of the probe, each with its remedy.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why an operation of the probe failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProbeError {
    #[error(
        "no BPF object is embedded: run `cargo xtask ebpf` and build again, or set NETVERDICT_BPF_OBJECT to the path of one"
    )]
    NoObject,
    #[error("BPF object {path} cannot be read")]
    ReadObject { path: PathBuf, source: io::Error },
    #[error("BPF object has no {what} `{name}`, so it was built for another version: run `cargo xtask ebpf`")]
    Incomplete { what: &'static str, name: String },
    #[error("kernel refused the BPF object: {reason}")]
    Load { reason: String },
    #[error("{path} is not on a BPF file system: run `mount -t bpf bpf /sys/fs/bpf`, and mount it into the container")]
    NoBpfFileSystem { path: PathBuf, source: io::Error },
    #[error(
        "{path} is a symbolic link, or another user can write to it and replace what is in it: remove it, or choose another folder"
    )]
    NotOurs { path: PathBuf },
    #[error("another probe has locked {path}: stop it first, or wait longer")]
    Locked { path: PathBuf },
    #[error("pinned map {name} has {found}, expected {expected}: run `netverdict probe detach` and start again")]
    MapLayout { name: &'static str, expected: String, found: String },
    #[error("map {name}: {action} failed")]
    Map { name: &'static str, action: &'static str, source: io::Error },
    #[error("map {map} is full with {limit} entries: run `netverdict probe detach` and start with a higher limit")]
    MapFull { map: &'static str, limit: u32 },
    #[error("{action} on interface {ifindex} failed: {reason}")]
    Attach { ifindex: u32, action: &'static str, reason: String },
    #[error("interface {ifindex} does not exist")]
    NoInterface { ifindex: u32 },
    #[error("ring readers are open already: drop them first")]
    RingsTaken,
    #[error("ring {name} cannot be mapped")]
    Ring { name: &'static str, source: io::Error },
    #[error("state file {path}: {action} failed")]
    State { path: PathBuf, action: &'static str, source: io::Error },
    #[error("{path}: {action} failed")]
    Pin { path: PathBuf, action: &'static str, source: io::Error },
    #[error("nothing is pinned at {path}: start a collector with this folder first")]
    NothingPinned { path: PathBuf },
    #[error("program `{name}` is not pinned")]
    NoProgram { name: String },
    #[error("test run of `{name}` failed: {reason}")]
    TestRun { name: String, reason: String },
    #[error("{action} over netlink failed: {reason}")]
    Netlink { action: &'static str, reason: String },
}

impl ProbeError {
    /// An error of netlink or of a network namespace.
    pub(crate) fn netlink(action: &'static str, error: &dyn std::fmt::Display) -> Self {
        Self::Netlink { action, reason: error.to_string() }
    }
}

/// Why a publication did not take effect. The revision before it stays in force.
///
/// The compiler's record of the published tables is wrong from here on. Compile a complete change next, with a new
/// compiler that starts at [`crate::Probe::floor`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    #[error("map {map} is full with {limit} entries; revision {in_force} stays in force: raise its limit")]
    MapFull { map: &'static str, limit: u32, in_force: u64 },
    #[error("revision {in_force} stays in force")]
    NotWritten { in_force: u64, source: ProbeError },
    #[error("tables contain {what} {id}: expected {expected}")]
    BadId { what: &'static str, id: u64, expected: &'static str },
}

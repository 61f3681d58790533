//! What can go wrong between user space and the kernel, each with what to do about it.

use std::{io, path::PathBuf};

use thiserror::Error;

/// Why the probe could not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProbeError {
    #[error("no BPF object: run `cargo xtask ebpf`, or name one with NETVERDICT_BPF_OBJECT")]
    NoObject,
    #[error("BPF object {path} cannot be read")]
    ReadObject { path: PathBuf, source: io::Error },
    #[error("BPF object lacks {what} `{name}`: it was built for another version; run `cargo xtask ebpf` again")]
    Incomplete { what: &'static str, name: String },
    #[error("kernel refused the BPF object: {reason}")]
    Load { reason: String },
    #[error("{path} is on no BPF file system: run `mount -t bpf bpf /sys/fs/bpf`, and mount it into the container")]
    NoBpfFileSystem { path: PathBuf, source: io::Error },
    #[error(
        "{path} is a symbolic link, or another user may write to it, who could put other pins in place of ours: remove it, or choose another folder"
    )]
    NotOurs { path: PathBuf },
    #[error("another probe holds {path}: end it first, or wait longer for it")]
    Locked { path: PathBuf },
    #[error("pinned map {name} has {found}, expected {expected}: run `netverdict detach` and start again")]
    MapLayout { name: &'static str, expected: String, found: String },
    #[error("map {name}: {action} failed")]
    Map { name: &'static str, action: &'static str, source: io::Error },
    #[error("map {map} is full with {limit} entries: raise its limit and run `netverdict detach` before the start")]
    MapFull { map: &'static str, limit: u32 },
    #[error("{action} on interface {ifindex} failed: {reason}")]
    Attach { ifindex: u32, action: &'static str, reason: String },
    #[error("interface {ifindex} does not exist any more")]
    NoInterface { ifindex: u32 },
    #[error(
        "interface {ifindex} is bound to pod {bound} ({bound_uid}), not {asked} ({asked_uid}): a binding holds until the interface is deleted"
    )]
    BoundToOther { ifindex: u32, bound: String, bound_uid: String, asked: String, asked_uid: String },
    #[error("rings are already being read: drop the other readers first")]
    RingsTaken,
    #[error("ring {name} cannot be mapped")]
    Ring { name: &'static str, source: io::Error },
    #[error("state file {path}: {action} failed")]
    State { path: PathBuf, action: &'static str, source: io::Error },
    #[error("{path}: {action} failed")]
    Pin { path: PathBuf, action: &'static str, source: io::Error },
    #[error("nothing is pinned at {path}: no probe was started with this folder")]
    NothingPinned { path: PathBuf },
    #[error("no program `{name}` is loaded")]
    NoProgram { name: String },
    #[error("test run of `{name}` failed: {reason}")]
    TestRun { name: String, reason: String },
    #[error("{action} over netlink failed: {reason}")]
    Netlink { action: &'static str, reason: String },
}

/// Why a publication did not take effect. The revision before it stays in force.
///
/// Whatever the compiler believes is published is wrong from here on: compile a complete change next, with a new
/// compiler that starts at [`crate::Probe::floor`].
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PublishError {
    #[error("map {map} is full with {limit} entries; revision {in_force} stays in force: raise its limit")]
    MapFull { map: &'static str, limit: u32, in_force: u64 },
    #[error("revision {in_force} stays in force")]
    NotWritten { in_force: u64, source: ProbeError },
    #[error("table names {what} {id}, which no one may use: expected a value from {expected}")]
    BadId { what: &'static str, id: u64, expected: &'static str },
}

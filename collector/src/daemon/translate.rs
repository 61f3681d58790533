//! Our options as the probe, the store and the log want them.

use std::{io, path::Path, time::Duration};

use netverdict_abi::{ABI_VERSION, Mode, Unresolved};
use netverdict_flowlog::row::ModeName;
use netverdict_probe::{ProbeOptions, RingBytes};

use crate::{
    clock,
    options::{FsyncArgument, ProbeArguments, StorageOptions, UnresolvedArgument},
    recording::Header,
    store::StoreOptions,
    wal::FsyncPolicy,
};

/// In a crash of the node this much of the log is lost at most.
const FSYNC_INTERVAL: Duration = Duration::from_secs(1);

pub(super) fn probe_options(options: ProbeArguments, state_dir: &Path) -> ProbeOptions {
    let ProbeArguments {
        mode,
        unresolved_services,
        ring_seconds,
        ring_denied_rate,
        ring_flow_rate,
        pin_root,
        bpf_object,
        max_connections,
        max_pairs,
        lock_wait,
        discover_interval: _,
        run_dir: _,
        unannounced: _,
    } = options;
    ProbeOptions {
        pin_root,
        state_dir: state_dir.into(),
        object: bpf_object,
        mode: match ModeName::from(mode) {
            ModeName::Observe => Mode::Observe,
            ModeName::Audit => Mode::Audit,
            ModeName::Enforce => Mode::Enforce,
        },
        unresolved: match unresolved_services {
            UnresolvedArgument::Pass => Unresolved::Pass,
            UnresolvedArgument::Deny => Unresolved::Deny,
        },
        ring_bytes: RingBytes {
            denied: RingBytes::for_outage(ring_seconds, ring_denied_rate),
            flow: RingBytes::for_outage(ring_seconds, ring_flow_rate),
        },
        max_connections,
        max_pairs,
        lock_wait,
        ..ProbeOptions::default()
    }
}

/// The store's options of ours.
pub fn store_options(storage: &StorageOptions, cluster: &str, node: &str, boot_id: &str) -> StoreOptions {
    let StorageOptions { data_dir, state_dir, flush_after, flush_rows, disk_cap, fsync: _, repeat_window: _ } = storage;
    let mut options = StoreOptions::new(data_dir, state_dir, cluster, node, boot_id);
    options.flush_after = *flush_after;
    options.flush_rows = usize::try_from(*flush_rows).unwrap_or(usize::MAX);
    options.disk_cap = (*disk_cap > 0).then_some(*disk_cap);
    options
}

pub(super) fn fsync(argument: FsyncArgument) -> FsyncPolicy {
    match argument {
        FsyncArgument::None => FsyncPolicy::None,
        FsyncArgument::Interval => FsyncPolicy::Interval(FSYNC_INTERVAL),
        FsyncArgument::Batch => FsyncPolicy::Batch,
    }
}

pub(super) fn header(cluster: &str, node: &str, boot_id: &str) -> Header {
    Header {
        abi_version: ABI_VERSION,
        cluster: cluster.to_owned(),
        node: node.to_owned(),
        boot_id: boot_id.to_owned(),
        clock_offset_ns: clock::offset_ns(),
        collector_version: env!("CARGO_PKG_VERSION").to_owned(),
    }
}

pub(super) fn host_name() -> io::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim().to_owned();
    if name.is_empty() { Err(io::Error::other("empty name")) } else { Ok(name) }
}

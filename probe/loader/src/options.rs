//! The options of a probe, each default with its reason. The only environment variable is the path of the object.

use std::{path::PathBuf, time::Duration};

use netverdict_abi::{Mode, Unresolved, VerdictEvent};

/// Size of the header that the kernel puts before each record of a ring, in bytes.
const RECORD_HEADER: u64 = 8;

/// How to start a [`crate::Probe`]. Sizes apply to maps that are created; an adopted map keeps its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Folder on a BPF file system. Everything is pinned below `v<ABI version>` in it. A lock on it admits one probe.
    pub pin_root: PathBuf,
    /// Folder of the state file, which must outlive the process but not the boot.
    pub state_dir: PathBuf,
    /// The BPF object to load instead of the embedded one. `None`: `NETVERDICT_BPF_OBJECT`, then the embedded one.
    pub object: Option<PathBuf>,
    pub mode: Mode,
    /// An enforcing node's treatment of a connection through a Service whose backend cannot be known.
    pub unresolved: Unresolved,
    pub ring_bytes: RingBytes,
    /// Entries of the connection table. When it is full, the least recently used connection is evicted, and judged as new.
    pub max_connections: u32,
    /// First fragments that are remembered.
    pub max_fragments: u32,
    /// Interfaces that can be attached.
    pub max_endpoints: u32,
    /// Addresses of pods, nodes and Services in the cluster.
    pub max_addresses: u32,
    /// CIDR blocks that policies name, and pod ranges.
    pub max_blocks: u32,
    /// (subject class, identity) pairs. Old and new pairs exist side by side during a publication.
    pub max_pairs: u32,
    /// Divisions of the port space. Old and new ones exist side by side during a publication.
    pub max_columns: u32,
    /// Single ports in all columns.
    pub max_column_ports: u32,
    /// Port prefixes in all columns.
    pub max_column_ranges: u32,
    /// How long an idle established TCP connection is remembered.
    pub tcp_established_timeout: Duration,
    /// How long everything else that is idle is remembered.
    pub other_timeout: Duration,
    /// How long after an endpoint's first attachment its connections that were already established may pass in reverse
    /// orientation (E-10b).
    pub midstream_window: Duration,
    /// How long replaced entries stay after a commit before they are deleted, unless the next publication comes first.
    /// The kernel then confirms that no program uses them any more; where it cannot, this time is assumed to be enough.
    pub grace: Duration,
    /// How long to wait for another probe to release the pins before [`crate::ProbeError::Locked`].
    pub lock_wait: Duration,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            pin_root: PathBuf::from("/sys/fs/bpf/netverdict"),
            state_dir: PathBuf::from("/var/lib/netverdict"),
            object: None,
            // The only mode in which a mistake drops no traffic.
            mode: Mode::Observe,
            // Unknown backends are denied.
            unresolved: Unresolved::Deny,
            // Replacing a collector takes seconds; half a minute allows for a slow image pull.
            ring_bytes: RingBytes { denied: RingBytes::for_outage(30, 2_000), flow: RingBytes::for_outage(30, 10_000) },
            // As many as nf_conntrack keeps on a node of 16 GiB.
            max_connections: 262_144,
            // The fragments of a packet arrive within milliseconds.
            max_fragments: 4_096,
            // Four times the pods that a kubelet accepts by default, because records of deleted interfaces are removed
            // with a delay.
            max_endpoints: 512,
            // 100 000 pods, dual stack, and as many again for Services and changes.
            max_addresses: 400_000,
            // A trie slows down as it grows; the largest published block lists have some ten thousand entries.
            max_blocks: 65_536,
            // Twice the worst case of some 10^5, because all ids are new after an adoption.
            max_pairs: 524_288,
            max_columns: 16_384,
            max_column_ports: 131_072,
            max_column_ranges: 131_072,
            // The conntrack timeouts of a node with kube-proxy: a day, and two minutes for a UDP stream.
            tcp_established_timeout: Duration::from_secs(86_400),
            other_timeout: Duration::from_secs(120),
            // Five minutes, as E-10b says.
            midstream_window: Duration::from_secs(300),
            // A program runs for microseconds, but a hypervisor may pause a virtual CPU for tens of milliseconds.
            grace: Duration::from_millis(50),
            // In a rolling update the old collector may still be running when the new one starts.
            lock_wait: Duration::from_secs(30),
        }
    }
}

/// Sizes of the rings in bytes: powers of two, at least a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingBytes {
    pub denied: u32,
    pub flow: u32,
}

impl RingBytes {
    /// Largest ring: the kernel's length field has 30 bits, and half of that is already four million events.
    pub const LARGEST: u32 = 1 << 29;
    /// Smallest ring: a page on every architecture.
    pub const SMALLEST: u32 = 1 << 16;

    /// The size that holds `events_per_second` for `seconds` without a reader, rounded up to a power of two and kept
    /// within [`Self::SMALLEST`] and [`Self::LARGEST`].
    pub fn for_outage(seconds: u32, events_per_second: u32) -> u32 {
        let record = size_of::<VerdictEvent>() as u64 + RECORD_HEADER;
        let bytes = u64::from(seconds).saturating_mul(u64::from(events_per_second)).saturating_mul(record);
        let bounded = u32::try_from(bytes).unwrap_or(Self::LARGEST).clamp(Self::SMALLEST, Self::LARGEST);
        // At most LARGEST, itself a power of two: this cannot overflow.
        bounded.next_power_of_two()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_holds_the_outage_it_was_asked_for() {
        let bytes = u64::from(RingBytes::for_outage(10, 1_000));
        assert!(bytes >= 10 * 1_000 * 152, "{bytes}");
        assert!(bytes.is_power_of_two());
    }

    #[test]
    fn absurd_outages_stay_within_bounds() {
        assert_eq!(RingBytes::for_outage(0, 0), RingBytes::SMALLEST);
        assert_eq!(RingBytes::for_outage(u32::MAX, u32::MAX), RingBytes::LARGEST);
    }
}

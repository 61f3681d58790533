//! What a probe is started with, each default with its reason. Reads no environment but the path of the object.

use std::{path::PathBuf, time::Duration};

use netverdict_abi::{Mode, VerdictEvent};

/// Bytes that the kernel puts in front of each record of a ring.
const RECORD_HEADER: u64 = 8;

/// How to start a [`crate::Probe`]. Sizes count for maps that are created; an adopted map keeps the size it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeOptions {
    /// Folder on a BPF file system. Everything is pinned below `v<ABI version>` in it; its lock admits one probe.
    pub pin_root: PathBuf,
    /// Folder for the state file, which must outlive the process but not the boot.
    pub state_dir: PathBuf,
    /// The BPF object to load instead of the embedded one. `None`: `NETVERDICT_BPF_OBJECT`, then the embedded one.
    pub object: Option<PathBuf>,
    pub mode: Mode,
    pub ring_bytes: RingBytes,
    /// Connections remembered on the node. When full, the least recently used is forgotten and judged anew.
    pub max_connections: u32,
    /// First fragments remembered.
    pub max_fragments: u32,
    /// Interfaces that can be attached.
    pub max_endpoints: u32,
    /// Addresses of pods, nodes and Services in the cluster.
    pub max_addresses: u32,
    /// CIDR blocks that policies name, and pod ranges.
    pub max_blocks: u32,
    /// (subject class, identity) pairs. Old and new pairs stand side by side while a publication is under way.
    pub max_pairs: u32,
    /// Divisions of the port space, and (each) their single ports and port prefixes; also side by side.
    pub max_columns: u32,
    pub max_column_ports: u32,
    pub max_column_ranges: u32,
    /// How long an idle established TCP connection is remembered.
    pub tcp_established_timeout: Duration,
    /// How long everything else that is idle is remembered.
    pub other_timeout: Duration,
    /// How long after its first attachment an endpoint's connections under way may pass in reverse (E-10b).
    pub midstream_window: Duration,
    /// How long what a commit replaced lies around before it is deleted, unless the next publication comes first. No program
    /// may be using it then: the kernel says so, and where it does not, this time is taken to be enough.
    pub grace: Duration,
    /// How long to wait for another probe to give up the pins before [`crate::ProbeError::Locked`].
    pub lock_wait: Duration,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self {
            pin_root: PathBuf::from("/sys/fs/bpf/netverdict"),
            state_dir: PathBuf::from("/var/lib/netverdict"),
            object: None,
            // The one mode in which a mistake costs no traffic.
            mode: Mode::Observe,
            // A collector that is replaced is away for seconds; half a minute leaves room for a slow image pull.
            ring_bytes: RingBytes { denied: RingBytes::for_outage(30, 2_000), flow: RingBytes::for_outage(30, 10_000) },
            // As many as nf_conntrack keeps on a node of 16 GiB.
            max_connections: 262_144,
            // Fragments follow their first within milliseconds.
            max_fragments: 4_096,
            // Four times what a kubelet accepts by default: ids of vanished interfaces linger for a moment.
            max_endpoints: 512,
            // 100 000 pods, dual stack, and as much again for Services and change.
            max_addresses: 400_000,
            // A trie slows down as it grows; the largest published block lists hold some ten thousand.
            max_blocks: 65_536,
            // "Some 10^5 at worst", twice: all ids are new after a take-over.
            max_pairs: 524_288,
            max_columns: 16_384,
            max_column_ports: 131_072,
            max_column_ranges: 131_072,
            // As conntrack has them on nodes that kube-proxy set up: a day, and a UDP stream's two minutes.
            tcp_established_timeout: Duration::from_secs(86_400),
            other_timeout: Duration::from_secs(120),
            // E-10b.
            midstream_window: Duration::from_secs(300),
            // A program runs for microseconds; the scheduler may take a virtual CPU away for tens of milliseconds.
            grace: Duration::from_millis(50),
            // In a rolling update the old collector is told to go when the new one is there already.
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
        assert!(bytes >= 10 * 1_000 * 120, "{bytes}");
        assert!(bytes.is_power_of_two());
    }

    #[test]
    fn absurd_outages_stay_within_bounds() {
        assert_eq!(RingBytes::for_outage(0, 0), RingBytes::SMALLEST);
        assert_eq!(RingBytes::for_outage(u32::MAX, u32::MAX), RingBytes::LARGEST);
    }
}

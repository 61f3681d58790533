//! The kernel ABI: events, map keys and map values, declared once for the BPF programs and for user space.
//!
//! Every struct is `repr(C)`, a multiple of eight bytes where it holds a `u64`, and has no implicit padding: on the
//! user side `zerocopy` refuses to compile a struct with padding. Integers are in host byte order except where a comment says
//! *network order*. Addresses are always 16 bytes; IPv4 is written as `::ffff:a.b.c.d` ([`address::v4_mapped`]).
//!
//! This crate does not parse, allocate or decide, and knows nothing of Kubernetes.

#![no_std]

pub mod address;
pub mod codes;
pub mod event;
pub mod map;

pub use codes::{Direction, Disposition, EventKind, KernelReason, Lane, LossClass, Mode, Unresolved, Verdict};
pub use event::VerdictEvent;
pub use map::{
    AddressKey, Column, ColumnPortKey, ColumnRangeKey, Connection, ConnectionKey, Endpoint, EndpointClasses,
    FragmentKey, FragmentVerdict, LaneCounters, LossKey, OwnAddressKey, PairKey, Peer, PeerVersions, PolicyEntry,
    Settings,
};

/// Version of everything in this crate. It is in each event and in the path under which maps are pinned
/// (`/sys/fs/bpf/netverdict/v<N>/`): programs and maps of different versions never meet. Raise it with any change
/// of layout or meaning; `tests/golden/abi.txt` notices when that was forgotten.
pub const ABI_VERSION: u8 = 2;

//! Keys and values of the maps, and what each map is for.
//!
//! A packet is judged by at most: [`Settings`] and the revision cell, `ENDPOINTS`, `CONNECTIONS`, one of `ADDRESSES`
//! and `BLOCKS`, `PAIRS`, and where ports matter `COLUMNS` with one of `COLUMN_PORTS` and `COLUMN_RANGES`.

use crate::address::Address;

/// Names of maps and programs.
pub mod name {
    /// Declares each map once: its name, and its place in [`ALL`].
    macro_rules! maps {
        ($($(#[$meta:meta])* $name:ident),+ $(,)?) => {
            $($(#[$meta])* pub const $name: &str = stringify!($name);)+

            /// Every pinned map. `SCRATCH` and `SUBJECT` are missing: they are working memory of the programs, which user
            /// space does not pin or read.
            pub const ALL: &[&str] = &[$($name),+];
        };
    }

    maps! {
        /// `array[1]` of [`super::Settings`].
        SETTINGS,
        /// `array[1]` of `u64`: the revision in force. Writing it is the only commit point of a publication.
        CURRENT_REVISION,
        /// `hash`: host ifindex (`u32`) → [`super::Endpoint`].
        ENDPOINTS,
        /// `hash`: [`super::OwnAddressKey`] → `u8` (always 1): source addresses that the pod behind an interface may use.
        OWN_ADDRESSES,
        /// `hash`: [`super::AddressKey`] → [`super::PeerVersions`]: addresses of pods, nodes and Services.
        ADDRESSES,
        /// `lpm_trie`: prefix length and [`super::AddressKey`] → [`super::PeerVersions`]: CIDR blocks that policies name, and
        /// the cluster's pod ranges.
        BLOCKS,
        /// `hash`: [`super::PairKey`] → [`super::PolicyEntry`].
        PAIRS,
        /// `hash`: column id (`u32`) → [`super::Column`].
        COLUMNS,
        /// `hash`: [`super::ColumnPortKey`] → [`super::PolicyEntry`]: single ports.
        COLUMN_PORTS,
        /// `lpm_trie`: prefix length and [`super::ColumnRangeKey`] → [`super::PolicyEntry`]: port prefixes.
        COLUMN_RANGES,
        /// `lru_hash`: [`super::ConnectionKey`] → [`super::Connection`].
        CONNECTIONS,
        /// `lru_hash`: [`super::FragmentKey`] → [`super::FragmentVerdict`].
        FRAGMENTS,
        /// `percpu_array`, index [`crate::Lane`]: [`super::LaneCounters`].
        LANES,
        /// `lru_hash`: [`super::LossKey`] → `u64`: events or frames without a record, summed over all CPUs.
        LOSSES,
        /// Ring buffer of [`crate::Lane::Denied`].
        RING_DENIED,
        /// Ring buffer of [`crate::Lane::Flow`].
        RING_FLOW,
    }

    /// tcx program for packets from a pod: attach to ingress of the host side of its veth.
    pub const FROM_POD: &str = "from_pod";
    /// tcx program for packets to a pod: attach to egress of the host side of its veth.
    pub const TO_POD: &str = "to_pod";
    /// A program that does nothing: the baseline of benches.
    pub const EMPTY: &str = "empty";
}

macro_rules! layout {
    ($(#[$meta:meta])* $name:ident = $size:literal { $($(#[$field_meta:meta])* $field:ident: $ty:ty),+ $(,)? }) => {
        $(#[$meta])*
        #[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable))]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(C)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty),+ }
        const _: () = assert!(size_of::<$name>() == $size);
    };
}

layout! {
    /// What holds for the whole node.
    Settings = 32 {
        /// [`crate::Mode`].
        mode: u8,
        reserved: [u8; 7],
        /// How long an idle established TCP connection is remembered, in nanoseconds.
        tcp_established_timeout: u64,
        /// How long everything else that is idle is remembered, in nanoseconds.
        other_timeout: u64,
        /// How long after an endpoint's first attachment a connection under way may pass in reverse (E-10b), in nanoseconds.
        midstream_window: u64,
    }
}

layout! {
    /// The peer at an address.
    Peer = 16 {
        /// Equivalence class of peers that no rule tells apart; see [`identity`].
        identity: u32,
        /// Who owns the address, for the record; 0 where nobody is known to.
        owner: u32,
        /// [`peer_flag`] bits.
        flags: u32,
        reserved: u32,
    }
}

/// Identities with a meaning of their own; the compiler gives out the others, from 16.
pub mod identity {
    /// An address of which nothing is known: outside every block that a policy names.
    pub const WORLD: u32 = 0;
    pub const FIRST_COMPILED: u32 = 16;
}

/// Bits of [`Peer::flags`].
pub mod peer_flag {
    /// A Service's address: its backend is not known at this hook.
    pub const SERVICE: u32 = 1 << 0;
    /// Inside a pod range, but no pod is known to own it.
    pub const UNKNOWN_POD: u32 = 1 << 1;
    /// This record means that there is none: in a version that removes an address.
    pub const ABSENT: u32 = 1 << 2;
}

layout! {
    /// A peer before and after a publication: a packet takes `after` when `current_revision` ≥ `since`, else `before`.
    PeerVersions = 40 {
        since: u64,
        before: Peer,
        after: Peer,
    }
}

impl PeerVersions {
    /// The peer that a packet of a revision finds.
    #[inline(always)]
    pub const fn as_of(&self, revision: u64) -> &Peer {
        if revision >= self.since { &self.after } else { &self.before }
    }
}

layout! {
    AddressKey = 16 { address: Address }
}

layout! {
    OwnAddressKey = 20 {
        ifindex: u32,
        address: Address,
    }
}

layout! {
    /// The final verdict for a packet, with who gave it.
    PolicyEntry = 16 {
        /// Attribution id, 63 bits; never 0 where `column` is 0.
        attribution: u64,
        /// Ask this column when not 0; then the other fields mean nothing.
        column: u32,
        /// [`crate::Verdict`].
        verdict: u8,
        reserved: [u8; 3],
    }
}

layout! {
    /// The classes of an endpoint as a subject, and what holds for peers without a pair.
    EndpointClasses = 40 {
        /// Subject class for packets from the pod.
        egress_class: u32,
        /// Subject class for packets to the pod.
        ingress_class: u32,
        egress_default: PolicyEntry,
        ingress_default: PolicyEntry,
    }
}

layout! {
    /// A pod's interface. Absent or with `ready` 0: its tables are not complete.
    Endpoint = 120 {
        /// `current_revision` from which `after` holds.
        since: u64,
        before: EndpointClasses,
        after: EndpointClasses,
        /// Nanoseconds since boot when the endpoint was first attached.
        attached_at: u64,
        /// Host interface; the id of the endpoint in connection keys.
        ifindex: u32,
        /// Owner id of the pod.
        owner: u32,
        /// Not 0 once the tables are complete.
        ready: u8,
        reserved: [u8; 7],
        reserved_tail: u64,
    }
}

impl Endpoint {
    /// The classes by which a packet of a revision is judged.
    #[inline(always)]
    pub const fn as_of(&self, revision: u64) -> EndpointClasses {
        if revision >= self.since { self.after } else { self.before }
    }
}

layout! {
    PairKey = 8 {
        /// Subject class; a class belongs to one direction.
        class: u32,
        identity: u32,
    }
}

layout! {
    /// A division of the port space. The decisions here answer where no port is known.
    Column = 144 {
        /// Default for TCP ports in neither `COLUMN_PORTS` nor `COLUMN_RANGES`.
        tcp: PolicyEntry,
        udp: PolicyEntry,
        sctp: PolicyEntry,
        /// Protocols without ports that rules may name, ICMP included.
        other: PolicyEntry,
        /// For fragments whose ports are not known: allowed only if all ports of the protocol are.
        tcp_fragment: PolicyEntry,
        udp_fragment: PolicyEntry,
        sctp_fragment: PolicyEntry,
        reserved_entry: PolicyEntry,
        /// [`column_flag`] bits: what has to be asked at all.
        flags: u32,
        reserved: [u8; 12],
    }
}

/// Bits of [`Column::flags`].
pub mod column_flag {
    pub const TCP_PORTS: u32 = 1 << 0;
    pub const TCP_RANGES: u32 = 1 << 1;
    pub const UDP_PORTS: u32 = 1 << 2;
    pub const UDP_RANGES: u32 = 1 << 3;
    pub const SCTP_PORTS: u32 = 1 << 4;
    pub const SCTP_RANGES: u32 = 1 << 5;
}

layout! {
    ColumnPortKey = 8 {
        column: u32,
        /// Host order.
        port: u16,
        /// IP protocol number: 6, 17 or 132.
        protocol: u8,
        reserved: u8,
    }
}

layout! {
    /// Data of an LPM key: the trie compares bits from the first byte on, so both numbers are in *network order*.
    /// A prefix of `n` port bits has length 32 + 8 + `n`.
    ColumnRangeKey = 8 {
        column: [u8; 4],
        protocol: u8,
        port: [u8; 2],
        reserved: u8,
    }
}

layout! {
    /// Both orientations of a connection have one key: the lower (address, port) comes first.
    ConnectionKey = 44 {
        /// Host interface, so that what source egress allowed does not open destination ingress on the same node.
        ifindex: u32,
        low: Address,
        high: Address,
        low_port: u16,
        high_port: u16,
        /// IP protocol number. ICMP echo: the requester's port is the identifier, the responder's 0. Other ICMP: the
        /// sender's is the type, the receiver's 0xffff, so that nothing is a reply to it. No ports: both 0.
        protocol: u8,
        reserved: [u8; 3],
    }
}

layout! {
    /// A connection that passes, and how it was judged.
    Connection = 48 {
        /// Nanoseconds since boot after which the entry is a miss.
        expires_at: u64,
        /// Revision that judged it last.
        revision: u64,
        attribution: u64,
        /// [`crate::Verdict`].
        verdict: u8,
        /// [`crate::KernelReason`].
        reason: u8,
        /// [`connection_flag`] bits.
        flags: u8,
        reserved: [u8; 5],
        packets: u64,
        bytes: u64,
    }
}

/// Bits of [`Connection::flags`].
pub mod connection_flag {
    /// The original direction runs from the low end of the key to the high one.
    pub const FROM_LOW: u8 = 1 << 0;
    /// A packet was seen in each direction.
    pub const ESTABLISHED: u8 = 1 << 1;
    /// The original direction was from the pod.
    pub const EGRESS: u8 = 1 << 2;
    /// FIN or RST seen: it expires soon.
    pub const CLOSING: u8 = 1 << 3;
    /// Recorded once as `EstablishedStale` already.
    pub const STALE: u8 = 1 << 4;
}

layout! {
    FragmentKey = 44 {
        ifindex: u32,
        source: Address,
        destination: Address,
        /// Identification field; IPv4's 16 bits or IPv6's 32.
        identification: u32,
        protocol: u8,
        /// [`crate::Direction`].
        direction: u8,
        reserved: [u8; 2],
    }
}

layout! {
    FragmentVerdict = 32 {
        expires_at: u64,
        attribution: u64,
        source_port: u16,
        destination_port: u16,
        verdict: u8,
        reason: u8,
        /// [`crate::Disposition`] of the first fragment.
        disposition: u8,
        reserved: [u8; 9],
    }
}

layout! {
    /// One CPU's account of a lane: `seq` = delivered + `lost`.
    LaneCounters = 16 {
        /// Sequence number of the last event, delivered or lost.
        seq: u64,
        /// Events for which the ring had no room.
        lost: u64,
    }
}

layout! {
    LossKey = 8 {
        ifindex: u32,
        /// [`crate::LossClass`].
        class: u32,
    }
}

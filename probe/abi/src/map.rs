//! Names, keys and values of the maps.
//!
//! Judging a packet reads [`Settings`], the revision cell, `ENDPOINTS`, `CONNECTIONS`, then for a new flow `ADDRESSES` and
//! if need be `BLOCKS`, `PAIRS`, and where ports matter `COLUMNS`, `COLUMN_PORTS` and `COLUMN_RANGES`.

use crate::address::Address;

/// Names of maps and programs.
pub mod name {
    /// Declares each map once: its name, and its place in [`ALL`].
    macro_rules! maps {
        ($($(#[$meta:meta])* $name:ident),+ $(,)?) => {
            $($(#[$meta])* pub const $name: &str = stringify!($name);)+

            /// Every pinned map. `SCRATCH`, `SUBJECT` and `CONNTRACK` are missing: they are working memory of the programs, which user
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
        /// `hash`: [`super::AddressKey`] → ifindex (`u32`): the interface of the local pod that has the address.
        LOCAL_PODS,
        /// `hash`: [`super::AddressKey`] → [`super::PeerVersions`]: addresses of pods, nodes and Services.
        ADDRESSES,
        /// `lpm_trie`: prefix length and [`super::AddressKey`] → [`super::PeerVersions`]: CIDR blocks that policies
        /// name, and the cluster's pod ranges.
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
    /// tcx program for packets that leave the node: attach to egress of an interface with an Ethernet header.
    pub const LEAVING: &str = "leaving";
    /// The same for an interface without a link-layer header, such as a tunnel.
    pub const LEAVING_BARE: &str = "leaving_bare";
    /// A program that does nothing: the baseline of benches.
    pub const EMPTY: &str = "empty";
}

/// Constants in the programs that user space sets when it loads them, each a `u32`. They come from the kernel's type
/// information. 0 (the default) in either: conntrack cannot be read.
pub mod constant {
    /// Offset of the pointer to the conntrack entry in `struct sk_buff`.
    pub const CONNTRACK_IN_PACKET: &str = "CONNTRACK_IN_PACKET";
    /// Offset of the first tuple in `struct nf_conn`.
    pub const TUPLES_IN_CONNTRACK: &str = "TUPLES_IN_CONNTRACK";
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
    /// The settings of the node.
    Settings = 32 {
        /// [`crate::Mode`].
        mode: u8,
        /// [`crate::Unresolved`].
        unresolved: u8,
        reserved: [u8; 6],
        /// How long an idle established TCP connection stays in the table, in nanoseconds.
        tcp_established_timeout: u64,
        /// How long any other idle connection stays in the table, in nanoseconds.
        other_timeout: u64,
        /// How long after an endpoint's first attachment an unknown TCP connection may pass in reverse orientation
        /// (E-10b), in nanoseconds.
        midstream_window: u64,
    }
}

layout! {
    /// The peer at an address.
    Peer = 16 {
        /// Equivalence class of peers that no rule distinguishes; see [`identity`].
        identity: u32,
        /// Owner id of the address, for events; 0 if unknown.
        owner: u32,
        /// [`peer_flag`] bits.
        flags: u32,
        reserved: u32,
    }
}

/// Reserved identities. The compiler gives out the others, from [`identity::FIRST_COMPILED`].
pub mod identity {
    /// An unknown address, outside every block that a policy names.
    pub const WORLD: u32 = 0;
    pub const FIRST_COMPILED: u32 = 16;
}

/// Bits of [`Peer::flags`].
pub mod peer_flag {
    /// The address of a Service, which stands for a backend that is not known before the address is translated.
    pub const SERVICE: u32 = 1 << 0;
    /// In a pod range, but no pod is known to own the address.
    pub const UNKNOWN_POD: u32 = 1 << 1;
    /// No peer: the side of a record on which its address is removed.
    pub const ABSENT: u32 = 1 << 2;
    /// An address of this node.
    pub const OWN_NODE: u32 = 1 << 3;
}

layout! {
    /// A peer before and after a publication. A packet takes `after` if its revision is at least `since`, otherwise
    /// `before`.
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
    /// The answer of a lookup: a final verdict with its attribution, or the column that decides by port.
    PolicyEntry = 16 {
        /// Attribution id, 63 bits; never 0 where `column` is 0.
        attribution: u64,
        /// Id of the column that decides; 0 if this entry is final. If it is not 0 the other fields are unused.
        column: u32,
        /// [`crate::Verdict`].
        verdict: u8,
        reserved: [u8; 3],
    }
}

layout! {
    /// The subject classes of an endpoint, and the answers for peers without a pair.
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
    /// The record of a pod's interface. If it is absent or `ready` is 0, the endpoint's tables are not complete.
    Endpoint = 120 {
        /// The first revision for which `after` holds.
        since: u64,
        before: EndpointClasses,
        after: EndpointClasses,
        /// Nanoseconds since boot when the endpoint was first attached.
        attached_at: u64,
        /// Host interface. Identifies the endpoint in connection keys.
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
    pub const fn as_of(&self, revision: u64) -> &EndpointClasses {
        if revision >= self.since { &self.after } else { &self.before }
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
    /// A division of the port space. Its entries are the answers if no port entry matches.
    Column = 144 {
        /// For TCP ports without an entry in `COLUMN_PORTS` and `COLUMN_RANGES`.
        tcp: PolicyEntry,
        udp: PolicyEntry,
        sctp: PolicyEntry,
        /// For protocols without ports, such as ICMP.
        other: PolicyEntry,
        /// For fragments whose ports are unknown: allowed only if all ports of the protocol are allowed.
        tcp_fragment: PolicyEntry,
        udp_fragment: PolicyEntry,
        sctp_fragment: PolicyEntry,
        reserved_entry: PolicyEntry,
        /// [`column_flag`] bits: which of the other two maps have entries of this column.
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
    /// Data of an LPM key. The trie compares bits from the first byte on, so both numbers are in *network order*. A
    /// prefix of `n` port bits has the length 32 + 8 + `n`.
    ColumnRangeKey = 8 {
        column: [u8; 4],
        protocol: u8,
        port: [u8; 2],
        reserved: u8,
    }
}

layout! {
    /// The key of a connection, the same for both orientations: the lower (address, port) comes first.
    ConnectionKey = 44 {
        /// Host interface. With it, a connection that source egress allowed is still judged by destination ingress on
        /// the same node.
        ifindex: u32,
        low: Address,
        high: Address,
        low_port: u16,
        high_port: u16,
        /// IP protocol number. Ports of ICMP echo: the identifier for the requester, 0 for the responder. Other ICMP:
        /// the type for the sender, 0xffff for the receiver, so that no packet is a reply to it. Protocols without
        /// ports: both 0.
        protocol: u8,
        reserved: [u8; 3],
    }
}

layout! {
    /// A connection that passes, and its last verdict.
    Connection = 48 {
        /// When the entry expires, in nanoseconds since boot.
        expires_at: u64,
        /// The revision by which it was judged last.
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
    /// The first packet ran from the low end of the key to the high end.
    pub const FROM_LOW: u8 = 1 << 0;
    /// A packet was seen in each direction.
    pub const ESTABLISHED: u8 = 1 << 1;
    /// The first packet came from the pod.
    pub const EGRESS: u8 = 1 << 2;
    /// FIN or RST was seen, so the entry expires soon.
    pub const CLOSING: u8 = 1 << 3;
    /// Its `EstablishedStale` event was written already.
    pub const STALE: u8 = 1 << 4;
    /// Its destination is a Service's address, and the chosen backend was judged.
    pub const RESOLVED: u8 = 1 << 5;
    /// The event about an unseen backend was written already.
    pub const UNRESOLVED: u8 = 1 << 6;
}

layout! {
    FragmentKey = 44 {
        ifindex: u32,
        source: Address,
        destination: Address,
        /// Identification field: 16 bits in IPv4, 32 in IPv6.
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
    /// The counters of a lane on one CPU: `seq` = delivered + `lost`.
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

//! The records that the probe writes to its ring buffers.

use crate::address::Address;

/// One judged packet, 144 bytes. `kind` and `abi_version` come first and never move, so that a
/// reader can refuse events of an unknown kind or version.
///
/// Direction, ends and ports are those of the flow that was judged. If a reply was the occasion, they are reversed against
/// the packet: with [`crate::KernelReason::Midstream`], and in the re-evaluation of a connection.
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable)
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct VerdictEvent {
    /// [`crate::EventKind`].
    pub kind: u8,
    /// [`crate::ABI_VERSION`] of the program that wrote it.
    pub abi_version: u8,
    /// [`crate::Lane`].
    pub lane: u8,
    /// [`crate::Direction`].
    pub direction: u8,
    /// The CPU that judged the packet. CPU, `lane` and `seq` identify the event within one boot.
    pub cpu: u32,
    /// Number of the event on this CPU and lane, from 1, including events that were lost to a full ring.
    pub seq: u64,
    /// Nanoseconds since boot, suspended time included (`CLOCK_BOOTTIME`).
    pub boot_time: u64,
    /// `current_revision` when the packet was judged.
    pub revision: u64,
    /// Attribution id, 63 bits; 0 if `reason` is the whole explanation.
    pub attribution: u64,
    /// The sender, before any translation.
    pub source: Address,
    /// The receiver, after any translation.
    pub destination: Address,
    /// Where the sender addressed it, if that was translated (DNAT); unspecified if not.
    pub original_destination: Address,
    /// The source address that the receiver sees, if that was translated (SNAT); unspecified if not.
    pub translated_source: Address,
    /// Owner id of the source address in the kernel's tables at that time; 0 if unknown.
    pub source_owner: u32,
    /// Owner id of the destination address, likewise.
    pub destination_owner: u32,
    /// Owner id of the pod behind the interface ([`crate::Endpoint::owner`]); 0 before its tables were ready.
    pub endpoint_owner: u32,
    /// Host interface at which the packet was judged.
    pub ifindex: u32,
    /// Host order; 0 for protocols without ports.
    pub source_port: u16,
    /// Host order; 0 for protocols without ports.
    pub destination_port: u16,
    /// IP protocol number after all extension headers.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// TCP flags byte of this packet.
    pub tcp_flags: u8,
    /// Type of ICMP or ICMPv6.
    pub icmp_type: u8,
    /// Code of ICMP or ICMPv6.
    pub icmp_code: u8,
    /// [`crate::Verdict`].
    pub verdict: u8,
    /// [`crate::Disposition`].
    pub disposition: u8,
    /// [`crate::KernelReason`].
    pub reason: u8,
    /// [`crate::Mode`] in force.
    pub mode: u8,
    /// [`flag`] bits.
    pub flags: u8,
    pub reserved: [u8; 2],
    /// Length of the packet in bytes, link layer included.
    pub length: u32,
    /// Port of `original_destination`, host order; 0 for protocols without ports.
    pub original_destination_port: u16,
    /// Port of `translated_source`, host order; 0 for protocols without ports.
    pub translated_source_port: u16,
}

/// Bits of [`VerdictEvent::flags`].
pub mod flag {
    /// A fragment other than the first, which has no ports.
    pub const FRAGMENT: u8 = 1 << 0;
    /// The peer's address is in a pod range, but no pod is known to own it.
    pub const UNKNOWN_POD: u8 = 1 << 1;
}

const _: () = assert!(size_of::<VerdictEvent>() == 144);

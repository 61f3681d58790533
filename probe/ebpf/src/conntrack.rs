//! The kernel's connection tracking of a packet: the addresses that its sender gave it, before NAT.
//!
//! Address translation works by conntrack, which hangs its entry on the packet (`sk_buff._nfct`) and holds the two
//! tuples of the connection: as its first packet was sent, and as its replies are sent. The offsets of both are set by
//! user space from the kernel's type information. The layout of a tuple is checked there, see `probe/loader`.

use core::ptr;

use aya_ebpf::{bindings::__sk_buff, helpers::bpf_probe_read_kernel_buf};

use crate::{
    maps,
    packet::{Fragment, Packet, Words, protocol, v4_words},
    tuples::Tuples,
};

// `netverdict_abi::map::constant`. User space replaces the values when it loads the object, so the compiler must not
// use them.
#[unsafe(no_mangle)]
static CONNTRACK_IN_PACKET: u32 = 0;
#[unsafe(no_mangle)]
static TUPLES_IN_CONNTRACK: u32 = 0;

/// Low bits of the pointer: the packet's place in its connection (`enum ip_conntrack_info`).
const INFO: u64 = 7;
const RELATED: u64 = 1;
/// This and above: the packet is a reply, or quotes one.
const REPLY: u64 = 3;
const AF_INET: u16 = 2;

/// The state of a packet's connection in conntrack.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Tracking {
    /// Nothing: it is not tracked, or conntrack cannot be read.
    Untracked = 0,
    /// It runs in the direction of its connection's first packet.
    Original,
    /// An ICMP error about a connection of the packet's sender.
    Related,
    /// It is a reply, or an ICMP error that quotes one.
    Reply,
}

/// Whether user space found out where to read.
#[inline(always)]
pub fn is_readable() -> bool {
    conntrack_in_packet() != 0 && tuples_in_conntrack() != 0
}

/// Sets the original ends of the packet, and the ports of a later fragment: conntrack has reassembled its packet, so that
/// they are known. Of a reply it sets the original source alone.
#[inline(never)]
pub fn restore(skb: *mut __sk_buff, packet: &mut Packet) -> Tracking {
    let Some(tuples) = maps::CONNTRACK.get_ptr_mut(0) else { return Tracking::Untracked };
    let Some(info) = read(skb, tuples) else { return Tracking::Untracked };
    // SAFETY: this CPU's own element, which nothing else on this CPU uses meanwhile (see `emit`).
    let Tuples { original, reply, .. } = unsafe { &*tuples };
    if info >= REPLY {
        if packet.protocol == reply.protocol {
            packet.original_source = words(reply.family, reply.source);
            if has_ports(packet) {
                packet.original_source_port = u16::from_be(reply.source_port);
            }
        }
        return Tracking::Reply;
    }
    let related = info == RELATED || packet.protocol != original.protocol;
    if packet.source == words(reply.family, reply.destination) {
        packet.original_source = words(original.family, original.source);
    }
    if packet.destination == words(reply.family, reply.source) {
        packet.original_destination = words(original.family, original.destination);
    }
    if related {
        return Tracking::Related;
    }
    if has_ports(packet) {
        if packet.fragment == Fragment::Later {
            packet.source_port = u16::from_be(reply.destination_port);
            packet.destination_port = u16::from_be(reply.source_port);
        }
        packet.original_source_port = u16::from_be(original.source_port);
        packet.original_destination_port = u16::from_be(original.destination_port);
    } else if packet.is_echo_request() {
        packet.original_source_port = u16::from_be(original.source_port);
    }
    Tracking::Original
}

/// The connection that an ICMP error is about, as its sender's entry in the connection table has it: sender and port,
/// then the real receiver and port, then the protocol. Valid after [`restore`] returned [`Tracking::Related`].
#[inline(always)]
pub fn related_connection() -> Option<(Words, u16, Words, u16, u8)> {
    let tuples = maps::CONNTRACK.get_ptr(0)?;
    // SAFETY: as in `restore`.
    let Tuples { original, reply, .. } = unsafe { &*tuples };
    Some((
        words(original.family, original.source),
        u16::from_be(original.source_port),
        words(reply.family, reply.source),
        u16::from_be(reply.source_port),
        original.protocol,
    ))
}

/// Reads the tuples of the packet's connection, and returns the packet's place in it.
#[inline(always)]
fn read(skb: *mut __sk_buff, tuples: *mut Tuples) -> Option<u64> {
    let (in_packet, in_conntrack) = (conntrack_in_packet(), tuples_in_conntrack());
    // The verifier knows the constants: where they are 0 it does not even look at the code below, and a kernel that does
    // not lend this helper accepts the program.
    if in_packet == 0 || in_conntrack == 0 {
        return None;
    }
    let mut pointer = [0_u8; 8];
    // SAFETY: the helper reads at any address, and fails where nothing is.
    unsafe { bpf_probe_read_kernel_buf(skb.cast::<u8>().wrapping_add(in_packet as usize), &mut pointer) }.ok()?;
    let pointer = u64::from_ne_bytes(pointer);
    let (entry, info) = (pointer & !INFO, pointer & INFO);
    if entry == 0 {
        return None;
    }
    // SAFETY: the bytes of one value, and any bytes are tuples.
    let bytes = unsafe { core::slice::from_raw_parts_mut(tuples.cast::<u8>(), size_of::<Tuples>()) };
    // SAFETY: as above.
    unsafe { bpf_probe_read_kernel_buf((entry + u64::from(in_conntrack)) as *const u8, bytes) }.ok()?;
    Some(info)
}

#[inline(always)]
fn conntrack_in_packet() -> u32 {
    // SAFETY: a live static.
    unsafe { ptr::read_volatile(&raw const CONNTRACK_IN_PACKET) }
}

#[inline(always)]
fn tuples_in_conntrack() -> u32 {
    // SAFETY: a live static.
    unsafe { ptr::read_volatile(&raw const TUPLES_IN_CONNTRACK) }
}

#[inline(always)]
fn has_ports(packet: &Packet) -> bool {
    matches!(packet.protocol, protocol::TCP | protocol::UDP | protocol::SCTP)
}

#[inline(always)]
fn words(family: u16, address: [u32; 4]) -> Words {
    if family == AF_INET { v4_words(address[0]) } else { address }
}

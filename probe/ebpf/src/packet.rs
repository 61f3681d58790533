//! A packet as the tables need it. Reading is strict: what does not hold together is refused, and the refusal is recorded;
//! this module decides nothing.

mod ethernet;
mod ip;
pub mod quoted;
mod transport;

use core::arch::asm;

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use netverdict_abi::address::Address;

use crate::subprogram::zero;

/// Protocol numbers that are read further than their number.
pub mod protocol {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
}

/// TCP flags that connections turn on.
pub mod tcp_flag {
    pub const FIN: u8 = 1 << 0;
    pub const SYN: u8 = 1 << 1;
    pub const RST: u8 = 1 << 2;
    pub const ACK: u8 = 1 << 4;
}

/// An address in words: the stack takes aligned writes only, so bytes would be moved one by one. Network order.
pub type Words = [u32; 4];

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Fragment {
    /// Not a fragment.
    Whole = 0,
    First,
    /// Has no transport header.
    Later,
}

/// Everything that is read of a packet. Ports are as the connection key has them: those of the header, or what
/// [`transport`] puts in their place for ICMP. Fields that were not reached are 0.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Packet {
    pub source: Words,
    pub destination: Words,
    pub source_port: u16,
    pub destination_port: u16,
    /// Identification field of a fragment.
    pub identification: u32,
    /// Where the transport header begins, from the first byte of the frame.
    pub transport: u32,
    /// After all extension headers; in a later fragment of IPv6 what the fragment header names.
    pub protocol: u8,
    /// 4 or 6; 0 before the IP header was read.
    pub family: u8,
    pub tcp_flags: u8,
    pub icmp_type: u8,
    pub icmp_code: u8,
    pub fragment: Fragment,
}

/// Why a frame is not judged as a packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// ARP and whatever else is not IP: none of our business.
    NotIp,
    /// A header is truncated or contradicts itself.
    Malformed,
    /// A first fragment without its whole transport header (E-15).
    ShortFragment,
}

/// What follows the IP headers: byte offsets in the frame.
#[derive(Clone, Copy)]
struct Payload {
    start: u32,
    end: u32,
}

impl Packet {
    /// Reads the frame into `self`. After a refusal `self` holds what was read before it, the rest is 0; after
    /// [`Refusal::NotIp`] it holds nothing.
    #[inline(never)]
    pub fn read(&mut self, skb: *mut __sk_buff) -> Result<(), Refusal> {
        let ctx = &TcContext::new(skb);
        // SAFETY: an empty packet: all of its fields are numbers, and 0 is `Fragment::Whole`.
        unsafe { zero(self) };
        let (version, offset) = ethernet::strip(ctx)?;
        let payload = match version {
            ethernet::Version::V4 => ip::read_v4(ctx, self, offset)?,
            ethernet::Version::V6 => ip::read_v6(ctx, self, offset)?,
        };
        transport::read(ctx, self, payload)
    }

    #[inline(always)]
    pub fn is_icmp(&self) -> bool {
        (self.family == 4 && self.protocol == protocol::ICMP) || (self.family == 6 && self.protocol == protocol::ICMPV6)
    }

    #[inline(always)]
    pub fn is_echo_request(&self) -> bool {
        self.is_icmp() && self.icmp_type == if self.family == 4 { 8 } else { 128 }
    }

    /// Destination unreachable, packet too big, time exceeded, parameter problem: they quote another packet.
    #[inline(always)]
    pub fn is_icmp_error(&self) -> bool {
        self.is_icmp()
            && if self.family == 4 { matches!(self.icmp_type, 3 | 11 | 12) } else { matches!(self.icmp_type, 1..=4) }
    }

    /// Neighbour discovery (133–137) and multicast listener discovery (130–132, 143): the link dies without them (E-11).
    /// They are never fragmented (RFC 6980).
    #[inline(always)]
    pub fn is_discovery(&self) -> bool {
        self.family == 6
            && self.protocol == protocol::ICMPV6
            && self.fragment == Fragment::Whole
            && matches!(self.icmp_type, 130..=137 | 143)
    }

    /// TCP that asks for a connection: SYN without ACK, whatever else is set.
    #[inline(always)]
    pub fn asks_for_connection(&self) -> bool {
        self.protocol == protocol::TCP && self.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
    }
}

/// Reads at `offset` bytes into the frame; None where the frame ends before it does. What lies in the linear part, as headers
/// nearly always do, costs no call.
#[inline(always)]
fn load<T: Copy>(ctx: &TcContext, offset: u32) -> Option<T> {
    let mut at = ctx.data();
    // SAFETY: adds. Were the sum the compiler's, it might add the size to `offset` first, and the verifier follows one
    // register from the comparison to the read.
    unsafe { asm!("{at} += {offset}", at = inout(reg) at, offset = in(reg) u64::from(offset)) };
    if at + size_of::<T>() <= ctx.data_end() {
        // SAFETY: inside the packet, as just compared. Aligned where the CPU needs it: `T` holds words at most, and such
        // kernels lay Ethernet frames so that the IP header is at a multiple of four.
        return Some(unsafe { (at as *const T).read() });
    }
    ctx.load(offset as usize).ok()
}

/// Four words as sixteen bytes.
#[inline(always)]
pub fn bytes(words: Words) -> Address {
    // SAFETY: same size, and every bit pattern is an address.
    unsafe { core::mem::transmute(words) }
}

/// The same with IPv4 as `::ffff:a.b.c.d`. Network order.
#[inline(always)]
pub fn v4_words(address: u32) -> Words {
    [0, 0, 0xffff_u32.to_be(), address]
}

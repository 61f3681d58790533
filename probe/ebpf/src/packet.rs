//! The header fields of a packet that judging needs. [`crate::parse`] fills them.

use netverdict_abi::address::Address;

/// Protocols whose headers are parsed.
pub mod protocol {
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ICMPV6: u8 = 58;
    pub const SCTP: u8 = 132;
}

/// TCP flags that open or close a connection.
pub mod tcp_flag {
    pub const FIN: u8 = 1 << 0;
    pub const SYN: u8 = 1 << 1;
    pub const RST: u8 = 1 << 2;
    pub const ACK: u8 = 1 << 4;
}

/// An address as four words in network order. Words, because the verifier accepts only aligned stack writes, and bytes
/// would be copied one by one.
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

/// The parsed fields. Ports are those of the connection key: from the header, or for ICMP the substitutes of
/// [`crate::parse::transport`]. Fields that the parser did not reach are 0.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Packet {
    pub source: Words,
    pub destination: Words,
    /// The sender before any translation. Equal to `source` until [`crate::conntrack::restore`] was called.
    pub original_source: Words,
    /// Where the sender addressed it. Equal to `destination` until [`crate::conntrack::restore`] was called.
    pub original_destination: Words,
    pub source_port: u16,
    pub destination_port: u16,
    pub original_source_port: u16,
    pub original_destination_port: u16,
    /// `current_revision` when the packet came: all stages judge and record it as of this revision.
    pub revision: u64,
    /// Identification field of a fragment.
    pub identification: u32,
    /// Where the transport header begins, from the first byte of the frame.
    pub transport: u32,
    /// After all extension headers; in a later fragment of IPv6, the next header of the fragment header.
    pub protocol: u8,
    /// 4 or 6; 0 before the IP header was read.
    pub family: u8,
    pub tcp_flags: u8,
    pub icmp_type: u8,
    pub icmp_code: u8,
    pub fragment: Fragment,
}

/// Why a frame has no parsed packet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// ARP, or another protocol that is not IP: policies do not apply to it.
    NotIp,
    /// A header is truncated or contradicts itself.
    Malformed,
    /// A first fragment without its whole transport header (E-15).
    ShortFragment,
}

impl Packet {
    /// Nothing is known of a translation: both ends are as they are in the headers.
    #[inline(always)]
    pub fn assume_untranslated(&mut self) {
        self.original_source = self.source;
        self.original_destination = self.destination;
        self.original_source_port = self.source_port;
        self.original_destination_port = self.destination_port;
    }

    /// Whether the source address or port was translated (SNAT).
    #[inline(always)]
    pub fn has_translated_source(&self) -> bool {
        self.original_source != self.source || self.original_source_port != self.source_port
    }

    /// Whether the destination address or port was translated (DNAT).
    #[inline(always)]
    pub fn has_translated_destination(&self) -> bool {
        self.original_destination != self.destination || self.original_destination_port != self.destination_port
    }

    #[inline(always)]
    pub fn is_icmp(&self) -> bool {
        (self.family == 4 && self.protocol == protocol::ICMP) || (self.family == 6 && self.protocol == protocol::ICMPV6)
    }

    #[inline(always)]
    pub fn is_echo_request(&self) -> bool {
        self.is_icmp() && self.icmp_type == if self.family == 4 { 8 } else { 128 }
    }

    /// Destination unreachable, packet too big, time exceeded, parameter problem. They quote another packet.
    #[inline(always)]
    pub fn is_icmp_error(&self) -> bool {
        self.is_icmp()
            && if self.family == 4 { matches!(self.icmp_type, 3 | 11 | 12) } else { matches!(self.icmp_type, 1..=4) }
    }

    /// Neighbour discovery (133–137) and multicast listener discovery (130–132, 143). IPv6 does not work without them,
    /// so they pass (E-11). They are never fragmented (RFC 6980).
    #[inline(always)]
    pub fn is_discovery(&self) -> bool {
        self.family == 6
            && self.protocol == protocol::ICMPV6
            && self.fragment == Fragment::Whole
            && matches!(self.icmp_type, 130..=137 | 143)
    }

    /// A TCP connection request: SYN without ACK, independent of other flags.
    #[inline(always)]
    pub fn is_connection_request(&self) -> bool {
        self.protocol == protocol::TCP && self.tcp_flags & (tcp_flag::SYN | tcp_flag::ACK) == tcp_flag::SYN
    }
}

/// Four words as sixteen bytes.
#[inline(always)]
pub fn bytes(words: Words) -> Address {
    // SAFETY: same size, and any bytes are an address.
    unsafe { core::mem::transmute(words) }
}

/// An IPv4 address in network order, as the words of `::ffff:a.b.c.d`.
#[inline(always)]
pub fn v4_words(address: u32) -> Words {
    [0, 0, 0xffff_u32.to_be(), address]
}

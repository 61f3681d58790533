//! Addresses in the encoding of maps and events.

/// An IPv6 address, or an IPv4 address mapped into one. Network order.
pub type Address = [u8; 16];

/// `a.b.c.d` as `::ffff:a.b.c.d`.
#[inline(always)]
pub const fn v4_mapped(octets: [u8; 4]) -> Address {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, octets[0], octets[1], octets[2], octets[3]]
}

/// An unknown address (`::`).
pub const UNSPECIFIED: Address = [0; 16];

/// Length of an IPv4 prefix of `length` bits (0 to 32) among IPv4-mapped addresses.
#[inline(always)]
pub const fn v4_prefix_length(length: u8) -> u32 {
    96 + length as u32
}

//! IP addresses and CIDR blocks, with the legacy spellings that Kubernetes still accepts in stored objects.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    fields::{Field, Read, quoted},
    finding::{Invalid, code},
};

/// A CIDR block.
#[derive(Debug)]
pub(crate) struct Block {
    /// Host bits masked, v4-mapped IPv6 as IPv4.
    pub(crate) cidr: IpNet,
    /// It was written with host bits or leading zeros (N-10), or as v4-mapped IPv6.
    pub(crate) legacy: bool,
}

/// An IP address. A v4-mapped IPv6 address becomes the IPv4 address that it contains (E-3).
pub(crate) fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// `address/length`. As in Kubernetes, host bits are masked and leading zeros are decimal (N-10).
pub(crate) fn block(field: &Field<'_>) -> Read<Block> {
    let text = field.text()?;
    parse(text).ok_or_else(|| {
        let message = format!("expected a block of addresses, found {}", quoted(text));
        let remedy = "write an address, a slash and the length of the prefix: 10.0.0.0/8 or fd00::/8";
        Box::new(Invalid::new(code::INVALID_CIDR, &field.path, message, remedy))
    })
}

impl Block {
    /// The warning for a block that is written in an old way, or `None`.
    pub(crate) fn legacy_warning(&self, path: &str) -> Option<Invalid> {
        let cidr = self.cidr;
        let message = format!("the block has host bits or leading zeros, or is IPv4 within IPv6; it is read as {cidr}");
        self.legacy.then(|| Invalid::new(code::LEGACY_CIDR, path, message, format!("write {cidr}")))
    }
}

/// For an address of a pod, node or Service that cannot be read.
pub(crate) fn invalid_address(text: &str, path: &str) -> Invalid {
    let message = format!("expected an IP address, found {}, which is left out", quoted(text));
    Invalid::new(code::INVALID_ADDRESS, path, message, "write an IPv4 or IPv6 address")
}

fn parse(text: &str) -> Option<Block> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || length.len() > 3 || !length.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let zero_led = length.len() > 1 && length.starts_with('0');
    let length: u8 = length.parse().ok()?;
    let (address, sloppy) = match address.parse::<IpAddr>() {
        Ok(address) => (address, false),
        Err(_) => (IpAddr::V4(with_leading_zeros(address)?), true),
    };
    let cidr = match address {
        IpAddr::V4(address) => IpNet::V4(Ipv4Net::new(address, length).ok()?),
        IpAddr::V6(address) => from_v6(address, length)?,
    };
    let mapped = address.is_ipv6() && matches!(cidr, IpNet::V4(_));
    let legacy = sloppy || zero_led || mapped || cidr.addr() != cidr.network();
    Some(Block { cidr: cidr.trunc(), legacy })
}

fn from_v6(address: Ipv6Addr, length: u8) -> Option<IpNet> {
    match (address.to_ipv4_mapped(), length.checked_sub(96)) {
        (Some(v4), Some(v4_length)) => Some(IpNet::V4(Ipv4Net::new(v4, v4_length).ok()?)),
        (Some(_), None) | (None, _) => Some(IpNet::V6(Ipv6Net::new(address, length).ok()?)),
    }
}

fn with_leading_zeros(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || part.len() > 16 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        *octet = part.parse().ok()?;
    }
    parts.next().is_none().then(|| octets.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_masked_and_old_spellings_read() {
        for (text, expected, legacy) in [
            ("10.0.0.0/8", "10.0.0.0/8", false),
            ("10.0.2.9/24", "10.0.2.0/24", true),
            ("010.000.002.000/24", "10.0.2.0/24", true),
            ("10.0.0.0/08", "10.0.0.0/8", true),
            ("0.0.0.0/0", "0.0.0.0/0", false),
            ("::/0", "::/0", false),
            ("fd00::1/8", "fd00::/8", true),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8", true),
            ("10.0.0.1/32", "10.0.0.1/32", false),
        ] {
            let block = parse(text).unwrap();
            assert_eq!((block.cidr.to_string().as_str(), block.legacy), (expected, legacy), "{text}");
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in [
            "",
            "/",
            "10.0.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0/8",
            "10.0.0.0.0/8",
            "256.0.0.0/8",
            "::/129",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "fe80::1%eth0/64",
            "0x0a.0.0.0/8",
            "10.0.0.0/8 ",
            "10.0.0.0/8/8",
            "a/b",
        ] {
            assert!(parse(text).is_none(), "{text:?}");
        }
    }
}

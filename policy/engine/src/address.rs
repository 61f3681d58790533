//! One spelling per address: IPv4 mapped into IPv6 is IPv4 (E-3), blocks have no host bits (N-10).

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

/// Length of `::ffff:0:0/96`, the part of IPv6 that stands for IPv4.
const MAPPED_LENGTH: u8 = 96;

pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

pub(crate) fn canonical_block(block: IpNet) -> IpNet {
    let block = block.trunc();
    let IpNet::V6(v6) = block else { return block };
    let Some(v4) = v6.network().to_ipv4_mapped() else { return block };
    let Some(length) = v6.prefix_len().checked_sub(MAPPED_LENGTH) else { return block };
    Ipv4Net::new(v4, length).map_or(block, IpNet::V4)
}

/// The whole of IPv4.
pub(crate) fn all_v4() -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0))
}

/// Whether `block` holds `address`; never across families.
pub(crate) fn holds(block: IpNet, address: IpAddr) -> bool {
    canonical_block(block).contains(&canonical(address))
}

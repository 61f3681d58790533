//! Reads a network namespace from inside. The calling thread stays there.

use std::{
    io,
    net::{IpAddr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd},
};

use nix::libc;
use rustix::{
    net::{AddressFamily, SocketType, socket},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use tokio::runtime::Runtime;

use super::{
    namespaces::Namespace,
    netlink::{self, Interface},
};
use crate::error::ProbeError;

/// `SO_NETNS_COOKIE` (`asm-generic/socket.h`, since Linux 5.14), which neither libc nor rustix defines.
const NETNS_COOKIE: libc::c_int = 71;

/// The content of a network namespace.
pub(super) struct Inside {
    pub(super) cookie: u64,
    interfaces: Vec<Interface>,
}

/// Enters the namespace and reads it. `runtime` must run on the calling thread alone.
pub(super) fn read(runtime: &Runtime, namespace: &Namespace) -> Result<Inside, ProbeError> {
    move_into_link_name_space(namespace.file.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| ProbeError::netlink("entering a network namespace", &error))?;
    let cookie = cookie().map_err(|error| ProbeError::netlink("reading a namespace's cookie", &error))?;
    let interfaces = runtime.block_on(netlink::interfaces())?;
    Ok(Inside { cookie, interfaces })
}

impl Inside {
    pub(super) fn addresses_of(&self, ifindex: u32) -> Vec<IpAddr> {
        self.interface(ifindex).map(|interface| interface.addresses.clone()).unwrap_or_default()
    }

    /// The link-local address that an interface derives from its MAC address by default; `None` if it has none.
    pub(super) fn derived_link_local(&self, ifindex: u32) -> Option<IpAddr> {
        let hardware_address = &self.interface(ifindex)?.hardware_address;
        Some(link_local(hardware_address.as_slice().try_into().ok()?).into())
    }

    /// Name and kind of each interface that leads out of the namespace past the host ends.
    pub(super) fn uncovered(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.interfaces.iter().filter_map(|interface| Some((interface.name.as_str(), interface.leads_past?)))
    }

    fn interface(&self, ifindex: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.ifindex == ifindex)
    }
}

/// `fe80::/64` with the modified EUI-64 of a MAC address (RFC 4291, appendix A).
fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
}

/// The cookie of this thread's network namespace.
#[expect(unsafe_code, reason = "no safe wrapper knows this socket option")]
fn cookie() -> io::Result<u64> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: both pointers are to live locals, and `length` is the size of the first.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, NETNS_COOKIE, (&raw mut cookie).cast(), &raw mut length)
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_local_address_follows_from_the_mac_address() {
        assert_eq!(link_local([0x52, 0x54, 0x00, 0x12, 0x34, 0x56]).to_string(), "fe80::5054:ff:fe12:3456");
    }
}

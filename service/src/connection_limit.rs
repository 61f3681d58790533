//! How many connections a port keeps, in all and from one address: so that one client cannot take all of them.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use thiserror::Error;

/// A host often owns a whole network of this prefix length, so it counts as one address.
const IPV6_HOST_PREFIX: u32 = 64;

/// Most connections of a port. Clones share the count.
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    most: usize,
    most_per_address: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("{0} connections are open, and no more are accepted")]
    Total(usize),
    #[error("{0} connections of this address are open, and no more are accepted")]
    Address(usize),
}

/// The permission for one connection, given back when it is dropped.
#[derive(Debug)]
pub struct Permit {
    open: Arc<Mutex<Open>>,
    address: IpAddr,
}

impl ConnectionLimit {
    /// A limit of 0 counts as 1: a port that refuses every client is an accident.
    pub fn new(most: usize, most_per_address: usize) -> Self {
        Self { most: most.max(1), most_per_address: most_per_address.max(1), open: Arc::default() }
    }

    /// # Errors
    /// The limit that is reached.
    pub fn admit(&self, address: IpAddr) -> Result<Permit, Refused> {
        let address = host(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= self.most {
            return Err(Refused::Total(self.most));
        }
        let of_address = open.by_address.entry(address).or_default();
        if *of_address >= self.most_per_address {
            return Err(Refused::Address(self.most_per_address));
        }
        *of_address += 1;
        open.total += 1;
        Ok(Permit { open: Arc::clone(&self.open), address })
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).total
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}

/// The address under which connections of one host are counted.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !(u128::MAX >> IPV6_HOST_PREFIX);
            // All of `::/64`, so also loopback: that is one host as well.
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_are_limited_and_permits_come_back() {
        let limit = ConnectionLimit::new(3, 2);
        let first = limit.admit(address("10.0.0.1")).unwrap();
        let second = limit.admit(address("::ffff:10.0.0.1")).unwrap();
        assert_eq!(limit.admit(address("10.0.0.1")).unwrap_err(), Refused::Address(2));
        let third = limit.admit(address("10.0.0.2")).unwrap();
        assert_eq!(limit.admit(address("10.0.0.3")).unwrap_err(), Refused::Total(3));
        assert_eq!(limit.open(), 3);
        drop((first, second, third));
        assert_eq!(limit.open(), 0);
        assert!(limit.open.lock().unwrap().by_address.is_empty(), "addresses are forgotten");
        limit.admit(address("10.0.0.3")).unwrap();
    }

    #[test]
    fn a_host_that_changes_its_ipv6_address_is_one_host() {
        let limit = ConnectionLimit::new(9, 1);
        let _permit = limit.admit(address("2001:db8:0:1::1")).unwrap();
        assert_eq!(limit.admit(address("2001:db8:0:1:ffff::2")).unwrap_err(), Refused::Address(1));
        limit.admit(address("2001:db8:0:2::1")).unwrap();
    }
}

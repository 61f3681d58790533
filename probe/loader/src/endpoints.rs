//! The interfaces that are bound, and their records in the kernel.

use std::{collections::BTreeMap, net::IpAddr};

use netverdict_abi::{Endpoint, EndpointClasses, OwnAddressKey};
use rustix::time::{ClockId, clock_gettime};

use crate::{endpoint::BoundEndpoint, error::ProbeError, maps::Maps, publish::encode};

/// Every bound interface, by index.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    bound: BTreeMap<u32, BoundEndpoint>,
}

/// What an endpoint is judged by, once its tables are complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) owner: u32,
    pub(crate) classes: EndpointClasses,
}

/// How far the tables of an endpoint are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Complete(Judged),
    /// Published tables do not know its pod.
    Incomplete,
    /// This process has published nothing: what an earlier one published still holds.
    NotYetPublished,
}

impl Endpoints {
    pub(crate) fn new(bound: impl IntoIterator<Item = BoundEndpoint>) -> Self {
        Self { bound: bound.into_iter().map(|endpoint| (endpoint.ifindex, endpoint)).collect() }
    }

    pub(crate) fn get(&self, ifindex: u32) -> Option<&BoundEndpoint> {
        self.bound.get(&ifindex)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &BoundEndpoint> {
        self.bound.values()
    }

    /// Writes the record of an interface and the addresses that its pod may send from. An interface that was attached
    /// before keeps that time. Returns whether the record was another.
    pub(crate) fn bind(
        &mut self,
        maps: &mut Maps,
        endpoint: &BoundEndpoint,
        standing: Standing,
    ) -> Result<bool, ProbeError> {
        let ifindex = endpoint.ifindex;
        let wanted: Vec<_> = endpoint.own_addresses.iter().map(|address| own_address(ifindex, *address)).collect();
        for key in &wanted {
            // Never written over: while a value is replaced, a program may find none.
            if maps.own_addresses.get(key)?.is_none() {
                maps.own_addresses.put_after(*key, None, 1)?;
            }
        }
        for key in maps.own_addresses.keys()? {
            if key.ifindex == ifindex && !wanted.contains(&key) {
                maps.own_addresses.remove(&key)?;
            }
        }
        let known = maps.endpoints.get(&ifindex)?;
        let attached_at = match known {
            Some(known) if known.attached_at != 0 => known.attached_at,
            _ => since_boot(),
        };
        let record = match (standing, known) {
            (Standing::Complete(judged), _) => ready(ifindex, attached_at, judged),
            (Standing::NotYetPublished, Some(known)) => known,
            (Standing::NotYetPublished, None) | (Standing::Incomplete, _) => {
                Endpoint { ifindex, attached_at, ..Endpoint::default() }
            }
        };
        let changes = known != Some(record);
        if changes {
            maps.endpoints.put_after(ifindex, known, record)?;
        }
        self.bound.insert(ifindex, endpoint.clone());
        Ok(changes)
    }

    /// Forgets an interface, in the kernel too.
    pub(crate) fn unbind(&mut self, maps: &mut Maps, ifindex: u32) -> Result<(), ProbeError> {
        maps.endpoints.remove(&ifindex)?;
        for key in maps.own_addresses.keys()? {
            if key.ifindex == ifindex {
                maps.own_addresses.remove(&key)?;
            }
        }
        self.bound.remove(&ifindex);
        Ok(())
    }
}

/// The record of an endpoint that is judged the same way before and after any publication.
pub(crate) fn ready(ifindex: u32, attached_at: u64, judged: Judged) -> Endpoint {
    let Judged { owner, classes } = judged;
    Endpoint {
        since: 0,
        before: classes,
        after: classes,
        attached_at,
        ifindex,
        owner,
        ready: 1,
        reserved: [0; 7],
        reserved_tail: 0,
    }
}

fn own_address(ifindex: u32, address: IpAddr) -> OwnAddressKey {
    OwnAddressKey { ifindex, address: encode::address(address).address }
}

/// `CLOCK_BOOTTIME` in nanoseconds.
fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    // Neither is ever negative.
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or_default())
}

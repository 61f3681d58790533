//! The bound interfaces and their records in the kernel.

use std::{collections::BTreeMap, net::IpAddr};

use netverdict_abi::{Endpoint, OwnAddressKey};
use rustix::time::{ClockId, clock_gettime};

use crate::{
    endpoint::BoundEndpoint,
    error::ProbeError,
    maps::OwnAddressTable,
    published::{encode, endpoint_records::EndpointTable, subject_record::SubjectRecord},
};

/// Every bound interface, by index.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    bound: BTreeMap<u32, BoundEndpoint>,
}

/// Whether the published tables cover an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Complete(SubjectRecord),
    /// The published tables do not contain its pod.
    Incomplete,
    /// This process has not published: an earlier process's publication still holds.
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

    /// Writes the record of an interface and the source addresses that its pod may use. Keeps the time of the first
    /// attachment. Returns whether the record changed.
    pub(crate) fn bind(
        &mut self,
        own_addresses: &mut OwnAddressTable,
        records: &mut EndpointTable,
        endpoint: &BoundEndpoint,
        standing: Standing,
    ) -> Result<bool, ProbeError> {
        let ifindex = endpoint.ifindex;
        let wanted: Vec<_> = endpoint.own_addresses.iter().map(|address| own_address(ifindex, *address)).collect();
        for key in &wanted {
            // Never replaced: during a replacement a lookup may find neither element (ADR 7).
            if own_addresses.get(key)?.is_none() {
                own_addresses.replace(*key, None, 1)?;
            }
        }
        for key in own_addresses.keys()? {
            if key.ifindex == ifindex && !wanted.contains(&key) {
                own_addresses.remove(&key)?;
            }
        }
        let known = records.get(&ifindex)?;
        let attached_at = match known {
            Some(known) if known.attached_at != 0 => known.attached_at,
            _ => since_boot(),
        };
        let record = match (standing, known) {
            (Standing::Complete(subject), _) => subject.into_ready(ifindex, attached_at),
            (Standing::NotYetPublished, Some(known)) => known,
            (Standing::NotYetPublished, None) | (Standing::Incomplete, _) => {
                Endpoint { ifindex, attached_at, ..Endpoint::default() }
            }
        };
        let changes = known != Some(record);
        if changes {
            records.replace(ifindex, known, record)?;
        }
        self.bound.insert(ifindex, endpoint.clone());
        Ok(changes)
    }

    /// Removes an interface and its records in the kernel.
    pub(crate) fn unbind(
        &mut self,
        own_addresses: &mut OwnAddressTable,
        records: &mut EndpointTable,
        ifindex: u32,
    ) -> Result<(), ProbeError> {
        records.remove(&ifindex)?;
        for key in own_addresses.keys()? {
            if key.ifindex == ifindex {
                own_addresses.remove(&key)?;
            }
        }
        self.bound.remove(&ifindex);
        Ok(())
    }
}

fn own_address(ifindex: u32, address: IpAddr) -> OwnAddressKey {
    OwnAddressKey { ifindex, address: encode::address(address).address }
}

/// `CLOCK_BOOTTIME` in nanoseconds.
fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    // Neither value is ever negative.
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or_default())
}

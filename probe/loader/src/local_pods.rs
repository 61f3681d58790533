//! `LOCAL_PODS`: address → interface of the local pod that has it. The hooks behind address translation find by it the
//! pod that sent a packet.

use std::net::IpAddr;

use netverdict_abi::AddressKey;

use crate::{
    endpoint::BoundEndpoint,
    error::ProbeError,
    maps::table::{Hash, Table},
    published::encode,
};

pub(crate) type LocalPodTable = Table<Hash<AddressKey, u32>>;

/// Enters the addresses of a pod, and removes former addresses. Link-local addresses are left out: every link
/// has the same.
pub(crate) fn enter(table: &mut LocalPodTable, endpoint: &BoundEndpoint) -> Result<(), ProbeError> {
    let ifindex = endpoint.ifindex;
    let wanted: Vec<_> = endpoint.own_addresses.iter().filter(|a| is_routed(a)).map(|a| encode::address(*a)).collect();
    for key in &wanted {
        let known = table.get(key)?;
        if known != Some(ifindex) {
            table.replace(*key, known, ifindex)?;
        }
    }
    remove_others(table, ifindex, &wanted)
}

/// Removes every address of an interface.
pub(crate) fn remove(table: &mut LocalPodTable, ifindex: u32) -> Result<(), ProbeError> {
    remove_others(table, ifindex, &[])
}

/// Removes the addresses of interfaces that are not `alive`.
pub(crate) fn retain(table: &mut LocalPodTable, alive: impl Fn(u32) -> bool) -> Result<(), ProbeError> {
    for key in table.keys()? {
        if table.get(&key)?.is_some_and(|ifindex| !alive(ifindex)) {
            table.remove(&key)?;
        }
    }
    Ok(())
}

fn remove_others(table: &mut LocalPodTable, ifindex: u32, wanted: &[AddressKey]) -> Result<(), ProbeError> {
    for key in table.keys()? {
        if table.get(&key)? == Some(ifindex) && !wanted.contains(&key) {
            table.remove(&key)?;
        }
    }
    Ok(())
}

fn is_routed(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    }
}

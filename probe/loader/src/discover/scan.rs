//! One scan of the host's interfaces and of the network namespaces behind them.

use std::{net::IpAddr, thread};

use tokio::sync::oneshot;

use super::{
    discovered::{Discovered, Uplink},
    inside,
    namespaces::{self, Namespace},
    netlink::{self, HostLink},
};
use crate::error::ProbeError;

/// Scans once. `born` is always `None`.
///
/// # Errors
/// Netlink or `/proc` cannot be read. A namespace that is deleted during the scan is left out.
pub async fn scan() -> Result<Vec<Discovered>, ProbeError> {
    scan_host().await.map(|scan| scan.found)
}

/// The node's interfaces without loopback: packets may leave over each that is no pod's.
///
/// # Errors
/// Netlink cannot be read.
pub async fn uplinks() -> Result<Vec<Uplink>, ProbeError> {
    netlink::uplinks().await
}

/// The result of one scan.
pub(super) struct Scan {
    pub(super) found: Vec<Discovered>,
    /// Every interface of the host, of any kind.
    pub(super) interfaces: Vec<u32>,
    pub(super) uplinks: Vec<Uplink>,
}

/// Scans on a thread of its own, because the thread enters other network namespaces and does not return from the last one.
pub(super) async fn scan_host() -> Result<Scan, ProbeError> {
    let (sender, receiver) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("netverdict-scan".to_owned())
        .spawn(move || {
            // Fails if the caller has stopped waiting.
            let _ = sender.send(scan_on_this_thread());
        })
        .map_err(|error| ProbeError::netlink("starting a thread", &error))?;
    let scan = receiver.await;
    // The thread has sent its result or panicked, so this does not block.
    let ended = thread.join();
    match (scan, ended) {
        (Ok(scan), Ok(())) => scan,
        _ => Err(ProbeError::netlink("scanning network namespaces", &"the thread panicked")),
    }
}

/// Leaves the calling thread in another network namespace.
fn scan_on_this_thread() -> Result<Scan, ProbeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| ProbeError::netlink("starting a runtime", &error))?;
    let namespaces = namespaces::all()?;
    let (links, ids) = runtime.block_on(netlink::host(&namespaces))?;
    let interfaces = links.iter().map(|link| link.ifindex).collect();
    let uplinks = links.iter().filter_map(HostLink::uplink).collect();
    let mut found = Vec::new();
    for (namespace, id) in namespaces.iter().zip(ids) {
        let Some(id) = id else { continue };
        let here: Vec<_> = links.iter().filter(|link| link.peer_namespace == Some(id)).collect();
        if here.is_empty() {
            continue;
        }
        match inside::read(&runtime, namespace) {
            Ok(inside) => found.extend(here.into_iter().map(|link| describe(link, namespace, &inside))),
            // Its last process ended after the namespaces were listed.
            Err(error) => tracing::debug!(error = %error, "network namespace cannot be read"),
        }
    }
    found.sort_unstable_by_key(|discovered| discovered.ifindex);
    Ok(Scan { found, interfaces, uplinks })
}

fn describe(link: &HostLink, namespace: &Namespace, inside: &inside::Inside) -> Discovered {
    let (mut link_local, mut addresses): (Vec<_>, Vec<_>) =
        inside.addresses_of(link.peer_ifindex).into_iter().partition(is_link_local);
    link_local.extend(inside.derived_link_local(link.peer_ifindex));
    for list in [&mut link_local, &mut addresses] {
        list.sort_unstable();
        list.dedup();
    }
    Discovered {
        ifindex: link.ifindex,
        name: link.name.clone(),
        netns_cookie: inside.cookie,
        pod_uid: namespace.pod_uid.clone(),
        addresses,
        link_local,
        born: None,
    }
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

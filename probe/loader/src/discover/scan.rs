//! One scan of the host's interfaces and of the network namespaces behind them.

use std::{collections::BTreeSet, net::IpAddr, path::Path, thread};

use tokio::sync::oneshot;

use super::{
    discovered::{Discovered, Uncovered, Uplink},
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

/// A network namespace, and the host ends that lead there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behind {
    /// Unlike an inode number it is never reused.
    pub netns_cookie: u64,
    pub found: Vec<Discovered>,
}

/// Looks only at the namespace at a path. `pod_uid` and `born` are always `None`. Blocks for some milliseconds.
///
/// # Errors
/// The path is no network namespace, or netlink cannot be asked.
pub fn behind(path: &Path) -> Result<Behind, ProbeError> {
    let namespace = Namespace::at(path)
        .ok_or_else(|| ProbeError::netlink("opening a network namespace", &format!("{} is none", path.display())))?;
    let work = || {
        let runtime = runtime()?;
        let (links, ids) = runtime.block_on(netlink::host(std::slice::from_ref(&namespace)))?;
        let inside = inside::read(&runtime, &namespace)?;
        let leads_there = |link: &&HostLink| link.peer_namespace.is_some() && link.peer_namespace == ids[0];
        let found = links.iter().filter(leads_there).map(|link| describe(link, &namespace, &inside)).collect();
        Ok(Behind { netns_cookie: inside.cookie, found })
    };
    // A thread of its own, because it does not return from the namespace.
    thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|_| Err(ProbeError::netlink("reading a network namespace", &"the thread panicked")))
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
    pub(super) uncovered: BTreeSet<Uncovered>,
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
    let runtime = runtime()?;
    let namespaces = namespaces::all()?;
    let (links, ids) = runtime.block_on(netlink::host(&namespaces))?;
    let interfaces = links.iter().map(|link| link.ifindex).collect();
    let uplinks = links.iter().filter_map(HostLink::uplink).collect();
    let (mut found, mut uncovered) = (Vec::new(), BTreeSet::new());
    for (namespace, id) in namespaces.iter().zip(ids) {
        let leads_there = |link: &&HostLink| id.is_some() && link.peer_namespace == id;
        let here: Vec<_> = links.iter().filter(leads_there).collect();
        if here.is_empty() && namespace.pod_uid.is_none() {
            continue;
        }
        match inside::read(&runtime, namespace) {
            Ok(inside) => {
                found.extend(here.into_iter().map(|link| describe(link, namespace, &inside)));
                uncovered.extend(uncovered_by(namespace, &inside));
            }
            // Its last process ended after the namespaces were listed.
            Err(error) => tracing::debug!(error = %error, "network namespace cannot be read"),
        }
    }
    found.sort_unstable_by_key(|discovered| discovered.ifindex);
    Ok(Scan { found, interfaces, uncovered, uplinks })
}

fn runtime() -> Result<tokio::runtime::Runtime, ProbeError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| ProbeError::netlink("starting a runtime", &error))
}

/// The interfaces of a pod that no program can judge. A namespace without a pod's process may not be a pod's.
fn uncovered_by(namespace: &Namespace, inside: &inside::Inside) -> Vec<Uncovered> {
    let Some(pod_uid) = &namespace.pod_uid else { return Vec::new() };
    let uncovered = inside.uncovered().map(|(interface, kind)| Uncovered {
        netns_cookie: inside.cookie,
        pod_uid: pod_uid.clone(),
        interface: interface.to_owned(),
        kind,
    });
    uncovered.collect()
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
        has_processes: namespace.has_processes,
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

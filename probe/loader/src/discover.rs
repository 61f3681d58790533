//! Finds the interfaces behind which pods are: host-side ends of veth pairs whose other end is in another network
//! namespace, and the pod uid that the processes there belong to. Does not decide which pod of the cluster that is:
//! see [`crate::bind`].

mod inside;
mod namespaces;
mod netlink;
mod processes;
mod watch;

use std::{net::IpAddr, thread, time::SystemTime};

use tokio::sync::oneshot;

pub use self::watch::Watch;
use self::{namespaces::Namespace, netlink::HostLink};
use crate::error::ProbeError;

/// A veth whose other end is in another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// Interface index on the host's side.
    pub ifindex: u32,
    /// Interface name on the host's side.
    pub name: String,
    /// Cookie of the other end's namespace; never used again, as inode numbers are.
    pub netns_cookie: u64,
    /// From the cgroup of the namespace's oldest process in a pod's cgroup; `None` while there is none.
    pub pod_uid: Option<String>,
    /// Addresses of the other end that are not link-local, ascending.
    pub addresses: Vec<IpAddr>,
    /// Link-local addresses that the other end has, or derives from its hardware address; ascending.
    pub link_local: Vec<IpAddr>,
    /// When the interface was seen to appear; `None` if it was there at the first look.
    pub born: Option<SystemTime>,
}

/// What a [`Watch`] reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// New, or something about it changed.
    Found(Discovered),
    /// The interface is no more.
    Gone { ifindex: u32 },
}

/// One look at everything there is now. `born` is `None` throughout.
///
/// # Errors
/// Netlink or `/proc` cannot be read. A namespace that vanishes meanwhile is left out.
pub async fn scan() -> Result<Vec<Discovered>, ProbeError> {
    look().await.map(|look| look.found)
}

/// What one look saw.
struct Look {
    found: Vec<Discovered>,
    /// Every interface of the host, of whatever kind.
    interfaces: Vec<u32>,
}

/// Looks on a thread of its own: it enters other namespaces, and ends there.
async fn look() -> Result<Look, ProbeError> {
    let (sender, receiver) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("netverdict-look".to_owned())
        .spawn(move || {
            // The receiver is gone if nobody waits any more.
            let _ = sender.send(look_from_this_thread());
        })
        .map_err(|error| failed("starting a thread", &error))?;
    let look = receiver.await;
    // It has sent its answer, or panicked: either way it ends at once.
    let ended = thread.join();
    match (look, ended) {
        (Ok(look), Ok(())) => look,
        _ => Err(failed("looking at network namespaces", &"the thread panicked")),
    }
}

/// Leaves the calling thread in some other network namespace.
fn look_from_this_thread() -> Result<Look, ProbeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(|error| failed("starting a runtime", &error))?;
    let namespaces = namespaces::all()?;
    let (links, ids) = runtime.block_on(netlink::host(&namespaces))?;
    let interfaces = links.iter().map(|link| link.ifindex).collect();
    let mut found = Vec::new();
    for (namespace, id) in namespaces.iter().zip(ids) {
        let Some(id) = id else { continue };
        let here: Vec<_> = links.iter().filter(|link| link.peer_namespace == Some(id)).collect();
        if here.is_empty() {
            continue;
        }
        match inside::look(&runtime, namespace) {
            Ok(inside) => found.extend(here.into_iter().map(|link| describe(link, namespace, &inside))),
            // Its last process ended between the listing and now.
            Err(error) => tracing::debug!(error = %error, "network namespace cannot be looked into"),
        }
    }
    found.sort_unstable_by_key(|discovered| discovered.ifindex);
    Ok(Look { found, interfaces })
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

fn failed(action: &'static str, error: &dyn std::fmt::Display) -> ProbeError {
    ProbeError::Netlink { action, reason: error.to_string() }
}

//! Binds a discovered interface to a pod of the cluster.

use std::net::IpAddr;

use netverdict_policy::{ObjectKey, Pod, Snapshot};
use serde::{Deserialize, Serialize};

use crate::discover::Discovered;

/// An interface of the host, and the pod behind it. The binding holds until the interface is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundEndpoint {
    /// Index of the host end.
    pub ifindex: u32,
    /// Cookie of the pod's network namespace. Unlike an inode number it is never reused.
    pub netns_cookie: u64,
    pub pod: ObjectKey,
    pub pod_uid: String,
    /// Source addresses that the pod may use: all that it was assigned, and the link-local ones.
    pub own_addresses: Vec<IpAddr>,
}

/// Finds the pod behind an interface by the uid in the cgroup path of its processes. If no process of the namespace is
/// in a pod's cgroup, finds it by address, provided that exactly one pod has one of the addresses.
///
/// `None` if the snapshot does not contain the pod: try again with a newer one.
pub fn bind(discovered: &Discovered, snapshot: &Snapshot) -> Option<BoundEndpoint> {
    let pod = match &discovered.pod_uid {
        Some(uid) => snapshot.pods.values().find(|pod| pod.uid == *uid && !pod.host_network)?,
        None => sole_pod_with_address(&discovered.addresses, snapshot)?,
    };
    let mut own_addresses = pod.addresses.clone();
    own_addresses.extend(&discovered.link_local);
    own_addresses.sort_unstable();
    own_addresses.dedup();
    Some(BoundEndpoint {
        ifindex: discovered.ifindex,
        netns_cookie: discovered.netns_cookie,
        pod: pod.key(),
        pod_uid: pod.uid.clone(),
        own_addresses,
    })
}

fn sole_pod_with_address<'a>(addresses: &[IpAddr], snapshot: &'a Snapshot) -> Option<&'a Pod> {
    let mut owners = snapshot
        .pods
        .values()
        .filter(|pod| pod.takes_part() && pod.addresses.iter().any(|address| addresses.contains(address)));
    let owner = owners.next()?;
    owners.next().is_none().then_some(owner)
}

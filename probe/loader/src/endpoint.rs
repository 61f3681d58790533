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

/// Finds the pod behind an interface by the uid in the cgroup path of its processes: a static pod's is that of
/// its configuration. If no process of the namespace is
/// in a pod's cgroup, finds it by address, provided that exactly one pod has one of the addresses.
///
/// `None` if the snapshot does not contain the pod: try again with a newer one.
pub fn bind(discovered: &Discovered, snapshot: &Snapshot) -> Option<BoundEndpoint> {
    let pod = match &discovered.pod_uid {
        Some(uid) => pod_of_cgroup(uid, snapshot)?,
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

/// By its uid, or else as a static pod by the hash in its annotations. Those may be anybody's, so that a hash which several
/// pods have is nobody's.
fn pod_of_cgroup<'a>(uid: &str, snapshot: &'a Snapshot) -> Option<&'a Pod> {
    let pods = || snapshot.pods.values().map(|pod| &**pod).filter(|pod| !pod.host_network);
    if let Some(pod) = pods().find(|pod| pod.uid == uid) {
        return Some(pod);
    }
    let mut with_hash = pods().filter(|pod| !uid.is_empty() && pod.cgroup_uid == uid);
    let pod = with_hash.next()?;
    with_hash.next().is_none().then_some(pod)
}

fn sole_pod_with_address<'a>(addresses: &[IpAddr], snapshot: &'a Snapshot) -> Option<&'a Pod> {
    let mut owners = snapshot
        .pods
        .values()
        .filter(|pod| pod.takes_part() && pod.addresses.iter().any(|address| addresses.contains(address)));
    let owner = owners.next()?;
    owners.next().is_none().then_some(owner)
}

#[cfg(test)]
mod tests {
    use netverdict_policy::build::{cluster, pod};

    use super::*;

    const HASH: &str = "1d0a44fa4b1a6ea6ac1f1a7d6a1c2f3e";

    #[test]
    fn a_static_pod_is_found_by_the_hash_that_only_it_has() {
        let snapshot = cluster().pod(pod("a/static").cgroup_uid(HASH)).pod(pod("a/web")).snapshot();
        let found = |uid: &str| pod_of_cgroup(uid, &snapshot).map(|pod| pod.name.clone());
        assert_eq!(found(HASH).as_deref(), Some("static"));
        assert_eq!(found("uid-a-web").as_deref(), Some("web"));
        assert_eq!((found("other"), found("")), (None, None));
    }

    #[test]
    fn annotations_do_not_take_the_place_of_another_pod() {
        let snapshot = cluster()
            .pod(pod("a/static").cgroup_uid(HASH))
            .pod(pod("b/liar").cgroup_uid(HASH))
            .pod(pod("b/thief").cgroup_uid("uid-c-web"))
            .pod(pod("c/web"))
            .snapshot();
        assert_eq!(pod_of_cgroup(HASH, &snapshot), None, "two say so");
        assert_eq!(pod_of_cgroup("uid-c-web", &snapshot).map(Pod::key), Some(ObjectKey::new("c", "web")));
    }
}

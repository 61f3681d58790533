//! Binds a discovered interface to a pod of the cluster.

use std::net::IpAddr;

use netverdict_policy::{ObjectKey, Pod, Snapshot};
use serde::{Deserialize, Serialize};

use crate::discover::Discovered;

/// An interface of the host, and the pod behind it.
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

/// Most source addresses of one endpoint: two families with room for several interfaces. A pod gives itself as many
/// link-local addresses as it likes, and the kernel's map is shared by all.
pub(crate) const MOST_OWN_ADDRESSES: usize = 16;

/// The endpoint of an interface and a pod. `uid` is that of the pod: of the cgroup of its processes, or as the CNI
/// plugin gave it; a static pod's is that of its configuration. Addresses do not identify the pod of an interface: a reused
/// address may still be known as its last owner's.
///
/// `None` if the snapshot does not contain the pod or knows no address of it: try again with a newer one.
pub fn bind(discovered: &Discovered, uid: &str, snapshot: &Snapshot) -> Option<BoundEndpoint> {
    let pod = pod_of_cgroup(uid, snapshot).filter(|pod| !pod.addresses.is_empty())?;
    let mut own_addresses = Vec::new();
    // Assigned addresses come first: link-local addresses never take their place.
    for address in pod.addresses.iter().chain(&discovered.link_local) {
        if own_addresses.len() < MOST_OWN_ADDRESSES && !own_addresses.contains(address) {
            own_addresses.push(*address);
        }
    }
    own_addresses.sort_unstable();
    Some(BoundEndpoint {
        ifindex: discovered.ifindex,
        netns_cookie: discovered.netns_cookie,
        pod: pod.key(),
        pod_uid: pod.uid.clone(),
        own_addresses,
    })
}

/// By its uid, or else as a static pod by the hash in its annotations. Any pod may carry any annotation, so a hash
/// that several pods have identifies none.
fn pod_of_cgroup<'a>(uid: &str, snapshot: &'a Snapshot) -> Option<&'a Pod> {
    let pods = || snapshot.pods.values().map(|pod| &**pod).filter(|pod| !pod.host_network);
    if let Some(pod) = pods().find(|pod| pod.uid == uid) {
        return Some(pod);
    }
    let mut with_hash = pods().filter(|pod| !uid.is_empty() && pod.cgroup_uid == uid);
    let pod = with_hash.next()?;
    with_hash.next().is_none().then_some(pod)
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

    #[test]
    fn many_link_local_addresses_take_no_room_of_others_and_not_the_assigned_ones() {
        let snapshot = cluster().pod(pod("a/web").at(&["10.0.0.1", "fd00::1"])).pod(pod("a/new")).snapshot();
        let discovered = Discovered {
            ifindex: 7,
            name: "veth7".to_owned(),
            netns_cookie: 1,
            pod_uid: None,
            has_processes: false,
            addresses: vec!["10.0.0.1".parse().unwrap()],
            link_local: (0..1_000_u16).map(|last| IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, last])).collect(),
            born: None,
        };
        let bound = bind(&discovered, "uid-a-web", &snapshot).unwrap();
        assert_eq!(bound.own_addresses.len(), MOST_OWN_ADDRESSES);
        assert!(["10.0.0.1", "fd00::1"].iter().all(|own| bound.own_addresses.contains(&own.parse().unwrap())));
        assert_eq!(bind(&discovered, "uid-b-web", &snapshot), None, "its address is nobody's name");
        assert_eq!(bind(&discovered, "uid-a-new", &snapshot), None, "its address is not known yet");
    }
}

//! Results of discovery.

use std::{collections::BTreeSet, net::IpAddr, time::SystemTime};

use serde::{Deserialize, Serialize};

/// A host interface whose other end is in another network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discovered {
    /// Index of the host end.
    pub ifindex: u32,
    /// Name of the host end.
    pub name: String,
    /// Cookie of the other end's network namespace. Unlike an inode number it is never reused.
    pub netns_cookie: u64,
    /// From the cgroup path of the oldest process in the namespace that is in a pod's cgroup; `None` if there is no
    /// such process.
    pub pod_uid: Option<String>,
    /// Whether the namespace has a process, in any cgroup. A pod's has none until its sandbox starts.
    pub has_processes: bool,
    /// Addresses of the other end without link-local ones, ascending.
    pub addresses: Vec<IpAddr>,
    /// Link-local addresses of the other end, and the address that it derives from its hardware address; ascending.
    pub link_local: Vec<IpAddr>,
    /// When the interface appeared; `None` if it existed at the first scan.
    pub born: Option<SystemTime>,
}

/// An interface through which a pod's packets leave without passing a host end, so that no program judges them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uncovered {
    pub netns_cookie: u64,
    pub pod_uid: String,
    /// Name inside the pod.
    pub interface: String,
    /// `macvlan`, `ipvlan`, `vlan`, or `device` for a device that the host gave away.
    pub kind: &'static str,
}

/// An interface of the node over which packets may leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    pub ifindex: u32,
    pub name: String,
    pub link: LinkLayer,
}

/// The header before the IP header on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    Ethernet,
    /// Nothing: a tunnel.
    Bare,
    /// A header that the programs do not read.
    Other,
}

/// A report of a [`crate::Watch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// The node's interfaces changed: all that there are now, those of pods included, the loopback interface left out.
    Uplinks(Vec<Uplink>),
    /// The interface is new, or its description changed.
    Found(Discovered),
    /// The interface was deleted.
    Gone { ifindex: u32 },
    /// The addresses of the node's own interfaces changed: all that there are now. See [`crate::Watch::own_addresses`].
    OwnAddresses(BTreeSet<IpAddr>),
    /// The pods' interfaces without a host end changed: all that there are now.
    Uncovered(BTreeSet<Uncovered>),
}

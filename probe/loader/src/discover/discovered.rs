//! What discovery reports.

use std::{collections::BTreeSet, net::IpAddr, time::SystemTime};

/// A host interface whose other end is in another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Addresses of the other end without link-local ones, ascending.
    pub addresses: Vec<IpAddr>,
    /// Link-local addresses of the other end, and the one that it derives from its hardware address; ascending.
    pub link_local: Vec<IpAddr>,
    /// When the interface appeared; `None` if it existed at the first scan.
    pub born: Option<SystemTime>,
}

/// An interface of the node over which packets may leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    pub ifindex: u32,
    pub name: String,
    pub link: LinkLayer,
}

/// What precedes the IP header on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkLayer {
    Ethernet,
    /// Nothing: a tunnel.
    Bare,
    /// A header that the programs do not read.
    Other,
}

/// What a [`Watch`] reports.
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
}

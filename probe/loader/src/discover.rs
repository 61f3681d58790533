//! Discovers the interfaces behind which pods are: host ends of veth or netkit pairs whose other end is in another
//! network namespace, and the uid of the pod that the processes there belong to. Which pod of the cluster that is,
//! [`crate::bind`] decides.

mod discovered;
mod inside;
mod namespaces;
mod netlink;
mod processes;
mod scan;
mod watch;

pub use self::{
    discovered::{Discovered, LinkLayer, Sighting, Uncovered, Uplink},
    scan::{Behind, behind, scan, uplinks},
    watch::Watch,
};

//! skeleton
use std::{net::IpAddr, time::{Duration, SystemTime}};
use crate::ProbeError;
/// A veth whose other end is in another network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// Interface index on the host's side.
    pub ifindex: u32,
    pub name: String,
    pub netns_cookie: u64,
    /// Of the cgroup of the namespace's processes; `None` while none of them is in a pod's cgroup.
    pub pod_uid: Option<String>,
    /// Global addresses of the other end.
    pub addresses: Vec<IpAddr>,
    /// Link-local addresses that the other end has, or will derive from its hardware address.
    pub link_local: Vec<IpAddr>,
    /// When the interface was seen to appear; `None` if it was there at the first look.
    pub born: Option<SystemTime>,
}
/// What a [`Watch`] reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sighting {
    /// New, or something other than `born` changed.
    Found(Discovered),
    /// The interface is no more.
    Gone { ifindex: u32 },
}
pub struct Watch;
impl Watch {
    /// Starts with everything there is. `interval`: time between full looks, which find what an event did not tell.
    pub async fn start(_interval: Duration) -> Result<Self, ProbeError> { unimplemented!() }
    /// Waits for the next; cancel-safe. `Err` is a look that failed: the next call tries again.
    pub async fn next(&mut self) -> Result<Sighting, ProbeError> { unimplemented!() }
}
/// One look at everything.
pub async fn scan() -> Result<Vec<Discovered>, ProbeError> { unimplemented!() }

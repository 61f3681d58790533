//! The network namespaces of pods. A connection that is opened in one asks neither the API server nor the container
//! runtime, so it can be tried while they are down, and hundreds at a time.

use std::{collections::BTreeMap, fs, fs::File, net::IpAddr, sync::Arc};

use anyhow::{Context, Result};
use nix::{
    ifaddrs::getifaddrs,
    sched::{CloneFlags, setns},
};

use super::{namespaces::on_a_thread, running::Cluster};

/// Where CNI keeps them, in the file systems of a node.
const FOLDER: &str = "/run/netns";

/// The network namespace of a pod.
#[derive(Clone, Debug)]
pub struct PodNetwork(Arc<File>);

impl Cluster {
    /// Those of all pods with a network of their own that run, by each of their addresses.
    pub fn pod_networks(&self) -> Result<BTreeMap<IpAddr, PodNetwork>> {
        let mut found = BTreeMap::new();
        for (_, node) in self.nodes() {
            for network in node.enter(opened)?? {
                // A pod may end at any time.
                let Ok(addresses) = network.enter(addresses) else { continue };
                found.extend(addresses?.into_iter().map(|address| (address, network.clone())));
            }
        }
        Ok(found)
    }
}

impl PodNetwork {
    /// Runs `work` on a thread inside. Threads that it starts are inside too.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R> {
        on_a_thread(|| {
            setns(&*self.0, CloneFlags::CLONE_NEWNET).context("the network namespace of a pod cannot be entered")?;
            Ok(work())
        })
    }
}

fn opened() -> Result<Vec<PodNetwork>> {
    let entries = fs::read_dir(FOLDER).with_context(|| format!("could not list {FOLDER}"))?;
    let files = entries.filter_map(|entry| File::open(entry.ok()?.path()).ok());
    Ok(files.map(|file| PodNetwork(Arc::new(file))).collect())
}

fn addresses() -> Result<Vec<IpAddr>> {
    let address = |storage: nix::sys::socket::SockaddrStorage| {
        let v4 = storage.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    };
    let all = getifaddrs()?.filter_map(|interface| interface.address.and_then(address));
    Ok(all.filter(|address| !address.is_loopback()).collect())
}

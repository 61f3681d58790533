//! The product on a cluster: on every node a collector that watches the API and enforces, and a query service on the first.
//! They are processes inside the nodes' namespaces, where a DaemonSet's would be.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{namespaces::Namespaces, plan::Node, running::Cluster};
use crate::services::{RunFolder, Serving, wait};

const ANY_PORT: &str = "127.0.0.1:0";
const PATIENCE: Duration = Duration::from_secs(60);

/// The product on one cluster. Its processes end on drop.
#[derive(Debug)]
pub struct Product {
    // Services end before their folders are removed.
    query: Serving,
    nodes: Vec<OnNode>,
}

#[derive(Debug)]
struct OnNode {
    collector: Serving,
    namespaces: Namespaces,
    folder: RunFolder,
}

impl Product {
    /// Starts it. A collector serves once it has read the cluster and its first snapshot is in force.
    pub fn start(cluster: &Cluster, object: &Path) -> Result<Self> {
        let kubeconfig = cluster.plan().kubeconfig_inside();
        let nodes = cluster.nodes().iter();
        let nodes = nodes.map(|(node, namespaces)| start_collector(node, *namespaces, &kubeconfig, object));
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        let OnNode { folder, namespaces, collector } = &nodes[0];
        let command = folder.query(Some(&collector.url("rows")?), ANY_PORT, ANY_PORT);
        let query = namespaces.enter(|| Serving::start(folder, "query", command))??;
        Ok(Self { query, nodes })
    }

    /// Waits until so many endpoints of all nodes have complete tables and both programs.
    pub fn wait_for_endpoints(&self, expected: usize) -> Result<()> {
        wait(&format!("{expected} endpoints are ready"), PATIENCE, || {
            let ready = self.nodes.iter().map(|node| node.namespaces.enter(|| node.folder.ready_endpoints())?);
            Ok(ready.sum::<Result<usize>>()? >= expected)
        })
    }

    /// `netverdict` on the first node; its output as text.
    pub fn netverdict(&self, arguments: &[&str]) -> Result<String> {
        let OnNode { folder, namespaces, .. } = &self.nodes[0];
        namespaces.enter(|| folder.netverdict(&self.query, arguments))?
    }

    /// `netverdict why`, as data.
    pub fn why(&self, source: &str, destination: &str) -> Result<Value> {
        let answer = self.netverdict(&["why", source, destination, "-o", "json"])?;
        serde_json::from_str(&answer).with_context(|| format!("no JSON: {answer}"))
    }
}

fn start_collector(node: &Node, namespaces: Namespaces, kubeconfig: &Path, object: &Path) -> Result<OnNode> {
    let folder = RunFolder::new(&node.cgroup)?;
    let mut command = folder.collector_of_cluster(&node.name, "enforce", kubeconfig, ANY_PORT, ANY_PORT);
    command.env("NETVERDICT_BPF_OBJECT", object);
    let collector = namespaces.enter(|| Serving::start(&folder, "collector", command))??;
    Ok(OnNode { collector, namespaces, folder })
}

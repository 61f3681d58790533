//! The product on a cluster: on every node a collector that enforces, and a query service on the first. They are processes
//! inside the nodes' namespaces, where a DaemonSet's would be.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{namespaces::Namespaces, plan::Node, running::Cluster};
use crate::services::{RunFolder, Serving, wait};

const ANY_PORT: &str = "127.0.0.1:0";
/// What the product is told of the cluster.
const KINDS: [&str; 5] = ["namespaces", "nodes", "pods", "services", "networkpolicies"];
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
    /// Starts it, with the cluster's objects of this moment.
    pub fn start(cluster: &Cluster, object: &Path) -> Result<Self> {
        let objects = objects(cluster)?;
        let nodes =
            cluster.nodes().iter().map(|(node, namespaces)| start_collector(node, *namespaces, &objects, object));
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        let OnNode { folder, namespaces, collector } = &nodes[0];
        let command = folder.query(Some(&collector.url("rows")?), ANY_PORT, ANY_PORT);
        let query = namespaces.enter(|| Serving::start(folder, "query", command))??;
        Ok(Self { query, nodes })
    }

    /// Tells every collector what the cluster's objects are now.
    pub fn refresh(&self, cluster: &Cluster) -> Result<()> {
        let objects = objects(cluster)?;
        self.nodes.iter().try_for_each(|node| write_objects(&node.folder, &objects))
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

fn start_collector(node: &Node, namespaces: Namespaces, objects: &str, object: &Path) -> Result<OnNode> {
    let folder = RunFolder::new(&node.cgroup)?;
    fs::create_dir_all(folder.manifests())?;
    write_objects(&folder, objects)?;
    let mut command = folder.collector(&node.name, "enforce", ANY_PORT, ANY_PORT);
    command.env("NETVERDICT_BPF_OBJECT", object);
    let collector = namespaces.enter(|| Serving::start(&folder, "collector", command))??;
    Ok(OnNode { collector, namespaces, folder })
}

fn objects(cluster: &Cluster) -> Result<String> {
    cluster.ask(&["get", &KINDS.join(","), "--all-namespaces", "-o", "json"])
}

fn write_objects(folder: &RunFolder, objects: &str) -> Result<()> {
    let path = folder.manifests().join("cluster.json");
    let fresh = path.with_extension("new");
    fs::write(&fresh, objects)?;
    Ok(fs::rename(fresh, path)?)
}

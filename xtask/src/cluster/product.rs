//! The product on a cluster: on every node a collector that watches the API and enforces, and a query service on the first.
//! They are processes inside the nodes' namespaces, where a DaemonSet's would be.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    namespaces::Namespaces,
    plan::{Node, PIN_ROOT, RUN_DIR},
    running::Cluster,
};
use crate::services::{Profile, RunFolder, Serving, Usage, wait};

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
    /// `None` while it is killed.
    collector: Option<Serving>,
    node: Node,
    namespaces: Namespaces,
    folder: RunFolder,
    kubeconfig: PathBuf,
    object: PathBuf,
    /// Where it served the first time: the query service asks there.
    rows: String,
}

impl Product {
    /// Starts it. A collector serves once it has read the cluster and its first snapshot is in force. The query service reads
    /// the files of the first node.
    pub fn start(cluster: &Cluster, object: &Path, profile: Profile) -> Result<Self> {
        Self::start_with(cluster, object, profile, false)
    }

    /// The same with a query service that copies the files, as the chart's does.
    pub fn start_mirroring(cluster: &Cluster, object: &Path, profile: Profile) -> Result<Self> {
        Self::start_with(cluster, object, profile, true)
    }

    fn start_with(cluster: &Cluster, object: &Path, profile: Profile, mirrors: bool) -> Result<Self> {
        let mut nodes = Vec::new();
        for (node, namespaces) in cluster.nodes() {
            let mut on_node = OnNode {
                collector: None,
                node: node.clone(),
                namespaces: *namespaces,
                folder: RunFolder::of_node(&node.cgroup, Path::new(PIN_ROOT), Path::new(RUN_DIR), profile)?,
                kubeconfig: cluster.plan().kubeconfig_inside(),
                object: object.to_owned(),
                rows: ANY_PORT.to_owned(),
            };
            on_node.start_collector()?;
            nodes.push(on_node);
        }
        let OnNode { folder, namespaces, rows, .. } = &nodes[0];
        let mut command = folder.query(Some(&format!("http://{rows}")), ANY_PORT, ANY_PORT);
        if mirrors {
            command.arg("--mirror").arg("--data-dir").arg(folder.root.join("copies"));
        }
        let query = namespaces.enter(|| Serving::start(folder, "query", command))??;
        Ok(Self { query, nodes })
    }

    /// Kills every collector, as a crash would. What is pinned goes on.
    pub fn kill_collectors(&mut self) -> Result<()> {
        self.nodes.iter_mut().filter_map(|node| node.collector.take()).try_for_each(Serving::kill)
    }

    /// Starts the collectors that were killed.
    pub fn restart_collectors(&mut self) -> Result<()> {
        self.nodes.iter_mut().filter(|node| node.collector.is_none()).try_for_each(OnNode::start_collector)
    }

    /// Waits until so many endpoints of all nodes have complete tables and both programs.
    pub fn wait_for_endpoints(&self, expected: usize) -> Result<()> {
        wait(&format!("{expected} endpoints are ready"), PATIENCE, || {
            let ready = self.nodes.iter().map(|node| node.namespaces.enter(|| node.folder.ready_endpoints())?);
            Ok(ready.sum::<Result<usize>>()? >= expected)
        })
    }

    /// Processor time and memory of the first node's collector.
    pub fn usage(&self) -> Result<Usage> {
        self.nodes[0].collector.as_ref().context("the collector is killed")?.usage()
    }

    /// The same of the query service.
    pub fn query_usage(&self) -> Result<Usage> {
        self.query.usage()
    }

    /// The sum of all samples of a metric of the first node's collector.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let node = &self.nodes[0];
        let collector = node.collector.as_ref().context("the collector is killed")?;
        let address = collector.address("admin")?;
        let page = node.namespaces.enter_network(|| -> Result<String> {
            let mut connection = TcpStream::connect(address)?;
            write!(connection, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
            let mut page = String::new();
            connection.read_to_string(&mut page)?;
            Ok(page)
        })??;
        let is_sample = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let samples = page.lines().filter(is_sample).filter_map(|line| line.rsplit(' ').next());
        let values = samples.map(|value| value.parse::<f64>().with_context(|| format!("{name} is {value}")));
        let values = values.collect::<Result<Vec<_>>>()?;
        ensure!(!values.is_empty(), "{address} has no metric {name}");
        Ok(values.iter().sum())
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

impl OnNode {
    fn start_collector(&mut self) -> Result<()> {
        let Self { node, folder, kubeconfig, rows, .. } = self;
        let mut command = folder.collector_of_cluster(&node.name, "enforce", kubeconfig, ANY_PORT, rows);
        command.env("NETVERDICT_BPF_OBJECT", &self.object);
        let collector = self.namespaces.enter(|| Serving::start(&self.folder, "collector", command))??;
        self.rows = collector.address("rows")?.to_owned();
        self.collector = Some(collector);
        Ok(())
    }
}

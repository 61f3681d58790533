//! A cluster with the product on it, and what the tests do with its pods.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use serde_json::Value;
use xtask::{
    cluster::{Attempt, Cluster, Product, Shape},
    services::{Profile, wait},
    setup,
};

/// Enough for a loaded machine, where an idle one needs a second or two.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    // Dropped in this order: the product ends before its cluster.
    pub(crate) product: Product,
    pub(crate) cluster: Cluster,
}

/// The BPF object; `None`, after saying so, where there are no programs of a cluster to run.
pub(crate) fn object() -> Option<PathBuf> {
    if std::env::var_os("NETVERDICT_LIVE_CLUSTER").is_none() {
        println!("SKIPPED cluster-live: NETVERDICT_LIVE_CLUSTER is not set; run `cargo xtask test cluster-live`");
        return None;
    }
    Some(PathBuf::from(std::env::var_os("NETVERDICT_BPF_OBJECT").expect("a BPF object")))
}

impl World {
    /// `None`, after saying so, where there are no programs to run. The objects of `manifest` are there, and its pods run.
    pub(crate) fn start(instance: &str, shape: Shape, manifest: &str) -> Option<Self> {
        Self::start_with(instance, shape, |_| manifest.to_owned())
    }

    /// The same with a manifest that is made from the names of the first and the last node.
    pub(crate) fn start_with(instance: &str, shape: Shape, manifest: impl FnOnce([&str; 2]) -> String) -> Option<Self> {
        let object = object()?;
        let programs = setup::found_cluster_programs().expect("the programs of a cluster");
        let cluster = Cluster::start(instance, shape, programs, |step| println!("{step}")).expect("a cluster");
        let nodes = cluster.nodes();
        let ends = [&nodes[0].0.name, &nodes[nodes.len() - 1].0.name].map(String::as_str);
        let manifest = manifest(ends).replace("AGNHOST", &xtask::cluster::agnhost());
        cluster.apply(&manifest).expect("objects");
        for namespace in ["default", "yahoo"] {
            let all = ["-n", namespace, "wait", "--for=condition=Available", "deployment", "--all", "--timeout=60s"];
            cluster.ask(&all).expect("pods run");
        }
        let product = Product::start(&cluster, &object, Profile::Dev).expect("the product serves");
        let world = Self { product, cluster };
        world.product.wait_for_endpoints(world.pods("").len()).expect("probes");
        Some(world)
    }

    /// The pods with a network of their own that have a label: `namespace/name` each.
    pub(crate) fn pods(&self, selector: &str) -> Vec<String> {
        let objects = self.cluster.ask(&["get", "pods", "-A", "-l", selector, "-o", "json"]).expect("pods");
        let objects: Value = serde_json::from_str(&objects).expect("JSON");
        let of_network = |pod: &&Value| pod["spec"]["hostNetwork"] != true;
        let name = |pod: &Value| {
            let part = |field: &str| pod["metadata"][field].as_str().expect("text").to_owned();
            format!("{}/{}", part("namespace"), part("name"))
        };
        objects["items"].as_array().expect("items").iter().filter(of_network).map(name).collect()
    }

    /// The only pod with a label.
    pub(crate) fn pod(&self, selector: &str) -> String {
        self.cluster.pod(selector).expect("one pod")
    }

    /// Both addresses of an object: of a pod's `podIPs`, of a Service's `clusterIPs`.
    pub(crate) fn addresses(&self, kind: &str, object: &str, path: &str) -> [IpAddr; 2] {
        let (namespace, name) = object.split_once('/').expect("namespace/name");
        let text = self.cluster.ask(&["-n", namespace, "get", kind, name, "-o", &format!("jsonpath={{{path}}}")]);
        let text = text.expect("an object");
        let addresses: Vec<IpAddr> = text.split_whitespace().map(|address| address.parse().expect("address")).collect();
        addresses.try_into().unwrap_or_else(|found| panic!("{object} has not one address of each family: {found:?}"))
    }

    /// The first node's addresses.
    pub(crate) fn node_addresses(&self) -> [IpAddr; 2] {
        let (node, _) = &self.cluster.nodes()[0];
        [node.v4().into(), node.v6().into()]
    }

    /// A TCP connection from a pod.
    pub(crate) fn connect(&self, from: &str, to: IpAddr, port: u16) -> Attempt {
        self.cluster.connect(from, to, port).expect("an attempt")
    }

    /// Waits until attempts fare so: a policy takes a moment to come into force.
    pub(crate) fn until(&self, expected: Attempt, from: &str, to: IpAddr, port: u16) {
        let condition = format!("{from} to {to} port {port}: {expected:?}");
        wait(&condition, PATIENCE, || Ok(self.connect(from, to, port) == expected)).expect("in time");
    }
}

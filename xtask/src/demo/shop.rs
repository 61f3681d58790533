//! The shop: its pods, what they serve, and the manifests that describe them.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

use crate::topology::{PodNetwork, Topology};

pub(super) const NODE: &str = "demo-node";

/// Pods and the port on which each serves TCP and UDP.
pub(super) const PODS: [(&str, u16); 8] = [
    ("shop/web", 8080),
    ("shop/api", 8080),
    ("shop/cart", 8080),
    ("shop/jobs", 8080),
    ("db/pg", 5432),
    ("db/cache", 6379),
    ("monitoring/prometheus", 9090),
    ("monitoring/grafana", 3000),
];

const NAMESPACES: [(&str, &str); 3] = [("shop", "store"), ("db", "data"), ("monitoring", "sre")];

const POLICIES: [(&str, &str); 3] = [
    ("db-policies.yaml", include_str!("policies/db.yaml")),
    ("shop-policies.yaml", include_str!("policies/shop.yaml")),
    ("monitoring-policies.yaml", include_str!("policies/monitoring.yaml")),
];

/// The port that a pod of the shop serves.
pub(super) fn port_of(pod: &str) -> u16 {
    PODS.iter().find(|(name, _)| *name == pod).map_or(0, |(_, port)| *port)
}

/// Writes the manifests of the shop, as `kubectl get -o yaml` would print them.
pub(super) fn write_manifests(folder: &Path, topology: &Topology) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    let mut cluster = String::new();
    for (namespace, team) in NAMESPACES {
        writeln!(
            cluster,
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {namespace}\n  labels:\n    team: {team}\n---"
        )?;
    }
    let [v4, v6] = topology.node_addresses();
    let [range_v4, range_v6] = topology.pod_ranges();
    writeln!(
        cluster,
        "apiVersion: v1\nkind: Node\nmetadata:\n  name: {NODE}\nspec:\n  podCIDRs: [\"{range_v4}\", \"{range_v6}\"]\n\
         status:\n  addresses:\n    - {{type: InternalIP, address: \"{v4}\"}}\n    - {{type: InternalIP, address: \"{v6}\"}}"
    )?;
    fs::write(folder.join("cluster.yaml"), cluster)?;
    let pods: Vec<String> = topology.pods().iter().map(pod_manifest).collect();
    fs::write(folder.join("pods.yaml"), pods.join("---\n"))?;
    for (name, text) in POLICIES {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}

fn pod_manifest(network: &PodNetwork) -> String {
    let (namespace, name) = network.pod.split_once('/').unwrap_or(("default", &network.pod));
    let port = port_of(&network.pod);
    let port_name = if name == "pg" { "postgres" } else { "main" };
    let (v4, v6, uid) = (network.v4, network.v6, network.uid());
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: {namespace}\n  uid: {uid}\n  labels:\n    app: {name}\n\
         spec:\n  nodeName: {NODE}\n  serviceAccountName: {name}\n  containers:\n    - name: main\n      ports:\n        \
         - {{name: {port_name}, containerPort: {port}, protocol: TCP}}\n        \
         - {{name: {port_name}-udp, containerPort: {port}, protocol: UDP}}\n\
         status:\n  phase: Running\n  podIP: {v4}\n  podIPs:\n    - ip: {v4}\n    - ip: \"{v6}\"\n"
    )
}

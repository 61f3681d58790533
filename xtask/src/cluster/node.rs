//! The programs of every node: containerd, the kubelet, kube-proxy, and their configuration.

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    images,
    network::cni_configuration,
    plan::{DNS, Node, PLUGIN, POD_RANGES, Plan},
};
use crate::command::target;

/// What the processes of a node read. Written before its namespaces are made, which bind some of it.
pub(super) fn write_files(plan: &Plan, node: &Node, cni_plugins: &Path) -> Result<()> {
    let network = node.network_folder();
    fs::create_dir_all(&network)?;
    // The node's own; pods get theirs from the kubelet.
    fs::write(node.file("resolv.conf"), "")?;
    let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
    for each in plan.nodes() {
        writeln!(hosts, "{} {}", each.v4(), each.name)?;
    }
    fs::write(node.file("hosts"), hosts)?;
    let (plugins, with_product) = link_plugins(node, cni_plugins, plan.shape.bare)?;
    fs::write(node.file("containerd.toml"), containerd_configuration(&network, &plugins))?;
    let json_files = [
        (network.join("10-pods.conflist"), cni_configuration(node, plan.shape.cni, with_product)),
        (node.file("kubelet.json"), kubelet_configuration(plan, node)),
        (node.file("kube-proxy.json"), proxy_configuration(plan, node)),
    ];
    for (path, value) in json_files {
        fs::write(path, format!("{value:#}\n"))?;
    }
    Ok(())
}

/// A folder with the system's CNI plugins and, unless it is `bare`, ours, since containerd reads one. Says whether ours is
/// there.
fn link_plugins(node: &Node, cni_plugins: &Path, bare: bool) -> Result<(PathBuf, bool)> {
    let folder = node.plugin_folder();
    fs::create_dir_all(&folder)?;
    for plugin in fs::read_dir(cni_plugins)? {
        let plugin = plugin?;
        symlink(plugin.path(), folder.join(plugin.file_name()))?;
    }
    let ours = target().join("debug").join(PLUGIN);
    let is_there = !bare && ours.is_file();
    if is_there {
        symlink(ours, folder.join(PLUGIN))?;
    }
    Ok((folder, is_there))
}

pub(super) fn containerd(node: &Node) -> (&'static str, Command) {
    let mut command = Command::new("containerd");
    command.arg("--config").arg(node.file("containerd.toml"));
    ("containerd", command)
}

pub(super) fn agents(plan: &Plan, programs: &Path, node: &Node) -> [(&'static str, Command); 2] {
    let mut kubelet = Command::new(programs.join("kubelet"));
    kubelet.arg("--config").arg(node.file("kubelet.json")).args(["--hostname-override", &node.name]);
    kubelet.arg("--kubeconfig").arg(plan.certificates().join(format!("{}.kubeconfig", node.name)));
    kubelet.args(["--node-ip", &format!("{},{}", node.v4(), node.v6())]);
    let mut proxy = Command::new(programs.join("kube-proxy"));
    proxy.arg("--config").arg(node.file("kube-proxy.json"));
    [("kubelet", kubelet), ("kube-proxy", proxy)]
}

fn containerd_configuration(network: &Path, plugins: &Path) -> String {
    // Without `restrict_oom_score_adj` every sandbox fails on a machine where root lacks CAP_SYS_RESOURCE.
    format!(
        r#"version = 2
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd-opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{}"
    conf_dir = "{}"
"#,
        images::pause(),
        plugins.display(),
        network.display()
    )
}

fn kubelet_configuration(plan: &Plan, node: &Node) -> Value {
    let certificates = plan.certificates();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": certificates.join("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "tlsCertFile": certificates.join(format!("kubelet-{}.crt", node.name)),
        "tlsPrivateKeyFile": certificates.join(format!("kubelet-{}.key", node.name)),
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", node.cgroup),
        // As many as its range of addresses has.
        "maxPods": 250,
        "failSwapOn": false,
        "failCgroupV1": false,
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": false,
        "clusterDNS": [DNS],
        "clusterDomain": "cluster.local",
        "resolvConf": node.file("resolv.conf"),
        "volumePluginDir": "/var/lib/kubelet/flex",
        // The disk is the machine's: how full it is says nothing about the node.
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
    })
}

fn proxy_configuration(plan: &Plan, node: &Node) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": plan.shape.proxy.to_string(),
        "clientConnection": { "kubeconfig": plan.certificates().join("proxy.kubeconfig") },
        "hostnameOverride": node.name,
        "clusterCIDR": POD_RANGES,
        // Limits of the whole machine.
        "conntrack": {
            "maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s",
        },
        "metricsBindAddress": "127.0.0.1:10249",
    })
}

//! The certificates of a cluster, and the kubeconfigs that use them. openssl makes them.

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;
use serde_json::json;

use super::plan::{API_PORT, Plan};
use crate::command::quietly;

/// A cluster lives for a day or so.
const DAYS: &str = "30";
/// The API server's names; its own addresses come after these.
const API_NAMES: &str = "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost,IP:127.0.0.1";
/// The Service `kubernetes` has the first address of each range.
const API_SERVICE_V4: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const API_SERVICE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 1);

/// Makes all of them, and the kubeconfigs. `api` is where programs on this machine reach the API server.
pub(super) fn make(plan: &Plan, api: SocketAddr) -> Result<()> {
    let folder = plan.certificates();
    fs::create_dir_all(&folder)?;
    let all = Authority { folder };
    all.issue("ca", "/CN=netverdict-cluster", None)?;
    quietly(Command::new("openssl").args(["genrsa", "-out"]).arg(all.path("accounts.key")).arg("2048"))?;

    let first = plan.nodes().next().expect("a cluster has a node");
    let (v4, v6) = (first.v4(), first.v6());
    let names = format!("{API_NAMES},IP:{API_SERVICE_V4},IP:{API_SERVICE_V6},IP:{v4},IP:{v6}");
    all.issue("apiserver", "/CN=kube-apiserver", Some(&names))?;

    let inside = SocketAddr::from((v4, API_PORT));
    let mut users = vec![
        ("admin".to_owned(), "/O=system:masters/CN=admin".to_owned()),
        ("scheduler".to_owned(), "/CN=system:kube-scheduler".to_owned()),
        ("proxy".to_owned(), "/CN=system:kube-proxy".to_owned()),
    ];
    users.extend(plan.nodes().map(|node| {
        let subject = format!("/O=system:nodes/CN=system:node:{}", node.name);
        (node.name, subject)
    }));
    for (user, subject) in &users {
        all.issue(user, subject, None)?;
        all.write_kubeconfig(user, inside, &all.path(&format!("{user}.kubeconfig")))?;
    }
    for node in plan.nodes() {
        let names = format!("DNS:{},IP:{},IP:{}", node.name, node.v4(), node.v6());
        all.issue(&format!("kubelet-{}", node.name), &format!("/CN={}", node.name), Some(&names))?;
    }
    all.write_kubeconfig("admin", api, &plan.kubeconfig())
}

/// The folder with the authority's own key.
struct Authority {
    folder: PathBuf,
}

impl Authority {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A key and its certificate: of a server, if it has names, else of a client. `ca` is signed by itself.
    fn issue(&self, name: &str, subject: &str, names: Option<&str>) -> Result<()> {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        command.args(["-days", DAYS, "-subj", subject]);
        command.arg("-keyout").arg(self.path(&format!("{name}.key")));
        command.arg("-out").arg(self.path(&format!("{name}.crt")));
        if name != "ca" {
            command.arg("-CA").arg(self.path("ca.crt")).arg("-CAkey").arg(self.path("ca.key"));
            let usage = if names.is_some() { "serverAuth" } else { "clientAuth" };
            command.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
            command.args(["-addext", &format!("extendedKeyUsage={usage}")]);
        }
        if let Some(names) = names {
            command.args(["-addext", &format!("subjectAltName={names}")]);
        }
        quietly(&mut command)
    }

    /// JSON, which is YAML too.
    fn write_kubeconfig(&self, user: &str, api: SocketAddr, path: &Path) -> Result<()> {
        let name = "netverdict";
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{ "name": name, "cluster": {
                "server": format!("https://{api}"),
                "certificate-authority": self.path("ca.crt"),
            }}],
            "users": [{ "name": user, "user": {
                "client-certificate": self.path(&format!("{user}.crt")),
                "client-key": self.path(&format!("{user}.key")),
            }}],
            "contexts": [{ "name": name, "context": { "cluster": name, "user": user } }],
        });
        fs::write(path, format!("{kubeconfig:#}\n"))?;
        Ok(())
    }
}

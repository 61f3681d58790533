//! Connections between pods, as their clients see them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};

use super::running::Cluster;

/// How a connection fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    Answered,
    /// Silence: neither an answer nor a refusal.
    TimedOut,
}

impl Cluster {
    /// A TCP connection from a pod, `namespace/name`, whose image is agnhost's. It gets a second.
    pub fn connect(&self, from: &str, to: IpAddr, port: u16) -> Result<Attempt> {
        let (namespace, pod) = from.split_once('/').context("a pod is namespace/name")?;
        let to = SocketAddr::new(to, port).to_string();
        let mut kubectl = self.kubectl();
        kubectl.args(["-n", namespace, "exec", pod, "--", "/agnhost", "connect", "--timeout=1s", &to]);
        let done = kubectl.output().context("could not start kubectl")?;
        let said = String::from_utf8_lossy(&done.stderr);
        match (done.status.success(), said.contains("TIMEOUT")) {
            (true, _) => Ok(Attempt::Answered),
            (false, true) => Ok(Attempt::TimedOut),
            (false, false) => bail!("{from} to {to}: {said}"),
        }
    }

    /// The name of the only pod with a label, `namespace/name`.
    pub fn pod(&self, selector: &str) -> Result<String> {
        let path = "jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}{\"\\n\"}{end}";
        let names = self.ask(&["get", "pods", "-A", "-l", selector, "-o", path])?;
        match names.lines().collect::<Vec<_>>().as_slice() {
            [name] => Ok((*name).to_owned()),
            names => bail!("{} pods have {selector}, not one", names.len()),
        }
    }

    /// The addresses of a pod, `namespace/name`.
    pub fn pod_addresses(&self, pod: &str) -> Result<Vec<IpAddr>> {
        let (namespace, name) = pod.split_once('/').context("a pod is namespace/name")?;
        let path = "jsonpath={.status.podIPs[*].ip}";
        let text = self.ask(&["-n", namespace, "get", "pod", name, "-o", path])?;
        text.split_whitespace().map(|address| Ok(address.parse()?)).collect()
    }
}

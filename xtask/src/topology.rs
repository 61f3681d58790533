//! Network namespaces in place of pods: real interfaces and sockets, no container runtime.
//!
//! Every pod is a namespace with `eth0`, whose peer on the host is a port of a bridge, as with many CNI plugins. The
//! bridge holds the node's own addresses. A routed pod has no bridge: the host's end holds the gateway's addresses, as with
//! the plugin `ptp`. Everything that was made is removed on drop.

use std::{
    fs::File,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

/// A node with pods.
#[derive(Debug)]
pub struct Topology {
    prefix: String,
    subnet: u8,
    pods: Vec<PodNetwork>,
}

/// One pod's network.
#[derive(Clone, Debug)]
pub struct PodNetwork {
    /// `namespace/name`.
    pub pod: String,
    /// Name of the network namespace under `/run/netns`.
    pub network_namespace: String,
    /// The host's end of the pair; the pod's is `eth0`.
    pub host_interface: String,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Topology {
    /// A bridge without pods. `prefix` starts the name of everything that is made (at most 8 characters, so that
    /// interface names stay under 16); `subnet` keeps topologies apart that live at the same time:
    /// 10.233.`subnet`.0/24 and fd33:0:0:`subnet`::/64.
    pub fn new(prefix: &str, subnet: u8) -> Result<Self> {
        if prefix.is_empty() || prefix.len() > 8 || !prefix.bytes().all(|b| b.is_ascii_alphanumeric()) {
            bail!("a topology's prefix is 1 to 8 letters or digits, not `{prefix}`");
        }
        let topology = Self { prefix: prefix.to_owned(), subnet, pods: Vec::new() };
        // An earlier run may have been killed.
        topology.remove();
        let (v4, v6) = (topology.address_v4(1), topology.address_v6(1));
        let bridge = topology.bridge();
        ip_batch(&format!(
            "link add {bridge} type bridge mcast_snooping 0\n\
             address add {v4}/24 dev {bridge}\n\
             address add {v6}/64 dev {bridge} nodad\n\
             link set {bridge} up\n"
        ))?;
        Ok(topology)
    }

    /// Adds a pod, for instance `shop/web`.
    pub fn pod(&mut self, pod: &str) -> Result<PodNetwork> {
        let number = u8::try_from(self.pods.len() + 10).context("a topology holds at most 245 pods")?;
        let network = PodNetwork {
            pod: pod.to_owned(),
            network_namespace: format!("{}-{}", self.prefix, pod.replace('/', "-")),
            host_interface: format!("{}h{number}", self.prefix),
            v4: self.address_v4(number),
            v6: self.address_v6(number),
        };
        let PodNetwork { network_namespace, host_interface, v4, v6, .. } = &network;
        let bridge = self.bridge();
        ip_batch(&format!(
            "netns add {network_namespace}\n\
             link add {host_interface} type veth peer name eth0 netns {network_namespace}\n\
             link set {host_interface} master {bridge} up\n"
        ))?;
        let mut inside = Command::new("ip");
        inside.args(["-n", network_namespace]);
        ip_batch_with(
            inside,
            &format!(
                "link set lo up\n\
                 link set eth0 up\n\
                 address add {v4}/24 dev eth0\n\
                 address add {v6}/64 dev eth0 nodad\n\
                 route add default via {}\n\
                 route add default via {}\n",
                self.address_v4(1),
                self.address_v6(1)
            ),
        )?;
        self.pods.push(network.clone());
        Ok(network)
    }

    /// Adds a pod of a network without a bridge: 10.234.`subnet`.0/24 and fd34:0:0:`subnet`::/64. Every host's end there
    /// has the gateway's addresses.
    pub fn routed_pod(&mut self, pod: &str) -> Result<PodNetwork> {
        let number = u8::try_from(self.pods.len() + 10).context("a topology holds at most 245 pods")?;
        let [gateway_v4, gateway_v6] = self.gateway_addresses();
        let network = PodNetwork {
            pod: pod.to_owned(),
            network_namespace: format!("{}-{}", self.prefix, pod.replace('/', "-")),
            host_interface: format!("{}h{number}", self.prefix),
            v4: Ipv4Addr::new(10, 234, self.subnet, number),
            v6: Ipv6Addr::new(0xfd34, 0, 0, self.subnet.into(), 0, 0, 0, number.into()),
        };
        let PodNetwork { network_namespace, host_interface, v4, v6, .. } = &network;
        ip_batch(&format!(
            "netns add {network_namespace}\n\
             link add {host_interface} type veth peer name eth0 netns {network_namespace}\n"
        ))?;
        let mut inside = Command::new("ip");
        inside.args(["-n", network_namespace]);
        ip_batch_with(
            inside,
            &format!(
                "link set lo up\n\
                 link set eth0 up\n\
                 address add {v4}/32 dev eth0\n\
                 address add {v6}/128 dev eth0 nodad\n\
                 route add {gateway_v4} dev eth0\n\
                 route add {gateway_v6} dev eth0\n\
                 route add default via {gateway_v4}\n\
                 route add default via {gateway_v6}\n"
            ),
        )?;
        ip_batch(&format!(
            "link set {host_interface} up\n\
             address add {gateway_v4}/32 dev {host_interface}\n\
             address add {gateway_v6}/128 dev {host_interface} nodad\n\
             route add {v4} dev {host_interface}\n\
             route add {v6} dev {host_interface}\n"
        ))?;
        self.pods.push(network.clone());
        Ok(network)
    }

    /// The node's addresses on the host's ends of routed pods.
    pub fn gateway_addresses(&self) -> [IpAddr; 2] {
        [
            Ipv4Addr::new(10, 234, self.subnet, 1).into(),
            Ipv6Addr::new(0xfd34, 0, 0, self.subnet.into(), 0, 0, 0, 1).into(),
        ]
    }

    pub fn pods(&self) -> &[PodNetwork] {
        &self.pods
    }

    /// The node's own addresses.
    pub fn node_addresses(&self) -> [IpAddr; 2] {
        [self.address_v4(1).into(), self.address_v6(1).into()]
    }

    /// Ranges that the pods' addresses come from.
    pub fn pod_ranges(&self) -> [String; 2] {
        [format!("{}/24", self.address_v4(0)), format!("{}/64", self.address_v6(0))]
    }

    /// The number that keeps its addresses apart from those of other topologies.
    pub fn subnet(&self) -> u8 {
        self.subnet
    }

    /// Name of the bridge.
    pub fn bridge(&self) -> String {
        format!("{}br", self.prefix)
    }

    fn address_v4(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 233, self.subnet, host)
    }

    fn address_v6(&self, host: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd33, 0, 0, self.subnet.into(), 0, 0, 0, host.into())
    }

    fn remove(&self) {
        let listed =
            Command::new("ip").args(["netns", "list"]).output().map(|output| output.stdout).unwrap_or_default();
        let ours = format!("{}-", self.prefix);
        for line in String::from_utf8_lossy(&listed).lines() {
            if let Some(name) = line.split_whitespace().next().filter(|name| name.starts_with(&ours)) {
                quiet_ip(&["netns", "delete", name]);
            }
        }
        quiet_ip(&["link", "delete", &self.bridge()]);
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        self.remove();
    }
}

impl PodNetwork {
    /// Runs `work` on a thread of its own inside the pod's network namespace. Sockets made there stay there, also
    /// when they leave the thread.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R> {
        let path = self.path();
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let namespace = File::open(&path).with_context(|| format!("no namespace {}", path.display()))?;
                    setns(namespace, CloneFlags::CLONE_NEWNET)
                        .with_context(|| format!("could not enter {}", path.display()))?;
                    Ok(work())
                })
                .join()
                .map_err(|_| anyhow!("the work in {} panicked", self.pod))?
        })
    }

    /// The pod's uid, for manifests and for the CNI plugin.
    pub fn uid(&self) -> String {
        format!("uid-of-{}", self.network_namespace)
    }

    /// Where the namespace can be opened.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.network_namespace)
    }

    /// The address of a family: 4, or 6 for anything else.
    pub fn address(&self, family: u8) -> IpAddr {
        match family {
            4 => self.v4.into(),
            _ => self.v6.into(),
        }
    }
}

fn quiet_ip(arguments: &[&str]) {
    // What is not there needs no removal: the exit status tells nothing.
    let _ = Command::new("ip").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

pub(crate) fn ip_batch(lines: &str) -> Result<()> {
    ip_batch_with(Command::new("ip"), lines)
}

/// Applies many changes with one process, which is much faster than a process for each.
fn ip_batch_with(mut ip: Command, lines: &str) -> Result<()> {
    let mut child = ip
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("could not start `ip`: install iproute2")?;
    child.stdin.take().expect("stdin is piped").write_all(lines.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("`ip -batch` failed: {}\nof:\n{lines}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

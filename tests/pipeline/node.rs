//! A node with a collector and a query service, and the questions that the tests ask it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use netverdict_tests::topology::{PodNetwork, Topology};
use serde_json::Value;
use xtask::services::{RunFolder, Serving, wait};

pub(crate) const NODE: &str = "pipeline-node";
/// Enough for a loaded machine, where an idle one needs a second or two.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Everything in namespace `db` is denied, except from `shop/web` to TCP and UDP 5432 of `db/pg`.
const POLICIES: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: db}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-web, namespace: db}
spec:
  podSelector: {matchLabels: {app: pg}}
  policyTypes: [Ingress]
  ingress:
    - from:
        - namespaceSelector: {}
          podSelector: {matchLabels: {app: web}}
      ports: [{protocol: TCP, port: 5432}, {protocol: UDP, port: 5432}]
";

pub(crate) struct Node {
    // Dropped in this order: services before the pods whose interfaces they watch and the folders they use.
    pub(crate) query: Option<Serving>,
    pub(crate) collector: Option<Serving>,
    pub(crate) topology: Topology,
    pub(crate) place: RunFolder,
    addresses: (String, String),
}

impl Node {
    /// Pods `shop/web`, `shop/jobs` and `db/pg`, their manifests, and nothing running.
    pub(crate) fn new() -> Self {
        static SUBNET: AtomicU8 = AtomicU8::new(100);
        let subnet = SUBNET.fetch_add(1, Ordering::SeqCst);
        let name = format!("nvp{subnet}");
        let mut topology = Topology::new(&name, subnet).expect("a topology");
        for pod in ["shop/web", "shop/jobs", "db/pg"] {
            topology.pod(pod).expect("a pod");
        }
        let place = RunFolder::new(&name).expect("a place");
        topology.pods().iter().for_each(|pod| place.announce(pod).expect("announced"));
        let node = Self { query: None, collector: None, topology, place, addresses: Default::default() };
        fs::create_dir_all(node.place.manifests()).expect("a folder for manifests");
        node.write_manifest("cluster.yaml", &node.cluster());
        node.write_manifest("policies.yaml", POLICIES);
        node
    }

    /// With collector and query service, and every pod attached.
    pub(crate) fn started(mode: &str) -> Self {
        let mut node = Self::new();
        node.start_collector(mode, &[]);
        node.start_query();
        node.wait_until_attached();
        node
    }

    /// Adds a pod without a bridge, and its manifest.
    pub(crate) fn add_routed_pod(&mut self, pod: &str) {
        let network = self.topology.routed_pod(pod).expect("a pod");
        self.place.announce(&network).expect("announced");
        self.write_cluster();
    }

    /// Writes the manifests of all pods that there are now.
    pub(crate) fn write_cluster(&self) {
        self.write_manifest("cluster.yaml", &self.cluster());
    }

    /// On the ports that an earlier collector had, if there was one.
    pub(crate) fn start_collector(&mut self, mode: &str, options: &[&str]) {
        // Other namespaces of this machine are no pods of the node.
        self.start_collector_with(mode, "ignore", options);
    }

    /// `unannounced`: the treatment of namespaces that were not announced.
    pub(crate) fn start_collector_with(&mut self, mode: &str, unannounced: &str, options: &[&str]) {
        let any = || "127.0.0.1:0".to_owned();
        let (admin, rows) = match &self.addresses {
            (admin, _) if admin.is_empty() => (any(), any()),
            (admin, rows) => (admin.clone(), rows.clone()),
        };
        let mut command = self.place.collector(NODE, mode, &admin, &rows);
        command.args(["--unannounced", unannounced]).args(options);
        let collector = Serving::start(&self.place, "collector", command).expect("the collector serves");
        let address = |port| collector.address(port).expect("an address").to_owned();
        self.addresses = (address("admin"), address("rows"));
        self.collector = Some(collector);
    }

    pub(crate) fn start_query(&mut self) {
        let collector = format!("http://{}", self.addresses.1);
        let command = self.place.query(Some(&collector), "127.0.0.1:0", "127.0.0.1:0");
        self.query = Some(Serving::start(&self.place, "query", command).expect("the query service serves"));
    }

    pub(crate) fn wait_until_attached(&self) {
        let pods = self.topology.pods().len();
        wait("all pods have probes", PATIENCE, || Ok(self.place.ready_endpoints()? >= pods)).expect("probes");
    }

    pub(crate) fn kill_collector(&mut self) {
        self.collector.take().expect("a collector").kill().expect("killed");
    }

    pub(crate) fn stop_collector(&mut self) {
        self.collector.take().expect("a collector").stop().expect("a clean stop");
    }

    pub(crate) fn admin(&self) -> &str {
        &self.addresses.0
    }

    /// Where its rows are served.
    pub(crate) fn rows(&self) -> &str {
        &self.addresses.1
    }

    pub(crate) fn query(&self) -> &Serving {
        self.query.as_ref().expect("a query service")
    }

    pub(crate) fn pod(&self, pod: &str) -> &PodNetwork {
        self.topology.pods().iter().find(|network| network.pod == pod).unwrap_or_else(|| panic!("no pod {pod}"))
    }

    pub(crate) fn number(&self, statement: &str) -> u64 {
        self.place.sql_number(self.query(), statement).unwrap_or_else(|error| panic!("{statement}: {error:#}"))
    }

    /// Waits until a statement gives this number.
    pub(crate) fn wait_for(&self, expected: u64, statement: &str) {
        let mut last = 0;
        let result = wait("the number is as expected", PATIENCE, || {
            last = self.place.sql_number(self.query(), statement)?;
            Ok(last == expected)
        });
        result.unwrap_or_else(|error| panic!("{statement}: {last}, expected {expected}: {error:#}"));
    }

    /// The command-line tool, pointed at this node's query service.
    pub(crate) fn netverdict(&self, arguments: &[&str]) -> Command {
        let mut command = self.place.program("netverdict");
        command.args(arguments).args(["--server", &self.query().url("http").expect("an address")]);
        command.arg("--token-file").arg(self.place.secret());
        command
    }

    pub(crate) fn why(&self, source: &str, destination: &str) -> Value {
        let text = self.place.netverdict(self.query(), &["why", source, destination, "-o", "json"]).expect("an answer");
        serde_json::from_str(&text).expect("JSON")
    }

    pub(crate) fn write_manifest(&self, name: &str, text: &str) {
        let path = self.place.manifests().join(name);
        let fresh = path.with_extension("new");
        fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &path)).expect("a manifest is written");
    }

    /// One datagram from each of `ports`: the ports tell the attempts apart in the log.
    pub(crate) fn send_from_ports(&self, from: &str, to: &str, destination_port: u16, ports: std::ops::Range<u16>) {
        let destination = SocketAddr::new(self.pod(to).v4.into(), destination_port);
        self.pod(from)
            .enter(|| {
                for port in ports {
                    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a socket");
                    socket.send_to(b"datagram", destination).expect("sent");
                }
            })
            .expect("in the pod");
    }

    fn cluster(&self) -> String {
        let mut text = String::new();
        for namespace in ["shop", "db"] {
            text.push_str(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}\n---\n"));
        }
        for network in self.topology.pods() {
            let (namespace, name) = network.pod.split_once('/').expect("namespace/name");
            text.push_str(&format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, uid: {}, labels: {{app: {name}}}}}\n\
                 spec: {{nodeName: {NODE}, containers: [{{name: main}}]}}\n\
                 status: {{phase: Running, podIPs: [{{ip: {}}}, {{ip: \"{}\"}}]}}\n---\n",
                network.uid(),
                network.v4,
                network.v6
            ));
        }
        text
    }
}

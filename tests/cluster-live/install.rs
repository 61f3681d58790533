//! What a stranger does: installs the chart, asks, upgrades under traffic, and uninstalls without a trace.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader},
    net::IpAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use serde_json::{Value, json};
use xtask::{
    cluster::{Attempt, Cluster, NETWORK_FOLDER, Namespaces, Node, PLUGIN_FOLDER, REGISTRY, Shape},
    command::{output, quietly, target},
    demo::cluster::{ALLOW, DEFAULT_DENY, WORKLOADS},
    image,
    services::{Profile, wait},
    setup,
};

use crate::{
    chart::{chart, helm},
    world::{PATIENCE, object},
};

const NAMESPACE: &str = "netverdict";
const PORT: u16 = 8080;
/// Pod Security for the namespace: collectors are of the host, the query service is not.
const NAMESPACES: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: netverdict, labels: {pod-security.kubernetes.io/enforce: privileged}}
---
apiVersion: v1
kind: Namespace
metadata: {name: restricted, labels: {pod-security.kubernetes.io/enforce: restricted}}
";

#[test]
fn chart_installs_answers_upgrades_under_traffic_and_leaves_no_trace() {
    let Some(site) = Site::start() else { return };
    let before = site.nodes();
    let [web, lol, miao] = ["lol-default", "lol-yahoo", "miao-yahoo"].map(|app| site.pod(app));
    site.cluster.apply(NAMESPACES).expect("namespaces");
    site.chart_is_accepted_by_the_api_server();

    let started = Instant::now();
    // It reads the record of its own node: that of the server, where the denials are.
    let node = format!("--set=query.nodeSelector.kubernetes\\.io/hostname={}", site.node_of(&web));
    site.helm(&["install", "--wait", "--timeout=3m", "--set=mode=enforce", &node]);
    println!("installed, and all pods Ready, after {:.1} s", started.elapsed().as_secs_f32());
    site.query_pod_is_restricted();
    for (was, is) in before.iter().zip(site.nodes()) {
        assert_ne!(was.pins, is.pins, "the programs are pinned");
        assert!(is.network["10-pods.conflist"].contains("netverdict-cni"), "{is:?}");
    }

    site.new_pod_starts("newcomer");
    assert_ne!(site.claims(), Vec::<String>::new(), "the runtime has asked the plugin about a new pod");
    site.record_is_private();

    let addresses = site.cluster.pod_addresses(&web).expect("addresses");
    site.cluster.apply(DEFAULT_DENY).expect("applied");
    site.until(Attempt::TimedOut, &miao, addresses[0]);
    let token = site.token();
    let answer = site.why(&token, &miao, &format!("{web}:{PORT}/TCP"));
    let point = &answer["points"][1];
    assert_eq!(
        json!([answer["verdict"], point["disposition"], point["decided_by"][0]["name"]]),
        json!(["denied", "dropped", "default-deny-ingress"]),
        "{answer}"
    );

    // With nothing but a kubeconfig: the plugin asks through the API server, and reads the token where the chart put it.
    let through_api = site.kubectl_verdict(&["why", &miao, &format!("{web}:{PORT}/TCP"), "-o", "json"]);
    let through_api: Value = serde_json::from_str(&through_api).expect("JSON");
    assert_eq!(through_api["points"][1]["decided_by"], answer["points"][1]["decided_by"], "{through_api}");
    let count = "select count(*) as n from flows where verdict = 'denied'";
    assert!(site.kubectl_verdict(&["sql", "-o", "json", count]).contains("\"n\""), "statements are posted");

    site.cluster.apply(ALLOW).expect("applied");
    site.until(Attempt::Answered, &lol, addresses[0]);
    let generation = site.collector("{.metadata.generation}");
    let tries = site.while_connecting(&lol, addresses[0], || {
        site.helm(&["upgrade", "--reuse-values", "--wait", "--timeout=3m", "--set=record.diskCap=10GiB"]);
        // Helm does not wait for the last pod of a rolling update of a DaemonSet.
        site.ask(&["rollout", "status", "daemonset/netverdict-collector", "--timeout=120s"]);
    });
    println!("{tries} connections were answered during the upgrade");
    assert_ne!(site.collector("{.metadata.generation}"), generation, "the value reached the collectors");
    assert_eq!(site.token(), token, "an upgrade keeps the secret");
    assert_eq!(site.attempt(&miao, addresses[0]), Attempt::TimedOut, "still enforced");

    site.helm(&["uninstall", "--wait", "--timeout=5m"]);
    site.nothing_is_left(&before);
    assert_eq!(site.attempt(&miao, addresses[0]), Attempt::Answered, "nobody judges any more");
    site.new_pod_starts("afterwards");
}

/// What the chart changes on a node.
#[derive(Debug, PartialEq)]
struct OnNode {
    /// The configuration of the network, by name.
    network: BTreeMap<String, String>,
    plugins: Vec<String>,
    /// The kernel has files of its own there.
    pins: Vec<String>,
}

/// A cluster on which nothing of ours is, with workloads.
struct Site {
    cluster: Cluster,
    home: PathBuf,
}

impl Site {
    fn start() -> Option<Self> {
        let object = object()?;
        let options =
            image::Options { profile: Profile::Dev, registry: REGISTRY.to_owned(), out: None, no_build: true };
        let images = image::write(&options, &object).expect("images of the programs that are built");
        let programs = setup::found_cluster_programs().expect("the programs of a cluster");
        let shape = Shape { nodes: 2, bare: true, ..Shape::default() };
        let cluster = Cluster::start("install", shape, programs, |step| println!("{step}")).expect("a cluster");
        for image in &images {
            println!("{} of {} MB", image.tag, image.size >> 20);
            cluster.load(&image.archive).expect("an image");
        }
        cluster.apply(&WORKLOADS.replace("AGNHOST", &xtask::cluster::agnhost())).expect("workloads");
        for namespace in ["default", "yahoo"] {
            let all = ["-n", namespace, "wait", "--for=condition=Available", "deployment", "--all", "--timeout=120s"];
            cluster.ask(&all).expect("pods run");
        }
        let home = cluster.plan().folder.join("helm");
        fs::create_dir_all(&home).expect("a folder");
        Some(Self { cluster, home })
    }

    fn helm(&self, arguments: &[&str]) {
        let (verb, rest) = arguments.split_first().expect("a verb");
        let mut helm = helm(&self.home);
        helm.env("KUBECONFIG", self.cluster.plan().kubeconfig()).args([verb, "netverdict", "--namespace", NAMESPACE]);
        if *verb != "uninstall" {
            helm.arg(chart());
            // Where these nodes have what others have at the usual paths.
            helm.arg(format!("--set=cni.confDir={NETWORK_FOLDER},cni.binDir={PLUGIN_FOLDER}"));
        }
        if let Err(error) = quietly(helm.args(rest)) {
            let pods = self.ask(&["get", "pods,events", "-o", "wide"]);
            let logs = self.cluster.ask(&[
                "-n",
                NAMESPACE,
                "logs",
                "--all-containers",
                "--prefix",
                "--tail=20",
                "-l",
                "app.kubernetes.io/name=netverdict",
            ]);
            panic!("{error:#}\n{pods}\n{}", logs.unwrap_or_default());
        }
    }

    fn ask(&self, arguments: &[&str]) -> String {
        self.cluster.ask(&[&["-n", NAMESPACE], arguments].concat()).expect("kubectl")
    }

    fn collector(&self, path: &str) -> String {
        self.ask(&["get", "daemonset", "netverdict-collector", "-o", &format!("jsonpath={path}")])
    }

    fn chart_is_accepted_by_the_api_server(&self) {
        quietly(helm(&self.home).args(["lint", "--strict"]).arg(chart())).expect("helm lint");
        let mut render = helm(&self.home);
        render.args(["template", "netverdict"]).arg(chart()).args(["--namespace", NAMESPACE, "--kube-version=1.33.0"]);
        let manifest = self.home.join("rendered.yaml");
        fs::write(&manifest, output(&mut render).expect("rendered")).expect("written");
        let file = manifest.display().to_string();
        self.ask(&["apply", "--dry-run=server", "-f", &file]);
        let bases = xtask::command::root().join("deploy/kustomize");
        for base in ["base", "uninstall"] {
            self.ask(&["apply", "--dry-run=server", "-k", &bases.join(base).display().to_string()]);
        }
    }

    /// The pod as its Deployment makes it, in a namespace that admits nothing else.
    fn query_pod_is_restricted(&self) {
        let deployment = self.ask(&["get", "deployment", "netverdict-query", "-o", "json"]);
        let deployment: Value = serde_json::from_str(&deployment).expect("JSON");
        let mut spec = deployment["spec"]["template"]["spec"].clone();
        for account in ["serviceAccountName", "serviceAccount"] {
            spec[account] = json!("default");
        }
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "query", "namespace": "restricted" }, "spec": spec,
        });
        let file = self.home.join("pod.json");
        fs::write(&file, pod.to_string()).expect("written");
        wait("the namespace has an account", PATIENCE, || {
            Ok(self.cluster.ask(&["-n", "restricted", "get", "serviceaccount", "default"]).is_ok())
        })
        .expect("in time");
        let created = self.cluster.ask(&["create", "--dry-run=server", "-f", &file.display().to_string()]);
        created.expect("Pod Security `restricted` admits the query service");
    }

    fn pod(&self, app: &str) -> String {
        self.cluster.pod(&format!("app={app}")).expect("a pod")
    }

    fn node_of(&self, pod: &str) -> String {
        let (namespace, name) = pod.split_once('/').expect("namespace/name");
        self.cluster.ask(&["-n", namespace, "get", "pod", name, "-o", "jsonpath={.spec.nodeName}"]).expect("a pod")
    }

    fn nodes(&self) -> Vec<OnNode> {
        let on_node = |(node, namespaces): &(Node, Namespaces)| OnNode {
            network: texts(&node.network_folder()),
            plugins: names(&node.plugin_folder()),
            pins: namespaces.enter(|| names(Path::new("/sys/fs/bpf"))).expect("inside of the node"),
        };
        self.cluster.nodes().iter().map(on_node).collect()
    }

    fn token(&self) -> String {
        self.ask(&[
            "get",
            "secret",
            "netverdict",
            "-o",
            "go-template={{index .data \"query.password\" | base64decode}}",
        ])
    }

    /// `netverdict why`, through the Service.
    fn why(&self, token: &str, source: &str, destination: &str) -> Value {
        let forward = PortForward::start(&self.cluster);
        let file = self.home.join("token");
        let _ = fs::remove_file(&file);
        let made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file).expect("a file");
        std::io::Write::write_all(&mut &made, token.as_bytes()).expect("written");
        let mut netverdict = Command::new(target().join("debug/netverdict"));
        netverdict
            .args(["why", source, destination, "-o", "json", "--server", &forward.url, "--token-file"])
            .arg(&file);
        let answer = output(&mut netverdict).expect("an answer");
        serde_json::from_str(&answer).expect("JSON")
    }

    /// As kubectl runs it for `kubectl verdict`.
    fn kubectl_verdict(&self, arguments: &[&str]) -> String {
        let mut plugin = Command::new(target().join("debug/kubectl-verdict"));
        plugin.args(arguments).env("KUBECONFIG", self.cluster.plan().kubeconfig());
        output(&mut plugin).expect("an answer")
    }

    fn attempt(&self, from: &str, to: IpAddr) -> Attempt {
        self.cluster.connect(from, to, PORT).expect("an attempt")
    }

    fn until(&self, expected: Attempt, from: &str, to: IpAddr) {
        let condition = format!("{from} to {to}: {expected:?}");
        wait(&condition, PATIENCE, || Ok(self.attempt(from, to) == expected)).expect("in time");
    }

    /// How many connections were answered meanwhile; none may be without an answer.
    fn while_connecting(&self, from: &str, to: IpAddr, work: impl FnOnce()) -> usize {
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let tries = scope.spawn(|| {
                let mut tries = 0;
                while !ended.load(Ordering::Relaxed) {
                    assert_eq!(self.attempt(from, to), Attempt::Answered, "after {tries} connections");
                    tries += 1;
                }
                tries
            });
            work();
            ended.store(true, Ordering::Relaxed);
            tries.join().expect("every connection is answered")
        })
    }

    fn nothing_is_left(&self, before: &[OnNode]) {
        assert_eq!(self.nodes(), before, "every node is as it was");
        let kinds = self.cluster.ask(&["api-resources", "--verbs=list", "-o", "name"]).expect("kinds");
        let kinds = kinds.split_whitespace().filter(|kind| !kind.starts_with("events")).collect::<Vec<_>>().join(",");
        let mut left = String::new();
        let gone = wait("the API server has nothing of ours", PATIENCE, || {
            let all =
                ["get", &kinds, "-A", "-o", "name", "--ignore-not-found", "-l", "app.kubernetes.io/name=netverdict"];
            left = self.cluster.ask(&all)?;
            Ok(left.trim().is_empty())
        });
        gone.unwrap_or_else(|error| panic!("{error}: {left}"));
    }

    fn new_pod_starts(&self, name: &str) {
        let image = format!("--image={}", xtask::cluster::agnhost());
        self.cluster.ask(&["-n", "yahoo", "run", name, &image]).expect("made");
        let pod = format!("pod/{name}");
        let ready = ["-n", "yahoo", "wait", "--for=condition=Ready", &pod, "--timeout=60s"];
        self.cluster.ask(&ready).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }

    /// What the plugin has written down of the nodes' pods.
    fn claims(&self) -> Vec<String> {
        let of_node = |namespaces: &Namespaces| namespaces.enter(|| names(Path::new("/run/netverdict/claims")));
        self.cluster.nodes().iter().flat_map(|(_, node)| of_node(node).expect("inside of the node")).collect()
    }

    /// Nobody but root and the record's group reads who talks to whom.
    fn record_is_private(&self) {
        let open = self.cluster.node().enter(|| {
            let (mut open, mut folders) = (Vec::new(), vec![PathBuf::from("/var/lib/netverdict")]);
            while let Some(folder) = folders.pop() {
                for name in names(&folder) {
                    let path = folder.join(name);
                    let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
                    // Of the two folders the kubelet may have made one; what is in them is the collector's.
                    if metadata.mode() & 0o007 != 0 && folder != Path::new("/var/lib/netverdict") {
                        open.push(path.clone());
                    }
                    if metadata.is_dir() {
                        folders.push(path);
                    }
                }
            }
            open
        });
        assert_eq!(open.expect("inside of the node"), Vec::<PathBuf>::new(), "everybody may read it");
    }
}

/// `kubectl port-forward` to the query service, until it is dropped.
struct PortForward {
    child: Child,
    // It ends when nobody can read what it says.
    _said: BufReader<ChildStdout>,
    url: String,
}

impl PortForward {
    fn start(cluster: &Cluster) -> Self {
        let mut kubectl = cluster.kubectl();
        kubectl.args(["-n", NAMESPACE, "port-forward", "service/netverdict-query", ":9480"]).stdout(Stdio::piped());
        let mut child = kubectl.spawn().expect("kubectl starts");
        let mut said = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let mut first = String::new();
        said.read_line(&mut first).expect("a line");
        let address = first.split_whitespace().nth(2).unwrap_or_else(|| panic!("no port: {first}"));
        let url = format!("http://{address}");
        Self { child, _said: said, url }
    }
}

impl Drop for PortForward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is in a folder; nothing where there is none.
fn names(folder: &Path) -> Vec<String> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        entries => entries.expect("a folder"),
    };
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn texts(folder: &Path) -> BTreeMap<String, String> {
    let text = |name: String| (name.clone(), fs::read_to_string(folder.join(name)).expect("a file"));
    names(folder).into_iter().map(text).collect()
}

//! The way of a reader of the documentation: installs the chart, asks, enforces, upgrades under traffic, goes back,
//! renews secrets, and uninstalls without a trace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Instant,
};

use aya::programs::loaded_programs;
use netverdict_abi::map::name;
use serde_json::{Value, json};
use xtask::{
    cluster::{Agnhost, Attempt, Cluster, Namespaces, Node, REGISTRY, Shape},
    command::{output, quietly, root, succeeds, target},
    image,
    services::{Profile, wait},
    setup,
};

use crate::{
    chart::chart,
    documented::Reader,
    rights,
    world::{PATIENCE, object},
};

const NAMESPACE: &str = "netverdict";
const PORT: u16 = 5432;
/// The image of the example's pods.
const PUBLIC_AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.53";
const WEB: &str = "shop/web";
const JOBS: &str = "shop/jobs";
const DATABASE: &str = "db/pg";
/// Pod Security: the query service needs nothing.
const RESTRICTED: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: restricted, labels: {pod-security.kubernetes.io/enforce: restricted}}
";
/// A kind of cluster-wide policies, whose objects are kept as they are written.
const POLICY_KIND: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: clusternetworkpolicies.policy.networking.k8s.io
  annotations: {api-approved.kubernetes.io: 'unapproved, for tests'}
spec:
  group: policy.networking.k8s.io
  scope: Cluster
  names: {kind: ClusterNetworkPolicy, plural: clusternetworkpolicies, singular: clusternetworkpolicy}
  versions:
    - name: v1beta1
      served: true
      storage: true
      schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";
/// Somebody who may read the record and nothing else.
const ON_CALL: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: on-call, namespace: netverdict}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: on-call-account, namespace: netverdict}
roleRef: {kind: Role, name: netverdict-reader, apiGroup: rbac.authorization.k8s.io}
subjects: [{kind: ServiceAccount, name: on-call, namespace: netverdict}]
";
const INSTALL: &str = "docs/install.md";
const UPGRADE: &str = "docs/upgrade.md";
const TROUBLESHOOTING: &str = "docs/troubleshooting.md";
const UNINSTALL: &str = "docs/uninstall.md";

#[test]
fn chart_installs_answers_upgrades_under_traffic_and_leaves_no_trace() {
    let Some(cluster) = start() else { return };
    let home = cluster.plan().folder.join("reader");
    fs::create_dir_all(&home).expect("a folder");
    let site = Site { reader: Reader::new(&cluster, home), cluster: &cluster };
    let (before, programs) = (site.nodes(), loaded());
    site.read(INSTALL, "Install on a cluster");
    site.cluster.apply(RESTRICTED).expect("a namespace");
    site.cluster.apply(POLICY_KIND).expect("a definition");

    let started = Instant::now();
    site.read(INSTALL, "Chart");
    println!("installed, and all pods Ready, after {:.1} s", started.elapsed().as_secs_f32());
    assert_ne!(loaded(), programs, "programs are loaded");
    site.chart_is_accepted_by_the_api_server();
    site.query_pod_is_restricted();
    for (was, is) in before.iter().zip(site.nodes()) {
        assert_ne!(was.pins, is.pins, "the programs are pinned");
        assert!(is.network["10-pods.conflist"].contains("netverdict-cni"), "{is:?}");
    }

    site.read(INSTALL, "Ask");
    assert_ne!(site.claims(), Vec::<String>::new(), "the runtime has asked the plugin about new pods");
    site.record_is_private();
    site.readers_need_no_other_rights();
    let nodes = site.netverdict(&["sql", "-o", "json", "select distinct node from endpoints"]);
    assert!(nodes.contains("node1") && nodes.contains("node2"), "the record of all nodes: {nodes}");

    let unattached = "select count(*) as n from gaps where cause = 'unattached' and endpoint like 'shop/%'";
    let gaps = site.netverdict(&["sql", "-o", "json", unattached]);
    assert!(
        gaps.contains("\"n\":0") || gaps.contains("\"n\": 0"),
        "pods that the plugin waited for have no gap: {gaps}"
    );

    site.read(INSTALL, "Enforce");
    let answer: Value =
        serde_json::from_str(&site.netverdict(&["why", JOBS, "db/pg:5432/TCP", "-o", "json"])).expect("JSON");
    let point = &answer["points"][1];
    assert_eq!(
        json!([answer["verdict"], point["disposition"], point["decided_by"][0]["name"]]),
        json!(["denied", "dropped", "allow-api"]),
        "{answer}"
    );
    site.rights_are_those_that_are_used();

    site.read(TROUBLESHOOTING, "Troubleshooting");
    site.read(TROUBLESHOOTING, "A connection fails");

    let (generation, token) = (site.collector("{.metadata.generation}"), site.secret("netverdict", "query.password"));
    let tries = site.while_connecting(|| {
        site.reader.read_with(UPGRADE, "Upgrade", "--set=record.diskCap=10GiB");
    });
    println!("{tries} connections were answered during the upgrade");
    assert_ne!(site.collector("{.metadata.generation}"), generation, "the value reached the collectors");
    assert_eq!(site.secret("netverdict", "query.password"), token, "an upgrade keeps the secret");
    site.still_enforces();

    let tries = site.while_connecting(|| {
        site.upgrade_to_an_image_that_cannot_be_pulled();
        site.still_enforces();
        site.read(UPGRADE, "Back");
    });
    println!("{tries} connections were answered during an upgrade that failed and went back");
    site.still_enforces();

    let certificate = site.secret("netverdict-collector-tls", "tls.crt");
    site.read(UPGRADE, "Secrets and certificates");
    assert_ne!(site.secret("netverdict-collector-tls", "tls.crt"), certificate, "the certificate is renewed");
    assert_ne!(site.secret("netverdict", "query.password"), token, "the password is renewed");
    site.until_all_collectors_answer();
    site.read(UPGRADE, "Backup and restore");

    site.read(UNINSTALL, "Uninstall");
    site.nothing_is_left(&before);
    wait("the kernel has no program of ours", PATIENCE, || Ok(loaded() == programs)).expect("in time");
    assert_eq!(site.attempt(JOBS, DATABASE), Attempt::Answered, "no program judges any more");
    site.new_pod_starts("afterwards");
    site.reader.has_read_all();
}

/// A cluster of two nodes that have the images, and nothing of ours.
fn start() -> Option<Cluster> {
    let object = object()?;
    let options = image::Options { profile: Profile::Dev, registry: REGISTRY.to_owned(), out: None, no_build: true };
    let images = image::write(&options, &object).expect("images of the programs that are built");
    let programs = setup::found_cluster_programs().expect("the programs of a cluster");
    let (agnhost, shell) = (programs.kubernetes.join("agnhost"), programs.busybox.clone());
    let shape = Shape { nodes: 2, bare: true, ..Shape::default() };
    let cluster = Cluster::start("install", shape, programs, |step| println!("{step}")).expect("a cluster");
    for image in &images {
        println!("{} of {} MB", image.tag, image.size >> 20);
        cluster.load(&image.archive).expect("an image");
    }
    // The example names the image where everybody finds it.
    let agnhost = Agnhost { agnhost: &agnhost, bash: &shell, front: None };
    let archive = agnhost.save(PUBLIC_AGNHOST, cluster.plan().folder.join("agnhost.tar")).expect("an archive");
    cluster.load(&archive).expect("an image");
    Some(cluster)
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

/// The cluster, and who reads the documentation.
struct Site<'a> {
    cluster: &'a Cluster,
    reader: Reader<'a>,
}

impl Site<'_> {
    fn read(&self, page: &str, section: &str) {
        self.reader.read(page, section);
    }

    fn ask(&self, arguments: &[&str]) -> String {
        self.cluster.ask(&[&["-n", NAMESPACE], arguments].concat()).expect("kubectl")
    }

    fn collector(&self, path: &str) -> String {
        self.ask(&["get", "daemonset", "netverdict-collector", "-o", &format!("jsonpath={path}")])
    }

    fn secret(&self, name: &str, key: &str) -> String {
        self.ask(&["get", "secret", name, "-o", &format!("go-template={{{{index .data {key:?}}}}}")])
    }

    fn chart_is_accepted_by_the_api_server(&self) {
        quietly(self.reader.command("helm").args(["lint", "--strict"]).arg(chart())).expect("helm lint");
        let mut render = self.reader.command("helm");
        render.args(["template", "netverdict"]).arg(chart()).args(["--namespace", NAMESPACE, "--kube-version=1.33.0"]);
        let manifest = self.reader.home().join("rendered.yaml");
        fs::write(&manifest, output(&mut render).expect("rendered")).expect("written");
        let file = manifest.display().to_string();
        self.ask(&["apply", "--dry-run=server", "-f", &file]);
        let bases = root().join("deploy/kustomize");
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
        let file = self.reader.home().join("pod.json");
        fs::write(&file, pod.to_string()).expect("written");
        wait("the namespace has an account", PATIENCE, || {
            Ok(self.cluster.ask(&["-n", "restricted", "get", "serviceaccount", "default"]).is_ok())
        })
        .expect("in time");
        let created = self.cluster.ask(&["create", "--dry-run=server", "-f", &file.display().to_string()]);
        created.expect("Pod Security `restricted` admits the query service");
    }

    fn nodes(&self) -> Vec<OnNode> {
        let on_node = |(node, namespaces): &(Node, Namespaces)| OnNode {
            network: texts(&node.network_folder()),
            plugins: names(&node.plugin_folder()),
            pins: namespaces.enter(|| names(Path::new("/sys/fs/bpf"))).expect("inside of the node"),
        };
        self.cluster.nodes().iter().map(on_node).collect()
    }

    /// `kubectl verdict`, as kubectl runs it.
    fn netverdict(&self, arguments: &[&str]) -> String {
        let mut plugin = Command::new(target().join("debug/kubectl-verdict"));
        plugin.args(arguments).env("KUBECONFIG", self.cluster.plan().kubeconfig());
        output(&mut plugin).expect("an answer")
    }

    /// A certificate reaches a pod within a minute or two.
    fn until_all_collectors_answer(&self) {
        let mut said = String::new();
        wait("all collectors answer", 2 * PATIENCE, || {
            let mut plugin = Command::new(target().join("debug/kubectl-verdict"));
            plugin.args(["sql", "select count(*) from flows"]);
            let output = plugin.env("KUBECONFIG", self.cluster.plan().kubeconfig()).output()?;
            said = String::from_utf8_lossy(&output.stderr).into_owned();
            Ok(output.status.success() && !said.contains("does not answer"))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {said}"));
    }

    /// Whether somebody who has the role of readers, and no other right, gets an answer.
    fn reader_may(&self, arguments: &[&str]) -> bool {
        let kubeconfig = self.reader.home().join("on-call.kubeconfig");
        let mut plugin = Command::new(target().join("debug/kubectl-verdict"));
        succeeds(plugin.args(arguments).env("KUBECONFIG", kubeconfig))
    }

    fn readers_need_no_other_rights(&self) {
        self.cluster.apply(ON_CALL).expect("an account");
        let token = self.ask(&["create", "token", "on-call"]);
        let kubeconfig = fs::read_to_string(self.cluster.plan().kubeconfig()).expect("the administrator's");
        let mut kubeconfig: Value = serde_saphyr::from_str(&kubeconfig).expect("YAML");
        kubeconfig["users"][0]["user"] = json!({ "token": token });
        fs::write(self.reader.home().join("on-call.kubeconfig"), kubeconfig.to_string()).expect("written");
        assert!(self.reader_may(&["why", JOBS, "db/pg:5432/TCP"]), "questions are asked");
        assert!(self.reader_may(&["sql", "select count(*) from flows"]), "statements are posted");
    }

    fn rights_are_those_that_are_used(&self) {
        // Events are written of interfaces that belong to no pod.
        let stray = || {
            let run = |line: &str| succeeds(Command::new("ip").args(line.split_whitespace()));
            run("netns add stray") && run("link add stray0 type veth peer name eth0 netns stray")
        };
        assert!(self.cluster.node().enter(stray).expect("inside of the node"), "an interface is made");
        let mut unused = Vec::new();
        wait("every right of the collectors is used", PATIENCE, || {
            unused = rights::unused(self.cluster, &rights::asked(self.cluster).granted);
            Ok(unused.is_empty())
        })
        .unwrap_or_else(|error| panic!("{error:#}: {unused:?}"));
        assert_eq!(rights::asked(self.cluster).refused, BTreeSet::new(), "rights that the role lacks");
        let (code, said) = self.status();
        assert!(code == Some(5) && said.contains("interface stray0"), "the node tells of it: {code:?} {said}");
        let gone = || succeeds(Command::new("ip").args(["netns", "delete", "stray"]));
        assert!(self.cluster.node().enter(gone).expect("inside of the node"), "the interface is taken away");
        let mut said = String::new();
        wait("all nodes are well again", PATIENCE, || {
            let (code, output) = self.status();
            said = output;
            Ok(code == Some(0))
        })
        .unwrap_or_else(|error| panic!("{error:#}: {said}"));
    }

    /// Exit code and output of `kubectl verdict status`.
    fn status(&self) -> (Option<i32>, String) {
        let mut plugin = Command::new(target().join("debug/kubectl-verdict"));
        let output =
            plugin.arg("status").env("KUBECONFIG", self.cluster.plan().kubeconfig()).output().expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn attempt(&self, from: &str, to: &str) -> Attempt {
        let address = self.cluster.pod_addresses(to).expect("addresses")[0];
        self.cluster.connect(from, address, PORT).expect("an attempt")
    }

    fn still_enforces(&self) {
        assert_eq!(self.attempt(JOBS, DATABASE), Attempt::TimedOut, "still enforced");
    }

    /// Of one node: the others wait until it is done.
    fn upgrade_to_an_image_that_cannot_be_pulled(&self) {
        let mut helm = self.reader.command("helm");
        helm.args(["upgrade", "netverdict", "deploy/helm/netverdict", "-n", NAMESPACE, "--reuse-values"]);
        quietly(helm.arg("--set=image.tag=missing")).expect("it is asked for");
        wait("an image cannot be pulled", PATIENCE, || {
            let reasons = "jsonpath={.items[*].status.initContainerStatuses[*].state.waiting.reason}";
            let pods = self.ask(&["get", "pods", "-l", "app.kubernetes.io/component=collector", "-o", reasons]);
            Ok(pods.contains("ErrImagePull") || pods.contains("ImagePullBackOff"))
        })
        .expect("in time");
    }

    /// How many connections of a pod that may were answered meanwhile; none may be without an answer.
    fn while_connecting(&self, work: impl FnOnce()) -> usize {
        let ended = AtomicBool::new(false);
        let address = self.cluster.pod_addresses(DATABASE).expect("addresses")[0];
        thread::scope(|scope| {
            let tries = scope.spawn(|| {
                let mut tries = 0;
                while !ended.load(Ordering::Relaxed) {
                    let attempt = self.cluster.connect(WEB, address, PORT).expect("an attempt");
                    assert_eq!(attempt, Attempt::Answered, "after {tries} connections");
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
        self.cluster.ask(&["-n", "default", "run", name, &image]).expect("made");
        let pod = format!("pod/{name}");
        let ready = ["-n", "default", "wait", "--for=condition=Ready", &pod, "--timeout=60s"];
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

/// Our programs in the kernel, by name.
fn loaded() -> Vec<String> {
    let ours = [name::FROM_POD, name::TO_POD, name::LEAVING, name::LEAVING_BARE];
    let all = loaded_programs().filter_map(|program| program.ok()?.name_as_str().map(str::to_owned));
    let mut found: Vec<_> = all.filter(|name| ours.contains(&name.as_str())).collect();
    found.sort();
    found
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

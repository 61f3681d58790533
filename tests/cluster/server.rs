//! A Kubernetes API server of its own for each test, on loopback, with its store; gone with the test.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use kube::{
    Api, Client, Config,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    discovery::Discovery,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use xtask::command::target;

/// Builds machines with two cores are slow to start it at times.
const PATIENCE: Duration = Duration::from_secs(120);
/// Another program may take a port between our finding it free and a server's binding it.
const MOST_STARTS: usize = 5;
/// May do everything.
pub(crate) const ADMIN: &str = "admin-token";
/// May discover, and nothing else.
pub(crate) const NOBODY: &str = "nobody-token";
/// Two tokens of the account of a collector, `netverdict`, with the rights of its bindings.
pub(crate) const COLLECTOR: &str = "collector-token";
pub(crate) const COLLECTOR_NEXT: &str = "collector-next-token";

/// Group, version and kind.
pub(crate) type Kind = (&'static str, &'static str, &'static str);
pub(crate) const POD: Kind = ("", "v1", "Pod");
pub(crate) const EVENT: Kind = ("", "v1", "Event");
pub(crate) const NETWORK_POLICY: Kind = ("networking.k8s.io", "v1", "NetworkPolicy");
pub(crate) const DEFINITION: Kind = ("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
pub(crate) const BINDING: Kind = ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding");

pub(crate) struct Server {
    // Dropped in this order: the API server before its store, and both before their files.
    api: Running,
    store: Running,
    store_url: String,
    programs: PathBuf,
    folder: TempDir,
    url: String,
    runtime: Runtime,
    client: Client,
}

/// A child that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// `None`, after saying so, where there are no programs to run.
    pub(crate) fn start() -> Option<Self> {
        let Some(programs) = std::env::var_os("NETVERDICT_KUBERNETES").map(PathBuf::from) else {
            println!("SKIPPED cluster: NETVERDICT_KUBERNETES is not set; run `cargo xtask test cluster`");
            return None;
        };
        let folder = tempfile::tempdir().expect("a folder");
        let runtime = Runtime::new().expect("a runtime");
        let (store, store_url) = start_store(&programs, folder.path());
        let (api, url) = start_api(&programs, folder.path(), &store_url, &runtime);
        let kubeconfig = write_kubeconfig(folder.path(), &url, "admin", ADMIN);
        let client = runtime.block_on(client(&kubeconfig));
        Some(Self { api, store, store_url, programs, folder, url, runtime, client })
    }

    /// A kubeconfig whose only context, `of-<name>`, has this token.
    pub(crate) fn kubeconfig(&self, name: &str, token: &str) -> PathBuf {
        write_kubeconfig(self.folder.path(), &self.url, name, token)
    }

    /// A kubeconfig for another way to this server, with the token in a file of its own.
    pub(crate) fn kubeconfig_of(&self, url: &str, token: &Path) -> PathBuf {
        let user = format!("tokenFile: {}", token.display());
        write_kubeconfig_of(self.folder.path(), url, "proxied", &user)
    }

    pub(crate) fn admin(&self) -> PathBuf {
        self.kubeconfig("admin", ADMIN)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("written");
        path
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Makes every object of a manifest, with its status.
    pub(crate) fn apply(&self, manifest: &str) {
        let (objects, findings) = netverdict_manifest::read(manifest, "manifest");
        assert!(findings.is_empty(), "{findings:?}");
        self.runtime.block_on(async {
            let discovery = Discovery::new(self.client.clone()).run().await.expect("discovery");
            for object in objects {
                let object: DynamicObject = serde_json::from_value(object.value).expect("an object");
                make(&self.client, &discovery, object).await;
            }
        });
    }

    /// Makes kinds, and waits until they are served.
    pub(crate) fn serve_kinds(&self, manifest: &str, api_versions: &[String]) {
        self.apply(manifest);
        let served = |version: &String| self.runtime.block_on(self.client.list_api_group_resources(version)).is_ok();
        let all_served = || Ok(api_versions.iter().all(served));
        xtask::services::wait("the new kinds are served", PATIENCE, all_served).expect("in time");
    }

    /// Makes an object that no manifest could hold.
    pub(crate) fn create(&self, object: serde_json::Value) {
        self.runtime.block_on(async {
            let discovery = Discovery::new(self.client.clone()).run().await.expect("discovery");
            make(&self.client, &discovery, serde_json::from_value(object).expect("an object")).await;
        });
    }

    /// The objects of a kind.
    pub(crate) fn list(&self, kind: Kind, namespace: &str) -> Vec<DynamicObject> {
        let objects = self.api(kind, namespace);
        self.runtime.block_on(objects.list(&ListParams::default())).expect("listed").items
    }

    /// Changes an object as `kubectl patch --type merge` does, as the manager of its fields that is named.
    pub(crate) fn patch(&self, kind: Kind, namespace: &str, name: &str, manager: &str, patch: serde_json::Value) {
        let parameters = PatchParams::apply(manager);
        let patched = self.api(kind, namespace);
        let patched = self.runtime.block_on(patched.patch(name, &parameters, &Patch::Merge(patch)));
        patched.unwrap_or_else(|error| panic!("{namespace}/{name} is not changed: {error}"));
    }

    /// Deletes an object at once, ignoring its grace period.
    pub(crate) fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        let parameters = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let deleted = self.runtime.block_on(self.api(kind, namespace).delete(name, &parameters));
        deleted.unwrap_or_else(|error| panic!("{namespace}/{name} is not deleted: {error}"));
    }

    fn api(&self, (group, version, kind): Kind, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        match namespace {
            "" => Api::all_with(self.client.clone(), &resource),
            namespace => Api::namespaced_with(self.client.clone(), namespace, &resource),
        }
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// `netverdict` with this cluster's admin.
    pub(crate) fn netverdict(&self, arguments: &[&str]) -> Answer {
        let kubeconfig = self.admin();
        netverdict(&[arguments, &["--kubeconfig", kubeconfig.to_str().expect("text")]].concat())
    }

    /// The API server goes away; its store stays.
    pub(crate) fn stop_api(&mut self) {
        self.api.0.kill().expect("killed");
        self.api.0.wait().expect("ended");
        assert!(self.store.0.try_wait().expect("asked").is_none(), "the store has ended");
    }

    /// Starts the API server again, on the port that it had.
    pub(crate) fn start_api_again(&mut self) {
        let port = self.url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let (mut command, url) = api_command(&self.programs, self.folder.path(), &self.store_url, port);
        let serves = |url: &str| serves_api(url, &self.runtime);
        let started = start_server("kube-apiserver", self.folder.path(), &mut command, &url, &serves);
        self.api = started.expect("the API server ends at once");
    }

    /// Forgets every version of an object but the newest, as an API server lets its store do every five minutes.
    pub(crate) fn compact_store(&self) {
        let ask = |what: &str, question: serde_json::Value| -> serde_json::Value {
            let request = reqwest::Client::new().post(format!("{}/v3/kv/{what}", self.store_url)).json(&question);
            self.runtime.block_on(async { request.send().await?.error_for_status()?.json().await }).expect("an answer")
        };
        let revision = ask("range", serde_json::json!({"key": "AA=="}))["header"]["revision"].clone();
        ask("compaction", serde_json::json!({"revision": revision, "physical": true}));
    }
}

/// Output and exit code of a command.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) output: String,
    pub(crate) errors: String,
}

/// The tool without the kubeconfig of the user that runs the tests.
pub(crate) fn netverdict(arguments: &[&str]) -> Answer {
    let mut command = Command::new(target().join("debug/netverdict"));
    command.args(arguments).env_remove("KUBECONFIG").env_remove("NETVERDICT_NAMESPACE").env("HOME", "/nonexistent");
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().expect("netverdict starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Answer { code: status.code(), output: text(stdout), errors: text(stderr) }
}

async fn client(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a config");
    Client::try_from(config).expect("a client")
}

async fn make(client: &Client, discovery: &Discovery, mut object: DynamicObject) {
    let types = object.types.clone().expect("a kind");
    let (resource, _) = discovery.resolve_typemeta(&types).unwrap_or_else(|| panic!("{types:?} is not served"));
    let name = object.metadata.name.clone().expect("a name");
    let api: Api<DynamicObject> = match &object.metadata.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let status = object.data.as_object_mut().and_then(|fields| fields.remove("status"));
    api.create(&PostParams::default(), &object).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    if let Some(status) = status {
        let patch = Patch::Merge(serde_json::json!({ "status": status }));
        api.patch_status(&name, &PatchParams::default(), &patch).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

fn start_store(programs: &Path, folder: &Path) -> (Running, String) {
    let start = |ports: [u16; 2]| {
        let [url, peers] = ports.map(|port| format!("http://127.0.0.1:{port}"));
        let mut command = Command::new(programs.join("etcd"));
        command.arg("--data-dir").arg(folder.join("store")).args(["--unsafe-no-fsync", "--log-level", "error"]);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("default={peers}")]);
        (command, url)
    };
    let serves = |url: &str| std::net::TcpStream::connect(url.trim_start_matches("http://")).is_ok();
    start_on_free_ports("etcd", folder, start, serves)
}

fn start_api(programs: &Path, folder: &Path, store: &str, runtime: &Runtime) -> (Running, String) {
    let tokens = folder.join("tokens.csv");
    let accounts = [
        format!("{ADMIN},admin,1,system:masters\n{NOBODY},nobody,2\n"),
        format!("{COLLECTOR},netverdict,3\n{COLLECTOR_NEXT},netverdict,3\n"),
    ];
    fs::write(&tokens, accounts.concat()).expect("written");
    let key = folder.join("service-accounts.key");
    let mut openssl = Command::new("openssl");
    openssl.args(["genrsa", "-out"]).arg(&key).stderr(Stdio::null());
    assert!(openssl.status().expect("openssl starts").success(), "no key was made");
    let start = |[port, _]: [u16; 2]| api_command(programs, folder, store, port);
    start_on_free_ports("kube-apiserver", folder, start, |url| serves_api(url, runtime))
}

fn api_command(programs: &Path, folder: &Path, store: &str, port: u16) -> (Command, String) {
    let key = folder.join("service-accounts.key");
    let mut command = Command::new(programs.join("kube-apiserver"));
    command.args(["--etcd-servers", store, "--secure-port", &port.to_string(), "--bind-address", "127.0.0.1"]);
    command.arg("--cert-dir").arg(folder.join("certificates")).arg("--token-auth-file").arg(folder.join("tokens.csv"));
    command.args(["--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount"]);
    command.args(["--service-cluster-ip-range", "10.96.0.0/16", "--service-account-issuer", "https://tests"]);
    command.arg("--service-account-key-file").arg(&key).arg("--service-account-signing-key-file").arg(&key);
    (command, format!("https://127.0.0.1:{port}"))
}

/// Only whether it is there: its certificate is new, and the tool checks it.
fn serves_api(url: &str, runtime: &Runtime) -> bool {
    let asking = reqwest::Client::builder().danger_accept_invalid_certs(true).build().expect("a client");
    let request = asking.get(format!("{url}/readyz")).bearer_auth(ADMIN);
    runtime.block_on(request.send()).is_ok_and(|response| response.status().is_success())
}

/// Starts a server, and again on other ports if it ends at once.
fn start_on_free_ports(
    name: &str,
    folder: &Path,
    start: impl Fn([u16; 2]) -> (Command, String),
    serves: impl Fn(&str) -> bool,
) -> (Running, String) {
    for _ in 0..MOST_STARTS {
        let (mut command, url) = start(free_ports());
        if let Some(server) = start_server(name, folder, &mut command, &url, &serves) {
            return (server, url);
        }
    }
    panic!("{name} ends each time: {}", said(&log_of(name, folder)))
}

/// Waits until it serves. `None` where it ends instead.
fn start_server(
    name: &str,
    folder: &Path,
    command: &mut Command,
    url: &str,
    serves: &impl Fn(&str) -> bool,
) -> Option<Running> {
    let log = log_of(name, folder);
    let (output, errors) = (File::create(&log).expect("a log"), File::options().append(true).open(&log));
    command.stdin(Stdio::null()).stdout(output).stderr(errors.expect("a log"));
    let mut server = Running(command.spawn().unwrap_or_else(|error| panic!("{name}: {error}")));
    let started = Instant::now();
    while server.0.try_wait().expect("asked").is_none() {
        if serves(url) {
            return Some(server);
        }
        assert!(started.elapsed() < PATIENCE, "{name} does not serve: {}", said(&log));
        std::thread::sleep(Duration::from_millis(100));
    }
    None
}

fn log_of(name: &str, folder: &Path) -> PathBuf {
    folder.join(format!("{name}.log"))
}

fn free_ports() -> [u16; 2] {
    // Both are held until both are known, so that they differ.
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    held.map(|listener| listener.local_addr().expect("an address").port())
}

fn said(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn write_kubeconfig(folder: &Path, url: &str, name: &str, token: &str) -> PathBuf {
    write_kubeconfig_of(folder, url, name, &format!("token: {token}"))
}

fn write_kubeconfig_of(folder: &Path, url: &str, name: &str, user: &str) -> PathBuf {
    let path = folder.join(format!("{name}.kubeconfig"));
    let authority = folder.join("certificates/apiserver.crt");
    let text = format!(
        "apiVersion: v1
kind: Config
current-context: of-{name}
clusters: [{{name: tests, cluster: {{server: \"{url}\", certificate-authority: {}}}}}]
users: [{{name: {name}, user: {{{user}}}}}]
contexts: [{{name: of-{name}, context: {{cluster: tests, user: {name}, namespace: shop}}}}]
",
        authority.display()
    );
    fs::write(&path, text).expect("written");
    path
}

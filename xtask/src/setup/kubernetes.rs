//! The programs of a Kubernetes cluster, built from source with Go in the versions that a `go.sum` pins.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, bail};

use super::container_runtime::{self, ContainerRuntime};
use crate::{
    command::{output, quietly, root, tools, which},
    progress::Running,
};

/// The version in `tests/cluster/kubernetes/go.mod`.
pub const KUBERNETES_VERSION: &str = "v1.33.13";
const VERSION_PACKAGE: &str = "k8s.io/component-base/version";
const MODULE: &str = "tests/cluster/kubernetes";
/// The store and the API server: what a test needs that only asks for objects.
const API: [Program; 2] =
    [Program("etcd", "go.etcd.io/etcd/server/v3"), Program("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver")];
/// The other programs of a cluster.
const CLUSTER: [Program; 6] = [
    Program("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
    Program("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
    Program("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    Program("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
    Program("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
    Program("agnhost", "k8s.io/kubernetes/test/images/agnhost"),
];
/// The version in `tests/cluster/coredns/go.mod`.
const COREDNS_VERSION: &str = "v1.12.1";
/// The version in `tests/cluster/helm/go.mod`.
pub const HELM_VERSION: &str = "v3.22.0";
const NETPOL: &str = "netpol.test";
/// The version in `tests/cluster/cyclonus/go.mod`.
pub const CYCLONUS_VERSION: &str = "v0.5.6";
/// The version in `tests/cluster/network-policy-api/go.mod`.
pub const POLICY_API_VERSION: &str = "v0.3.0";

/// A name, and a Go package that has it as last part of its path, but for the version.
struct Program(&'static str, &'static str);

/// The programs of a whole cluster.
#[derive(Clone, Debug)]
pub struct ClusterPrograms {
    /// The folder of Kubernetes' own.
    pub kubernetes: PathBuf,
    pub coredns: PathBuf,
    /// A static one, for images.
    pub busybox: PathBuf,
    /// The folder of the CNI plugins.
    pub cni_plugins: PathBuf,
}

/// The generator of cases of NetworkPolicy, and the worker of their probes.
#[derive(Clone, Debug)]
pub struct Cyclonus {
    pub generator: PathBuf,
    /// Makes the connections, inside a pod.
    pub worker: PathBuf,
}

/// network-policy-api's conformance suite.
#[derive(Clone, Debug)]
pub struct PolicyApi {
    pub tests: PathBuf,
    /// The definition of the kind, experimental fields included.
    pub definition: PathBuf,
}

/// A folder with `kube-apiserver` and `etcd`. They are built if they are not there.
pub fn kubernetes_api() -> Result<PathBuf> {
    build_missing(&API)
}

/// All of a cluster. Packages are installed and programs built if they are not there.
pub fn cluster_programs() -> Result<ClusterPrograms> {
    let runtime = container_runtime::install()?;
    build_missing(&API)?;
    let kubernetes = build_missing(&CLUSTER)?;
    Ok(of(kubernetes, build_coredns()?, runtime))
}

/// Kubernetes' own tests of NetworkPolicy, which are built if they are not there.
pub fn netpol_tests() -> Result<PathBuf> {
    let program = folder().join(NETPOL);
    let _turn = turn();
    if program.is_file() {
        return Ok(program);
    }
    let _running = Running::start(format!("building {NETPOL} of Kubernetes {KUBERNETES_VERSION} (Go)"));
    let mut command = go(MODULE)?;
    // Its checks of upstream's format strings are upstream's.
    command.args(["test", "-c", "-vet=off", "-mod=readonly", "-trimpath", "-o"]);
    finish(&mut command, &program, "./netpol")?;
    Ok(program)
}

/// Cyclonus' generator, and the worker of its probes; built anew where their source has changed.
pub fn cyclonus() -> Result<Cyclonus> {
    let folder = tools().join(format!("cyclonus-{CYCLONUS_VERSION}"));
    let programs = Cyclonus { generator: folder.join("cyclonus"), worker: folder.join("worker") };
    let _turn = turn();
    let _running = Running::start(format!("building cyclonus {CYCLONUS_VERSION} with Go"));
    for (program, package) in [(&programs.generator, "."), (&programs.worker, "./worker")] {
        let mut command = go("tests/cluster/cyclonus")?;
        command.args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o"]);
        finish(&mut command, program, package)?;
    }
    Ok(programs)
}

/// network-policy-api's conformance suite, which is built if it is not there.
pub fn policy_api() -> Result<PolicyApi> {
    const MODULE: &str = "tests/cluster/network-policy-api";
    let program = tools().join(format!("network-policy-api-{POLICY_API_VERSION}")).join("conformance.test");
    let _turn = turn();
    if !program.is_file() {
        let _running = Running::start(format!("building the suite of network-policy-api {POLICY_API_VERSION} (Go)"));
        let mut command = go(MODULE)?;
        command.args(["test", "-c", "-vet=off", "-mod=readonly", "-trimpath", "-o"]);
        finish(&mut command, &program, "sigs.k8s.io/network-policy-api/conformance")?;
    }
    let mut list = go(MODULE)?;
    list.args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/network-policy-api"]);
    let folder = PathBuf::from(output(&mut list)?.trim());
    let definition = folder.join("config/crd/experimental/policy.networking.k8s.io_clusternetworkpolicies.yaml");
    Ok(PolicyApi { tests: program, definition })
}

/// Helm, which is built if it is not there.
pub fn helm() -> Result<PathBuf> {
    let program = helm_folder().join("helm");
    let _turn = turn();
    if program.is_file() {
        return Ok(program);
    }
    let _running = Running::start(format!("building Helm {HELM_VERSION} with Go"));
    let mut command = go("tests/cluster/helm")?;
    command.args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o"]);
    finish(&mut command, &program, "helm.sh/helm/v3/cmd/helm")?;
    Ok(program)
}

/// Helm, if it is there.
pub fn found_helm() -> Option<PathBuf> {
    Some(helm_folder().join("helm")).filter(|program| program.is_file())
}

fn helm_folder() -> PathBuf {
    tools().join(format!("helm-{HELM_VERSION}"))
}

/// Begins and answers SCTP associations in a pod of a kernel without SCTP.
pub fn sctp() -> Result<PathBuf> {
    let program = tools().join("sctp").join("sctp");
    let _turn = turn();
    let mut command = go("tests/cluster/sctp")?;
    command.args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o"]);
    finish(&mut command, &program, ".")?;
    Ok(program)
}

/// The folder, if both programs of the API are there.
pub(super) fn found_api() -> Option<PathBuf> {
    Some(folder()).filter(|folder| has(folder, &API))
}

/// All of a cluster, if it is there.
pub fn found_cluster_programs() -> Option<ClusterPrograms> {
    let runtime = container_runtime::found()?;
    let kubernetes = Some(folder()).filter(|folder| has(folder, &API) && has(folder, &CLUSTER))?;
    Some(of(kubernetes, Some(coredns()).filter(|program| program.is_file())?, runtime))
}

fn of(kubernetes: PathBuf, coredns: PathBuf, runtime: ContainerRuntime) -> ClusterPrograms {
    let ContainerRuntime { busybox, cni_plugins } = runtime;
    ClusterPrograms { kubernetes, coredns, busybox, cni_plugins }
}

/// Go compiles with all processors, and the programs share most packages: one build at a time.
fn turn() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Builds with one command what is missing. A program is put in its place when it is complete, so that it works if it is
/// there.
fn build_missing(programs: &[Program]) -> Result<PathBuf> {
    let folder = folder();
    let _turn = turn();
    let missing: Vec<&Program> = programs.iter().filter(|Program(name, _)| !folder.join(name).is_file()).collect();
    if missing.is_empty() {
        return Ok(folder);
    }
    let names = missing.iter().map(|Program(name, _)| *name).collect::<Vec<_>>().join(", ");
    let _running = Running::start(format!(
        "building {names} of Kubernetes {KUBERNETES_VERSION} with Go into {} (once; minutes)",
        folder.display()
    ));
    let fresh = folder.join("new");
    fs::create_dir_all(&fresh).with_context(|| format!("could not make {}", fresh.display()))?;
    let (major, minor) = ("1", KUBERNETES_VERSION.split('.').nth(1).unwrap_or_default());
    let named = |name: &str, value: &str| format!("-X {VERSION_PACKAGE}.{name}={value}");
    // Without a version the API server serves no beta kinds.
    let flags = [named("gitVersion", KUBERNETES_VERSION), named("gitMajor", major), named("gitMinor", minor)].join(" ");
    let mut command = go(MODULE)?;
    command.args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", &format!("-s -w {flags}")]);
    command.arg("-o").arg(&fresh).args(missing.iter().map(|Program(_, package)| package));
    quietly(&mut command).with_context(|| format!("{names} could not be built"))?;
    for Program(name, package) in missing {
        let built = fresh.join(go_name(package));
        fs::rename(&built, folder.join(name)).with_context(|| format!("Go did not write {}", built.display()))?;
    }
    fs::remove_dir_all(&fresh)?;
    Ok(folder)
}

/// Go names a program by the last part of its package's path that is not a version.
fn go_name(package: &str) -> &str {
    let is_version = |word: &str| word.strip_prefix('v').is_some_and(|number| number.parse::<u32>().is_ok());
    package.rsplit('/').find(|word| !is_version(word)).unwrap_or(package)
}

fn build_coredns() -> Result<PathBuf> {
    let program = coredns();
    let _turn = turn();
    if program.is_file() {
        return Ok(program);
    }
    let _running = Running::start(format!("building CoreDNS {COREDNS_VERSION} with Go"));
    let mut command = go("tests/cluster/coredns")?;
    command.args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o"]);
    finish(&mut command, &program, ".")?;
    Ok(program)
}

/// Builds one package, and puts the program in its place when it is complete.
fn finish(command: &mut Command, program: &Path, package: &str) -> Result<()> {
    let fresh = program.with_extension("new");
    fs::create_dir_all(program.parent().expect("a folder"))?;
    quietly(command.arg(&fresh).arg(package)).with_context(|| format!("{} could not be built", program.display()))?;
    Ok(fs::rename(&fresh, program)?)
}

/// Go in the folder of a module. Without C, so that programs are static and run in any image.
fn go(module: &str) -> Result<Command> {
    let Some(go) = which("go") else {
        bail!("`go` is missing: install Go 1.24 or newer (https://go.dev/doc/install), which builds Kubernetes")
    };
    let mut command = Command::new(go);
    command.current_dir(root().join(module)).env("CGO_ENABLED", "0");
    Ok(command)
}

fn has(folder: &Path, programs: &[Program]) -> bool {
    programs.iter().all(|Program(name, _)| folder.join(name).is_file())
}

fn coredns() -> PathBuf {
    tools().join(format!("coredns-{COREDNS_VERSION}")).join("coredns")
}

fn folder() -> PathBuf {
    tools().join(format!("kubernetes-{KUBERNETES_VERSION}"))
}

//! Finds or installs the tools that the other verbs need. It prints what it does, is safe to repeat, and does not change the
//! user's toolchains: tools are built into `target/tools`, and only packages of the distribution are installed.
//!
//! A BPF toolchain is either Debian's packages with a prebuilt `core` for BPF, or a rustup nightly with `rust-src`. What is
//! installed already is used; Debian's is tried first, since its compiler and linker have the same LLVM.

mod container_runtime;
mod debian;
mod deny;
mod kubernetes;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Args;

pub use self::{
    container_runtime::static_bash,
    deny::cargo_deny,
    kubernetes::{
        CYCLONUS_VERSION, ClusterPrograms, Cyclonus, HELM_VERSION, KUBERNETES_VERSION, POLICY_API_VERSION, PolicyApi,
        cluster_programs, cyclonus, found_cluster_programs, found_helm, helm, kubernetes_api, netpol_tests, policy_api,
        sctp,
    },
};
use crate::{
    command::{output, quietly, succeeds, tools, which},
    progress::Running,
};

const BPF_LINKER_VERSION: &str = "0.13.0";
/// LLVM of the linker for Debian's compiler: the version that bpf-linker and that compiler share.
const LLVM: &str = "22";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_PACKAGES: [&str; 7] = [
    "rustc-web",
    "cargo-web",
    "libstd-rust-web-dev-bpf",
    "llvm-22-dev",
    "libpolly-22-dev",
    "libzstd-dev",
    "zlib1g-dev",
];
/// Readers of Parquet that are independent of ours.
const PYTHON_PACKAGES: [&str; 2] = ["duckdb==2.0.0", "pyarrow==26.0.1"];

#[derive(Debug, Args)]
pub struct Options {
    /// Print what is there; install nothing.
    #[arg(long)]
    check: bool,
}

/// How BPF objects are built here.
#[derive(Debug)]
pub enum BpfToolchain {
    Rustup { linker: PathBuf },
    Debian { cargo: PathBuf, rustc: PathBuf, linker: PathBuf },
}

/// Where a BPF toolchain comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    Debian,
    Rustup,
}

impl Origin {
    /// Folder of the linker that we build for it.
    fn folder(self) -> PathBuf {
        tools().join(match self {
            Self::Debian => "debian",
            Self::Rustup => "rustup",
        })
    }
}

impl BpfToolchain {
    pub fn linker(&self) -> &Path {
        match self {
            Self::Rustup { linker } | Self::Debian { linker, .. } => linker,
        }
    }
}

pub fn run(options: &Options) -> Result<()> {
    if options.check {
        println!("BPF toolchain: {}", found_bpf_toolchain().map_or("missing".to_owned(), |t| describe(&t)));
        println!("ip (iproute2): {}", shown(which("ip")));
        println!("psql: {}", shown(which("psql")));
        println!("python with duckdb and pyarrow: {}", shown(python().filter(|p| has_duckdb(p))));
        println!("cargo-deny: {}", shown(deny::found()));
        println!("dpkg-deb: {}", shown(which("dpkg-deb")));
        println!("systemd-analyze: {}", shown(which("systemd-analyze")));
        println!("Kubernetes API server: {}", shown(kubernetes::found_api()));
        println!("Kubernetes cluster: {}", shown(found_cluster_programs().map(|programs| programs.kubernetes)));
        println!("Helm: {}", shown(found_helm()));
        return Ok(());
    }
    println!("BPF toolchain: {}", describe(&bpf_toolchain()?));
    report("ip (iproute2)", network_tools());
    report("python with duckdb and pyarrow", reader_tools());
    report("psql", psql());
    report("cargo-deny", cargo_deny());
    report("dpkg-deb", dpkg_deb());
    report("systemd-analyze", systemd_analyze());
    report("Kubernetes API server", kubernetes_api());
    report("Kubernetes cluster", cluster_programs().map(|programs| programs.kubernetes));
    report("Helm", helm());
    Ok(())
}

/// Prints a tool that only some suites need; without it the others run.
fn report(name: &str, found: Result<PathBuf>) {
    match found {
        Ok(path) => println!("{name}: {}", path.display()),
        Err(error) => println!("{name}: {error:#}"),
    }
}

/// The installed toolchain, or one that is installed now.
pub fn bpf_toolchain() -> Result<BpfToolchain> {
    if let Some(found) = found_bpf_toolchain() {
        return Ok(found);
    }
    match debian_toolchain() {
        Ok(toolchain) => Ok(toolchain),
        Err(debian) => rustup_toolchain().with_context(|| format!("nor could Debian's packages be used: {debian:#}")),
    }
}

/// Debian's compiler and LLVM packages have the same LLVM version, so a linker for them can always be built.
fn debian_toolchain() -> Result<BpfToolchain> {
    if !debian_compiler() {
        debian::install(&DEBIAN_PACKAGES)?;
    }
    let linker = match find_linker(Origin::Debian) {
        Some(linker) => linker,
        None => {
            let prefix = format!("/usr/lib/llvm-{LLVM}");
            // Without LLVM_PREFIX an older llvm-config on PATH is used, and linking fails.
            install_linker(Origin::Debian, &[("LLVM_PREFIX", &prefix), ("LLVM_SYS_221_PREFIX", &prefix)])?
        }
    };
    Ok(BpfToolchain::Debian { cargo: DEBIAN_CARGO.into(), rustc: DEBIAN_RUSTC.into(), linker })
}

fn rustup_toolchain() -> Result<BpfToolchain> {
    if !rustup_can_build() && !rustup_install() {
        bail!(
            "no BPF toolchain can be had. Either `rustup toolchain install nightly --component rust-src`, or use a Debian \
             machine with the packages {}",
            DEBIAN_PACKAGES.join(", ")
        );
    }
    let linker = match find_linker(Origin::Rustup) {
        Some(linker) => linker,
        None => install_linker(Origin::Rustup, &[]).context(
            "the nightly compiler is there, but no bpf-linker for its LLVM: install LLVM's development files of the \
             version that `rustc +nightly -vV` names, or a released bpf-linker",
        )?,
    };
    Ok(BpfToolchain::Rustup { linker })
}

/// Network namespaces are made with iproute2.
pub fn network_tools() -> Result<PathBuf> {
    program("ip", "iproute2")
}

/// A program that reads or rewrites programs.
pub fn binutils(name: &str) -> Result<PathBuf> {
    program(name, "binutils")
}

/// Tells how much of a system a unit could reach.
pub fn systemd_analyze() -> Result<PathBuf> {
    program("systemd-analyze", "systemd")
}

/// Writes Debian packages, on other distributions too.
pub fn dpkg_deb() -> Result<PathBuf> {
    program("dpkg-deb", "dpkg")
}

pub fn psql() -> Result<PathBuf> {
    program("psql", "postgresql-client")
}

/// A Python with duckdb and pyarrow, in a virtual environment of our own.
pub fn reader_tools() -> Result<PathBuf> {
    if let Some(python) = python().filter(|python| has_duckdb(python)) {
        return Ok(python);
    }
    let system = which("python3").context("python3 is missing: install it with your package manager")?;
    let _running =
        Running::start(format!("installing {} into {}", PYTHON_PACKAGES.join(", "), environment().display()));
    quietly(Command::new(system).args(["-m", "venv"]).arg(environment()))?;
    let python = environment().join("bin/python");
    quietly(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PYTHON_PACKAGES))?;
    Ok(python)
}

fn program(name: &str, package: &str) -> Result<PathBuf> {
    if let Some(found) = which(name) {
        return Ok(found);
    }
    debian::install(&[package])?;
    which(name).with_context(|| format!("`{name}` is still missing: install {package} with your package manager"))
}

fn environment() -> PathBuf {
    tools().join("python")
}

fn python() -> Option<PathBuf> {
    Some(environment().join("bin/python")).filter(|path| path.exists())
}

fn has_duckdb(python: &Path) -> bool {
    succeeds(Command::new(python).args(["-c", "import duckdb, pyarrow.parquet"]))
}

fn found_bpf_toolchain() -> Option<BpfToolchain> {
    if debian_compiler()
        && let Some(linker) = find_linker(Origin::Debian)
    {
        return Some(BpfToolchain::Debian { cargo: DEBIAN_CARGO.into(), rustc: DEBIAN_RUSTC.into(), linker });
    }
    let linker = rustup_can_build().then(|| find_linker(Origin::Rustup)).flatten()?;
    Some(BpfToolchain::Rustup { linker })
}

fn debian_compiler() -> bool {
    which("dpkg").is_some()
        && succeeds(Command::new("dpkg").args(["-s", "libstd-rust-web-dev-bpf", "rustc-web", "cargo-web"]))
}

/// A nightly whose sources of `core` are there.
fn rustup_can_build() -> bool {
    output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))
        .is_ok_and(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").exists())
}

fn rustup_install() -> bool {
    if which("rustup").is_none() {
        return false;
    }
    let _running = Running::start("asking rustup for a nightly with rust-src (your default toolchain stays as it is)");
    succeeds(Command::new("rustup").args([
        "toolchain",
        "install",
        "nightly",
        "--profile",
        "minimal",
        "--component",
        "rust-src",
        "--no-self-update",
    ])) && rustup_can_build()
}

/// The linker of a toolchain. A linker reads only what a compiler with the same LLVM writes, so each has its own.
fn find_linker(origin: Origin) -> Option<PathBuf> {
    let works = |path: &PathBuf| succeeds(Command::new(path).arg("--version"));
    let own = Some(origin.folder().join("bin/bpf-linker")).filter(works);
    match origin {
        Origin::Debian => own,
        // A linker on PATH is taken to be for the user's own nightly.
        Origin::Rustup => own.or_else(|| which("bpf-linker").filter(works)),
    }
}

fn install_linker(origin: Origin, environment: &[(&str, &str)]) -> Result<PathBuf> {
    let folder = origin.folder();
    let _running = Running::start(format!("building bpf-linker {BPF_LINKER_VERSION} into {}", folder.display()));
    let mut cargo = crate::command::cargo();
    cargo
        .args(["install", "bpf-linker", "--locked", "--version", BPF_LINKER_VERSION, "--root"])
        .arg(&folder)
        .env("CARGO_TARGET_DIR", folder.join("build"))
        // LLVM does the work, and that is compiled already; its own release profile has full debug information.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "4")
        .envs(environment.iter().copied());
    if origin == Origin::Debian {
        cargo.args(["--no-default-features", "--features", "llvm-22"]);
    }
    let built = quietly(&mut cargo);
    // Only the program is of use afterwards.
    std::fs::remove_dir_all(folder.join("build")).ok();
    built.context("bpf-linker could not be built")?;
    find_linker(origin).context("bpf-linker was built but does not start")
}

fn describe(toolchain: &BpfToolchain) -> String {
    match toolchain {
        BpfToolchain::Rustup { linker } => format!("rustup nightly, {}", linker.display()),
        BpfToolchain::Debian { rustc, linker, .. } => format!("Debian's {}, {}", rustc.display(), linker.display()),
    }
}

fn shown(path: Option<PathBuf>) -> String {
    path.map_or("missing".to_owned(), |path| path.display().to_string())
}

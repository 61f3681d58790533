//! A Kubernetes API server and etcd, built from source with Go in the versions that a `go.sum` pins.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    command::{quietly, root, succeeds, tools, which},
    progress::Running,
};

/// The version in `tests/cluster/kubernetes/go.mod`.
const VERSION: &str = "v1.33.13";
const VERSION_PACKAGE: &str = "k8s.io/component-base/version";
/// The programs and their Go packages.
const PROGRAMS: [(&str, &str); 2] =
    [("etcd", "go.etcd.io/etcd/server/v3"), ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver")];

/// A folder with `kube-apiserver` and `etcd`. They are built if they are not there.
pub fn kubernetes() -> Result<PathBuf> {
    let folder = folder();
    let missing: Vec<_> = PROGRAMS.iter().filter(|(program, _)| !works(&folder.join(program))).collect();
    if missing.is_empty() {
        return Ok(folder);
    }
    let Some(go) = which("go") else {
        bail!(
            "`go` is missing: install Go 1.24 or newer (https://go.dev/doc/install), which builds a Kubernetes API server"
        )
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    for (program, package) in missing {
        let _running = Running::start(format!("building {program} for Kubernetes {VERSION} into {}", folder.display()));
        build(&go, package, &folder.join(program)).with_context(|| format!("{program} could not be built"))?;
    }
    Ok(folder)
}

/// The folder, if both programs are there.
pub(super) fn found() -> Option<PathBuf> {
    Some(folder()).filter(|folder| PROGRAMS.iter().all(|(program, _)| works(&folder.join(program))))
}

fn build(go: &Path, package: &str, program: &Path) -> Result<()> {
    let (major, minor) = ("1", VERSION.split('.').nth(1).unwrap_or_default());
    let named = |name: &str, value: &str| format!("-X {VERSION_PACKAGE}.{name}={value}");
    // Without a version the API server serves no beta kinds.
    let flags = [named("gitVersion", VERSION), named("gitMajor", major), named("gitMinor", minor)].join(" ");
    let mut command = Command::new(go);
    command
        .current_dir(root().join("tests/cluster/kubernetes"))
        .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", &format!("-s -w {flags}"), "-o"])
        .args([program.as_os_str(), package.as_ref()])
        .env("CGO_ENABLED", "0");
    quietly(&mut command)
}

fn works(program: &Path) -> bool {
    program.is_file() && succeeds(Command::new(program).arg("--version"))
}

fn folder() -> PathBuf {
    tools().join(format!("kubernetes-{VERSION}"))
}

//! Builds the BPF object. A plain `cargo build` does not need it, and embeds it if there is one.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{
    command::{quietly, root, target},
    progress::Running,
    setup::{BpfToolchain, bpf_toolchain},
};

const TRIPLE: &str = "bpfel-unknown-none";

/// Where the object is put.
pub fn object() -> PathBuf {
    target().join("bpf/netverdict.bpf.o")
}

/// Builds the object, unless its sources have not changed since it was built.
pub fn build() -> Result<PathBuf> {
    let (object, stamp) = (object(), object().with_extension("o.sources"));
    let sources = digest_of_sources()?;
    if object.exists() && fs::read_to_string(&stamp).is_ok_and(|built_from| built_from == sources) {
        return Ok(object);
    }
    let toolchain = bpf_toolchain()?;
    let linker = toolchain.linker().to_path_buf();
    let folder = target().join("bpf/build");
    let mut cargo = match &toolchain {
        BpfToolchain::Rustup { .. } => {
            let mut cargo = Command::new("rustup");
            cargo.args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"]);
            cargo
        }
        BpfToolchain::Debian { cargo, rustc, .. } => {
            let mut command = Command::new(cargo);
            command.arg("build").env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
            command
        }
    };
    cargo
        .args(["--release", "--locked", "--target", TRIPLE])
        .current_dir(root().join("probe/ebpf"))
        // The outer cargo and rustup set these, and they would choose the wrong compiler.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_TARGET_DIR", &folder)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker);
    let _running = Running::start("building the BPF object");
    quietly(&mut cargo)?;
    let built = folder.join(TRIPLE).join("release/netverdict");
    // A new file and a rename, so that a process that reads the object at this moment gets a complete one.
    let fresh = object.with_extension("o.new");
    fs::copy(&built, &fresh).with_context(|| format!("no object at {}", built.display()))?;
    fs::rename(&fresh, &object)?;
    fs::write(stamp, sources)?;
    Ok(object)
}

fn digest_of_sources() -> Result<String> {
    let mut hasher = DefaultHasher::new();
    let mut files = Vec::new();
    for folder in ["probe/ebpf", "probe/abi"] {
        collect(&root().join(folder), &mut files)?;
    }
    files.sort();
    for file in files {
        file.hash(&mut hasher);
        fs::read(&file)?.hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))? {
        let path = entry?.path();
        match path.is_dir() {
            true if path.ends_with("target") => {}
            true => collect(&path, files)?,
            false => files.push(path),
        }
    }
    Ok(())
}

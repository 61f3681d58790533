//! Embeds the BPF object where there is one. A build without it works, and names the missing object at run time.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    println!("cargo::rerun-if-env-changed=NETVERDICT_BPF_OBJECT");
    let object = match env::var_os("NETVERDICT_BPF_OBJECT") {
        Some(path) => PathBuf::from(path),
        None => built_by_xtask(),
    };
    let embedded = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("netverdict.bpf.o");
    if object.is_file() {
        println!("cargo::rerun-if-changed={}", object.display());
        fs::copy(&object, &embedded).expect("copy the BPF object");
    } else {
        fs::write(&embedded, []).expect("write an empty object");
    }
}

/// Where `cargo xtask ebpf` puts the object. The folder is made and watched, because cargo would take a path that does
/// not exist as changed, every time.
fn built_by_xtask() -> PathBuf {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let folder = Path::new(&manifest).join("../../target/bpf");
    // Sources may lie on a read-only file system; then there is nothing to watch.
    if fs::create_dir_all(&folder).is_ok() {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    folder.join("netverdict.bpf.o")
}

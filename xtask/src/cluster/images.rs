//! The images of the cluster's own pods, in the format of `docker save`. Each is one layer of static programs.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// A registry that does not exist: every image is there already.
pub const REGISTRY: &str = "netverdict.test";
/// The version of agnhost that Kubernetes' own tests of this version ask for.
const AGNHOST_VERSION: &str = "2.53";

/// The image that cyclonus uses where one program makes many connections.
const WORKER: &str = "docker.io/mfenwick100/cyclonus-worker:latest";

/// Programs that tests call by name in the image of agnhost.
const APPLETS: &str = "sh cat cut date echo env false grep head hostname id ip kill ls nc netstat ping ping6 ps route sed \
                       seq sleep sort tail test timeout top tr true uniq wc";

/// Holds a pod's namespaces.
pub(super) fn pause() -> String {
    format!("{REGISTRY}/pause:1")
}

/// Servers and clients of many protocols, and a shell.
pub fn agnhost() -> String {
    format!("{REGISTRY}/agnhost:{AGNHOST_VERSION}")
}

pub(super) fn coredns() -> String {
    format!("{REGISTRY}/coredns:1")
}

struct Image {
    tag: String,
    entrypoint: Vec<&'static str>,
    command: Vec<&'static str>,
    layer: Vec<u8>,
}

/// Where the static programs are.
pub(super) struct Programs<'a> {
    pub(super) agnhost: &'a Path,
    pub(super) coredns: &'a Path,
    pub(super) busybox: &'a Path,
}

/// Writes one archive of all images, unless it is there. It is kept beside the programs, whose folder has their version.
pub(super) fn write(programs: &Programs<'_>, path: PathBuf) -> Result<PathBuf> {
    let newest = |path: &Path| fs::metadata(path).and_then(|file| file.modified());
    if let Ok(written) = newest(&path)
        && [programs.agnhost, programs.coredns].iter().all(|program| newest(program).is_ok_and(|built| built < written))
    {
        return Ok(path);
    }
    save(images(programs)?, path)
}

/// An archive, beside the worker, of the image of cyclonus' pods: its servers are agnhost's.
pub fn worker_image(agnhost: &Path, worker: &Path) -> Result<PathBuf> {
    let mut layer = Layer::new();
    layer.ground()?;
    layer.file("agnhost", 0o755, &read(agnhost)?)?;
    layer.file("worker", 0o755, &read(worker)?)?;
    let image = Image { tag: WORKER.to_owned(), entrypoint: vec!["/worker"], command: vec![], layer: layer.end()? };
    save([image], worker.with_extension("tar"))
}

/// agnhost as upstream's own image has it, where more is asked of it than in this cluster's.
#[derive(Clone, Copy, Debug)]
pub struct Agnhost<'a> {
    pub agnhost: &'a Path,
    /// A static one.
    pub bash: &'a Path,
    /// Takes the place of agnhost, which is beside it as `agnhost.real`.
    pub front: Option<&'a Path>,
}

impl Agnhost<'_> {
    /// An archive of the image with this name.
    pub fn save(&self, tag: &str, path: PathBuf) -> Result<PathBuf> {
        let mut layer = Layer::new();
        layer.ground()?;
        layer.folder("bin", 0o755)?;
        layer.file("bin/bash", 0o755, &read(self.bash)?)?;
        let agnhost = read(self.agnhost)?;
        match self.front {
            Some(front) => {
                layer.file("agnhost.real", 0o755, &agnhost)?;
                layer.file("agnhost", 0o755, &read(front)?)?;
            }
            None => layer.file("agnhost", 0o755, &agnhost)?,
        }
        let (entrypoint, command) = (vec!["/agnhost"], vec!["pause"]);
        save([Image { tag: tag.to_owned(), entrypoint, command, layer: layer.end()? }], path)
    }
}

fn save(images: impl IntoIterator<Item = Image>, path: PathBuf) -> Result<PathBuf> {
    let fresh = path.with_extension("new");
    let file = File::create(&fresh).with_context(|| format!("could not write {}", fresh.display()))?;
    archive(images, BufWriter::new(file))?;
    fs::rename(&fresh, &path)?;
    Ok(path)
}

fn read(program: &Path) -> Result<Vec<u8>> {
    fs::read(program).with_context(|| format!("no program {}", program.display()))
}

fn images(programs: &Programs<'_>) -> Result<[Image; 3]> {
    let busybox = read(programs.busybox)?;
    let mut pause = Layer::new();
    pause.file("busybox", 0o755, &busybox)?;
    let mut agnhost = Layer::new();
    agnhost.ground()?;
    agnhost.folder("bin", 0o755)?;
    agnhost.file("bin/busybox", 0o755, &busybox)?;
    for applet in APPLETS.split_whitespace() {
        agnhost.link(&format!("bin/{applet}"), "busybox")?;
    }
    agnhost.file("agnhost", 0o755, &read(programs.agnhost)?)?;
    let mut coredns = Layer::new();
    coredns.ground()?;
    coredns.file("coredns", 0o755, &read(programs.coredns)?)?;
    Ok([
        Image {
            tag: self::pause(),
            // A container runtime kills it, so that it needs to heed no signal.
            entrypoint: vec!["/busybox", "sleep", "infinity"],
            command: vec![],
            layer: pause.end()?,
        },
        Image { tag: self::agnhost(), entrypoint: vec!["/agnhost"], command: vec!["pause"], layer: agnhost.end()? },
        Image { tag: self::coredns(), entrypoint: vec!["/coredns"], command: vec![], layer: coredns.end()? },
    ])
}

fn archive(images: impl IntoIterator<Item = Image>, output: impl Write) -> Result<()> {
    let mut archive = Layer(Builder::new(output));
    let mut manifest = Vec::new();
    for Image { tag, entrypoint, command, layer } in images {
        let digest = hex(&layer);
        let configuration = json!({
            "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", _ => "amd64" },
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": { "Env": ["PATH=/bin:/"], "Entrypoint": entrypoint, "Cmd": command },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        });
        let configuration = configuration.to_string();
        let (layer_name, name) = (format!("{digest}.tar"), format!("{}.json", hex(configuration.as_bytes())));
        archive.file(&layer_name, 0o644, &layer)?;
        archive.file(&name, 0o644, configuration.as_bytes())?;
        manifest.push(json!({ "Config": name, "RepoTags": [tag], "Layers": [layer_name] }));
    }
    archive.file("manifest.json", 0o644, Value::from(manifest).to_string().as_bytes())?;
    archive.0.into_inner()?.flush()?;
    Ok(())
}

/// A tar archive without times and owners, so that the same programs make the same image.
struct Layer<W: Write>(Builder<W>);

impl Layer<Vec<u8>> {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Files that programs expect of any system.
    fn ground(&mut self) -> Result<()> {
        for (name, mode) in [("etc", 0o755), ("tmp", 0o1777), ("root", 0o700)] {
            self.folder(name, mode)?;
        }
        self.file("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")?;
        self.file("etc/group", 0o644, b"root:x:0:\nnobody:x:65534:\n")?;
        self.file("etc/nsswitch.conf", 0o644, b"hosts: files dns\n")
    }

    fn end(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}

impl<W: Write> Layer<W> {
    fn file(&mut self, name: &str, mode: u32, contents: &[u8]) -> Result<()> {
        let mut header = header(EntryType::Regular, mode);
        header.set_size(u64::try_from(contents.len())?);
        Ok(self.0.append_data(&mut header, name, contents)?)
    }

    fn folder(&mut self, name: &str, mode: u32) -> Result<()> {
        Ok(self.0.append_data(&mut header(EntryType::Directory, mode), name, [].as_slice())?)
    }

    fn link(&mut self, name: &str, to: &str) -> Result<()> {
        Ok(self.0.append_link(&mut header(EntryType::Symlink, 0o777), name, to)?)
    }
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use super::*;

    /// A runtime refuses a layer whose digest is not the one that the image names.
    #[test]
    fn an_image_names_its_layer_by_digest() {
        let mut layer = Layer::new();
        layer.ground().unwrap();
        layer.link("bin/sh", "busybox").unwrap();
        let layer = layer.end().unwrap();
        let image = Image { tag: agnhost(), entrypoint: vec!["/agnhost"], command: vec![], layer: layer.clone() };
        let mut written = Vec::new();
        archive([image], &mut written).unwrap();

        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(written.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), contents);
        }
        let json = |name: &str| serde_json::from_slice::<Value>(&files[name]).unwrap();
        let manifest = json("manifest.json");
        assert_eq!(manifest[0]["RepoTags"], json!([agnhost()]));
        assert_eq!(files[manifest[0]["Layers"][0].as_str().unwrap()], layer);
        let configuration = json(manifest[0]["Config"].as_str().unwrap());
        assert_eq!(configuration["rootfs"]["diff_ids"], json!([format!("sha256:{}", hex(&layer))]));
    }
}

//! The images of the cluster's own pods, in the format of `docker save`. Each is one layer of static programs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

use crate::image::{Image, Layer, read, save};

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
    save(&images(programs)?, path)
}

/// An archive, beside the worker, of the image of cyclonus' pods: its servers are agnhost's.
pub fn worker_image(agnhost: &Path, worker: &Path) -> Result<PathBuf> {
    let mut layer = Layer::new();
    layer.ground()?;
    layer.file("agnhost", 0o755, &read(agnhost)?)?;
    layer.file("worker", 0o755, &read(worker)?)?;
    save(&[Image::new(WORKER.to_owned(), vec!["/worker"], layer.end()?)], worker.with_extension("tar"))
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
        save(&[of_agnhost(tag.to_owned(), layer.end()?)], path)
    }
}

fn of_agnhost(tag: String, layer: Vec<u8>) -> Image {
    Image { command: vec!["pause"], ..Image::new(tag, vec!["/agnhost"], layer) }
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
        // A container runtime kills it, so that it needs to heed no signal.
        Image::new(self::pause(), vec!["/busybox", "sleep", "infinity"], pause.end()?),
        of_agnhost(self::agnhost(), agnhost.end()?),
        Image::new(self::coredns(), vec!["/coredns"], coredns.end()?),
    ])
}

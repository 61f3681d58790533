//! Container images without a daemon: layers of files, and archives in the format of `docker save`.
//!
//! Nothing here has a time or the name of a user, so that the same files make an image with the same digest.

mod libraries;
mod product;

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

pub use self::product::{Options, Written, run, write};
use crate::digest::sha256;

/// An image of one layer.
pub(crate) struct Image {
    pub(crate) tag: String,
    pub(crate) entrypoint: Vec<&'static str>,
    pub(crate) command: Vec<&'static str>,
    /// `NAME=VALUE`, beside `PATH`.
    pub(crate) environment: Vec<String>,
    /// User and group of its process, in numbers; empty is root.
    pub(crate) user: String,
    pub(crate) layer: Vec<u8>,
}

impl Image {
    /// One that runs as root, without an environment.
    pub(crate) fn new(tag: String, entrypoint: Vec<&'static str>, layer: Vec<u8>) -> Self {
        Self { tag, entrypoint, command: vec![], environment: vec![], user: String::new(), layer }
    }

    /// The configuration for a container runtime. The image's id is the digest of this text.
    fn configuration(&self) -> String {
        let environment = ["PATH=/usr/bin:/bin:/".to_owned()].into_iter().chain(self.environment.iter().cloned());
        let configuration = json!({
            "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", _ => "amd64" },
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Env": environment.collect::<Vec<_>>(),
                "Entrypoint": self.entrypoint,
                "Cmd": self.command,
                "User": self.user,
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&self.layer))] },
        });
        configuration.to_string()
    }

    pub(crate) fn id(&self) -> String {
        format!("sha256:{}", sha256(self.configuration().as_bytes()))
    }
}

/// Writes an archive. It is there when it is complete.
pub(crate) fn save(images: &[Image], path: PathBuf) -> Result<PathBuf> {
    let fresh = path.with_extension("new");
    let file = File::create(&fresh).with_context(|| format!("could not write {}", fresh.display()))?;
    archive(images, BufWriter::new(file))?;
    fs::rename(&fresh, &path)?;
    Ok(path)
}

pub(crate) fn read(program: &Path) -> Result<Vec<u8>> {
    fs::read(program).with_context(|| format!("no program {}", program.display()))
}

fn archive(images: &[Image], output: impl Write) -> Result<()> {
    let mut archive = Layer(Builder::new(output));
    let mut manifest = Vec::new();
    for image in images {
        let configuration = image.configuration();
        let layer_name = format!("{}.tar", sha256(&image.layer));
        let name = format!("{}.json", sha256(configuration.as_bytes()));
        archive.file(&layer_name, 0o644, &image.layer)?;
        archive.file(&name, 0o644, configuration.as_bytes())?;
        manifest.push(json!({ "Config": name, "RepoTags": [image.tag], "Layers": [layer_name] }));
    }
    archive.file("manifest.json", 0o644, Value::from(manifest).to_string().as_bytes())?;
    archive.0.into_inner()?.flush()?;
    Ok(())
}

/// A tar archive without times and owners.
pub(crate) struct Layer<W: Write>(Builder<W>);

impl Layer<Vec<u8>> {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Files that programs expect of any system.
    pub(crate) fn ground(&mut self) -> Result<()> {
        self.ground_with("", "")
    }

    /// The same, with further lines of `/etc/passwd` and `/etc/group`.
    pub(crate) fn ground_with(&mut self, users: &str, groups: &str) -> Result<()> {
        for (name, mode) in [("etc", 0o755), ("tmp", 0o1777), ("root", 0o700)] {
            self.folder(name, mode)?;
        }
        let users = format!("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n{users}");
        self.file("etc/passwd", 0o644, users.as_bytes())?;
        self.file("etc/group", 0o644, format!("root:x:0:\nnobody:x:65534:\n{groups}").as_bytes())?;
        self.file("etc/nsswitch.conf", 0o644, b"hosts: files dns\n")
    }

    pub(crate) fn end(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}

impl<W: Write> Layer<W> {
    pub(crate) fn file(&mut self, name: &str, mode: u32, contents: &[u8]) -> Result<()> {
        let mut header = header(EntryType::Regular, mode);
        header.set_size(u64::try_from(contents.len())?);
        Ok(self.0.append_data(&mut header, name, contents)?)
    }

    pub(crate) fn folder(&mut self, name: &str, mode: u32) -> Result<()> {
        Ok(self.0.append_data(&mut header(EntryType::Directory, mode), name, [].as_slice())?)
    }

    pub(crate) fn link(&mut self, name: &str, to: &str) -> Result<()> {
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
        let tag = "netverdict.test/image:1";
        let image = Image::new(tag.to_owned(), vec!["/program"], layer.clone());
        let id = image.id();
        let mut written = Vec::new();
        archive(&[image], &mut written).unwrap();

        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(written.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut contents = Vec::new();
            entry.read_to_end(&mut contents).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), contents);
        }
        let json = |name: &str| serde_json::from_slice::<Value>(&files[name]).unwrap();
        let manifest = json("manifest.json");
        assert_eq!(manifest[0]["RepoTags"], json!([tag]));
        assert_eq!(files[manifest[0]["Layers"][0].as_str().unwrap()], layer);
        let name = manifest[0]["Config"].as_str().unwrap();
        assert_eq!(format!("sha256:{}", name.trim_end_matches(".json")), id);
        assert_eq!(json(name)["rootfs"]["diff_ids"], json!([format!("sha256:{}", sha256(&layer))]));
    }
}

//! The images of the product, from scratch: the programs without debug information, the libraries that they are linked with,
//! a bill of materials for each, and nothing else. No shell is in them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;

use super::{Image, Layer, libraries, read, save};
use crate::{
    cluster::REGISTRY,
    command::target,
    ebpf,
    gzip::gzip,
    sbom::{BPF_OBJECT, Inventory},
    services::{self, Profile},
    symbols::Symbols,
};

/// User id of the query service, and group id of the record's files, as the chart has them.
const USER: u32 = 65_532;
const OBJECT: &str = "/usr/lib/netverdict/netverdict.bpf.o";
/// Folder of the bills of materials.
const BILLS: &str = "usr/share/doc/netverdict";

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How the programs are built.
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    pub profile: Profile,
    /// The registry in the names of the images.
    #[arg(long, default_value = REGISTRY)]
    pub registry: String,
    /// Where the archives are written [default: target/image/PROFILE]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Take the programs that are built already.
    #[arg(long)]
    pub no_build: bool,
}

/// An archive of one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub archive: PathBuf,
    pub tag: String,
    /// The digest of its configuration, which holds that of its layer.
    pub id: String,
    /// Of the layer, in bytes.
    pub size: u64,
}

struct Recipe {
    name: &'static str,
    /// The first is what the image runs.
    programs: &'static [&'static str],
    has_object: bool,
    user: Option<u32>,
}

const IMAGES: [Recipe; 2] = [
    Recipe {
        name: "netverdict-collector",
        programs: &["netverdict-collector", "netverdict-cni", "netverdict"],
        has_object: true,
        user: None,
    },
    Recipe { name: "netverdict-query", programs: &["netverdict-query"], has_object: false, user: Some(USER) },
];

/// Builds the programs and writes an archive of each image.
pub fn run(options: &Options) -> Result<()> {
    let object = ebpf::build()?;
    if !options.no_build {
        services::build(options.profile)?;
    }
    for Written { archive, tag, id, size } in write(options, &object)? {
        // A registry keeps and sends the layer compressed.
        let sent = gzip(&read(&archive)?, 6)?.len();
        let (size, sent) = (megabytes(size), megabytes(u64::try_from(sent)?));
        println!("{tag}\n  {id}\n  {size:.1} MB, {sent:.1} MB compressed, {}", archive.display());
    }
    println!(
        "load one with `docker load -i`, `podman load -i`, `ctr -n k8s.io images import` or `cargo xtask cluster load`"
    );
    Ok(())
}

/// Writes the archives of programs that are built already.
pub fn write(options: &Options, object: &Path) -> Result<Vec<Written>> {
    let Options { profile, registry, out, no_build: _ } = options;
    let programs = profile.folder();
    let out = out.clone().unwrap_or_else(|| target().join("image").join(profile.to_string()));
    fs::create_dir_all(&out).with_context(|| format!("could not make {}", out.display()))?;
    let tools = Tools { symbols: Symbols::tools()?, inventory: Inventory::read()? };
    let version = env!("CARGO_PKG_VERSION");
    let images = IMAGES.iter().map(|recipe| {
        let image = image(recipe, &programs, object, format!("{registry}/{}:{version}", recipe.name), &tools, &out)?;
        let (tag, id, size) = (image.tag.clone(), image.id(), u64::try_from(image.layer.len())?);
        let archive = save(&[image], out.join(format!("{}-{version}.tar", recipe.name)))?;
        Ok(Written { archive, tag, id, size })
    });
    images.collect()
}

struct Tools {
    symbols: Symbols,
    inventory: Inventory,
}

fn image(recipe: &Recipe, programs: &Path, object: &Path, tag: String, tools: &Tools, aside: &Path) -> Result<Image> {
    let Recipe { name: _, programs: names, has_object, user } = recipe;
    let mut layer = Layer::new();
    let account =
        user.map(|id| (format!("netverdict:x:{id}:{id}:netverdict:/:/bin/false\n"), format!("netverdict:x:{id}:\n")));
    let (users, groups) = account.unwrap_or_default();
    layer.ground_with(&users, &groups)?;
    let stripped = aside.join("stripped");
    let mut shared = BTreeSet::new();
    for name in *names {
        let program = programs.join(name);
        shared.append(&mut libraries::of(&program)?);
        tools.symbols.strip(&program, &stripped)?;
        layer.file(&format!("usr/bin/{name}"), 0o755, &read(&stripped)?)?;
        // Under these names scanners of images look for them.
        layer.file(&format!("{BILLS}/{name}.cdx.json"), 0o644, tools.inventory.bill(name)?.as_bytes())?;
    }
    fs::remove_file(&stripped)?;
    for library in &shared {
        let name = library.strip_prefix("/").with_context(|| format!("{} is not absolute", library.display()))?;
        layer.file(&name.to_string_lossy(), 0o755, &read(library)?)?;
    }
    let mut environment = Vec::new();
    if *has_object {
        layer.file(OBJECT.trim_start_matches('/'), 0o644, &read(object)?)?;
        let bill = tools.inventory.bill(BPF_OBJECT)?;
        layer.file(&format!("{BILLS}/{BPF_OBJECT}.cdx.json"), 0o644, bill.as_bytes())?;
        environment.push(format!("NETVERDICT_BPF_OBJECT={OBJECT}"));
    }
    let user = user.map(|id| format!("{id}:{id}")).unwrap_or_default();
    Ok(Image { environment, user, ..Image::new(tag, vec![names[0]], layer.end()?) })
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The program of this test stands for the product's.
    #[test]
    fn the_same_programs_make_the_same_image() {
        let folder = std::env::temp_dir().join(format!("netverdict-image-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::copy("/proc/self/exe", folder.join("netverdict-cni")).unwrap();
        let recipe = Recipe { name: "image", programs: &["netverdict-cni"], has_object: true, user: Some(USER) };
        let object = folder.join("netverdict-cni");
        let tools = || Tools { symbols: Symbols::tools().unwrap(), inventory: Inventory::read().unwrap() };
        let make = || image(&recipe, &folder, &object, "registry/image:1".to_owned(), &tools(), &folder).unwrap();
        let (one, other) = (make(), make());
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(one.id(), other.id());
        assert!(one.layer == other.layer);
        assert_eq!(one.user, "65532:65532");
    }
}

//! Puts the plugin in place on a node and takes it away again: `netverdict-cni install | uninstall`.
//!
//! Runtimes read the first network configuration of a folder, in the order of names. It is rewritten as a whole or not at
//! all; what it was is kept beside it, and comes back byte by byte unless somebody else has changed it meanwhile.

mod list;
mod options;

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use thiserror::Error;

use self::{
    list::{PLUGIN, PluginList},
    options::{Options, Verb},
};

/// Ending of the copy of a configuration as it was before the plugin was chained. Runtimes do not read such files.
const BEFORE: &str = "netverdict-before";
const FRESH: &str = "netverdict-new";

/// Why a node was left as it is.
#[derive(Debug, Error)]
pub enum NodeError {
    #[error("{0}\nusage: {usage}", usage = options::USAGE)]
    Usage(String),
    #[error("{path}: cannot be {action}: {source}", path = .path.display())]
    File { path: PathBuf, action: &'static str, source: io::Error },
    #[error(
        "{folder} has no network configuration: install the plugin that connects pods first, or name the folder that the \
         container runtime reads with --conf-dir",
        folder = .0.display()
    )]
    NoNetwork(PathBuf),
    #[error(
        "{path} is what runtimes read, and holds one plugin: a chained plugin needs a list; make it a .conflist with that \
         plugin in `plugins`",
        path = .0.display()
    )]
    NotAList(PathBuf),
    #[error("{path} is a link: name the folder of the file that it leads to with --conf-dir", path = .0.display())]
    Link(PathBuf),
    #[error("{path} is not understood, and left as it is: {reason}; {remedy}", path = .path.display())]
    NotUnderstood { path: PathBuf, reason: String, remedy: &'static str },
}

/// The help, if the arguments ask for it.
pub fn help(arguments: &[String]) -> Option<&'static str> {
    arguments.iter().any(|word| ["--help", "-h", "help"].contains(&word.as_str())).then_some(options::HELP)
}

/// Does what the arguments say. Returns a line for each thing that was done.
///
/// # Errors
/// The arguments, or what is on the node, are not understood; or a file cannot be written.
pub fn run(arguments: &[String]) -> Result<Vec<String>, NodeError> {
    let options = Options::read(arguments).map_err(NodeError::Usage)?;
    match options.verb {
        Verb::Install => {
            let own = std::env::current_exe().and_then(fs::read);
            let own = own.map_err(|source| failed(Path::new(PLUGIN), "read", source))?;
            install(&options, &own)
        }
        Verb::Uninstall => uninstall(&options),
    }
}

/// First the program, then its entry: a runtime starts what is in the list.
fn install(options: &Options, program: &[u8]) -> Result<Vec<String>, NodeError> {
    // Before anything is written: a network that is not understood leaves no trace of us.
    let path = first_configuration(&options.conf_dir)?;
    let (text, list) = read_list(&path)?;
    let chained = list.with(options.entry());
    let mut done = Vec::new();
    let place = options.bin_dir.join(PLUGIN);
    if fs::read(&place).is_ok_and(|there| there == program) {
        done.push(format!("{} is there", place.display()));
    } else {
        replace(&place, program, Owner::New(0o755))?;
        done.push(format!("{} written", place.display()));
    }
    if chained == list {
        done.push(format!("{} has it as its last plugin", path.display()));
        return Ok(done);
    }
    if !list.has_ours() {
        replace(&beside(&path, BEFORE), &text, Owner::Of(&path))?;
    }
    replace(&path, chained.text().as_bytes(), Owner::Of(&path))?;
    done.push(format!("{} has it as its last plugin now", path.display()));
    Ok(done)
}

/// First the entry, then the program.
fn uninstall(options: &Options) -> Result<Vec<String>, NodeError> {
    let mut done = Vec::new();
    for path in configurations(&options.conf_dir)? {
        let before = beside(&path, BEFORE);
        if mentions_us(&path)? {
            let (_, list) = read_list(&path)?;
            if list.has_ours() {
                let without = list.without().map_err(|reason| not_understood(&path, reason))?;
                // The very bytes, unless somebody else has changed what they say.
                let kept = fs::read(&before).ok().filter(|text| PluginList::read(text).is_ok_and(|was| was == without));
                let text = kept.unwrap_or_else(|| without.text().into_bytes());
                replace(&path, &text, Owner::Of(&path))?;
                done.push(format!("taken out of {}", path.display()));
            }
        }
        remove(&before)?;
    }
    let place = options.bin_dir.join(PLUGIN);
    if remove(&place)? {
        done.push(format!("{} removed", place.display()));
    }
    if done.is_empty() {
        done.push("nothing of it was there".to_owned());
    }
    Ok(done)
}

/// The configurations of a folder, in the order in which runtimes read them.
fn configurations(folder: &Path) -> Result<Vec<PathBuf>, NodeError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|source| failed(folder, "listed", source))?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| failed(folder, "listed", source))?.path();
        let is_read = |extension: &std::ffi::OsStr| ["conf", "conflist", "json"].iter().any(|read| extension == *read);
        if path.extension().is_some_and(is_read) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn first_configuration(folder: &Path) -> Result<PathBuf, NodeError> {
    let first = configurations(folder)?.into_iter().next().ok_or_else(|| NodeError::NoNetwork(folder.into()))?;
    match first.extension().is_some_and(|extension| extension == "conflist") {
        true => Ok(first),
        false => Err(NodeError::NotAList(first)),
    }
}

fn mentions_us(path: &Path) -> Result<bool, NodeError> {
    let text = bounded(path)?;
    Ok(text.windows(PLUGIN.len()).any(|part| part == PLUGIN.as_bytes()))
}

fn read_list(path: &Path) -> Result<(Vec<u8>, PluginList), NodeError> {
    let is_link = fs::symlink_metadata(path).map_err(|source| failed(path, "read", source))?.is_symlink();
    if is_link {
        return Err(NodeError::Link(path.into()));
    }
    let text = bounded(path)?;
    let list = PluginList::read(&text).map_err(|reason| not_understood(path, reason))?;
    Ok((text, list))
}

fn bounded(path: &Path) -> Result<Vec<u8>, NodeError> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(|source| failed(path, "read", source))?;
    io::Read::read_to_end(&mut io::Read::take(file, crate::LARGEST_CONFIGURATION + 1), &mut text)
        .map_err(|source| failed(path, "read", source))?;
    match text.len() as u64 > crate::LARGEST_CONFIGURATION {
        true => Err(not_understood(path, "it is larger than 1 MiB".to_owned())),
        false => Ok(text),
    }
}

/// Owner and mode of a file that is written.
enum Owner<'a> {
    /// Ours, with this mode.
    New(u32),
    /// As a file that is there.
    Of(&'a Path),
}

/// Written beside its place and renamed: a runtime never reads half of it.
fn replace(path: &Path, contents: &[u8], owner: Owner<'_>) -> Result<(), NodeError> {
    let write = |fresh: &Path| -> io::Result<()> {
        let mut file = File::create(fresh)?;
        file.write_all(contents)?;
        match owner {
            Owner::New(mode) => file.set_permissions(fs::Permissions::from_mode(mode))?,
            Owner::Of(other) => {
                let like = fs::metadata(other)?;
                fchown(&file, Some(like.uid()), Some(like.gid()))?;
                file.set_permissions(like.permissions())?;
            }
        }
        file.sync_all()?;
        fs::rename(fresh, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    let fresh = beside(path, FRESH);
    write(&fresh).map_err(|source| {
        // A half-written file may stand there.
        let _ = fs::remove_file(&fresh);
        failed(path, "written (is its folder mounted read-only?)", source)
    })
}

/// Whether there was something.
fn remove(path: &Path) -> Result<bool, NodeError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(failed(path, "removed", source)),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn not_understood(path: &Path, reason: String) -> NodeError {
    let remedy = "put netverdict-cni into the list by hand (docs/cni.md), or switch the plugin off (cni.enabled=false)";
    NodeError::NotUnderstood { path: path.into(), reason, remedy }
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> NodeError {
    NodeError::File { path: path.into(), action, source }
}

#[cfg(test)]
mod tests;

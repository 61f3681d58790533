//! Lists the network namespaces of the node without its own, each once.

use std::{
    collections::HashMap,
    fs::{self, File},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::fs::fstatfs;

use super::processes;
use crate::error::ProbeError;

/// Folders with bind mounts of namespaces, which exist without a process: made by container runtimes and `ip netns`.
const KEPT_IN: [&str; 3] = ["/run/netns", "/var/run/netns", "/run/docker/netns"];
/// `statfs(2)`: NSFS_MAGIC.
const NAMESPACE_FS: u64 = 0x6e73_6673;

/// A network namespace. The open file keeps it alive.
pub(super) struct Namespace {
    pub(super) file: File,
    /// The pod of its oldest process in a pod's cgroup. That is the sandbox's process, which starts before any other.
    pub(super) pod_uid: Option<String>,
    /// Whether a process is in it.
    pub(super) has_processes: bool,
}

impl Namespace {
    /// The namespace at a path, as a CNI plugin gets it: it has no processes yet.
    pub(super) fn at(path: &Path) -> Option<Self> {
        open(path).map(|(_, file)| Self { file, pod_uid: None, has_processes: false })
    }
}

/// Device and inode. They identify a namespace as long as it is open.
type Identity = (u64, u64);

/// Every network namespace that a process or a bind mount keeps alive, without the calling thread's.
pub(super) fn all() -> Result<Vec<Namespace>, ProbeError> {
    let own = open(Path::new("/proc/thread-self/ns/net"))
        .ok_or_else(|| ProbeError::netlink("reading /proc/thread-self/ns/net", &"it is not a namespace"))?
        .0;
    let mut found = HashMap::<Identity, Found>::new();
    let processes = fs::read_dir("/proc").map_err(|error| ProbeError::netlink("listing /proc", &error))?;
    for process in processes.flatten().map(|entry| entry.path()).filter(|path| is_process(path)) {
        add_process(&process, own, &mut found);
    }
    for path in KEPT_IN.iter().flat_map(fs::read_dir).flatten().flatten().map(|entry| entry.path()) {
        if let Some((identity, file)) = open(&path)
            && identity != own
        {
            found.entry(identity).or_insert(Found { file, oldest: None, has_processes: false });
        }
    }
    let mut namespaces: Vec<_> = found.into_iter().collect();
    namespaces.sort_unstable_by_key(|(identity, _)| *identity);
    Ok(namespaces
        .into_iter()
        .map(|(_, Found { file, oldest, has_processes })| Namespace {
            file,
            pod_uid: oldest.map(|(_, uid)| uid),
            has_processes,
        })
        .collect())
}

struct Found {
    file: File,
    /// Start time and pod of the oldest process that is in a pod's cgroup.
    oldest: Option<(u64, String)>,
    has_processes: bool,
}

/// Adds the namespace of a process. A process that ends meanwhile is left out.
fn add_process(process: &Path, own: Identity, found: &mut HashMap<Identity, Found>) {
    let path = process.join("ns/net");
    // Most processes are in the node's own namespace, which `stat` recognises without opening it.
    let Ok(metadata) = fs::metadata(&path) else { return };
    let identity = (metadata.dev(), metadata.ino());
    if identity == own {
        return;
    }
    let pod = processes::pod_of(process);
    if let Some(known) = found.get_mut(&identity) {
        if let Some(pod) = pod
            && known.oldest.as_ref().is_none_or(|oldest| pod < *oldest)
        {
            known.oldest = Some(pod);
        }
    } else if let Some((opened, file)) = open(&path)
        && opened == identity
    {
        found.insert(identity, Found { file, oldest: pod, has_processes: true });
    }
}

fn is_process(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Opens a namespace; `None` if the file is not one, as after an unmount.
fn open(path: &Path) -> Option<(Identity, File)> {
    let file = File::open(path).ok()?;
    let kind = fstatfs(&file).ok()?.f_type;
    // The type of the field differs between architectures; the magic number fits all of them.
    if !u64::try_from(kind).is_ok_and(|kind| kind == NAMESPACE_FS) {
        return None;
    }
    let metadata = file.metadata().ok()?;
    Some(((metadata.dev(), metadata.ino()), file))
}

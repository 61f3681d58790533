//! Claims: the CNI plugin's statements about the pod in a network namespace. A file for each attachment, in a folder of
//! root's, so that a claim outlives the plugin and a collector that is down.
//!
//! Cookies of namespaces count from the boot, so a claim names its boot.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Write as _},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use netverdict_policy::ObjectKey;
use serde::{Deserialize, Serialize};

use crate::{
    discover::Discovered,
    error::ProbeError,
    pins::{failed, is_ours},
    state::boot_id,
};

/// Longest container id and longest name of a pod or a namespace, with room to spare.
const LONGEST_NAME: usize = 253;
/// As the kernel has it, without the end of the text.
const LONGEST_INTERFACE: usize = 15;
/// Most bytes of one claim.
const LARGEST: u64 = 64 << 10;
/// Most claims that are read: many times the pods of a node.
const MOST: usize = 8_192;
/// Most addresses of one attachment.
pub const MOST_ADDRESSES: usize = 16;

/// A request over the collector's socket: take these interfaces for that pod's, and answer with the pod's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    pub claim: Claim,
    /// The host ends that lead to the namespace.
    pub found: Vec<Discovered>,
    /// How long to wait for the pod's tables, in milliseconds.
    pub wait_ms: u64,
}

/// The collector's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Answer {
    /// Its packets are judged by policy.
    Judged,
    /// The programs are attached. Until the pod's tables are complete, `mode` says what happens to its packets: enforce
    /// denies them.
    NotReady { mode: String, reason: String },
    /// Nothing is attached to an interface.
    NotAttached { mode: String, reason: String },
}

/// The pod behind one attachment of a network namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub boot_id: String,
    pub netns_cookie: u64,
    pub container_id: String,
    /// Name of the interface inside.
    pub interface: String,
    pub pod: ObjectKey,
    /// Empty if the container runtime does not give it: then the cgroup of the pod's processes has it, once there are some.
    pub pod_uid: String,
    /// Addresses assigned to it, which the API server learns later.
    pub addresses: Vec<IpAddr>,
}

impl Claim {
    /// # Errors
    /// A part is longer than such names are, or could be another thing than a name.
    pub fn check(&self) -> Result<(), &'static str> {
        check_attachment(&self.container_id, &self.interface)?;
        if [&self.pod.namespace, &self.pod.name, &self.pod_uid].into_iter().any(|name| !is_name(name, LONGEST_NAME)) {
            return Err("namespace, name or uid of the pod is no name");
        }
        if self.addresses.len() > MOST_ADDRESSES {
            return Err("there are more addresses than a pod has");
        }
        Ok(())
    }
}

/// # Errors
/// As the CNI specification has them: an id of letters, digits, `_`, `.` and `-`, and the name of an interface.
pub fn check_attachment(container_id: &str, interface: &str) -> Result<(), &'static str> {
    let begins_well = container_id.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
    if !begins_well || !is_name(container_id, LONGEST_NAME) {
        return Err(
            "the container's id is empty, too long, or has other characters than letters, digits, `_`, `.`, `-`",
        );
    }
    let is_interface = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':');
    if interface.is_empty() || interface.len() > LONGEST_INTERFACE || !interface.bytes().all(is_interface) {
        return Err("the interface's name is empty, too long, or has characters that no interface's has");
    }
    if [".", ".."].contains(&interface) {
        return Err("no interface has that name");
    }
    Ok(())
}

fn is_name(text: &str, longest: usize) -> bool {
    text.len() <= longest && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// The folder of claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimFolder {
    path: PathBuf,
}

impl ClaimFolder {
    /// Of a runtime directory. Nothing is made yet.
    pub fn of(run_dir: &Path) -> Self {
        Self { path: run_dir.join("claims") }
    }

    /// Writes a claim in place of an earlier one of the same attachment.
    ///
    /// # Errors
    /// The claim is none, or the folder is not ours or cannot be written.
    pub fn write(&self, claim: &Claim) -> Result<(), ProbeError> {
        claim.check().map_err(|reason| failed(&self.path, "write a claim into", io::Error::other(reason)))?;
        self.prepare()?;
        let path = self.file(&claim.container_id, &claim.interface);
        let fresh = self.path.join(format!(".{}", std::process::id()));
        let written = write_new(&fresh, claim).and_then(|()| fs::rename(&fresh, &path));
        written.map_err(|source| {
            // Best effort: a file left behind is not read.
            let _ = fs::remove_file(&fresh);
            failed(&path, "write", source)
        })
    }

    /// Removes the claim of an attachment; `false` if there is none.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn remove(&self, container_id: &str, interface: &str) -> Result<bool, ProbeError> {
        if check_attachment(container_id, interface).is_err() {
            return Ok(false);
        }
        crate::pins::remove(&self.file(container_id, interface))
    }

    /// Removes every claim for which `is_kept`, given container id and interface, is `false`. Returns how many.
    ///
    /// # Errors
    /// The folder cannot be read, or a claim not removed.
    pub fn retain(&self, is_kept: impl Fn(&str, &str) -> bool) -> Result<u32, ProbeError> {
        let mut removed = 0;
        for path in crate::pins::entries(&self.path)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            // Interfaces' names may have dots, and so may ids.
            let attachment = name.match_indices('@').next().map(|(at, _)| (&name[..at], &name[at + 1..]));
            if attachment.is_some_and(|(container_id, interface)| !is_kept(container_id, interface)) {
                removed += u32::from(crate::pins::remove(&path)?);
            }
        }
        Ok(removed)
    }

    /// Every claim of this boot. Files that are no claims are left out.
    ///
    /// # Errors
    /// The folder is not ours or cannot be read. That there is none is no error.
    pub fn read(&self) -> Result<Vec<Claim>, ProbeError> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        is_ours(&self.path)?;
        let boot = boot_id()?;
        let mut claims = Vec::new();
        for path in crate::pins::entries(&self.path)?.into_iter().take(MOST) {
            match read(&path) {
                Ok(claim) if claim.boot_id == boot => claims.push(claim),
                Ok(_) => {}
                // Removed meanwhile, or being written.
                Err(error) => tracing::debug!(claim.file = %path.display(), error = %error, "claim not read"),
            }
        }
        Ok(claims)
    }

    fn prepare(&self) -> Result<(), ProbeError> {
        prepare_run_dir(&self.path)
    }

    fn file(&self, container_id: &str, interface: &str) -> PathBuf {
        self.path.join(format!("{container_id}@{interface}"))
    }
}

/// Makes a folder that only root can read, with its parents, and refuses a folder that others can write to.
///
/// # Errors
/// It cannot be made, or is not ours.
pub fn prepare_run_dir(path: &Path) -> Result<(), ProbeError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| failed(path, "create folder", source))?;
    is_ours(path)
}

fn write_new(path: &Path, claim: &Claim) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(&serde_json::to_vec(claim)?)
}

fn read(path: &Path) -> io::Result<Claim> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST).read_to_end(&mut bytes)?;
    let claim: Claim = serde_json::from_slice(&bytes)?;
    claim.check().map_err(io::Error::other)?;
    Ok(claim)
}

/// The claims that hold, by namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    by_namespace: BTreeMap<u64, Vec<Claim>>,
}

impl Claims {
    /// Adds a claim, in place of an earlier one of the same attachment.
    pub fn add(&mut self, claim: Claim) {
        let claims = self.by_namespace.entry(claim.netns_cookie).or_default();
        claims.retain(|known| known.interface != claim.interface);
        claims.push(claim);
    }

    /// Forgets the claims on a namespace.
    pub fn forget(&mut self, netns_cookie: u64) {
        self.by_namespace.remove(&netns_cookie);
    }

    /// The newest claim on a namespace.
    pub fn of(&self, netns_cookie: u64) -> Option<&Claim> {
        self.by_namespace.get(&netns_cookie)?.last()
    }

    /// The addresses that were assigned to the pod of a namespace, over all of its attachments.
    pub fn addresses(&self, netns_cookie: u64) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_namespace.get(&netns_cookie).into_iter().flatten().flat_map(|claim| &claim.addresses).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(container_id: &str, interface: &str) -> Claim {
        Claim {
            boot_id: boot_id().unwrap(),
            netns_cookie: 7,
            container_id: container_id.to_owned(),
            interface: interface.to_owned(),
            pod: ObjectKey::new("shop", "web"),
            pod_uid: "0b6f5a0e-54a1-4f8c-9d3e-1f2a3b4c5d6e".to_owned(),
            addresses: vec!["10.0.0.1".parse().unwrap()],
        }
    }

    #[test]
    fn claim_is_read_back_until_it_is_removed_or_another_boot_begins() {
        let place = tempfile::tempdir().unwrap();
        let folder = ClaimFolder::of(place.path());
        assert_eq!(folder.read().unwrap(), [], "there is no folder yet");
        let (a, b) = (claim("a.b", "eth0"), claim("a", "b.eth0"));
        for claim in [&a, &b, &Claim { boot_id: "earlier".to_owned(), ..claim("c", "eth0") }] {
            folder.write(claim).unwrap();
        }
        assert_eq!(folder.read().unwrap(), [a.clone(), b]);
        assert_eq!(folder.retain(|container, interface| (container, interface) != ("a", "b.eth0")).unwrap(), 1);
        assert_eq!(folder.read().unwrap(), [a]);
        assert!(folder.remove("a.b", "eth0").unwrap() && !folder.remove("a.b", "eth0").unwrap());
    }

    #[test]
    fn names_that_lead_out_of_the_folder_are_no_claims() {
        let place = tempfile::tempdir().unwrap();
        let folder = ClaimFolder::of(place.path());
        for (container, interface) in [
            ("../x", "eth0"),
            ("a/b", "eth0"),
            ("", "eth0"),
            ("a", "../e"),
            ("a", ".."),
            ("a", ""),
            ("a", "e\0"),
            ("a@b", "eth0"),
        ] {
            assert!(folder.write(&claim(container, interface)).is_err(), "{container} {interface}");
            assert!(!folder.remove(container, interface).unwrap(), "{container} {interface}");
        }
        let long = Claim { pod_uid: "x".repeat(10_000), ..claim("a", "eth0") };
        assert!(folder.write(&long).is_err());
        assert_eq!(folder.read().unwrap(), []);
    }

    #[test]
    fn folder_that_others_can_write_to_is_not_believed() {
        use std::os::unix::fs::PermissionsExt as _;
        let place = tempfile::tempdir().unwrap();
        let folder = ClaimFolder::of(place.path());
        folder.write(&claim("a", "eth0")).unwrap();
        fs::set_permissions(place.path().join("claims"), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(folder.read(), Err(ProbeError::NotOurs { .. })));
        assert!(matches!(folder.write(&claim("b", "eth0")), Err(ProbeError::NotOurs { .. })));
    }

    #[test]
    fn garbage_among_claims_is_passed_over() {
        let place = tempfile::tempdir().unwrap();
        let folder = ClaimFolder::of(place.path());
        folder.write(&claim("a", "eth0")).unwrap();
        for (name, text) in [("b@eth0", "{"), ("c@eth0", "[]"), ("d@eth0", "\u{0}")] {
            fs::write(place.path().join("claims").join(name), text).unwrap();
        }
        assert_eq!(folder.read().unwrap().len(), 1);
    }
}

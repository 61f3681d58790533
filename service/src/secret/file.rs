//! The file of a secret: made with mode 0600, refused where another user could have read or replaced it.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use thiserror::Error;

use super::{MAX_LENGTH, NotASecret, Secret};

/// Any of it set: others may read or write the file.
const OTHERS: u32 = 0o077;
const READ_BY_GROUP: u32 = 0o040;
const WORLD_WRITABLE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Why the file of a secret cannot be used. `option` is the command line option that names the file.
#[derive(Debug, Error)]
pub enum SecretFileError {
    #[error("{path}: cannot be {action}; name another file with {option}", path = .path.display())]
    File { path: PathBuf, option: &'static str, action: &'static str, source: io::Error },
    #[error(
        "{path}: expected mode 0600, found {mode:04o}: others may read it; replace the secret, then chmod 600 it",
        path = .path.display()
    )]
    Mode { path: PathBuf, mode: u32 },
    #[error(
        "{path}: expected an owner of user id {expected} or 0, found {found}: its owner can replace the secret; chown it",
        path = .path.display()
    )]
    Owner { path: PathBuf, expected: u32, found: u32 },
    #[error(
        "{path}: its folder may be written by everyone, who could replace the secret; chmod o-w the folder",
        path = .path.display()
    )]
    Folder { path: PathBuf },
    #[error("{path}: expected a regular file; name another with {option}", path = .path.display())]
    NotAFile { path: PathBuf, option: &'static str },
    #[error("{path}: {reason}; delete the file to have a new secret made", path = .path.display())]
    Content { path: PathBuf, reason: NotASecret },
}

/// Where a secret is kept.
#[derive(Clone, Debug)]
pub struct SecretFile {
    path: PathBuf,
    /// The command line option that names the path, for errors.
    option: &'static str,
}

/// Metadata that distinguishes one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            length: metadata.len(),
            modified: metadata.modified().ok(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl SecretFile {
    pub fn new(path: impl Into<PathBuf>, option: &'static str) -> Self {
        Self { path: path.into(), option }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The secret in the file. A file that is not there is made, with a random secret.
    ///
    /// # Errors
    /// As [`Self::load`], or the file cannot be made.
    pub fn load_or_create(&self) -> Result<Secret, SecretFileError> {
        if !self.path.try_exists().map_err(|source| self.failed("read", source))? {
            self.create()?;
        }
        self.load()
    }

    /// The secret in the file.
    ///
    /// # Errors
    /// The file cannot be read, others may read or replace it, or its content is no secret.
    pub fn load(&self) -> Result<Secret, SecretFileError> {
        self.load_stamped().map(|(secret, _)| secret)
    }

    pub(super) fn load_stamped(&self) -> Result<(Secret, Stamp), SecretFileError> {
        let failed = |source| self.failed("read", source);
        let link = fs::symlink_metadata(&self.path).map_err(failed)?;
        // A link may be followed (Kubernetes mounts secrets as links) if no other user could have put it there.
        self.check_owner(&link)?;
        self.check_folder()?;
        // Not blocking: the path may be a pipe.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let mut file = OpenOptions::new().read(true).custom_flags(flags).open(&self.path).map_err(failed)?;
        // Of the opened file, not of the path: the checked file is the file that is read.
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(SecretFileError::NotAFile { path: self.path.clone(), option: self.option });
        }
        self.check_owner(&metadata)?;
        let mode = metadata.mode() & 0o7777;
        if mode & OTHERS != 0 && !is_handed_over(mode, metadata.uid(), metadata.gid(), &own_groups()) {
            return Err(SecretFileError::Mode { path: self.path.clone(), mode });
        }
        let content = |reason| SecretFileError::Content { path: self.path.clone(), reason };
        let text = read_at_most(&mut file).map_err(failed)?.ok_or_else(|| content(NotASecret::Long))?;
        let text = std::str::from_utf8(&text).map_err(|_| content(NotASecret::Characters))?;
        let secret = Secret::from_text(text).map_err(content)?;
        Ok((secret, Stamp::from(&metadata)))
    }

    /// The state of the file now; `None` when it cannot be told.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        fs::metadata(&self.path).ok().map(|metadata| Stamp::from(&metadata))
    }

    fn check_owner(&self, metadata: &Metadata) -> Result<(), SecretFileError> {
        let (expected, found) = (rustix::process::geteuid().as_raw(), metadata.uid());
        // Root reads files of other users as a matter of course.
        if found == expected || found == 0 || expected == 0 {
            return Ok(());
        }
        Err(SecretFileError::Owner { path: self.path.clone(), expected, found })
    }

    fn check_folder(&self) -> Result<(), SecretFileError> {
        let folder = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mode = fs::metadata(folder).map_err(|source| self.failed("read", source))?.mode();
        // In a sticky folder, such as /tmp, only the owner of a file can replace it.
        match mode & WORLD_WRITABLE != 0 && mode & STICKY == 0 {
            true => Err(SecretFileError::Folder { path: self.path.clone() }),
            false => Ok(()),
        }
    }

    /// Written beside its place and linked into it: of two processes that start at once, neither reads half a secret.
    fn create(&self) -> Result<(), SecretFileError> {
        let failed = |source| self.failed("made", source);
        let secret = Secret::generate().map_err(|error| failed(io::Error::other(error)))?;
        if let Some(parent) = self.path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(name);
        let written = write_new(&beside, secret.reveal().as_bytes());
        let linked = written.and_then(|()| match fs::hard_link(&beside, &self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        });
        let removed = fs::remove_file(&beside);
        linked.and(removed).map_err(failed)
    }

    fn failed(&self, action: &'static str, source: io::Error) -> SecretFileError {
        SecretFileError::File { path: self.path.clone(), option: self.option, action, source }
    }
}

/// Never through a file or link that another user put there: the name can be guessed.
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        // Left by a process of the same number that was killed.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// Root hands a secret to a service by a file that root owns and that the service's group may read: Kubernetes does so for
/// every pod that is not root's (`fsGroup`).
fn is_handed_over(mode: u32, owner: u32, group: u32, own_groups: &[u32]) -> bool {
    mode & OTHERS == READ_BY_GROUP && owner == 0 && group != 0 && own_groups.contains(&group)
}

fn own_groups() -> Vec<u32> {
    let further = rustix::process::getgroups().unwrap_or_default();
    further.into_iter().chain([rustix::process::getegid()]).map(rustix::process::Gid::as_raw).collect()
}

/// `None` if the file is longer than a secret can be, white space around it included.
fn read_at_most(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let most = 2 * MAX_LENGTH as u64;
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content)?;
    Ok((content.len() as u64 <= most).then_some(content))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const TEXT: &str = "0123456789abcdef0123";

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_made_secret_is_private_and_stays_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/query.password");
        let file = SecretFile::new(&path, "--secret-file");
        let first = file.load_or_create().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let second = file.load_or_create().unwrap();
        assert!(second.matches(first.reveal().as_bytes()));
        assert!(second.matches(fs::read(&path).unwrap().trim_ascii()));
        assert!(!second.matches(b"something else"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for mode in [0o644, 0o640, 0o660, 0o602] {
            write(&path, TEXT, mode);
            let error = SecretFile::new(&path, "--secret-file").load_or_create().unwrap_err().to_string();
            assert!(error.contains(&format!("expected mode 0600, found {mode:04o}")), "{error}");
        }
        write(&path, TEXT, 0o400);
        SecretFile::new(&path, "--secret-file").load().unwrap();
    }

    #[test]
    fn a_secret_that_root_hands_to_a_group_is_for_its_members() {
        assert!(is_handed_over(0o440, 0, 65_532, &[7, 65_532]));
        for (mode, owner, group) in
            [(0o444, 0, 65_532), (0o460, 0, 65_532), (0o440, 7, 65_532), (0o440, 0, 8), (0o440, 0, 0)]
        {
            assert!(!is_handed_over(mode, owner, group, &[0, 7, 65_532]), "{mode:o} {owner} {group}");
        }
    }

    #[test]
    fn a_folder_that_everyone_may_write_is_refused_unless_it_is_sticky() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        write(&path, TEXT, 0o600);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let file = SecretFile::new(&path, "--secret-file");
        assert!(matches!(file.load(), Err(SecretFileError::Folder { .. })));
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        file.load().unwrap();
    }

    #[test]
    fn a_link_is_followed_to_a_private_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("secret"), folder.path().join("link"));
        write(&path, TEXT, 0o600);
        symlink(&path, &link).unwrap();
        let file = SecretFile::new(&link, "--secret-file");
        assert!(file.load().unwrap().matches(TEXT.as_bytes()));
        write(&path, TEXT, 0o644);
        assert!(matches!(file.load(), Err(SecretFileError::Mode { mode: 0o644, .. })));
    }

    #[test]
    fn what_is_no_secret_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let file = SecretFile::new(&path, "--secret-file");
        for (text, expected) in [
            ("\n".to_owned(), NotASecret::Short(0)),
            ("a".repeat(3 * MAX_LENGTH), NotASecret::Long),
            ("two words of some length".to_owned(), NotASecret::Characters),
        ] {
            write(&path, &text, 0o600);
            let error = file.load_or_create().unwrap_err();
            assert!(error.to_string().contains("delete the file"), "{error}");
            assert!(matches!(error, SecretFileError::Content { reason, .. } if reason == expected));
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(file.load(), Err(SecretFileError::NotAFile { .. })));
    }
}

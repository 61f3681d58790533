//! The state file: the meaning of the ids in the kernel, so that a restarted collector can read events that were
//! written before.
//!
//! The file holds JSON lines, which are appended and synced before the maps that use their ids are written. The first
//! line names the boot: ids are unique within one boot and meaningless in the next. A truncated last line is dropped,
//! because its ids were never written to a map. The file is compacted at each start.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use netverdict_policy::{
    AttributionId, Decision,
    tables::{IdFloor, Owner, OwnerId},
};
use serde::{Deserialize, Serialize};

use crate::{endpoint::BoundEndpoint, error::ProbeError};

/// Version of the lines. Independent of the ABI version.
const VERSION: u32 = 1;
/// How many revisions keep their snapshot number over a restart: about eighteen hours at one publication per second,
/// while events wait in the rings for seconds.
const SNAPSHOTS_KEPT: usize = 65_536;
const FILE: &str = "probe-state.jsonl";
const NEXT_FILE: &str = "probe-state.jsonl.next";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct State {
    pub(crate) floor: IdFloor,
    pub(crate) attributions: BTreeMap<AttributionId, Decision>,
    pub(crate) owners: BTreeMap<OwnerId, Owner>,
    pub(crate) bindings: BTreeMap<u32, BoundEndpoint>,
    /// Revision → snapshot number, of every publication that was begun.
    pub(crate) snapshots: BTreeMap<u64, u64>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    Boot {
        id: String,
        version: u32,
    },
    /// The lowest ids that a compiler may give out.
    Floor(IdFloor),
    Attribution(AttributionId, Decision),
    Owner(OwnerId, Owner),
    Revision {
        revision: u64,
        snapshot: u64,
    },
    Bound(BoundEndpoint),
    Unbound {
        ifindex: u32,
    },
}

/// The file, open for appending.
pub(crate) struct StateFile {
    path: PathBuf,
    file: File,
    /// Length of the complete lines in bytes. A failed write is truncated to it.
    length: u64,
}

impl StateFile {
    /// Reads the file in `folder` (created if missing), compacts it, and opens it for appending.
    ///
    /// # Errors
    /// The folder or the file cannot be read or written. A file with invalid lines is an error only if it was written
    /// in this boot, because ids in the kernel would lose their meaning.
    pub(crate) fn open(folder: &Path) -> Result<(Self, State), ProbeError> {
        Self::open_in_boot(folder, &boot_id()?)
    }

    fn open_in_boot(folder: &Path, boot: &str) -> Result<(Self, State), ProbeError> {
        fs::create_dir_all(folder).map_err(|source| failed(folder, "create folder", source))?;
        let path = folder.join(FILE);
        let state = read(&path, boot)?;
        let next = folder.join(NEXT_FILE);
        rewrite(&next, boot, &state).map_err(|source| failed(&next, "rewrite", source))?;
        fs::rename(&next, &path).map_err(|source| failed(&path, "replace", source))?;
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|source| failed(folder, "sync folder", source))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(|source| failed(&path, "open", source))?;
        let length = file.metadata().map_err(|source| failed(&path, "inspect", source))?.len();
        Ok((Self { path, file, length }, state))
    }

    /// Appends lines and syncs them. If that fails, none of them is kept.
    pub(crate) fn append(&mut self, lines: &[Line]) -> Result<(), ProbeError> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut bytes, line).map_err(|error| failed(&self.path, "encode", error.into()))?;
            bytes.push(b'\n');
        }
        match self.file.write_all(&bytes).and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(source) => {
                // Otherwise the next line would be appended to a part of this one.
                if let Err(error) = self.file.set_len(self.length) {
                    tracing::error!(error = %error, "state file cannot be truncated after a failed write");
                }
                Err(failed(&self.path, "append", source))
            }
        }
    }
}

/// The pods of the interfaces. Only reads the file, which a running probe may be writing.
pub(crate) fn bindings(folder: &Path) -> Result<BTreeMap<u32, BoundEndpoint>, ProbeError> {
    read(&folder.join(FILE), &boot_id()?).map(|state| state.bindings)
}

/// The kernel's id of this boot.
///
/// # Errors
/// It cannot be read.
pub fn boot_id() -> Result<String, ProbeError> {
    let boot = fs::read_to_string(BOOT_ID).map_err(|source| failed(Path::new(BOOT_ID), "read", source))?;
    Ok(boot.trim().to_owned())
}

/// The state of this boot; empty if there is no file or it was written in another boot.
fn read(path: &Path, boot: &str) -> Result<State, ProbeError> {
    let mut state = State::default();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(state),
        Err(source) => return Err(failed(path, "open", source)),
    };
    let mut reader = BufReader::new(file);
    let mut text = Vec::new();
    let mut number = 0_u64;
    loop {
        text.clear();
        reader.read_until(b'\n', &mut text).map_err(|source| failed(path, "read", source))?;
        if text.is_empty() {
            return Ok(state);
        }
        number += 1;
        if text.last() != Some(&b'\n') {
            tracing::warn!(state.line = number, "state file ends inside a line, dropping that line");
            return Ok(state);
        }
        let line: Line = match serde_json::from_slice(&text) {
            Ok(line) => line,
            // The boot is not readable, so the file is not known to be of this boot.
            Err(_) if number == 1 => return Ok(state),
            Err(error) => {
                let reason = format!("line {number} is invalid: {error}; remove the file to start without it");
                return Err(failed(path, "read", io::Error::new(io::ErrorKind::InvalidData, reason)));
            }
        };
        match line {
            Line::Boot { id, version } if number == 1 && id == boot && version == VERSION => {}
            Line::Boot { .. } => return Ok(State::default()),
            _ if number == 1 => return Ok(state),
            line => state.apply(line),
        }
    }
}

impl State {
    fn apply(&mut self, line: Line) {
        match line {
            Line::Boot { .. } => {}
            Line::Floor(floor) => self.floor = higher(self.floor, floor),
            Line::Attribution(id, decision) => {
                self.attributions.insert(id, decision);
            }
            Line::Owner(id, owner) => {
                self.owners.insert(id, owner);
            }
            Line::Revision { revision, snapshot } => {
                self.snapshots.insert(revision, snapshot);
                while self.snapshots.len() > SNAPSHOTS_KEPT {
                    self.snapshots.pop_first();
                }
            }
            Line::Bound(endpoint) => {
                self.bindings.insert(endpoint.ifindex, endpoint);
            }
            Line::Unbound { ifindex } => {
                self.bindings.remove(&ifindex);
            }
        }
    }

    fn lines(&self) -> impl Iterator<Item = Line> + '_ {
        let Self { floor, attributions, owners, bindings, snapshots } = self;
        std::iter::once(Line::Floor(*floor))
            .chain(attributions.iter().map(|(id, decision)| Line::Attribution(*id, decision.clone())))
            .chain(owners.iter().map(|(id, owner)| Line::Owner(*id, owner.clone())))
            .chain(snapshots.iter().map(|(&revision, &snapshot)| Line::Revision { revision, snapshot }))
            .chain(bindings.values().map(|endpoint| Line::Bound(endpoint.clone())))
    }
}

/// The higher of two floors, id by id.
pub(crate) fn higher(a: IdFloor, b: IdFloor) -> IdFloor {
    IdFloor {
        identity: a.identity.max(b.identity),
        class: a.class.max(b.class),
        column: a.column.max(b.column),
        owner: a.owner.max(b.owner),
    }
}

fn rewrite(path: &Path, boot: &str, state: &State) -> io::Result<()> {
    let mut writer = BufWriter::new(File::create(path)?);
    let boot = Line::Boot { id: boot.to_owned(), version: VERSION };
    for line in std::iter::once(boot).chain(state.lines()) {
        serde_json::to_writer(&mut writer, &line)?;
        writer.write_all(b"\n")?;
    }
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

fn failed(path: &Path, action: &'static str, source: io::Error) -> ProbeError {
    ProbeError::State { path: path.to_owned(), action, source }
}

#[cfg(test)]
mod tests;

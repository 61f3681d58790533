//! Rows of the change logs from one snapshot to the next: puts and deletions, with their time and snapshot.
//!
//! Recorded objects are kept in the state directory, so that a restart repeats nothing, and a deletion that happened
//! while the collector was down is recorded when it comes back. After another boot everything is put again with its first
//! time.

mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use netverdict_flowlog::row::{AttributionRow, AttributionValue, ChangeHead, ChangeKind};
use netverdict_policy::{
    AttributionId, Decision, Snapshot,
    tables::{Owner, OwnerId},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_128;

use self::rows::describe;
use crate::{
    clock,
    cluster::{ClusterState, PolicyObjects},
    input::Fact,
    persistent_map::Edit,
    state::{self, StateError},
    wal::{Chain, Frame, WalError},
};

const FOLDER: &str = "change-log";
/// Where an earlier release kept the same, as one file.
const FORMER_FILE: &str = "change-log.json";
/// Version of the records. A layout that an earlier release would misread gets another number, so that it is not read.
const LAYOUT: u8 = 1;

#[derive(Debug, Error)]
pub enum ChangesError {
    #[error("the state of the change logs cannot be kept in the state directory")]
    Log(#[from] WalError),
    #[error(transparent)]
    File(#[from] StateError),
    #[error("the state of the change logs cannot be written as JSON")]
    Content(#[from] serde_json::Error),
}

/// The objects and decisions as the change logs have them.
#[derive(Debug)]
pub struct Changes {
    chain: Chain,
    former: PathBuf,
    node: Arc<str>,
    boot_id: Arc<str>,
    recorded: Recorded,
    /// Changes recorded since the last save.
    unsaved: Unsaved,
    /// The cluster of the last call, to skip unchanged objects.
    seen: Option<(Arc<Snapshot>, Arc<PolicyObjects>)>,
}

#[derive(Debug, Default, Deserialize)]
struct Recorded {
    boot_id: String,
    attributions: BTreeSet<AttributionId>,
    /// By kind, namespace and name.
    objects: BTreeMap<String, Entry>,
}

#[derive(Debug, Default)]
struct Unsaved {
    attributions: BTreeSet<AttributionId>,
    objects: BTreeSet<String>,
}

/// Recorded attributions and objects: all of them, or those since the previous record.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    whole: bool,
    boot_id: String,
    attributions: Vec<AttributionId>,
    objects: Vec<Edit<String, Entry>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    /// Hash of the row without its head.
    content: String,
    since_ns: i64,
    /// The row of its deletion: which object it was, without its content.
    deletion: Arc<Fact>,
}

impl Changes {
    /// `anew`: no earlier record exists any more.
    ///
    /// # Errors
    /// The state directory cannot be used.
    pub fn open(state_dir: &Path, node: Arc<str>, boot_id: Arc<str>, anew: bool) -> Result<Self, ChangesError> {
        let (chain, links, _) = Chain::open(&state_dir.join(FOLDER), LAYOUT)?;
        let former = state_dir.join(FORMER_FILE);
        let mut recorded = if anew { Recorded::default() } else { state::load(&former)?.unwrap_or_default() };
        let mut damaged = 0;
        for frame in links {
            match frame? {
                Frame::Payload(_, payload) => match serde_json::from_slice(&payload) {
                    Ok(record) => recorded.take(record),
                    Err(_) => damaged += payload.len() as u64,
                },
                Frame::Damaged(_, bytes) => damaged += bytes,
            }
        }
        if damaged > 0 {
            tracing::error!(
                damaged.bytes = damaged,
                "state of the change logs cannot all be read; some rows are repeated, and deletions may be missing"
            );
        }
        if anew {
            recorded = Recorded::default();
        }
        if recorded.boot_id != *boot_id {
            // A crash of the node may have lost the last rows.
            recorded.attributions.clear();
        }
        Ok(Self { chain, former, node, boot_id, recorded, unsaved: Unsaved::default(), seen: None })
    }

    /// Rows for all differences between the cluster and the recorded objects.
    ///
    /// `number`: of the snapshot. `time_ns`: when it came into force. `owner_id`: the compiler's; 0 for unknown owners.
    pub fn rows(
        &mut self,
        cluster: &ClusterState,
        number: u64,
        time_ns: i64,
        owner_id: impl Fn(&Owner) -> OwnerId,
    ) -> Vec<Fact> {
        let head = ChangeHead {
            change: ChangeKind::Put,
            time: clock::at(time_ns),
            snapshot: number,
            node: self.node.clone(),
            boot_id: self.boot_id.clone(),
        };
        let again = std::mem::replace(&mut self.recorded.boot_id, self.boot_id.to_string()) != *self.boot_id;
        let seen = self.seen.replace((cluster.snapshot.clone(), cluster.policies.clone()));
        let first = seen.is_none();
        let mut objects = describe(&seen.unwrap_or_default(), cluster, &head, owner_id);
        if first {
            // Objects that are gone since an earlier run: they were recorded.
            let there: BTreeSet<&String> = objects.iter().map(|(key, _)| key).collect();
            let gone = self.recorded.objects.keys().filter(|key| !there.contains(key));
            let gone: Vec<_> = gone.map(|key| (key.clone(), None)).collect();
            objects.extend(gone);
        }
        let mut facts = Vec::new();
        for (key, fact) in objects {
            match fact {
                Some(fact) => facts.extend(self.put(key, fact, time_ns, again)),
                None => facts.extend(self.delete(key, &head)),
            }
        }
        facts
    }

    /// The row for an object that exists, unless it was recorded.
    fn put(&mut self, key: String, mut fact: Fact, time_ns: i64, again: bool) -> Option<Fact> {
        let content = content_of(&fact);
        let known = self.recorded.objects.get(&key).filter(|known| known.content == content);
        if known.is_some() && !again {
            return None;
        }
        let since_ns = known.map_or(time_ns, |known| known.since_ns);
        if let Some(head) = fact.head_mut() {
            head.time = clock::at(since_ns);
        }
        self.unsaved.objects.insert(key.clone());
        self.recorded.objects.insert(key, Entry { content, since_ns, deletion: Arc::new(emptied(fact.clone())) });
        Some(fact)
    }

    /// The row for an object that is gone, if it was recorded.
    fn delete(&mut self, key: String, head: &ChangeHead) -> Option<Fact> {
        let mut fact = Arc::unwrap_or_clone(self.recorded.objects.remove(&key)?.deletion);
        self.unsaved.objects.insert(key);
        if let Some(old) = fact.head_mut() {
            *old = ChangeHead { change: ChangeKind::Delete, ..head.clone() };
        }
        Some(fact)
    }

    /// Rows for the attributions that were not recorded before.
    pub fn attributions(&mut self, meanings: &[(AttributionId, Decision)], time_ns: i64) -> Vec<Fact> {
        let Self { recorded, unsaved, .. } = self;
        let new =
            meanings.iter().filter(|(id, _)| recorded.attributions.insert(*id) && unsaved.attributions.insert(*id));
        let row = |(id, decision): &(AttributionId, Decision)| AttributionRow {
            time: clock::at(time_ns),
            node: self.node.clone(),
            attribution: Arc::new(AttributionValue { id: *id, decision: decision.clone() }),
        };
        new.map(|meaning| Fact::Attribution(Box::new(row(meaning)))).collect()
    }

    /// Keeps the recorded objects; to be called once the rows are safe.
    ///
    /// # Errors
    /// It could not be written: a restart would repeat the rows.
    pub fn save(&mut self) -> Result<(), ChangesError> {
        if self.unsaved.attributions.is_empty() && self.unsaved.objects.is_empty() {
            return Ok(());
        }
        if self.chain.wants_whole() {
            let Recorded { boot_id, attributions, objects } = &self.recorded;
            let whole = Record {
                whole: true,
                boot_id: boot_id.clone(),
                attributions: attributions.iter().copied().collect(),
                objects: objects.iter().map(|(key, entry)| (key.clone(), Some(entry.clone()))).collect(),
            };
            self.chain.whole(&serde_json::to_vec(&whole)?)?;
            self.chain.release_before_whole()?;
            state::remove(&self.former)?;
        } else {
            let entry = |key: &String| (key.clone(), self.recorded.objects.get(key).cloned());
            let difference = Record {
                whole: false,
                boot_id: self.recorded.boot_id.clone(),
                attributions: self.unsaved.attributions.iter().copied().collect(),
                objects: self.unsaved.objects.iter().map(entry).collect(),
            };
            self.chain.difference(&serde_json::to_vec(&difference)?)?;
        }
        self.unsaved = Unsaved::default();
        Ok(())
    }
}

impl Recorded {
    fn take(&mut self, record: Record) {
        let Record { whole, boot_id, attributions, objects } = record;
        if whole {
            *self = Self::default();
        } else if self.boot_id != boot_id {
            self.attributions.clear();
        }
        self.boot_id = boot_id;
        self.attributions.extend(attributions);
        for (key, entry) in objects {
            match entry {
                Some(entry) => _ = self.objects.insert(key, entry),
                None => _ = self.objects.remove(&key),
            }
        }
    }
}

/// A hash, to compare contents without keeping them: policies can be long.
fn content_of(fact: &Fact) -> String {
    let mut fact = fact.clone();
    if let Some(head) = fact.head_mut() {
        let nothing: Arc<str> = Arc::from("");
        let time = DateTime::<Utc>::UNIX_EPOCH;
        *head = ChangeHead { change: ChangeKind::Put, time, snapshot: 0, node: nothing.clone(), boot_id: nothing };
    }
    // Owner ids are new after every restart, and are no property of the object.
    if let Fact::Endpoint(row) = &mut fact {
        row.owner_id = 0;
    }
    let json = serde_json::to_vec(&fact).unwrap_or_default();
    format!("{:032x}", xxh3_128(&json))
}

fn emptied(mut fact: Fact) -> Fact {
    match &mut fact {
        Fact::Policy(row) => row.text.clear(),
        Fact::Endpoint(_) | Fact::Namespace(_) | Fact::Service(_) => {}
        Fact::Attribution(_) | Fact::Snapshot(_) | Fact::Gap(_) => {}
    }
    fact
}

#[cfg(test)]
mod tests;

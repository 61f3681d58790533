//! Snapshot after snapshot → rows of the change logs: what was put, what was deleted, when, and in which snapshot.
//!
//! What was told is kept in the state directory, so that a restart repeats nothing and a deletion that happened while
//! the collector was down is told when it comes back. After another boot everything is put again with its first time.

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
    cluster::{ClusterState, assembly::Texts},
    input::Fact,
    layered::Edit,
    state::{self, StateError},
    wal::{Chain, Frame, WalError},
};

const FOLDER: &str = "change-log";
/// Where it all was, as a whole, before it was a log.
const FORMER_FILE: &str = "change-log.json";
/// Of the records. One that an earlier release would read wrongly gets another number: it is then not read at all.
const LAYOUT: u8 = 1;

#[derive(Debug, Error)]
pub enum ChangesError {
    #[error("what the change logs were told cannot be kept in the state directory")]
    Log(#[from] WalError),
    #[error(transparent)]
    File(#[from] StateError),
    #[error("what the change logs were told cannot be written down")]
    Content(#[from] serde_json::Error),
}

/// What the change logs say of the present.
#[derive(Debug)]
pub struct Changes {
    chain: Chain,
    former: PathBuf,
    node: Arc<str>,
    boot_id: Arc<str>,
    told: Told,
    /// What was told since the last save.
    unsaved: Unsaved,
    /// The cluster of the last call, to pass over what has not changed since.
    seen: Option<(Arc<Snapshot>, Arc<Texts>)>,
}

#[derive(Debug, Default, Deserialize)]
struct Told {
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

/// What was told, as a whole or since the record before.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    whole: bool,
    boot_id: String,
    attributions: Vec<AttributionId>,
    objects: Vec<Edit<String, Entry>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    /// Of the row without its head.
    content: String,
    since_ns: i64,
    /// The row as a deletion has it: who it was, without what it held.
    deletion: Arc<Fact>,
}

impl Changes {
    /// `anew`: nothing that was told before is on record any more.
    ///
    /// # Errors
    /// The state directory cannot be used.
    pub fn open(state_dir: &Path, node: Arc<str>, boot_id: Arc<str>, anew: bool) -> Result<Self, ChangesError> {
        let (chain, links, _) = Chain::open(&state_dir.join(FOLDER), LAYOUT)?;
        let former = state_dir.join(FORMER_FILE);
        let mut told = if anew { Told::default() } else { state::load(&former)?.unwrap_or_default() };
        let mut damaged = 0;
        for frame in links {
            match frame? {
                Frame::Payload(_, payload) => match serde_json::from_slice(&payload) {
                    Ok(record) => told.take(record),
                    Err(_) => damaged += payload.len() as u64,
                },
                Frame::Damaged(_, bytes) => damaged += bytes,
            }
        }
        if damaged > 0 {
            tracing::error!(
                damaged.bytes = damaged,
                "what the change logs were told cannot all be read; some of it is told again, and deletions may be missing"
            );
        }
        if anew {
            told = Told::default();
        }
        if told.boot_id != *boot_id {
            // A crash of the node may have taken with it what was told last.
            told.attributions.clear();
        }
        Ok(Self { chain, former, node, boot_id, told, unsaved: Unsaved::default(), seen: None })
    }

    /// Rows for everything in which the cluster differs from what was told.
    ///
    /// `number`: of the snapshot. `time_ns`: when it came into force. `owner_id`: as the compiler gives them out; 0 for what it does not know.
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
        let again = std::mem::replace(&mut self.told.boot_id, self.boot_id.to_string()) != *self.boot_id;
        let seen = self.seen.replace((cluster.snapshot.clone(), cluster.policies.clone()));
        let first = seen.is_none();
        let mut objects = describe(&seen.unwrap_or_default(), cluster, &head, owner_id);
        if first {
            // What is gone since an earlier run is known by having been told.
            let there: BTreeSet<&String> = objects.iter().map(|(key, _)| key).collect();
            let gone = self.told.objects.keys().filter(|key| !there.contains(key));
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

    /// The row for an object that is there, unless it was told.
    fn put(&mut self, key: String, mut fact: Fact, time_ns: i64, again: bool) -> Option<Fact> {
        let content = content_of(&fact);
        let known = self.told.objects.get(&key).filter(|known| known.content == content);
        if known.is_some() && !again {
            return None;
        }
        let since_ns = known.map_or(time_ns, |known| known.since_ns);
        if let Some(head) = fact.head_mut() {
            head.time = clock::at(since_ns);
        }
        self.unsaved.objects.insert(key.clone());
        self.told.objects.insert(key, Entry { content, since_ns, deletion: Arc::new(emptied(fact.clone())) });
        Some(fact)
    }

    /// The row for an object that is gone, if it was ever there.
    fn delete(&mut self, key: String, head: &ChangeHead) -> Option<Fact> {
        let mut fact = Arc::unwrap_or_clone(self.told.objects.remove(&key)?.deletion);
        self.unsaved.objects.insert(key);
        if let Some(old) = fact.head_mut() {
            *old = ChangeHead { change: ChangeKind::Delete, ..head.clone() };
        }
        Some(fact)
    }

    /// Rows for those of these attributions that were not told before.
    pub fn attributions(&mut self, meanings: &[(AttributionId, Decision)], time_ns: i64) -> Vec<Fact> {
        let Self { told, unsaved, .. } = self;
        let new = meanings.iter().filter(|(id, _)| told.attributions.insert(*id) && unsaved.attributions.insert(*id));
        let row = |(id, decision): &(AttributionId, Decision)| AttributionRow {
            time: clock::at(time_ns),
            node: self.node.clone(),
            attribution: Arc::new(AttributionValue { id: *id, decision: decision.clone() }),
        };
        new.map(|meaning| Fact::Attribution(Box::new(row(meaning)))).collect()
    }

    /// Remembers what was told; to be called once the rows are safe.
    ///
    /// # Errors
    /// It could not be written: a restart would tell again what was told.
    pub fn save(&mut self) -> Result<(), ChangesError> {
        if self.unsaved.attributions.is_empty() && self.unsaved.objects.is_empty() {
            return Ok(());
        }
        if self.chain.wants_whole() {
            let Told { boot_id, attributions, objects } = &self.told;
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
            let entry = |key: &String| (key.clone(), self.told.objects.get(key).cloned());
            let difference = Record {
                whole: false,
                boot_id: self.told.boot_id.clone(),
                attributions: self.unsaved.attributions.iter().copied().collect(),
                objects: self.unsaved.objects.iter().map(entry).collect(),
            };
            self.chain.difference(&serde_json::to_vec(&difference)?)?;
        }
        self.unsaved = Unsaved::default();
        Ok(())
    }
}

impl Told {
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

/// Tells contents apart without keeping them: policies can be long.
fn content_of(fact: &Fact) -> String {
    let mut fact = fact.clone();
    if let Some(head) = fact.head_mut() {
        let nothing: Arc<str> = Arc::from("");
        let time = DateTime::<Utc>::UNIX_EPOCH;
        *head = ChangeHead { change: ChangeKind::Put, time, snapshot: 0, node: nothing.clone(), boot_id: nothing };
    }
    // Owner ids are new after every restart, and say nothing of the object.
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

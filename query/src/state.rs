//! The policy state of a node at a moment, rebuilt from the change logs: the objects that the engine needs to evaluate as
//! of that moment.

mod fold;
mod fresh;
mod heads;
mod kept;
mod logs;
mod moment;
mod objects;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use netverdict_flowlog::{
    Table,
    row::{EndpointKind, SnapshotRow},
};
use netverdict_manifest::implied_namespace;
use netverdict_policy::{ObjectKey, Snapshot, model::PolicyKey};

pub use self::kept::States;
pub use self::moment::Moment;
use self::{fold::Fold, fresh::Fresh, kept::Wanted, logs::FreshLogs};
use crate::{QueryError, history::History, notes::Notes};

/// Unreadable objects that are named in one answer.
const MOST_PROBLEMS: usize = 10;

/// A state, and where it is from.
#[derive(Clone, Debug)]
pub struct State {
    pub snapshot: Snapshot,
    pub number: u64,
    pub node: String,
    /// When it came into force.
    pub time: DateTime<Utc>,
    /// Possible omissions in it, for people.
    pub problems: Vec<String>,
    /// The objects that it was made of.
    fold: Arc<Fold>,
}

/// The state of `node`, or, if `node` has none, of the node that changed last. `None`: no state is on record.
///
/// # Errors
/// When the change logs cannot be read.
pub async fn rebuild(
    history: &History,
    node: Option<&str>,
    moment: Moment,
    notes: &Arc<Notes>,
) -> Result<Option<State>, QueryError> {
    let executor = history.executor();
    // Rows of a number are there no later than the number.
    let heads = Fresh::of(executor, Table::Snapshots, None, notes).await?;
    let Some(head) = heads::find(executor, node, moment, &heads, notes).await? else { return Ok(None) };
    let fresh = FreshLogs::after(executor, &heads, notes).await?;
    of_head(history, &head, moment == Moment::Newest, &fresh, notes).await.map(Some)
}

async fn of_head(
    history: &History,
    head: &SnapshotRow,
    newest: bool,
    fresh: &FreshLogs,
    notes: &Arc<Notes>,
) -> Result<State, QueryError> {
    let fold = history.states().fold(history.executor(), &Wanted { head, newest }, fresh, notes).await?;
    let mut state = State {
        snapshot: Snapshot { audit_all: head.audit_all, ..fold.snapshot() },
        number: head.snapshot,
        node: head.node.to_string(),
        time: head.time,
        problems: Vec::new(),
        fold,
    };
    state.complete(head);
    Ok(state)
}

impl State {
    /// The number of the state in which a pod was no longer there, and when it went. `None`: it is there, never was, or is
    /// gone for long.
    pub fn gone_since(&self, pod: &ObjectKey) -> Option<(u64, DateTime<Utc>)> {
        self.fold.deleted(Table::Endpoints, EndpointKind::Pod.as_str(), pod)
    }

    /// Why a pod of this state cannot be judged: its row is unreadable. `None`: it can, or it is not there.
    pub fn unreadable(&self, pod: &ObjectKey) -> Option<&str> {
        self.fold.problem(Table::Endpoints, EndpointKind::Pod.as_str(), pod).map(|problem| &**problem)
    }

    /// Adds namespaces that objects imply, and reports differences from the recorded counts and unreadable objects.
    fn complete(&mut self, head: &SnapshotRow) {
        let snapshot = &mut self.snapshot;
        let named: Vec<String> = snapshot
            .pods
            .keys()
            .map(|key| &key.namespace)
            .chain(snapshot.policies.keys().map(|key: &PolicyKey| &key.namespace))
            .filter(|name| !name.is_empty() && !snapshot.namespaces.contains_key(*name))
            .cloned()
            .collect();
        for name in named {
            let namespace = implied_namespace(&name);
            snapshot.namespaces.insert(name, Arc::new(namespace));
        }
        let counts = [("policies", head.policies, snapshot.policies.len()), ("pods", head.pods, snapshot.pods.len())];
        for (what, expected, found) in counts {
            if expected != found as u64 {
                self.problems.push(format!(
                    "snapshot {} of node {} had {expected} {what}, {found} are on record: judging by it may be wrong",
                    head.snapshot, head.node
                ));
            }
        }
        self.problems.extend(self.fold.problems().take(MOST_PROBLEMS).map(|problem| problem.to_string()));
        if head.errors > 0 {
            self.problems.push(format!(
                "node {} could not read {} objects when it made snapshot {}: they may be missing in it",
                head.node, head.errors, head.snapshot
            ));
        }
    }
}

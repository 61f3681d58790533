//! The policies that decided: their text at that time, and whether they were changed or deleted since.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use netverdict_flowlog::{
    Table,
    answer::{Decider, Revision, Since, WhyPoint},
    row::{ChangeKind, PolicyRow},
};
use netverdict_policy::Reference;

use crate::{
    Executor, QueryError,
    notes::Notes,
    records::{self, of_kind, quoted_list},
};

/// A decider without its text, which [`complete`] looks up.
pub(super) fn decider(reference: &Reference) -> Decider {
    Decider {
        kind: reference.policy.kind.clone(),
        namespace: reference.policy.namespace.clone(),
        name: reference.policy.name.clone(),
        uid: reference.uid.clone(),
        generation: reference.generation,
        content_hash: reference.content_hash.clone(),
        tier: reference.tier.as_str().into(),
        rule_index: reference.rule_index,
        rule_name: reference.rule_name.clone(),
        action: reference.action.map(|action| action.as_str().to_owned()).unwrap_or_default(),
        role: reference.role.as_str().into(),
        text: String::new(),
        revision: None,
        since: Since::Unknown,
    }
}

/// Looks up the state of every decider as it stood, and whether it was changed or deleted since.
pub(super) async fn complete(
    executor: &Executor,
    points: &mut [WhyPoint],
    notes: &Arc<Notes>,
) -> Result<(), QueryError> {
    let mut deciders: Vec<(&str, Option<DateTime<Utc>>, &mut Decider)> = Vec::new();
    for point in points {
        let WhyPoint { node, last_seen, decided_by, passed, staged, now_decided_by, .. } = point;
        let then =
            decided_by.iter_mut().chain(passed).chain(staged).map(|decider| (node.as_str(), *last_seen, decider));
        let now = now_decided_by.iter_mut().map(|decider| (node.as_str(), None, decider));
        deciders.extend(then.chain(now).filter(|(_, _, decider)| !decider.uid.is_empty()));
    }
    if deciders.is_empty() {
        return Ok(());
    }
    let uids = quoted_list(deciders.iter().map(|(_, _, decider)| decider.uid.as_str()));
    let condition = format!("uid IN ({uids})");
    let mut log: Vec<PolicyRow> =
        of_kind!(records::rows(executor, Table::Policies, &condition, "", notes).await?, Policy);
    // Snapshot numbers are per node, so changes of several nodes are ordered by time.
    log.sort_by_key(|row| (row.head.time, row.head.snapshot, row.head.change == ChangeKind::Put));
    for (node, seen, decider) in deciders {
        let of = |row: &&PolicyRow| row.uid == decider.uid;
        decider.since = match log.iter().rfind(of) {
            None => Since::Unknown,
            Some(row) if row.head.change == ChangeKind::Delete => Since::Deleted,
            Some(row) if row.content_hash == decider.content_hash => Since::Unchanged,
            Some(_) => Since::Changed,
        };
        let stood =
            log.iter().filter(of).filter(|row| row.content_hash == decider.content_hash && !row.text.is_empty());
        let stood: Vec<&PolicyRow> = stood.collect();
        if let Some(row) = stood.last() {
            decider.text.clone_from(&row.text);
        }
        decider.revision = revision(&stood, decider.generation, node, seen);
    }
    Ok(())
}

/// The state that decided on a node at a time (`None`: the newest), of rows that have its content, the oldest first. A
/// content may come back, and then has another generation.
fn revision(stood: &[&PolicyRow], generation: i64, node: &str, seen: Option<DateTime<Utc>>) -> Option<Revision> {
    let of_node = |row: &&PolicyRow| *row.head.node == *node;
    let is_known = stood.iter().any(&of_node);
    let same = stood.iter().filter(|row| row.generation == generation && (!is_known || of_node(row)));
    let same: Vec<&PolicyRow> = same.copied().collect();
    let by_then = same.iter().rfind(|row| seen.is_none_or(|seen| row.head.time <= seen));
    let (first, row) = (same.first()?, by_then.or(same.first())?);
    Some(Revision {
        resource_version: row.resource_version.clone(),
        author: row.author.clone(),
        changed: row.changed_time,
        created: row.created_time,
        origin: row.origin.clone(),
        node: row.head.node.to_string(),
        in_force: first.head.time,
    })
}

//! The policies that decided: their text at that time, and whether they were changed or deleted since.

use std::sync::Arc;

use netverdict_flowlog::{
    Table,
    answer::{Decider, Since, WhyPoint},
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
        since: Since::Unknown,
    }
}

/// Looks up the text of every decider, and whether it was changed or deleted since.
pub(super) async fn complete(
    executor: &Executor,
    points: &mut [WhyPoint],
    notes: &Arc<Notes>,
) -> Result<(), QueryError> {
    let mut deciders: Vec<&mut Decider> = points
        .iter_mut()
        .flat_map(|point| {
            point
                .decided_by
                .iter_mut()
                .chain(&mut point.passed)
                .chain(&mut point.staged)
                .chain(&mut point.now_decided_by)
        })
        .filter(|decider| !decider.uid.is_empty())
        .collect();
    if deciders.is_empty() {
        return Ok(());
    }
    let condition = format!("uid IN ({})", quoted_list(deciders.iter().map(|decider| decider.uid.as_str())));
    let mut log: Vec<PolicyRow> =
        of_kind!(records::rows(executor, Table::Policies, &condition, "", notes).await?, Policy);
    // Snapshot numbers are per node, so changes of several nodes are ordered by time.
    log.sort_by_key(|row| (row.head.time, row.head.snapshot, row.head.change == ChangeKind::Put));
    for decider in &mut deciders {
        let of = |row: &&PolicyRow| row.uid == decider.uid;
        let stood = |row: &&PolicyRow| of(row) && row.content_hash == decider.content_hash && !row.text.is_empty();
        decider.since = match log.iter().rfind(of) {
            None => Since::Unknown,
            Some(row) if row.head.change == ChangeKind::Delete => Since::Deleted,
            Some(row) if row.content_hash == decider.content_hash => Since::Unchanged,
            Some(_) => Since::Changed,
        };
        if let Some(row) = log.iter().rfind(stood) {
            decider.text.clone_from(&row.text);
        }
    }
    Ok(())
}

//! Pods of a question that are not in the policy state: when they were deleted, or which similar names there are.

use std::{collections::BTreeSet, sync::Arc};

use chrono::{DateTime, Utc};
use netverdict_flowlog::{
    Table,
    row::{ChangeKind, EndpointChangeRow, EndpointKind},
};
use netverdict_policy::ObjectKey;

use crate::{
    Executor, QueryError, cells,
    history::History,
    notes::Notes,
    question::Asked,
    records::{self, literal, of_kind, quoted},
    state::{self, Moment, State},
};

/// Most names in a suggestion.
const SUGGESTIONS: usize = 3;
/// Most names that are compared with the unknown one.
const MAX_NAMES: usize = 100_000;

/// The policy state in force at a time; or, if a pod was deleted by then, the last state that had it. An error for pods
/// that are not on record.
pub(super) async fn state_with(
    history: &History,
    ends: &[&Asked],
    to: DateTime<Utc>,
    notes: &Arc<Notes>,
) -> Result<State, QueryError> {
    let executor = history.executor();
    let state = state::rebuild(history, None, Moment::At(to), notes).await?;
    if state.is_none()
        && let Some(first) = first(executor, "record.snapshots WHERE true", notes).await?
    {
        return Err(QueryError::BadRequest {
            message: format!("the record begins at {}: nothing is known of {}", stamp(first), stamp(to)),
            remedy: "ask about a later time".into(),
        });
    }
    let mut last: Option<u64> = None;
    for key in pods(ends) {
        if state.as_ref().is_some_and(|state| state.snapshot.pods.contains_key(key)) {
            continue;
        }
        if let Some(problem) = state.as_ref().and_then(|state| state.unreadable(key)) {
            return Err(QueryError::Unreadable(problem.to_owned()));
        }
        let gone = match state.as_ref().and_then(|state| state.gone_since(key)) {
            Some(gone) => Some(gone),
            None => gone_long(executor, key, state.as_ref(), to, notes).await?,
        };
        if let Some((number, _)) = gone {
            last = Some(last.map_or(number, |last| last.min(number)));
        }
    }
    let Some(state) = state else {
        return Err(QueryError::BadRequest {
            message: "no policy state is on record until then, and no packet either".into(),
            remedy: "choose a later at, or see that a collector writes into --data-dir".into(),
        });
    };
    match last {
        None => Ok(state),
        Some(snapshot) => {
            let moment = Moment::Number(snapshot.saturating_sub(1));
            Ok(state::rebuild(history, Some(&state.node), moment, notes).await?.unwrap_or(state))
        }
    }
}

/// When a pod that is not in the newest state was deleted. `None`: it is only on another node's record.
pub(super) async fn deleted(
    executor: &Executor,
    newest: &State,
    pod: &ObjectKey,
    now: DateTime<Utc>,
    notes: &Arc<Notes>,
) -> Result<Option<DateTime<Utc>>, QueryError> {
    if let Some((_, time)) = newest.gone_since(pod) {
        return Ok(Some(time));
    }
    Ok(last_deletion(&changes(executor, pod, now, notes).await?, Some(newest)).map(|(_, time)| time))
}

/// Snapshot and time of a pod's deletion, from all its changes on record. `None`: it is only on another node's record. An
/// error for a pod that is not on record.
async fn gone_long(
    executor: &Executor,
    key: &ObjectKey,
    state: Option<&State>,
    to: DateTime<Utc>,
    notes: &Arc<Notes>,
) -> Result<Option<(u64, DateTime<Utc>)>, QueryError> {
    let changes = changes(executor, key, to, notes).await?;
    if changes.is_empty() {
        let later = format!("record.endpoints WHERE {}", of_pod(key));
        return Err(match first(executor, &later, notes).await? {
            Some(first) => QueryError::UnknownPod {
                message: format!("pod {key} is on record from {} on, not at {}", stamp(first), stamp(to)),
                remedy: "ask about a later time".into(),
            },
            None => QueryError::UnknownPod {
                message: format!("pod {key} is not on record until {}", stamp(to)),
                remedy: remedy(key, &names(executor, notes).await?),
            },
        });
    }
    Ok(last_deletion(&changes, state))
}

/// The last deletion on the record of a state's node.
fn last_deletion(changes: &[EndpointChangeRow], state: Option<&State>) -> Option<(u64, DateTime<Utc>)> {
    let of_node = |row: &&EndpointChangeRow| state.is_some_and(|state| *row.head.node == *state.node);
    let deletions = changes.iter().filter(|row| row.head.change == ChangeKind::Delete).filter(of_node);
    deletions.map(|row| (row.head.snapshot, row.head.time)).max()
}

/// The first time in a table, where a condition holds.
async fn first(executor: &Executor, rows: &str, notes: &Arc<Notes>) -> Result<Option<DateTime<Utc>>, QueryError> {
    #[derive(serde::Deserialize)]
    struct First {
        first: Option<DateTime<Utc>>,
    }
    let (batches, _) = executor.query(&format!("SELECT min(time) AS first FROM {rows}"), 1, notes).await?;
    let found: Vec<First> = cells::typed_rows(&batches)?;
    Ok(found.into_iter().find_map(|First { first }| first))
}

fn stamp(time: DateTime<Utc>) -> impl std::fmt::Display {
    time.format("%Y-%m-%d %H:%M:%S UTC")
}

fn of_pod(key: &ObjectKey) -> String {
    let (namespace, name) = (quoted(&key.namespace), quoted(&key.name));
    format!("kind = '{}' AND namespace = {namespace} AND name = {name}", EndpointKind::Pod.as_str())
}

fn pods<'a>(ends: &'a [&Asked]) -> impl Iterator<Item = &'a ObjectKey> {
    ends.iter().filter_map(|end| match end {
        Asked::Pod(key) => Some(key),
        Asked::Address(_) => None,
    })
}

async fn changes(
    executor: &Executor,
    key: &ObjectKey,
    to: DateTime<Utc>,
    notes: &Arc<Notes>,
) -> Result<Vec<EndpointChangeRow>, QueryError> {
    let condition = format!("{} AND time <= {}", of_pod(key), literal(to));
    Ok(of_kind!(records::rows(executor, Table::Endpoints, &condition, "", notes).await?, Endpoint))
}

async fn names(executor: &Executor, notes: &Arc<Notes>) -> Result<BTreeSet<ObjectKey>, QueryError> {
    #[derive(serde::Deserialize)]
    struct Name {
        namespace: String,
        name: String,
    }
    let text = format!(
        "SELECT DISTINCT namespace, name FROM record.endpoints WHERE kind = '{}' AND namespace IS NOT NULL",
        EndpointKind::Pod.as_str()
    );
    let (batches, _) = executor.query(&text, MAX_NAMES, notes).await?;
    let names: Vec<Name> = cells::typed_rows(&batches)?;
    Ok(names.into_iter().map(|Name { namespace, name }| ObjectKey { namespace, name }).collect())
}

fn remedy(key: &ObjectKey, names: &BTreeSet<ObjectKey>) -> String {
    let near = nearest(key, names);
    match near.as_slice() {
        [] => "no pod is on record yet: see that a collector writes into --data-dir".into(),
        near => format!("did you mean {}?", near.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")),
    }
}

/// Similar names, best first: the same name elsewhere, a common beginning (a pod of the same workload), a small distance.
fn nearest<'a>(key: &ObjectKey, names: &'a BTreeSet<ObjectKey>) -> Vec<&'a ObjectKey> {
    let distance = |other: &ObjectKey| {
        let name = match other.name == key.name {
            true => 0,
            false if other.name.starts_with(&key.name) || key.name.starts_with(&other.name) => 1,
            false => edits(&key.name, &other.name),
        };
        // Another namespace counts as one mistake, however different it is.
        (name + edits(&key.namespace, &other.namespace).min(2), other.name.len())
    };
    let mut near: Vec<&ObjectKey> = names.iter().collect();
    near.sort_by_key(|other| distance(other));
    near.truncate(SUGGESTIONS);
    near
}

/// Levenshtein's distance. Names are at most 253 bytes.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_come_first() {
        let names: BTreeSet<ObjectKey> =
            [("shop", "web"), ("shop", "web-7d4f-x2k"), ("db", "pg"), ("monitoring", "prometheus")]
                .map(|(namespace, name)| ObjectKey::new(namespace, name))
                .into();
        let first = |namespace, name| nearest(&ObjectKey::new(namespace, name), &names)[0].to_string();
        assert_eq!(first("shop", "wbe"), "shop/web");
        assert_eq!(first("shop", "web-7d4f"), "shop/web");
        assert_eq!(first("shop", "pg"), "db/pg");
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}

//! `GET /v1/flows`: flow records by filter, queried newest first and returned oldest first. An answer has a cursor, with
//! with which the next question gets the newer records (`followers`).

mod followers;
mod line;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use netverdict_flowlog::{Table, answer::FlowsAnswer, row::FlowRow};
use netverdict_policy::{Verdict, model::Protocol};
use serde::Deserialize;

pub use followers::Followers;

use self::{followers::Cursor, line::line};
use crate::{
    Executor, QueryError, cells,
    dedup_window::{Arrival, LATE},
    flow_condition::{end_condition, namespace_condition, pod_condition, policy_condition, port_condition},
    gaps,
    notes::Notes,
    question,
    records::{self, literal, of_kind},
    tables::Window,
};

const USUAL: Duration = Duration::from_secs(15 * 60);
const USUAL_LIMIT: usize = 200;
const MAX_LIMIT: usize = 10_000;
/// Longest time, in seconds, between an event and its record for a follower to get it.
const SLOW: i64 = 600;
/// Most records of the last minute in which a follower's new ones are looked for: the newest.
const MAX_ARRIVALS: usize = 2 * MAX_LIMIT;

/// The parameters of the URL. Empty means any.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// `allowed`, `denied`, `unknown`.
    pub verdict: String,
    /// `namespace/pod` or an address.
    pub source: String,
    pub destination: String,
    /// The namespace of either end.
    pub namespace: String,
    /// The pod at either end, as `pod` or `namespace/pod`.
    pub pod: String,
    /// Destination port.
    pub port: Option<u16>,
    pub protocol: String,
    /// A policy that decided, as `name` or `namespace/name`.
    pub policy: String,
    /// Begin of the time: a length of time before its end (15m), or a time.
    pub since: String,
    /// End of the time; now if empty. `until` means the same.
    pub at: String,
    pub until: String,
    pub limit: Option<usize>,
    /// The cursor of the last answer, to go on from.
    pub after: String,
}

/// Records that fit, oldest first.
///
/// # Errors
/// When a parameter is not as expected, or the record cannot be read.
pub async fn answer(
    executor: &Executor,
    followers: &Followers,
    parameters: &Parameters,
    now: DateTime<Utc>,
) -> Result<FlowsAnswer, QueryError> {
    let limit = parameters.limit.unwrap_or(USUAL_LIMIT).clamp(1, MAX_LIMIT);
    let until = if parameters.until.is_empty() { &parameters.at } else { &parameters.until };
    let (mut from, to) = question::range(&parameters.since, until, USUAL, now)?;
    let conditions = conditions(parameters)?;
    let notes = Arc::new(Notes::default());
    let (rows, truncated, cursor) = if parameters.after.is_empty() {
        let condition = within(&conditions, from, to);
        let (rows, truncated) = newest(executor, &condition, limit, &notes).await?;
        let given: Vec<Arrival> = rows.iter().map(arrival_of).collect();
        (rows, truncated, followers.begin(&given, now))
    } else {
        let cursor = Cursor::parse(&parameters.after)?;
        from = cursor.newest - TimeDelta::seconds(SLOW);
        let condition = within(&conditions, from, to);
        let arrivals = arrivals(executor, &condition, cursor, &notes).await?;
        let (new, cursor) = followers.take_new(cursor, arrivals, limit);
        // Records that do not fit come with the next answer.
        (whole(executor, &condition, &new, &notes).await?, false, cursor)
    };
    let gaps = gaps::touching(executor, Window::between(from, to), &notes).await?;
    let stale = gaps::stale(executor, &notes).await;
    Ok(FlowsAnswer { flows: rows.iter().map(line).collect(), truncated, gaps, stale, cursor: cursor.text() })
}

/// The newest rows, oldest first, and whether there are more than `limit`.
async fn newest(
    executor: &Executor,
    condition: &str,
    limit: usize,
    notes: &Arc<Notes>,
) -> Result<(Vec<FlowRow>, bool), QueryError> {
    let tail = format!("ORDER BY time DESC, seq DESC LIMIT {}", limit + 1);
    let mut rows = of_kind!(records::rows(executor, Table::Flows, condition, &tail, notes).await?, Flow);
    let truncated = rows.len() > limit;
    rows.truncate(limit);
    rows.reverse();
    Ok((rows, truncated))
}

/// Columns that identify a record.
#[derive(Deserialize, Hash)]
struct Key {
    node: String,
    boot_id: String,
    receiver: String,
    /// These three are null for records of other systems,
    lane: Option<String>,
    cpu: Option<u32>,
    seq: Option<u64>,
    /// and this for records of our own probe.
    cursor: Option<String>,
    record_type: String,
}

impl Key {
    fn id(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

fn arrival_of(row: &FlowRow) -> Arrival {
    let key = Key {
        node: row.node.to_string(),
        boot_id: row.boot_id.to_string(),
        receiver: row.receiver.as_str().into(),
        lane: row.lane.map(|lane| lane.as_str().into()),
        cpu: row.cpu,
        seq: row.seq,
        cursor: row.cursor.as_deref().map(Into::into),
        record_type: row.record_type.as_str().into(),
    };
    Arrival { id: key.id(), time: row.ingest_time }
}

/// The arrivals in a follower's window, oldest first. Only the columns that identify a record are read: nearly all of
/// these records the follower has.
async fn arrivals(
    executor: &Executor,
    condition: &str,
    cursor: Cursor,
    notes: &Arc<Notes>,
) -> Result<Vec<Arrival>, QueryError> {
    #[derive(Deserialize)]
    struct Found {
        #[serde(flatten)]
        key: Key,
        ingest_time: DateTime<Utc>,
    }
    let text = format!(
        "SELECT node, boot_id, receiver, lane, cpu, seq, cursor, record_type, ingest_time FROM record.flows \
         WHERE {condition} AND ingest_time >= {} ORDER BY ingest_time DESC, time DESC LIMIT {MAX_ARRIVALS}",
        literal(cursor.newest - TimeDelta::seconds(LATE))
    );
    let (batches, _) = executor.query(&text, MAX_ARRIVALS, notes).await?;
    let found: Vec<Found> = cells::typed_rows(&batches)?;
    Ok(found.iter().rev().map(|found| Arrival { id: found.key.id(), time: found.ingest_time }).collect())
}

/// The whole rows of these arrivals, in their order.
async fn whole(
    executor: &Executor,
    condition: &str,
    arrivals: &[Arrival],
    notes: &Arc<Notes>,
) -> Result<Vec<FlowRow>, QueryError> {
    let times = || arrivals.iter().map(|arrival| arrival.time);
    let (Some(first), Some(last)) = (times().min(), times().max()) else { return Ok(Vec::new()) };
    let condition = format!("{condition} AND ingest_time >= {} AND ingest_time <= {}", literal(first), literal(last));
    let rows = of_kind!(records::rows(executor, Table::Flows, &condition, "", notes).await?, Flow);
    let mut rows: HashMap<u64, FlowRow> = rows.into_iter().map(|row| (arrival_of(&row).id, row)).collect();
    Ok(arrivals.iter().filter_map(|arrival| rows.remove(&arrival.id)).collect())
}

fn within(conditions: &[String], from: DateTime<Utc>, to: DateTime<Utc>) -> String {
    let time = format!("time >= {} AND time <= {}", literal(from), literal(to));
    [conditions, &[time]].concat().join(" AND ")
}

/// The filters as conditions in SQL.
fn conditions(parameters: &Parameters) -> Result<Vec<String>, QueryError> {
    let bad = |message: String, remedy: &str| QueryError::BadRequest { message, remedy: remedy.into() };
    let Parameters { verdict, source, destination, namespace, pod, port, protocol, policy, .. } = parameters;
    let mut conditions = Vec::new();
    if !verdict.is_empty() {
        let Some(verdict) = Verdict::from_name(verdict) else {
            return Err(bad(format!("verdict is `{verdict}`"), "expected allowed, denied or unknown"));
        };
        conditions.push(format!("verdict = '{verdict}'"));
    }
    for (side, text) in [("source", source), ("destination", destination)] {
        if !text.is_empty() {
            conditions.push(end_condition(side, &question::end(side, text)?));
        }
    }
    if !namespace.is_empty() {
        conditions.push(namespace_condition(namespace));
    }
    if !pod.is_empty() {
        conditions.push(pod_condition(pod));
    }
    conditions.extend(port.map(port_condition));
    if let Some(Protocol(protocol)) = question::protocol(protocol)? {
        conditions.push(format!("protocol = {protocol}"));
    }
    if !policy.is_empty() {
        let condition = policy_condition(policy);
        let expected = || bad(format!("policy is `{policy}`"), "expected policy as name or namespace/name");
        conditions.push(condition.ok_or_else(expected)?);
    }
    Ok(conditions)
}

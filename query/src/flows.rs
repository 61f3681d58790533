//! `GET /v1/flows`: records by filters, the newest first asked and the oldest first told, and going on from there.
//!
//! Who follows gets each record once, also those that arrive late: what a follower has seen of the last minute is
//! remembered here, for a few minutes, and found again by the cursor.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use netverdict_flowlog::{
    Table,
    answer::{FlowLine, FlowsAnswer},
    row::{EndpointKind, EndpointRow, FlowRow},
};
use netverdict_policy::{Reference, Verdict, model::Protocol};
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;

use crate::{
    Executor, QueryError, gaps,
    notes::Notes,
    question::{self, Asked},
    records::{self, literal, of_kind, quoted},
    tables::Window,
};

const USUAL: Duration = Duration::from_secs(15 * 60);
const USUAL_LIMIT: usize = 200;
const MAX_LIMIT: usize = 10_000;
/// How late a record may come and still be told to a follower, in seconds.
const LATE: i64 = 60;
/// How long the wait between an event and its record may be for a follower to see it, in seconds.
const SLOW: i64 = 600;
/// Followers that are remembered, and for how long.
const MAX_FOLLOWERS: usize = 64;
const FORGOTTEN: Duration = Duration::from_secs(300);

/// As they stand in the address. Empty is any.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// `allowed`, `denied`, `unknown`.
    pub verdict: String,
    /// `namespace/pod` or an address.
    pub source: String,
    pub destination: String,
    /// Of either end.
    pub namespace: String,
    /// Of either end, as `pod` or `namespace/pod`.
    pub pod: String,
    /// Destination port.
    pub port: Option<u16>,
    pub protocol: String,
    /// That decided, as `name` or `namespace/name`.
    pub policy: String,
    /// A length of time before the end (15m), or a time.
    pub since: String,
    /// The end: a time; now if empty. `until` says the same.
    pub at: String,
    pub until: String,
    pub limit: Option<usize>,
    /// A cursor, to go on from.
    pub after: String,
}

/// What followers have been told.
#[derive(Debug, Default)]
pub struct Followers(Mutex<HashMap<u64, Follower>>);

/// What one follower has been told of the last minute.
#[derive(Debug)]
struct Follower {
    used: Instant,
    /// What arrived until then was there before it began to follow.
    begun: DateTime<Utc>,
    seen: HashSet<u64>,
}

/// Where a follower is: the newest record's time of arrival in microseconds, and who it is.
struct Cursor {
    arrived: DateTime<Utc>,
    follower: u64,
}

impl Cursor {
    fn parse(text: &str) -> Result<Self, QueryError> {
        let parsed = text.split_once('-').and_then(|(arrived, follower)| {
            let arrived = DateTime::from_timestamp_micros(arrived.parse().ok()?)?;
            Some(Self { arrived, follower: u64::from_str_radix(follower, 16).ok()? })
        });
        parsed.ok_or_else(|| QueryError::BadRequest {
            message: "after is no cursor".into(),
            remedy: "give back the cursor of the last answer as it was".into(),
        })
    }

    fn text(&self) -> String {
        format!("{}-{:016x}", self.arrived.timestamp_micros(), self.follower)
    }
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
    let mut conditions = conditions(parameters)?;
    let cursor = (!parameters.after.is_empty()).then(|| Cursor::parse(&parameters.after)).transpose()?;
    let order = match &cursor {
        Some(cursor) => {
            from = cursor.arrived - chrono::Duration::seconds(SLOW);
            let late = cursor.arrived - chrono::Duration::seconds(LATE);
            conditions.push(format!("ingest_time >= {}", literal(late)));
            "ingest_time DESC, time DESC"
        }
        None => "time DESC, seq DESC NULLS LAST",
    };
    conditions.push(format!("time >= {} AND time <= {}", literal(from), literal(to)));
    // What a follower has seen already is among the newest, too.
    let fetched = if cursor.is_some() { MAX_LIMIT * 2 } else { limit + 1 };
    let notes = Arc::new(Notes::default());
    let tail = format!("ORDER BY {order} LIMIT {fetched}");
    let rows = records::rows(executor, Table::Flows, &conditions.join(" AND "), &tail, &notes).await?;
    let mut rows: Vec<FlowRow> = of_kind!(rows, Flow);
    // Who goes on from a cursor gets the rest with the next answer.
    let truncated = cursor.is_none() && rows.len() > limit;
    if truncated {
        rows.truncate(limit);
    }
    rows.reverse();
    let (rows, cursor) = followers.unseen(rows, cursor, limit, now);
    let gaps = gaps::touching(executor, Window::between(from, to), &notes).await?;
    let stale = gaps::stale(executor, &notes).await;
    Ok(FlowsAnswer { flows: rows.iter().map(line).collect(), truncated, gaps, stale, cursor: cursor.text() })
}

impl Followers {
    /// The rows that the follower has not been told, oldest first and at most `limit`; and where that leaves it.
    fn unseen(
        &self,
        rows: Vec<FlowRow>,
        cursor: Option<Cursor>,
        limit: usize,
        now: DateTime<Utc>,
    ) -> (Vec<FlowRow>, Cursor) {
        let mut followers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        followers.retain(|_, follower| follower.used.elapsed() < FORGOTTEN);
        if followers.len() >= MAX_FOLLOWERS
            && let Some(oldest) =
                followers.iter().max_by_key(|(_, follower)| follower.used.elapsed()).map(|(id, _)| *id)
        {
            followers.remove(&oldest);
        }
        // A first answer is told as it is; of a follower that is forgotten only the newest moment is known.
        let first = cursor.is_none();
        let mut cursor =
            cursor.unwrap_or_else(|| Cursor { arrived: now - chrono::Duration::seconds(LATE), follower: random() });
        let known = followers.remove(&cursor.follower).map(|follower| (Some(follower.begun), follower.seen));
        let (begun, mut seen) = known.unwrap_or_else(|| ((!first).then_some(cursor.arrived), HashSet::new()));
        let mut new: Vec<FlowRow> = rows
            .into_iter()
            .filter(|row| !seen.contains(&identity(row)) && begun.is_none_or(|begun| row.ingest_time > begun))
            .collect();
        new.truncate(limit);
        cursor.arrived = new.iter().map(|row| row.ingest_time).fold(cursor.arrived, DateTime::max);
        seen.extend(new.iter().map(identity));
        if seen.len() > 4 * MAX_LIMIT {
            // So many in a minute that no follower can read them: begin again from the newest.
            seen = new.iter().map(identity).collect();
        }
        let begun = begun.unwrap_or(cursor.arrived);
        followers.insert(cursor.follower, Follower { used: Instant::now(), begun, seen });
        (new, cursor)
    }
}

fn identity(row: &FlowRow) -> u64 {
    let mut hasher = DefaultHasher::new();
    let FlowRow { node, boot_id, receiver, lane, cpu, seq, cursor, record_type, .. } = row;
    (node, boot_id, receiver, lane, cpu, seq, cursor, record_type).hash(&mut hasher);
    hasher.finish()
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness followers only share what they have seen.
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

fn conditions(parameters: &Parameters) -> Result<Vec<String>, QueryError> {
    let bad = |message: String, remedy: &str| QueryError::BadRequest { message, remedy: remedy.into() };
    let mut conditions = vec!["true".to_owned()];
    if !parameters.verdict.is_empty() {
        let Some(verdict) = Verdict::from_name(&parameters.verdict) else {
            return Err(bad(format!("verdict is `{}`", parameters.verdict), "expected allowed, denied or unknown"));
        };
        conditions.push(format!("verdict = '{verdict}'"));
    }
    for (side, text) in [("source", &parameters.source), ("destination", &parameters.destination)] {
        if !text.is_empty() {
            conditions.push(end_condition(side, &question::end(side, text)?));
        }
    }
    if !parameters.namespace.is_empty() {
        let namespace = quoted(&parameters.namespace);
        conditions.push(format!("(source_namespace = {namespace} OR destination_namespace = {namespace})"));
    }
    if !parameters.pod.is_empty() {
        let of = |side: &str| match parameters.pod.split_once('/') {
            Some((namespace, pod)) => {
                format!("({side}_namespace = {} AND {side}_pod = {})", quoted(namespace), quoted(pod))
            }
            None => format!("{side}_pod = {}", quoted(&parameters.pod)),
        };
        conditions.push(format!("({} OR {})", of("source"), of("destination")));
    }
    if let Some(port) = parameters.port {
        conditions.push(port_condition(port));
    }
    if let Some(Protocol(protocol)) = question::protocol(&parameters.protocol)? {
        conditions.push(format!("protocol = {protocol}"));
    }
    if !parameters.policy.is_empty() {
        let policy = &parameters.policy;
        if !policy.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-./".contains(&byte)) {
            return Err(bad(format!("policy is `{policy}`"), "expected policy as name or namespace/name"));
        }
        let names = "concat(', ', policy_names(decided_by), ',')";
        // A bare name is of any namespace, or of none.
        let before: &[&str] = if policy.contains('/') { &[", "] } else { &["/", ", "] };
        let forms = before.iter().flat_map(|before| [format!("{before}{policy},"), format!("{before}{policy}#")]);
        let forms: Vec<String> = forms.map(|form| format!("{names} LIKE {}", quoted(&format!("%{form}%")))).collect();
        conditions.push(format!("({})", forms.join(" OR ")));
    }
    Ok(conditions)
}

/// Where an end of a flow is the one asked about: by name as of then, or by address, also before translation.
pub(crate) fn end_condition(side: &str, end: &Asked) -> String {
    match end {
        Asked::Pod(key) => {
            format!("{side}_namespace = {} AND {side}_pod = {}", quoted(&key.namespace), quoted(&key.name))
        }
        Asked::Address(address) => {
            let other = if side == "source" { "translated_source_ip" } else { "original_destination_ip" };
            format!("({side}_ip = '{address}' OR {other} = '{address}')")
        }
    }
}

/// After or before translation.
pub(crate) fn port_condition(port: u16) -> String {
    format!("(destination_port = {port} OR original_destination_port = {port})")
}

fn line(row: &FlowRow) -> FlowLine {
    let deciders = row.attribution.iter().flat_map(|attribution| attribution.decision.decided_by());
    FlowLine {
        time: row.time,
        node: row.node.to_string(),
        verdict: row.verdict.to_string(),
        verdict_if_enforced: row.verdict_if_enforced.map(|verdict| verdict.to_string()),
        disposition: row.disposition.as_str().into(),
        direction: row.direction.as_str().into(),
        reason: row.reason.to_string(),
        source: end_name(&row.source, &row.source_ip.to_string()),
        source_ip: row.source_ip.to_string(),
        source_port: Some(row.source_port).filter(|port| *port != 0),
        destination: end_name(&row.destination, &row.destination_ip.to_string()),
        destination_ip: row.destination_ip.to_string(),
        destination_port: Some(row.destination_port).filter(|port| *port != 0),
        protocol: Protocol(row.protocol).to_string(),
        decided_by: deciders.map(reference_name).collect(),
        near_miss: row
            .near_misses
            .iter()
            .map(|miss| {
                let rule = miss.rule_index.map(|index| format!("#{index}")).unwrap_or_default();
                let key = netverdict_policy::ObjectKey::new(&miss.policy.namespace, &miss.policy.name);
                format!("{key}{rule}: {}", miss.detail)
            })
            .collect(),
        count: i64::try_from(row.count).unwrap_or(i64::MAX),
    }
}

/// `db/default-deny`, `db/allow-api#0`.
fn reference_name(reference: &Reference) -> String {
    let key = netverdict_policy::ObjectKey::new(&reference.policy.namespace, &reference.policy.name);
    reference.rule_index.map_or_else(|| key.to_string(), |index| format!("{key}#{index}"))
}

/// `namespace/pod`, `node/name`, or the address.
pub(crate) fn end_name(end: &EndpointRow, address: &str) -> String {
    match end.kind {
        EndpointKind::Pod if !end.pod.is_empty() => format!("{}/{}", end.namespace, end.pod),
        EndpointKind::Node if !end.node.is_empty() => format!("node/{}", end.node),
        EndpointKind::Service if !end.service.is_empty() => format!("service/{}", end.service),
        _ => address.to_owned(),
    }
}

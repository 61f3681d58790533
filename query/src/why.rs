//! Why two ends cannot talk, or can: the newest attempt on record between them, judged at both ends; where none is on
//! record, what the stored policies say of one.

mod attempt;
mod blame;
mod judged;
mod known;
mod sentence;
mod totals;

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use netverdict_flowlog::answer::{WhyAnswer, WhyEnd, WhyPoint};
use netverdict_policy::{End, Flow, ObjectKey, Verdict, evaluate::Family, model::Protocol};
use serde::Deserialize;

use self::{
    attempt::Attempt,
    judged::{Judged, Path},
    sentence::Beside,
};
use crate::{
    Executor, QueryError, gaps,
    notes::Notes,
    question::{self, Asked},
    state::{self, Moment, State},
    tables::Window,
};

const USUAL: Duration = Duration::from_secs(15 * 60);
/// Who asks may have a clock that is ahead.
const AHEAD: Duration = Duration::from_secs(60);

/// As they stand in the address.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// `namespace/pod` or an address.
    pub source: String,
    pub destination: String,
    /// Destination port; any if not given.
    pub port: Option<u16>,
    /// Name or number; any if empty.
    pub protocol: String,
    /// A length of time before the end (15m), or a time.
    pub since: String,
    /// The end of the time asked about; now if empty.
    pub at: String,
}

/// A question that can be answered.
#[derive(Clone, Debug)]
pub struct Question {
    pub source: Asked,
    pub destination: Asked,
    pub port: Option<u16>,
    pub protocol: Option<Protocol>,
    pub from: DateTime<Utc>,
    pub to: DateTime<Utc>,
    pub now: DateTime<Utc>,
}

impl Question {
    /// # Errors
    /// Says which parameter is not as expected.
    pub fn of(parameters: &Parameters, now: DateTime<Utc>) -> Result<Self, QueryError> {
        let Parameters { source, destination, port, protocol, since, at } = parameters;
        let (from, to) = question::range(since, at, USUAL, now)?;
        if to > now + AHEAD {
            return Err(QueryError::BadRequest {
                message: format!("the time asked about, {}, has not come yet", to.format("%Y-%m-%d %H:%M:%S UTC")),
                remedy: "leave at out to ask about now".into(),
            });
        }
        let protocol = question::protocol(protocol)?;
        if let (Some(port), Some(protocol)) = (port, protocol.filter(|protocol| !protocol.has_ports())) {
            return Err(QueryError::BadRequest {
                message: format!("port {port} is asked about with {protocol}, which has none"),
                remedy: "leave the port out, or ask about tcp, udp or sctp".into(),
            });
        }
        Ok(Self {
            source: question::end("source", source)?,
            destination: question::end("destination", destination)?,
            port: port.filter(|port| *port != 0),
            protocol,
            from,
            to,
            now,
        })
    }
}

/// Answers.
///
/// # Errors
/// When an end is not known, or the record cannot be read.
pub async fn answer(executor: &Executor, question: &Question) -> Result<WhyAnswer, QueryError> {
    let notes = Arc::new(Notes::default());
    let seen = attempt::find(executor, question, &notes).await?;
    let parts = match &seen {
        Some(attempt) => on_record(executor, attempt, &notes).await?,
        None => on_paper(executor, question, &notes).await?,
    };
    let Parts { mut points, mut source, mut destination, port, protocol, assumption, newest } = parts;
    for end in [&mut source, &mut destination] {
        end.deleted = newest.gone.iter().find(|(pod, _)| pod.to_string() == end.name).map(|(_, time)| *time);
    }
    blame::complete(executor, &mut points, &notes).await?;
    let verdict = verdict(&points);
    let mut gaps = gaps::touching(executor, Window::between(question.from, question.to), &notes).await?;
    // What is missing of another pod is no part of this answer; what names no endpoint may be of these.
    gaps.retain(|gap| gap.endpoint.is_empty() || gap.endpoint == source.name || gap.endpoint == destination.name);
    let stale = gaps::stale(executor, &notes).await;
    let mut answer = WhyAnswer {
        sentence: String::new(),
        verdict,
        source,
        destination,
        port,
        protocol: protocol.map(|protocol| protocol.to_string()).unwrap_or_default(),
        points,
        now: newest.path.as_ref().map(|path| path.verdict),
        otherwise: seen.as_ref().map(|attempt| attempt.otherwise(verdict)).unwrap_or_default(),
        gaps,
        stale,
        from: question.from,
        to: question.to,
    };
    let beside = Beside {
        assumption,
        denied_before: seen.as_ref().and_then(|attempt| attempt.denied_before(verdict)),
        family: seen.as_ref().map(Attempt::family),
        newest: newest.path,
    };
    answer.sentence = sentence::sentence(&answer, question.now, &beside);
    Ok(answer)
}

/// What an answer is put together from.
struct Parts {
    points: Vec<WhyPoint>,
    source: WhyEnd,
    destination: WhyEnd,
    port: Option<u16>,
    protocol: Option<Protocol>,
    /// What was assumed because it was not asked, for people; empty where nothing was.
    assumption: String,
    newest: Newest,
}

/// What the newest state says.
#[derive(Default)]
struct Newest {
    /// Of the connection as a whole; `None` where it cannot be evaluated.
    path: Option<Path>,
    /// Pods of the connection that it does not have, and when they went.
    gone: Vec<(ObjectKey, DateTime<Utc>)>,
}

/// The first denying point's verdict, else unknown where any point is, else allowed. What a packet never reached does
/// not count.
fn verdict(points: &[WhyPoint]) -> Verdict {
    let verdicts = || points.iter().filter(|point| !point.hypothetical).map(|point| point.verdict);
    [Verdict::Denied, Verdict::Unknown]
        .into_iter()
        .find(|verdict| verdicts().any(|found| found == *verdict))
        .unwrap_or(Verdict::Allowed)
}

async fn on_record(executor: &Executor, attempt: &Attempt, notes: &Arc<Notes>) -> Result<Parts, QueryError> {
    let flow = attempt.flow();
    let mut points: Vec<WhyPoint> = attempt.points();
    // The ends of which no packet is on record are judged by the state that judged the others.
    if !attempt.missing_points().is_empty() {
        let moment = match attempt.snapshot() {
            0 => Moment::At(attempt.time()),
            number => Moment::Number(number),
        };
        if let Some(then) = state::rebuild(executor, Some(attempt.node()), moment, notes).await? {
            if let Ok(judged) = Judged::of(&then, &flow) {
                let stopped = attempt.stopped_at_source();
                for name in attempt.missing_points() {
                    points.extend(judged.point(name, stopped));
                }
            }
            for problem in then.problems {
                notes.stale(problem);
            }
        }
    }
    points.sort_by_key(|point| point.point != judged::SOURCE_EGRESS);
    let newest = compare_with_newest(executor, Some(attempt.node()), &flow, &mut points, notes).await?;
    let (source, destination) = attempt.ends();
    Ok(Parts {
        points,
        source,
        destination,
        port: attempt.port(),
        protocol: Some(attempt.protocol()),
        assumption: String::new(),
        newest,
    })
}

async fn on_paper(executor: &Executor, question: &Question, notes: &Arc<Notes>) -> Result<Parts, QueryError> {
    let then = known::state_with(executor, &[&question.source, &question.destination], question.to, notes).await?;
    let assumed = judged::assumed(&then, question);
    let judged = Judged::of(&then, &assumed.flow)?;
    let mut points = judged.points();
    let newest = compare_with_newest(executor, None, &assumed.flow, &mut points, notes).await?;
    for problem in &then.problems {
        notes.stale(problem.clone());
    }
    Ok(Parts {
        points,
        source: judged::end(&then, &assumed.flow.source),
        destination: judged::end(&then, &assumed.flow.destination),
        port: assumed.flow.port,
        protocol: Some(assumed.flow.protocol),
        assumption: assumed.text,
        newest,
    })
}

/// What the newest state says, also written into the points. Asked for after older states, it takes only what came since.
async fn compare_with_newest(
    executor: &Executor,
    node: Option<&str>,
    flow: &Flow,
    points: &mut [WhyPoint],
    notes: &Arc<Notes>,
) -> Result<Newest, QueryError> {
    let Some(newest) = state::rebuild(executor, node, Moment::Newest, notes).await? else {
        return Ok(Newest::default());
    };
    let mut gone = Vec::new();
    for end in [&flow.source, &flow.destination] {
        if let End::Pod(pod) = end
            && !newest.snapshot.pods.contains_key(pod)
            && let Some(time) = known::deleted(executor, &newest, pod, Utc::now(), notes).await?
        {
            gone.push((pod.clone(), time));
        }
    }
    let path = Judged::of(&newest, flow).ok().map(|now| {
        points.iter_mut().for_each(|point| now.compare(point));
        now.path()
    });
    Ok(Newest { path, gone })
}

/// The engine's word for an end.
fn engine_end(end: &Asked) -> End {
    match end {
        Asked::Pod(key) => End::Pod(key.clone()),
        Asked::Address(address) => End::Address(*address),
    }
}

/// A flow between two ends, of the family that both have: IPv4 if they have both.
fn flow(state: &State, source: End, destination: End, protocol: Protocol, port: Option<u16>) -> Flow {
    let families = |end: &End| -> Vec<Family> {
        match end {
            End::Address(address) => vec![Family::of(*address)],
            End::Pod(key) => state
                .snapshot
                .pods
                .get(key)
                .map(|pod| pod.addresses.iter().map(|address| Family::of(*address)).collect())
                .unwrap_or_default(),
        }
    };
    let (ours, theirs) = (families(&source), families(&destination));
    let family = match ours.contains(&Family::V6) && theirs.contains(&Family::V6) {
        true if !(ours.contains(&Family::V4) && theirs.contains(&Family::V4)) => Family::V6,
        _ => Family::V4,
    };
    Flow { source, destination, protocol, port, family }
}

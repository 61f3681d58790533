//! Why two ends cannot talk, or can: the newest attempt on record between them, with the verdicts at both ends; where
//! none is on record, the verdicts of the stored policies.

mod asked;
mod attempt;
mod decider;
mod evaluated;
mod flow;
mod known;
mod sentence;
mod totals;
mod verdict;

use std::sync::Arc;

use chrono::{DateTime, Utc};
use netverdict_flowlog::answer::{WhyAnswer, WhyEnd, WhyPoint};
use netverdict_policy::{End, Flow, ObjectKey, model::Protocol};

pub use self::asked::{Parameters, Question};
use self::{
    attempt::Attempt,
    evaluated::Evaluated,
    sentence::SentenceContext,
    verdict::{PathVerdict, SOURCE_EGRESS, verdict},
};
use crate::{
    QueryError, gaps,
    history::History,
    notes::Notes,
    state::{self, Moment},
    tables::Window,
};

/// The answer to a question.
///
/// # Errors
/// When an end is not known, or the record cannot be read.
pub async fn answer(history: &History, question: &Question) -> Result<WhyAnswer, QueryError> {
    let executor = history.executor();
    let notes = Arc::new(Notes::default());
    let seen = attempt::find(executor, question, &notes).await?;
    let parts = match &seen {
        Some(attempt) => on_record(history, attempt, &notes).await?,
        None => from_policies(history, question, &notes).await?,
    };
    let Parts { mut points, mut source, mut destination, port, protocol, assumption, newest } = parts;
    for end in [&mut source, &mut destination] {
        end.deleted = newest.gone.iter().find(|(pod, _)| pod.to_string() == end.name).map(|(_, time)| *time);
    }
    decider::complete(executor, &mut points, &notes).await?;
    let verdict = verdict(&points);
    let mut gaps = gaps::touching(executor, Window::between(question.from, question.to), &notes).await?;
    // A gap of another pod does not concern this answer; one without an endpoint may.
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
    let context = SentenceContext {
        assumption,
        denied_before: seen.as_ref().and_then(|attempt| attempt.denied_before(verdict)),
        family: seen.as_ref().map(Attempt::family),
        newest: newest.path,
    };
    answer.sentence = sentence::sentence(&answer, question.now, &context);
    Ok(answer)
}

/// The parts of an answer that come from the record, or else from the policies.
struct Parts {
    points: Vec<WhyPoint>,
    source: WhyEnd,
    destination: WhyEnd,
    port: Option<u16>,
    protocol: Option<Protocol>,
    /// The assumption made where the question leaves the port open, as text; empty where there is none.
    assumption: String,
    newest: Newest,
}

/// The newest policy state's verdict.
#[derive(Default)]
struct Newest {
    /// Of the whole connection; `None` where it cannot be evaluated.
    path: Option<PathVerdict>,
    /// Pods of the connection that are deleted in it, and when they were.
    gone: Vec<(ObjectKey, DateTime<Utc>)>,
}

async fn on_record(history: &History, attempt: &Attempt, notes: &Arc<Notes>) -> Result<Parts, QueryError> {
    let flow = attempt.flow();
    let mut points: Vec<WhyPoint> = attempt.points();
    // An end without a record is evaluated by the policy state that decided at the other.
    if !attempt.missing_points().is_empty() {
        let moment = match attempt.snapshot() {
            0 => Moment::At(attempt.time()),
            number => Moment::Number(number),
        };
        if let Some(then) = state::rebuild(history, Some(attempt.node()), moment, notes).await? {
            if let Ok(evaluated) = Evaluated::of(&then, &flow) {
                let stopped = attempt.stopped_at_source();
                for name in attempt.missing_points() {
                    points.extend(evaluated.point(name, stopped));
                }
            }
            for problem in then.problems {
                notes.stale(problem);
            }
        }
    }
    points.sort_by_key(|point| point.point != SOURCE_EGRESS);
    let newest = compare_with_newest(history, Some(attempt.node()), &flow, &mut points, notes).await?;
    let (mut source, mut destination) = attempt.ends();
    if attempt.nodes().iter().any(Option::is_some)
        && let Some(then) = state::rebuild(history, Some(attempt.node()), Moment::At(attempt.time()), notes).await?
    {
        for (end, node) in [&mut source, &mut destination].into_iter().zip(attempt.nodes()) {
            end.candidates = node.map(|node| evaluated::on_network_of(&then, node)).unwrap_or_default();
        }
    }
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

async fn from_policies(history: &History, question: &Question, notes: &Arc<Notes>) -> Result<Parts, QueryError> {
    let then = known::state_with(history, &[&question.source, &question.destination], question.to, notes).await?;
    let assumed = flow::assumed(&then, question);
    let evaluated = Evaluated::of(&then, &assumed.flow)?;
    let mut points = evaluated.points();
    let newest = compare_with_newest(history, None, &assumed.flow, &mut points, notes).await?;
    for problem in &then.problems {
        notes.stale(problem.clone());
    }
    Ok(Parts {
        points,
        source: evaluated::end(&then, &assumed.flow.source),
        destination: evaluated::end(&then, &assumed.flow.destination),
        port: assumed.flow.port,
        protocol: Some(assumed.flow.protocol),
        assumption: assumed.text,
        newest,
    })
}

/// The newest policy state's verdict, which is also written into the points. Rebuilt after an older state, it reads only
/// the changes since.
async fn compare_with_newest(
    history: &History,
    node: Option<&str>,
    flow: &Flow,
    points: &mut [WhyPoint],
    notes: &Arc<Notes>,
) -> Result<Newest, QueryError> {
    let Some(newest) = state::rebuild(history, node, Moment::Newest, notes).await? else {
        return Ok(Newest::default());
    };
    let mut gone = Vec::new();
    for end in [&flow.source, &flow.destination] {
        if let End::Pod(pod) = end
            && !newest.snapshot.pods.contains_key(pod)
            && let Some(time) = known::deleted(history.executor(), &newest, pod, Utc::now(), notes).await?
        {
            gone.push((pod.clone(), time));
        }
    }
    let path = Evaluated::of(&newest, flow).ok().map(|now| {
        points.iter_mut().for_each(|point| now.compare(point));
        now.path()
    });
    Ok(Newest { path, gone })
}

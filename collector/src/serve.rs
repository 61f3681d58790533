//! The rows port: rows that are in no file yet, committed files, and the collector's state. For the query service; asks
//! for the token.

mod files;
mod refusal;
mod status;

use std::sync::Arc;

use arrow::{array::RecordBatch, error::ArrowError, ipc::writer::StreamWriter};
use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use chrono::{DateTime, Utc};
use netverdict_flowlog::{Table, answer::CollectorStatus};
use netverdict_service::{
    bearer::{self, BearerError, BearerGuard},
    error_chain::chain,
    secret::SharedSecret,
};
use serde::Deserialize;
use tokio::sync::Semaphore;

use self::refusal::{internal, refusal};
use crate::{
    health::Health,
    input::Session,
    metrics::Metrics,
    store::{Store, StoreError},
};

/// Answers that are made at once: each holds its rows twice.
const AT_ONCE: usize = 4;
/// Rows of one message of a stream.
const MESSAGE_ROWS: usize = 65_536;

/// The parts of the collector that the port reads.
#[derive(Clone)]
pub struct Served {
    pub store: Arc<Store>,
    pub session: Session,
    pub health: Arc<Health>,
    pub metrics: Metrics,
    pub token: SharedSecret,
}

#[derive(Clone)]
struct Port {
    served: Arc<Served>,
    places: Arc<Semaphore>,
}

/// `GET /v1/rows`, `GET /v1/status` and `GET /v1/files/PATH`.
pub fn router(served: Served) -> Router {
    let guard = BearerGuard::new(served.token.clone(), unauthorized);
    let files = files::router(served.store.clone(), served.session.node.clone());
    let port = Port { served: Arc::new(served), places: Arc::new(Semaphore::new(AT_ONCE)) };
    Router::new()
        .route("/v1/rows", get(rows))
        .route("/v1/status", get(status))
        .with_state(port)
        .merge(files)
        .fallback(|| async {
            refusal(StatusCode::NOT_FOUND, "bad-request", "no such path", "ask for /v1/rows, /v1/files or /v1/status")
        })
        .layer(middleware::from_fn_with_state(guard, bearer::require))
}

fn unauthorized(error: BearerError) -> Response {
    let remedy = "send the content of the collector's token file as `Authorization: Bearer TOKEN`";
    refusal(StatusCode::UNAUTHORIZED, "unauthorized", &error.to_string(), remedy)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    table: String,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
}

async fn rows(
    State(port): State<Port>,
    question: Result<Query<Question>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let Query(Question { table, from, to }) = match question {
        Ok(question) => question,
        Err(error) => {
            let remedy = "ask as /v1/rows?table=flows&from=2026-01-01T00:00:00Z&to=2026-01-01T01:00:00Z";
            return refusal(StatusCode::BAD_REQUEST, "bad-request", &error.body_text(), remedy);
        }
    };
    let Some(table) = Table::from_name(&table) else {
        let names: Vec<_> = Table::ALL.iter().map(|table| table.name()).collect();
        let remedy = format!("ask for one of {}", names.join(", "));
        return refusal(StatusCode::BAD_REQUEST, "bad-request", "no such table", &remedy);
    };
    let store = port.served.store.clone();
    let (segment, bytes) = match in_a_place(port.places, move || fresh(&store, table, from, to)).await {
        Ok(made) => made,
        Err(error) => return internal(&error),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/vnd.apache.arrow.stream"));
    let Session { node, boot_id, .. } = &port.served.session;
    // Asked for after the rows: files of every earlier segment are in it or before it.
    let newest = port.served.store.newest().map(|newest| newest.path.to_string());
    for (name, value) in [
        ("netverdict-node", node.to_string()),
        ("netverdict-boot", boot_id.to_string()),
        ("netverdict-segment", segment.to_string()),
        ("netverdict-newest", newest.unwrap_or_default()),
    ] {
        // Names of nodes and boots are checked when the store is opened.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    (headers, bytes).into_response()
}

/// Runs `work` on a thread of its own once there is a place. The place is taken until the work has ended, also where
/// nobody waits for the answer any more: a thread cannot be called off.
async fn in_a_place<T: Send + 'static>(
    places: Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let place = places.acquire_owned().await.map_err(|error| error.to_string())?;
    let worked = tokio::task::spawn_blocking(move || {
        let _place = place;
        work()
    });
    worked.await.map_err(|error| error.to_string())?
}

fn fresh(
    store: &Store,
    table: Table,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
) -> Result<(u64, Vec<u8>), String> {
    let (segment, batch) = store.unflushed(table, from, to).map_err(|error: StoreError| chain(&error))?;
    let bytes = stream(&batch).map_err(|error| chain(&error))?;
    Ok((segment, bytes))
}

fn stream(batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema())?;
    for first in (0..batch.num_rows()).step_by(MESSAGE_ROWS) {
        writer.write(&batch.slice(first, MESSAGE_ROWS.min(batch.num_rows() - first)))?;
    }
    writer.into_inner()
}

async fn status(State(port): State<Port>) -> Json<CollectorStatus> {
    let Served { store, session, health, metrics, token: _ } = &*port.served;
    Json(status::of(session, store, health, metrics))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_nobody_awaits_keeps_its_place_until_it_is_made() {
        let places = Arc::new(Semaphore::new(1));
        let (started, is_started) = tokio::sync::oneshot::channel();
        let (end, awaits_end) = mpsc::channel::<()>();
        let abandoned = tokio::spawn(in_a_place(places.clone(), move || {
            let _ = started.send(());
            awaits_end.recv().map_err(|error| error.to_string())
        }));
        is_started.await.unwrap();
        abandoned.abort();
        assert!(abandoned.await.unwrap_err().is_cancelled());
        assert_eq!(places.available_permits(), 0, "the work goes on");
        end.send(()).unwrap();
        assert_eq!(in_a_place(places, || Ok(7)).await, Ok(7));
    }
}

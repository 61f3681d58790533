//! A rows port that keeps the collector's contract: rows of segments that are not in files yet, with the boundary.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    ipc::writer::StreamWriter,
};
use axum::{
    Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use chrono::{DateTime, Utc};
use netverdict_flowlog::{Table, answer::CollectorStatus, columns, path::Hour, row::Row};
use serde::Deserialize;

use crate::world::{BOOT, NODE, write};

const TOKEN: &str = "token-of-the-collector";

#[derive(Default)]
struct Held {
    segment: u64,
    rows: Vec<Row>,
    source_errors: Vec<String>,
    requests: AtomicUsize,
}

type Shared = Arc<Mutex<Held>>;

pub(crate) struct Collector {
    held: Shared,
    address: std::net::SocketAddr,
    data: std::path::PathBuf,
}

impl Collector {
    pub(crate) async fn start(folder: &Path) -> Self {
        std::fs::write(folder.join("token"), format!("{TOKEN}\n")).expect("written");
        let held = Shared::new(Mutex::new(Held { segment: 2, ..Held::default() }));
        let router =
            Router::new().route("/v1/rows", get(rows)).route("/v1/status", get(status)).with_state(Arc::clone(&held));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { held, address, data: folder.join("data") }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes rows that are not in a file yet.
    pub(crate) fn hold(&self, rows: Vec<Row>) {
        self.held.lock().expect("held").rows.extend(rows);
    }

    /// Writes its rows into the current segment. The files are there before the rows are dropped, as with the
    /// collector: for a moment they are in both places.
    pub(crate) fn write(&self) {
        let held = self.held.lock().expect("held");
        write(&self.data, held.segment, &held.rows);
    }

    /// Drops the rows that are in files now.
    pub(crate) fn next_segment(&self) {
        let mut held = self.held.lock().expect("held");
        held.segment += 1;
        held.rows.clear();
    }

    /// Sets the first segment of the rows that it holds.
    pub(crate) fn at_segment(&self, segment: u64) {
        self.held.lock().expect("held").segment = segment;
    }

    pub(crate) fn source_error(&self, error: &str) {
        self.held.lock().expect("held").source_errors.push(error.into());
    }

    pub(crate) fn requests(&self) -> usize {
        self.held.lock().expect("held").requests.load(Ordering::Relaxed)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    table: String,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
}

fn authorized(headers: &HeaderMap) -> bool {
    headers.get("authorization").is_some_and(|value| value.as_bytes() == format!("Bearer {TOKEN}").as_bytes())
}

async fn rows(State(held): State<Shared>, headers: HeaderMap, Query(question): Query<Question>) -> Response {
    if !authorized(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let held = held.lock().expect("held");
    held.requests.fetch_add(1, Ordering::Relaxed);
    let Some(table) = Table::from_name(&question.table) else { return StatusCode::BAD_REQUEST.into_response() };
    let fits = |row: &&Row| {
        Table::of(row) == table
            && question.from.is_none_or(|from| row.time() >= from)
            && question.to.is_none_or(|to| row.time() <= to)
    };
    let rows: Vec<&Row> = held.rows.iter().filter(fits).collect();
    let batch = columns::batch(table, rows.iter().copied()).expect("a batch");
    let hours: Vec<Hour> = rows.iter().map(|row| Hour::of(row.time())).collect();
    let text = |of: fn(&Hour) -> String| -> ArrayRef { Arc::new(StringArray::from_iter_values(hours.iter().map(of))) };
    let hive = [text(|_| "demo".into()), text(|hour| hour.date()), text(|hour| hour.hour())];
    let all: Vec<ArrayRef> = batch.columns().iter().cloned().chain(hive).collect();
    let batch = RecordBatch::try_new(table.unflushed_schema(), all).expect("a batch with its path's columns");
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).expect("a writer");
    writer.write(&batch).expect("written");
    let headers = [
        ("netverdict-node", NODE.to_owned()),
        ("netverdict-boot", BOOT.to_owned()),
        ("netverdict-segment", held.segment.to_string()),
    ];
    (headers, writer.into_inner().expect("a stream")).into_response()
}

async fn status(State(held): State<Shared>, headers: HeaderMap) -> Response {
    if !authorized(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let held = held.lock().expect("held");
    Json(CollectorStatus {
        node: NODE.into(),
        boot_id: BOOT.into(),
        version: "0.1.0".into(),
        mode: "enforce".into(),
        time: Utc::now(),
        segment: held.segment,
        snapshot: 1,
        source_errors: held.source_errors.clone(),
        endpoints: 3,
        ..CollectorStatus::default()
    })
    .into_response()
}

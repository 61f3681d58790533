//! `POST /v1/sql`: one statement that reads, its rows as JSON, CSV or Arrow.

use std::sync::Arc;

use arrow::{array::RecordBatch, csv, datatypes::SchemaRef, ipc::writer::StreamWriter};
use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use datafusion_postgres::arrow_pg::datatypes::into_pg_type;
use netverdict_flowlog::answer::{Gap, SqlAnswer, SqlColumn, SqlQuestion};

use super::api::{Api, MAX_BODY};
use crate::{QueryError, cells, execute::flat, gaps, notes::Notes};

/// Most bytes of a header with gaps or reasons. Another header has the number of all, including those that do not fit.
const MAX_HEADER: usize = 4096;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Csv,
    Arrow,
}

impl Format {
    fn of(question: &SqlQuestion, headers: &HeaderMap) -> Result<Self, QueryError> {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match question.format.as_str() {
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            "arrow" => Ok(Self::Arrow),
            "" if accept.contains("text/csv") => Ok(Self::Csv),
            "" if accept.contains("application/vnd.apache.arrow.stream") => Ok(Self::Arrow),
            "" => Ok(Self::Json),
            other => Err(QueryError::BadRequest {
                message: format!("format is `{other}`"),
                remedy: "expected json, csv or arrow".into(),
            }),
        }
    }
}

pub(super) async fn sql(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, QueryError> {
    let body = body.map_err(|_| QueryError::TooComplex {
        message: format!("expected a body of at most {MAX_BODY} bytes, found more"),
        remedy: "ask in parts",
    })?;
    let question: SqlQuestion = serde_json::from_slice(&body).map_err(|error| QueryError::BadRequest {
        message: format!("the body is not as expected: {error}"),
        remedy: r#"send for instance {"query": "select * from denials", "format": "json"}"#.into(),
    })?;
    let format = Format::of(&question, &headers)?;
    let notes = Arc::new(Notes::default());
    let deadline = api.executor.deadline(None);
    let plan = api.executor.plan(&question.query, deadline).await?;
    let plan = if format == Format::Csv { flat(plan)? } else { plan };
    let rows = api.executor.run(plan, deadline, Arc::clone(&notes)).await?;
    let schema = Arc::clone(&rows.schema);
    let (batches, truncated) = rows.collect(api.max_rows).await?;
    let gaps = match notes.window() {
        Some(window) => gaps::touching(&api.executor, window, &notes).await?,
        None => Vec::new(),
    };
    let stale = match notes.window() {
        Some(_) => gaps::stale(&api.executor, &notes).await,
        None => notes.reasons(),
    };
    match format {
        Format::Json => Ok(Json(json(&schema, &batches, gaps, stale, truncated)?).into_response()),
        Format::Csv => {
            let bytes = csv_bytes(&schema, &batches)?;
            Ok((about(&gaps, &stale, truncated), [(header::CONTENT_TYPE, "text/csv; charset=utf-8")], bytes)
                .into_response())
        }
        Format::Arrow => {
            let content = [(header::CONTENT_TYPE, "application/vnd.apache.arrow.stream")];
            Ok((about(&gaps, &stale, truncated), content, arrow_bytes(&schema, &batches)?).into_response())
        }
    }
}

fn json(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    gaps: Vec<Gap>,
    stale: Vec<String>,
    truncated: bool,
) -> Result<SqlAnswer, QueryError> {
    let columns = schema
        .fields()
        .iter()
        .map(|field| {
            let nested = cells::is_nested(field.data_type());
            let known = into_pg_type(field.data_type()).ok().filter(|_| !nested);
            SqlColumn {
                name: field.name().clone(),
                r#type: known.map_or_else(|| "json".to_owned(), |known| known.name().to_owned()),
            }
        })
        .collect();
    let mut rows = Vec::new();
    for batch in batches {
        rows.extend(cells::json_rows(batch)?);
    }
    Ok(SqlAnswer { columns, rows, gaps, stale, truncated })
}

fn csv_bytes(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, QueryError> {
    let mut bytes = Vec::new();
    let mut writer = csv::WriterBuilder::new().with_header(true).build(&mut bytes);
    if batches.is_empty() {
        writer.write(&RecordBatch::new_empty(Arc::clone(schema)))?;
    }
    for batch in batches {
        writer.write(batch)?;
    }
    drop(writer);
    Ok(bytes)
}

fn arrow_bytes(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>, QueryError> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    Ok(writer.into_inner()?)
}

/// Gaps and reasons as headers: CSV and Arrow have no place for them.
fn about(gaps: &[Gap], stale: &[String], truncated: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: &'static str, text: String| {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    put("netverdict-truncated", truncated.to_string());
    put("netverdict-gaps-count", gaps.len().to_string());
    put("netverdict-gaps", list(gaps));
    put("netverdict-stale-count", stale.len().to_string());
    put("netverdict-stale", list(stale));
    headers
}

/// As many items as fit, as a JSON list in ASCII.
fn list<T: serde::Serialize>(items: &[T]) -> String {
    let mut text = String::from("[");
    for item in items.iter().filter_map(|item| serde_json::to_string(item).ok()) {
        if text.len() + item.len() + 2 > MAX_HEADER {
            break;
        }
        if text.len() > 1 {
            text.push(',');
        }
        text.extend(item.chars().map(|c| if c.is_ascii() { c } else { '?' }));
    }
    text + "]"
}

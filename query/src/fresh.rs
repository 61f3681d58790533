//! Rows that collectors have not yet written into files, fetched from them; and how the collectors are.
//!
//! A collector that does not answer costs its rows and a reason in the answer, never the answer.

use std::{
    collections::HashMap,
    io::Cursor,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arrow::{array::RecordBatch, ipc::reader::StreamReader};
use chrono::{DateTime, SecondsFormat, Utc};
use futures::future::join_all;
use netverdict_flowlog::{Table, answer::CollectorStatus};
use netverdict_service::endpoint_url::{BadEndpoint, EndpointUrl, without_credentials};
use reqwest::{Client, Response, Url, header::HeaderMap};
use tokio::runtime::Handle;

use crate::{metrics::Metrics, options::DataOptions, tables::Window};

/// For how long an answer of a collector is used again. Together with the collector's own delay this stays below the
/// two seconds after which a verdict must be visible.
const KEPT: Duration = Duration::from_millis(500);
/// Largest answer of a collector, in bytes: far more than it may hold.
const MAX_ANSWER: usize = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FreshError {
    #[error("--collector: {0}")]
    Address(#[from] BadEndpoint),
    #[error("--collector: `{0}` is no address that requests can be sent to")]
    Url(EndpointUrl),
    #[error("no HTTP client can be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// Rows of one collector that are in no file below its segment.
#[derive(Clone, Debug)]
pub struct FreshRows {
    pub batches: Vec<RecordBatch>,
    /// `None` when the collector did not say.
    pub boundary: Option<Boundary>,
    /// The collector was asked then, or later.
    pub asked: Instant,
}

/// Files of this node and boot with this segment or a later one hold rows that the collector served already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundary {
    pub node: String,
    pub boot: String,
    pub segment: u64,
}

/// What all collectors gave.
#[derive(Clone, Debug, Default)]
pub struct FreshAnswer {
    pub rows: Vec<FreshRows>,
    /// Why rows may be missing, for people.
    pub problems: Vec<String>,
}

/// All collectors that the service knows of.
pub struct Collectors {
    urls: Vec<Url>,
    client: Client,
    token_file: PathBuf,
    timeout: Duration,
    /// Sockets are served there, whatever statements do to their own threads.
    network: Handle,
    metrics: Arc<Metrics>,
    kept: Mutex<Kept>,
}

/// How each collector is, or why that is not known.
pub type Statuses = Vec<(Url, Result<CollectorStatus, String>)>;

#[derive(Default)]
struct Kept {
    rows: HashMap<(Url, Table, Window), Arc<FreshRows>>,
    statuses: Option<(Instant, Arc<Statuses>)>,
}

impl std::fmt::Debug for Collectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collectors").field("collectors", &self.urls.len()).finish_non_exhaustive()
    }
}

impl Collectors {
    /// Asks nobody yet. Must be called where sockets may be used.
    ///
    /// # Errors
    /// When an address is none.
    pub fn new(options: &DataOptions, metrics: Arc<Metrics>) -> Result<Self, FreshError> {
        let DataOptions { data_dir: _, collectors, collector_token_file, collector_timeout } = options;
        let address = |url: &EndpointUrl| {
            let text = url.check("http://127.0.0.1:9471")?.reveal();
            Url::parse(text).map_err(|_| FreshError::Url(url.clone()))
        };
        Ok(Self {
            urls: collectors.iter().map(address).collect::<Result<_, _>>()?,
            // A proxy from the environment has no business between us and a node.
            client: Client::builder().no_proxy().connect_timeout(*collector_timeout).build()?,
            token_file: collector_token_file.clone(),
            timeout: *collector_timeout,
            network: Handle::current(),
            metrics,
            kept: Mutex::default(),
        })
    }

    /// Rows of a table inside a window. Whoever adds files must list them after this, and leave out those behind a
    /// boundary.
    pub async fn rows(self: &Arc<Self>, table: Table, window: Window) -> FreshAnswer {
        self.rows_since(table, window, None).await
    }

    /// The same; with `since`, no collector's answer is older.
    pub async fn rows_since(self: &Arc<Self>, table: Table, window: Window, since: Option<Instant>) -> FreshAnswer {
        let each = self.urls.iter().map(|url| {
            let (collectors, url) = (Arc::clone(self), url.clone());
            self.network.spawn(async move { collectors.rows_of(url, table, window, since).await })
        });
        let mut answer = FreshAnswer::default();
        for (url, rows) in self.urls.iter().zip(join_all(each).await) {
            match rows.unwrap_or_else(|_| Err("the request died".into())) {
                Ok(rows) => answer.rows.push(FreshRows::clone(&rows)),
                Err(problem) => answer.problems.push(format!(
                    "collector {} does not answer ({problem}): what it saw in the last minute may be missing",
                    without_credentials(url.as_str())
                )),
            }
        }
        answer
    }

    async fn rows_of(
        &self,
        url: Url,
        table: Table,
        window: Window,
        since: Option<Instant>,
    ) -> Result<Arc<FreshRows>, String> {
        let key = (url, table, window);
        if let Some(rows) = self.kept().rows.get(&key)
            && rows.asked.elapsed() < KEPT
            && since.is_none_or(|since| rows.asked >= since)
        {
            return Ok(Arc::clone(rows));
        }
        let rows = self.fetch(&key.0, table, window).await;
        self.metrics.fresh(rows.is_ok());
        let rows = Arc::new(rows?);
        let mut kept = self.kept();
        kept.rows.retain(|_, rows| rows.asked.elapsed() < KEPT);
        kept.rows.insert(key, Arc::clone(&rows));
        Ok(rows)
    }

    async fn fetch(&self, url: &Url, table: Table, window: Window) -> Result<FreshRows, String> {
        let asked = Instant::now();
        let mut query = vec![("table", table.name().to_owned())];
        let bounds = [("from", window.from_time()), ("to", window.to_time())];
        query.extend(bounds.into_iter().filter_map(|(name, time)| Some((name, rfc3339(time?)))));
        let work = async {
            let response = self.get(url, "v1/rows", &query).await?;
            let boundary = boundary(response.headers());
            Ok::<_, String>((boundary, body(response).await?))
        };
        let (boundary, bytes) = tokio::time::timeout(self.timeout, work)
            .await
            .map_err(|_| format!("nothing within {:?}", self.timeout))??;
        let batches = StreamReader::try_new(Cursor::new(bytes), None)
            .and_then(Iterator::collect)
            .map_err(|error| format!("its rows cannot be read: {error}"))?;
        Ok(FreshRows { batches, boundary, asked })
    }

    /// How each collector is, or why that is not known.
    pub async fn statuses(self: &Arc<Self>) -> Arc<Statuses> {
        if let Some((when, statuses)) = &self.kept().statuses
            && when.elapsed() < KEPT
        {
            return Arc::clone(statuses);
        }
        let each = self.urls.iter().map(|url| {
            let (collectors, url) = (Arc::clone(self), url.clone());
            self.network.spawn(async move { collectors.status_of(&url).await })
        });
        let statuses =
            join_all(each).await.into_iter().map(|status| status.unwrap_or_else(|_| Err("the request died".into())));
        let statuses = Arc::new(self.urls.iter().cloned().zip(statuses).collect::<Vec<_>>());
        self.kept().statuses = Some((Instant::now(), Arc::clone(&statuses)));
        statuses
    }

    async fn status_of(&self, url: &Url) -> Result<CollectorStatus, String> {
        let work = async {
            let bytes = body(self.get(url, "v1/status", &[]).await?).await?;
            serde_json::from_slice(&bytes).map_err(|error| format!("its status cannot be read: {error}"))
        };
        tokio::time::timeout(self.timeout, work).await.map_err(|_| format!("nothing within {:?}", self.timeout))?
    }

    /// Why answers may be out of date, as the collectors tell it.
    pub async fn problems(self: &Arc<Self>) -> Vec<String> {
        let mut problems = Vec::new();
        for (url, status) in self.statuses().await.iter() {
            match status {
                Err(problem) => problems.push(format!(
                    "collector {} does not answer ({problem}): what it saw in the last minute may be missing",
                    without_credentials(url.as_str())
                )),
                Ok(status) => {
                    let node = &status.node;
                    problems.extend(
                        status
                            .source_errors
                            .iter()
                            .map(|error| format!("node {node} could not read all of its cluster source: {error}")),
                    );
                    problems.extend(
                        status
                            .publish_errors
                            .iter()
                            .map(|error| format!("node {node} could not publish policy: {error}")),
                    );
                }
            }
        }
        problems
    }

    async fn get(&self, url: &Url, path: &str, query: &[(&str, String)]) -> Result<Response, String> {
        let mut url = url.clone();
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        url.query_pairs_mut().extend_pairs(query);
        // Read each time: the collector makes the file when it first starts, and may be given another.
        let token = tokio::fs::read_to_string(&self.token_file)
            .await
            .map_err(|error| format!("token file {}: {error}", self.token_file.display()))?;
        let response = self.client.get(url).bearer_auth(token.trim()).send().await.map_err(|error| reason(&error))?;
        let status = response.status();
        if status.is_success() { Ok(response) } else { Err(format!("it answers {status}")) }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The innermost reason: what reqwest says itself names only the address.
fn reason(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error))? {
        if bytes.len() + chunk.len() > MAX_ANSWER {
            return Err(format!("its answer is larger than {MAX_ANSWER} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn boundary(headers: &HeaderMap) -> Option<Boundary> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
    Some(Boundary {
        node: text("netverdict-node")?,
        boot: text("netverdict-boot")?,
        segment: text("netverdict-segment")?.trim().parse().ok()?,
    })
}

fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

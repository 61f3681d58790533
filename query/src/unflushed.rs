//! Unflushed rows, which collectors serve before they are in a file; and the status of the collectors.
//!
//! Without the answer of a collector its rows are missing, and the service's answer says so.

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
use reqwest::{Client, Response, Url, header::HeaderMap};
use tokio::runtime::Handle;

use crate::{metrics::Metrics, options::DataOptions, tables::Window};

/// How long an answer of a collector is cached. Together with the collector's own delay this is less than the two seconds
/// after which a verdict must be visible.
const CACHED: Duration = Duration::from_millis(500);
/// Largest answer of a collector, in bytes: far more than its memtable.
const MAX_ANSWER: usize = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CollectorsError {
    #[error("--collector: `{url}` is not a URL; expected for instance http://127.0.0.1:9471")]
    Address { url: String },
    #[error("the HTTP client cannot be set up: {0}")]
    Client(#[from] reqwest::Error),
}

/// Unflushed rows of one collector: those that are not in files of earlier segments.
#[derive(Clone, Debug)]
pub struct UnflushedRows {
    pub batches: Vec<RecordBatch>,
    /// `None` if the collector did not send it.
    pub boundary: Option<Boundary>,
    /// When the request began: the rows are at least as new.
    pub asked: Instant,
}

/// Files of this node and boot with this segment or a later one repeat rows that the collector has served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundary {
    pub node: String,
    pub boot: String,
    pub segment: u64,
}

/// The rows of all collectors.
#[derive(Clone, Debug, Default)]
pub struct UnflushedAnswer {
    pub rows: Vec<UnflushedRows>,
    /// Reasons why rows may be missing, as text.
    pub problems: Vec<String>,
}

/// The collectors of `--collector`.
pub struct Collectors {
    urls: Vec<Url>,
    client: Client,
    token_file: PathBuf,
    timeout: Duration,
    /// The runtime that serves sockets: statement threads may be busy.
    network: Handle,
    metrics: Arc<Metrics>,
    cache: Mutex<Cache>,
}

/// The status of each collector, or why it is not known.
pub type Statuses = Vec<(Url, Result<CollectorStatus, String>)>;

#[derive(Default)]
struct Cache {
    rows: HashMap<(Url, Table, Window), Arc<UnflushedRows>>,
    statuses: Option<(Instant, Arc<Statuses>)>,
}

impl std::fmt::Debug for Collectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collectors").field("urls", &self.urls).finish_non_exhaustive()
    }
}

impl Collectors {
    /// Sends nothing yet. Must be called on the runtime that serves sockets.
    ///
    /// # Errors
    /// When a URL cannot be used.
    pub fn new(options: &DataOptions, metrics: Arc<Metrics>) -> Result<Self, CollectorsError> {
        let DataOptions { data_dir: _, collectors, collector_token_file, collector_timeout } = options;
        let address = |url: &String| {
            let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
            parsed.ok_or_else(|| CollectorsError::Address { url: url.clone() })
        };
        Ok(Self {
            urls: collectors.iter().map(address).collect::<Result<_, _>>()?,
            // Collectors are asked directly: a proxy of the environment is for other traffic.
            client: Client::builder().no_proxy().connect_timeout(*collector_timeout).build()?,
            token_file: collector_token_file.clone(),
            timeout: *collector_timeout,
            network: Handle::current(),
            metrics,
            cache: Mutex::default(),
        })
    }

    /// Unflushed rows of a table inside a window. To add the rows of files, list the files after this call, and leave out
    /// those at or above a boundary.
    pub async fn rows(self: &Arc<Self>, table: Table, window: Window) -> UnflushedAnswer {
        self.rows_since(table, window, None).await
    }

    /// As [`Self::rows`]; no answer is older than `since`.
    pub async fn rows_since(self: &Arc<Self>, table: Table, window: Window, since: Option<Instant>) -> UnflushedAnswer {
        let each = self.urls.iter().map(|url| {
            let (collectors, url) = (Arc::clone(self), url.clone());
            self.network.spawn(async move { collectors.rows_of(url, table, window, since).await })
        });
        let mut answer = UnflushedAnswer::default();
        for (url, rows) in self.urls.iter().zip(join_all(each).await) {
            match rows.unwrap_or_else(|_| Err("the request's task failed".into())) {
                Ok(rows) => answer.rows.push(UnflushedRows::clone(&rows)),
                Err(problem) => answer.problems.push(format!(
                    "collector {url} does not answer ({problem}): what it saw in the last minute may be missing"
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
    ) -> Result<Arc<UnflushedRows>, String> {
        let key = (url, table, window);
        if let Some(rows) = self.cache().rows.get(&key)
            && rows.asked.elapsed() < CACHED
            && since.is_none_or(|since| rows.asked >= since)
        {
            return Ok(Arc::clone(rows));
        }
        let rows = self.fetch(&key.0, table, window).await;
        self.metrics.unflushed(rows.is_ok());
        let rows = Arc::new(rows?);
        let mut cache = self.cache();
        cache.rows.retain(|_, rows| rows.asked.elapsed() < CACHED);
        cache.rows.insert(key, Arc::clone(&rows));
        Ok(rows)
    }

    async fn fetch(&self, url: &Url, table: Table, window: Window) -> Result<UnflushedRows, String> {
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
        Ok(UnflushedRows { batches, boundary, asked })
    }

    /// The status of each collector, or why it is not known.
    pub async fn statuses(self: &Arc<Self>) -> Arc<Statuses> {
        if let Some((when, statuses)) = &self.cache().statuses
            && when.elapsed() < CACHED
        {
            return Arc::clone(statuses);
        }
        let each = self.urls.iter().map(|url| {
            let (collectors, url) = (Arc::clone(self), url.clone());
            self.network.spawn(async move { collectors.status_of(&url).await })
        });
        let statuses = join_all(each)
            .await
            .into_iter()
            .map(|status| status.unwrap_or_else(|_| Err("the request's task failed".into())));
        let statuses = Arc::new(self.urls.iter().cloned().zip(statuses).collect::<Vec<_>>());
        self.cache().statuses = Some((Instant::now(), Arc::clone(&statuses)));
        statuses
    }

    async fn status_of(&self, url: &Url) -> Result<CollectorStatus, String> {
        let work = async {
            let bytes = body(self.get(url, "v1/status", &[]).await?).await?;
            serde_json::from_slice(&bytes).map_err(|error| format!("its status cannot be read: {error}"))
        };
        tokio::time::timeout(self.timeout, work).await.map_err(|_| format!("nothing within {:?}", self.timeout))?
    }

    /// Reasons why answers may be out of date, as the collectors report them.
    pub async fn problems(self: &Arc<Self>) -> Vec<String> {
        let mut problems = Vec::new();
        for (url, status) in self.statuses().await.iter() {
            match status {
                Err(problem) => problems.push(format!(
                    "collector {url} does not answer ({problem}): what it saw in the last minute may be missing"
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
        // Read each time: the collector makes the file at its first start, and it may be replaced.
        let token = tokio::fs::read_to_string(&self.token_file)
            .await
            .map_err(|error| format!("token file {}: {error}", self.token_file.display()))?;
        let response = self.client.get(url).bearer_auth(token.trim()).send().await.map_err(|error| reason(&error))?;
        let status = response.status();
        if status.is_success() { Ok(response) } else { Err(format!("it answers {status}")) }
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The innermost cause: reqwest's own text has only the URL.
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

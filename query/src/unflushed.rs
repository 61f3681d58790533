//! Unflushed rows, which collectors serve before they are in a file; and the status of the collectors.
//!
//! Without the answer of a collector its rows are missing, and the service's answer says so.

mod stream;

use std::{
    collections::HashMap,
    fmt::Display,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arrow::array::RecordBatch;
use chrono::{DateTime, SecondsFormat, Utc};
use futures::future::join_all;
use netverdict_flowlog::{Table, answer::CollectorStatus, path::ManifestPath};
use netverdict_service::endpoint_url::without_credentials;
use reqwest::{Response, StatusCode, Url, header::HeaderMap};
use tokio::runtime::Handle;

use crate::{
    addresses::{AddressError, Addresses, CollectorAddress},
    copies::Copies,
    last_answers::LastAnswers,
    metrics::Metrics,
    options::DataOptions,
    tables::Window,
};

/// How long an answer of a collector is cached. Together with the collector's own delay this is less than the two seconds
/// after which a verdict must be visible.
const CACHED: Duration = Duration::from_millis(500);
/// A collector that let a request run out of time is not waited for again so soon: a question asks for many tables.
const SILENT: Duration = Duration::from_secs(5);
/// Largest answer of a collector, in bytes: far more than its memtable.
const MAX_ANSWER: usize = 256 << 20;
/// Largest status of a collector, in bytes: all lists in it are bounded.
const MAX_STATUS: usize = 4 << 20;
/// For a file to be copied.
const FILE_WITHIN: Duration = Duration::from_secs(60);

/// Why a collector has not answered, as text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct RequestError(String);

impl From<String> for RequestError {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

/// Unflushed rows of one collector: those that are not in files of earlier segments.
#[derive(Clone, Debug)]
pub struct UnflushedRows {
    pub batches: Vec<RecordBatch>,
    /// `None` if the collector did not send it.
    pub boundary: Option<Boundary>,
    /// Manifest of the newest segment before the boundary, or of a later one; `None` while there is none.
    newest: Option<ManifestPath>,
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
    addresses: Addresses,
    /// Where files of the collectors are copied to.
    copies: Option<Arc<Copies>>,
    token_file: PathBuf,
    timeout: Duration,
    /// The runtime that serves sockets: statement threads may be busy.
    network: Handle,
    metrics: Arc<Metrics>,
    /// Of `GET /v1/status`.
    pub(crate) last_answers: LastAnswers,
    cache: Mutex<Cache>,
}

/// The status of each collector, or why it is not known.
pub type Statuses = Vec<(Url, Result<CollectorStatus, String>)>;

#[derive(Default)]
struct Cache {
    rows: HashMap<(Url, Table, Window), Arc<UnflushedRows>>,
    statuses: Option<(Instant, Arc<Statuses>)>,
    /// Collectors whose time ran out: since when, and what was told.
    silent: HashMap<Url, (Instant, RequestError)>,
}

impl std::fmt::Debug for Collectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collectors").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Collectors {
    /// Sends nothing yet. Must be called on the runtime that serves sockets.
    ///
    /// # Errors
    /// When a URL cannot be used.
    pub(crate) fn new(
        options: &DataOptions,
        copies: Option<Arc<Copies>>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, AddressError> {
        Ok(Self {
            addresses: Addresses::new(
                &options.collectors,
                options.collector_ca_file.clone(),
                options.collector_timeout,
            )?,
            copies,
            token_file: options.collector_token_file.clone(),
            timeout: options.collector_timeout,
            network: Handle::current(),
            metrics,
            last_answers: LastAnswers::default(),
            cache: Mutex::default(),
        })
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The copies of the collectors' files; `None` without `--mirror`.
    pub(crate) fn copies(&self) -> Option<&Copies> {
        self.copies.as_deref()
    }

    /// Until when flows have been removed from the copies.
    pub(crate) fn removed_until(&self) -> Option<DateTime<Utc>> {
        self.copies.as_ref()?.removed_until()
    }

    /// The collectors that there are now, and what is known to be missing.
    pub(crate) async fn addresses(self: &Arc<Self>) -> (Vec<CollectorAddress>, Vec<String>) {
        let collectors = Arc::clone(self);
        let found = self.network.spawn(async move { collectors.addresses.now().await }).await;
        found.unwrap_or_else(|_| (Vec::new(), vec!["the collectors are not known: the task failed".to_owned()]))
    }

    /// Unflushed rows of a table inside a window. To add the rows of files, list the files after this call, and leave out
    /// those at or above a boundary.
    pub async fn rows(self: &Arc<Self>, table: Table, window: Window) -> UnflushedAnswer {
        self.rows_since(table, window, None).await
    }

    /// As [`Self::rows`]; no answer is older than `since`.
    pub async fn rows_since(self: &Arc<Self>, table: Table, window: Window, since: Option<Instant>) -> UnflushedAnswer {
        let (addresses, problems) = self.addresses().await;
        let each = addresses.iter().map(|address| {
            let (collectors, address) = (Arc::clone(self), address.clone());
            self.network.spawn(async move { collectors.rows_of(address, table, window, since).await })
        });
        let mut answer = UnflushedAnswer { rows: Vec::new(), problems };
        for (address, rows) in addresses.iter().zip(join_all(each).await) {
            let name = without_credentials(address.name.as_str());
            match rows.unwrap_or_else(|_| Err("the request's task failed".to_owned().into())) {
                Ok((rows, uncopied)) => {
                    answer.rows.push(UnflushedRows::clone(&rows));
                    answer.problems.extend(uncopied.map(|reason| {
                        format!(
                            "the newest files of collector {name} are not copied yet ({reason}): their rows are missing"
                        )
                    }));
                }
                Err(problem) => answer.problems.push(not_answering(&name, &problem)),
            }
        }
        answer
    }

    /// Its rows, and why the files before them are not here, if they should be.
    async fn rows_of(
        &self,
        address: CollectorAddress,
        table: Table,
        window: Window,
        since: Option<Instant>,
    ) -> Result<(Arc<UnflushedRows>, Option<String>), RequestError> {
        let key = (address.name.clone(), table, window);
        let cached = self.cache().rows.get(&key).cloned();
        let usable =
            |rows: &Arc<UnflushedRows>| rows.asked.elapsed() < CACHED && since.is_none_or(|since| rows.asked >= since);
        let rows = match cached.filter(usable) {
            Some(rows) => rows,
            None => {
                let rows = match self.silent(&address) {
                    Some(problem) => Err(problem),
                    None => self.fetch(&address, table, window).await,
                };
                self.metrics.unflushed(rows.is_ok());
                let rows = Arc::new(rows?);
                let mut cache = self.cache();
                cache.rows.retain(|_, rows| rows.asked.elapsed() < CACHED);
                cache.rows.insert(key, Arc::clone(&rows));
                rows
            }
        };
        let uncopied = match (&self.copies, &rows.newest) {
            (Some(copies), Some(newest)) => copies.holds(newest, &address.name, self.timeout).await.err(),
            _ => None,
        };
        Ok((rows, uncopied))
    }

    async fn fetch(
        &self,
        address: &CollectorAddress,
        table: Table,
        window: Window,
    ) -> Result<UnflushedRows, RequestError> {
        let asked = Instant::now();
        let mut query = vec![("table", table.name().to_owned())];
        let bounds = [("from", window.from_time()), ("to", window.to_time())];
        query.extend(bounds.into_iter().filter_map(|(name, time)| Some((name, rfc3339(time?)))));
        let work = async {
            let response = self.get(address, "v1/rows", &query).await?;
            let (boundary, newest) = (boundary(response.headers()), newest(response.headers()));
            Ok((boundary, newest, body(response, MAX_ANSWER).await?))
        };
        let answered = self.in_time(work).await;
        if let Err(problem) = &answered
            && asked.elapsed() >= self.timeout
        {
            let mut cache = self.cache();
            cache.silent.retain(|_, (since, _)| since.elapsed() < SILENT);
            cache.silent.insert(address.name.clone(), (Instant::now(), problem.clone()));
        }
        let (boundary, newest, bytes) = answered?;
        Ok(UnflushedRows { batches: stream::batches(bytes)?, boundary, newest, asked })
    }

    /// The status of each collector, or why it is not known.
    pub async fn statuses(self: &Arc<Self>) -> Arc<Statuses> {
        if let Some((when, statuses)) = &self.cache().statuses
            && when.elapsed() < CACHED
        {
            return Arc::clone(statuses);
        }
        let (addresses, _) = self.addresses().await;
        let each = addresses.iter().map(|address| {
            let (collectors, address) = (Arc::clone(self), address.clone());
            self.network.spawn(async move {
                match collectors.silent(&address) {
                    Some(problem) => Err(problem),
                    None => collectors.status_at(&address).await,
                }
            })
        });
        let statuses = join_all(each).await.into_iter().map(|status| {
            status
                .unwrap_or_else(|_| Err("the request's task failed".to_owned().into()))
                .map_err(|error| error.to_string())
        });
        let names = addresses.iter().map(|address| address.name.clone());
        let statuses = Arc::new(names.zip(statuses).collect::<Vec<_>>());
        self.cache().statuses = Some((Instant::now(), Arc::clone(&statuses)));
        statuses
    }

    pub(crate) async fn status_at(&self, address: &CollectorAddress) -> Result<CollectorStatus, RequestError> {
        let asked = async { body(self.get(address, "v1/status", &[]).await?, MAX_STATUS).await };
        let bytes = self.in_time(asked).await?;
        let status: CollectorStatus =
            serde_json::from_slice(&bytes).map_err(|error| format!("its status cannot be read: {error}"))?;
        self.last_answers.note(&address.name, &status.node);
        Ok(status)
    }

    /// A file of the record, by its path below the data directory; `None`: the collector does not have it.
    pub(crate) async fn file_at(
        &self,
        address: &CollectorAddress,
        path: &str,
    ) -> Result<Option<Vec<u8>>, RequestError> {
        let work = async {
            let response = self.send(address, &format!("v1/files/{path}"), &[]).await?;
            match response.status() {
                StatusCode::NOT_FOUND => Ok(None),
                status if status.is_success() => body(response, MAX_ANSWER).await.map(Some),
                status => Err(format!("it answers {status}").into()),
            }
        };
        match tokio::time::timeout(FILE_WITHIN, work).await {
            Ok(file) => file,
            Err(_) => Err(format!("{path} did not come within {FILE_WITHIN:?}").into()),
        }
    }

    /// Reasons why answers may be out of date, as the collectors report them.
    pub async fn problems(self: &Arc<Self>) -> Vec<String> {
        let mut problems = Vec::new();
        for (url, status) in self.statuses().await.iter() {
            match status {
                Err(problem) => problems.push(not_answering(&without_credentials(url.as_str()), problem)),
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

    async fn get(
        &self,
        address: &CollectorAddress,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Response, RequestError> {
        let response = self.send(address, path, query).await?;
        let status = response.status();
        if status.is_success() { Ok(response) } else { Err(format!("it answers {status}").into()) }
    }

    async fn send(
        &self,
        address: &CollectorAddress,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<Response, RequestError> {
        // Read each time: the collector makes the file at its first start, and it may be replaced.
        let token = tokio::fs::read_to_string(&self.token_file)
            .await
            .map_err(|error| format!("token file {}: {error}", self.token_file.display()))?;
        address.get(path, query).bearer_auth(token.trim()).send().await.map_err(|error| reason(&error).into())
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, RequestError>>) -> Result<T, RequestError> {
        let timeout = self.timeout;
        match tokio::time::timeout(timeout, work).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("nothing within {timeout:?}").into()),
        }
    }

    /// The problem of a collector that let a request run out of time a moment ago.
    fn silent(&self, address: &CollectorAddress) -> Option<RequestError> {
        let silent = self.cache().silent.get(&address.name).cloned();
        silent.filter(|(since, _)| since.elapsed() < SILENT).map(|(_, problem)| problem)
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

async fn body(mut response: Response, most: usize) -> Result<Vec<u8>, RequestError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error))? {
        if bytes.len() + chunk.len() > most {
            return Err(format!("its answer is larger than {most} bytes").into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn not_answering(name: &str, problem: &dyn Display) -> String {
    format!("collector {name} does not answer ({problem}): what it saw in the last minute may be missing")
}

fn newest(headers: &HeaderMap) -> Option<ManifestPath> {
    headers.get("netverdict-newest")?.to_str().ok()?.parse().ok()
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

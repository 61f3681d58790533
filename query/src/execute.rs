//! Parses, plans and runs statements, read-only, with a deadline and a memory limit; gives a stream of rows. Independent
//! of the protocol that the statement came with.
//!
//! All of it happens on statement threads (`threads`): their stacks are large enough for recursive code, and a heavy
//! statement does not keep sockets waiting. A statement that no thread takes up in time is refused, and a running one is
//! stopped at its deadline (`watch`).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::{
    common::Column,
    datasource::provider_as_source,
    execution::{SendableRecordBatchStream, SessionStateBuilder},
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder},
    physical_plan::execute_stream,
    prelude::SessionContext,
    sql::parser::Statement,
};
use futures::StreamExt as _;
use netverdict_flowlog::Table;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout_at,
};

use crate::{
    cells,
    deadline::Deadline,
    error::QueryError,
    functions, guard,
    metrics::Metrics,
    notes::Notes,
    options::LimitOptions,
    session,
    tables::{ChosenFiles, Segment, Store},
    threads::{Threads, Work},
    watch::{self, Watch},
};

/// Runs statements. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    context: SessionContext,
    threads: Arc<Threads>,
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    statement_timeout: Duration,
    max_join_pairs: u64,
}

/// The rows of a running statement, batch by batch. Dropping it stops the statement.
pub struct Rows {
    pub schema: SchemaRef,
    receiver: mpsc::Receiver<Message>,
    deadline: Deadline,
    metrics: Arc<Metrics>,
    _work: Work,
}

enum Message {
    Batch(RecordBatch),
    Failed(QueryError),
    /// Without it the statement's thread panicked.
    End,
}

impl Rows {
    /// The next rows; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        match timeout_at(self.deadline.at, self.receiver.recv()).await {
            Ok(Some(Message::Batch(batch))) => {
                self.metrics.rows(batch.num_rows());
                Some(Ok(batch))
            }
            Ok(Some(Message::Failed(error))) => Some(Err(error)),
            Ok(Some(Message::End)) => None,
            Ok(None) => Some(Err(QueryError::Internal("the statement's thread panicked before the last rows".into()))),
            Err(_) => Some(Err(QueryError::Timeout(self.deadline.timeout))),
        }
    }

    /// All rows, but at most `max_rows`; and whether there were more.
    ///
    /// # Errors
    /// When a batch fails.
    pub async fn collect(mut self, max_rows: usize) -> Result<(Vec<RecordBatch>, bool), QueryError> {
        let (mut batches, mut rows) = (Vec::new(), 0);
        while let Some(batch) = self.next().await {
            let batch = batch?;
            let room = max_rows - rows;
            if batch.num_rows() > room {
                batches.push(batch.slice(0, room));
                return Ok((batches, true));
            }
            rows += batch.num_rows();
            batches.push(batch);
        }
        Ok((batches, false))
    }
}

impl Executor {
    /// An executor over a store.
    ///
    /// # Errors
    /// When tables or views cannot be set up.
    pub async fn new(
        store: Arc<Store>,
        threads: Threads,
        limits: &LimitOptions,
        metrics: Arc<Metrics>,
    ) -> Result<Self, QueryError> {
        let context = session::build(&store, limits).await?;
        Ok(Self {
            context,
            threads: Arc::new(threads),
            store,
            metrics,
            statement_timeout: limits.statement_timeout,
            max_join_pairs: limits.max_join_pairs,
        })
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The session that all statements start from.
    pub(crate) fn context(&self) -> &SessionContext {
        &self.context
    }

    /// The time that a statement has from now on: `timeout`, or the service's own limit where that is shorter.
    pub fn deadline(&self, timeout: Option<Duration>) -> Deadline {
        Deadline::after(timeout.map_or(self.statement_timeout, |timeout| timeout.min(self.statement_timeout)))
    }

    /// Plans one read-only statement of a client.
    ///
    /// # Errors
    /// When it is too long or too deep, cannot be understood, or is not allowed.
    pub async fn plan(&self, text: &str, deadline: Deadline) -> Result<LogicalPlan, QueryError> {
        let context = self.context.clone();
        self.parse(text, deadline, move |text| async move { plan(&context, guard::single_statement(&text)?).await })
            .await
    }

    /// Checks a client's text against the limits of `guard`, then does `work` with it, which parses it. Both happen on a
    /// statement's thread.
    ///
    /// # Errors
    /// When a limit is exceeded, no thread is free in time, or `work` fails.
    pub(crate) async fn parse<T, F>(
        &self,
        text: &str,
        deadline: Deadline,
        work: impl FnOnce(String) -> F + Send + 'static,
    ) -> Result<T, QueryError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, QueryError>> + Send,
    {
        let started = Instant::now();
        // Before it is copied.
        let result = match guard::check_length(text) {
            Err(error) => Err(error),
            Ok(()) => {
                let text = text.to_owned();
                let work = async move {
                    guard::check(&text)?;
                    work(text).await
                };
                self.threads.run(work, deadline).await.and_then(|result| result)
            }
        };
        result.inspect_err(|error| self.metrics.failed(error, started.elapsed()))
    }

    /// Plans a parsed statement.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub(crate) async fn plan_statement(
        &self,
        statement: Statement,
        deadline: Deadline,
    ) -> Result<LogicalPlan, QueryError> {
        let context = self.context.clone();
        self.work(async move { plan(&context, statement).await }, deadline).await
    }

    /// Runs work on a statement's thread, where the stack is large enough for recursion through a plan.
    ///
    /// # Errors
    /// When no thread is free in time, or the work fails.
    pub(crate) async fn work<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, QueryError>> + Send + 'static,
        deadline: Deadline,
    ) -> Result<T, QueryError> {
        let started = Instant::now();
        let result = self.threads.run(work, deadline).await.and_then(|result| result);
        result.inspect_err(|error| self.metrics.failed(error, started.elapsed()))
    }

    /// Runs a plan until its first rows.
    ///
    /// # Errors
    /// When it cannot run, is refused, or fails before its first rows.
    pub async fn run(&self, plan: LogicalPlan, deadline: Deadline, notes: Arc<Notes>) -> Result<Rows, QueryError> {
        let started = Instant::now();
        let result = self.start(plan, deadline, notes).await;
        self.metrics.statement(&result, started.elapsed());
        result
    }

    async fn start(&self, plan: LogicalPlan, deadline: Deadline, notes: Arc<Notes>) -> Result<Rows, QueryError> {
        let (sender, receiver) = mpsc::channel(2);
        let (ready, started) = oneshot::channel();
        let watch = Watch::new(deadline.at.into_std(), deadline.timeout, self.max_join_pairs);
        let run = Run { executor: self.clone(), plan, notes, watch: Arc::clone(&watch) };
        let work = self.threads.begin(run.drive(ready, sender), deadline, Some(watch)).await?;
        match timeout_at(deadline.at, started).await {
            Ok(Ok(schema)) => {
                let metrics = Arc::clone(&self.metrics);
                Ok(Rows { schema: schema?, receiver, deadline, metrics, _work: work })
            }
            Ok(Err(_)) => Err(QueryError::Internal("the statement's thread panicked before its first rows".into())),
            Err(_) => Err(QueryError::Timeout(deadline.timeout)),
        }
    }

    /// Plans and runs a statement of the service itself, and collects at most `max_rows` rows; returns whether there were
    /// more. Texts of clients stand in it only as quoted values, so it needs no check.
    ///
    /// # Errors
    /// As [`Self::plan`] and [`Self::run`].
    pub async fn query(
        &self,
        text: &str,
        max_rows: usize,
        notes: &Arc<Notes>,
    ) -> Result<(Vec<RecordBatch>, bool), QueryError> {
        let deadline = self.deadline(None);
        let (context, text) = (self.context.clone(), text.to_owned());
        let planned = async move { plan(&context, guard::single_statement(&text)?).await };
        let plan = self.work(planned, deadline).await?;
        self.run(plan, deadline, Arc::clone(notes)).await?.collect(max_rows).await
    }

    /// Rows of files that were chosen beforehand, as far as a condition holds for them.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(crate) async fn scan(
        &self,
        table: Table,
        segments: Vec<Segment>,
        condition: Expr,
        notes: &Arc<Notes>,
    ) -> Result<Rows, QueryError> {
        let files = provider_as_source(Arc::new(ChosenFiles::new(table, Arc::clone(&self.store), segments)));
        let plan = LogicalPlanBuilder::scan(table.name(), files, None)?.filter(condition)?.build()?;
        self.run(plan, self.deadline(None), Arc::clone(notes)).await
    }

    /// A session whose scans write into `notes`.
    fn session(&self, notes: &Arc<Notes>) -> SessionContext {
        let state = self.context.state();
        let config = state.config().clone().with_extension(Arc::clone(notes));
        SessionContext::new_with_state(SessionStateBuilder::new_from_existing(state).with_config(config).build())
    }
}

/// Plans a statement that only reads. To be called on a statement's thread.
pub(crate) async fn plan(context: &SessionContext, statement: Statement) -> Result<LogicalPlan, QueryError> {
    let plan = context.state().statement_to_plan(statement).await?;
    guard::read_only(&plan)?;
    guard::bounded_types(&plan)?;
    Ok(plan)
}

/// A running statement.
struct Run {
    executor: Executor,
    plan: LogicalPlan,
    notes: Arc<Notes>,
    watch: Arc<Watch>,
}

impl Run {
    /// A file that turns out unreadable, or has been removed meanwhile, is found and left out, and the statement starts
    /// again, once: unless rows of it are out already.
    async fn drive(self, ready: oneshot::Sender<Result<SchemaRef, QueryError>>, sender: mpsc::Sender<Message>) {
        let mut first = self.first().await;
        if let Err(QueryError::Unreadable(_)) = first {
            self.executor.store.examine(self.notes.files()).await;
            first = self.first().await;
        }
        let (mut stream, mut batch) = match first {
            Ok((stream, batch)) => {
                // The client may have gone; the task then ends with the first send.
                let _ = ready.send(Ok(stream.schema()));
                (stream, batch)
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                return;
            }
        };
        while let Some(rows) = batch {
            if rows.num_rows() > 0 && sender.send(Message::Batch(rows)).await.is_err() {
                return;
            }
            batch = match stream.next().await.transpose() {
                Ok(batch) => batch,
                Err(error) => {
                    let error = self.watch.reason().unwrap_or_else(|| error.into());
                    if let QueryError::Unreadable(_) = error {
                        self.executor.store.examine(self.notes.files()).await;
                    }
                    let _ = sender.send(Message::Failed(error)).await;
                    return;
                }
            };
        }
        let _ = sender.send(Message::End).await;
    }

    async fn first(&self) -> Result<(SendableRecordBatchStream, Option<RecordBatch>), QueryError> {
        let context = self.executor.session(&self.notes);
        let state = context.state();
        let physical = state.create_physical_plan(&self.plan).await?;
        guard::bounded_joins(&physical, self.executor.max_join_pairs)?;
        let mut stream = execute_stream(watch::watched(physical, &self.watch)?, state.task_ctx())?;
        let batch = stream.next().await.transpose();
        Ok((stream, batch.map_err(|error| self.watch.reason().unwrap_or_else(|| error.into()))?))
    }
}

/// The plan with nested columns as JSON text, for clients that cannot take them.
///
/// # Errors
/// When the projection cannot be built.
pub fn flat(plan: LogicalPlan) -> Result<LogicalPlan, QueryError> {
    if !plan.schema().fields().iter().any(|field| cells::is_nested(field.data_type())) {
        return Ok(plan);
    }
    let to_json = functions::to_json();
    let columns: Vec<Expr> = plan
        .schema()
        .iter()
        .map(|(qualifier, field)| {
            let column = Expr::Column(Column::new(qualifier.cloned(), field.name()));
            if cells::is_nested(field.data_type()) {
                to_json.call(vec![column]).alias_qualified(qualifier.cloned(), field.name())
            } else {
                column
            }
        })
        .collect();
    Ok(LogicalPlanBuilder::from(plan).project(columns)?.build()?)
}

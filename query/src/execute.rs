//! Runs statements: on threads of their own, read-only, with a deadline, a memory limit and a stream of rows at the
//! end. It knows nothing of who asks or how answers are spelled.
//!
//! Nobody waits without end: a statement that is not taken up by a thread in time is refused, and one that is ends at
//! its deadline (`watch`).

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
    error::QueryError,
    functions, guard,
    metrics::Metrics,
    notes::Notes,
    options::LimitOptions,
    session,
    state::States,
    tables::{ChosenFiles, Segment, Store},
    threads::{Threads, Work},
    watch::{self, Watch},
};

/// The time that a statement has.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub(crate) deadline: tokio::time::Instant,
    pub(crate) timeout: Duration,
}

/// Runs statements. Cheap to clone.
#[derive(Clone)]
pub struct Executor {
    context: SessionContext,
    threads: Arc<Threads>,
    store: Arc<Store>,
    states: Arc<States>,
    metrics: Arc<Metrics>,
    statement_timeout: Duration,
    max_join_pairs: u64,
}

/// What a running statement gives: the rows, batch by batch. Dropping it stops the statement.
pub struct Rows {
    pub schema: SchemaRef,
    receiver: mpsc::Receiver<Message>,
    deadline: tokio::time::Instant,
    timeout: Duration,
    metrics: Arc<Metrics>,
    _work: Work,
}

enum Message {
    Batch(RecordBatch),
    Failed(QueryError),
    /// Told apart from a statement that died.
    End,
}

impl Rows {
    /// The next rows; `None` after the last.
    pub async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        match timeout_at(self.deadline, self.receiver.recv()).await {
            Ok(Some(Message::Batch(batch))) => {
                self.metrics.rows(batch.num_rows());
                Some(Ok(batch))
            }
            Ok(Some(Message::Failed(error))) => Some(Err(error)),
            Ok(Some(Message::End)) => None,
            Ok(None) => Some(Err(QueryError::Internal("the statement died before its end".into()))),
            Err(_) => Some(Err(QueryError::Timeout(self.timeout))),
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
            states: Arc::new(States::new(limits, Arc::clone(&metrics))),
            metrics,
            statement_timeout: limits.statement_timeout,
            max_join_pairs: limits.max_join_pairs,
        })
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Policy states that were asked for before.
    pub(crate) fn states(&self) -> &States {
        &self.states
    }

    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The session that all statements start from: for what only looks up names.
    pub(crate) fn context(&self) -> &SessionContext {
        &self.context
    }

    /// The time that a statement has from now on; the service's own limit holds besides.
    pub fn limit(&self, timeout: Option<Duration>) -> Limit {
        let timeout = timeout.map_or(self.statement_timeout, |timeout| timeout.min(self.statement_timeout));
        Limit { deadline: tokio::time::Instant::now() + timeout, timeout }
    }

    /// Plans one read-only statement.
    ///
    /// # Errors
    /// When it cannot be understood or is not allowed.
    pub async fn plan(&self, text: &str, limit: Limit) -> Result<LogicalPlan, QueryError> {
        let started = Instant::now();
        let statement = guard::single_statement(text);
        self.metrics.refused(&statement, started.elapsed());
        self.plan_statement(statement?, limit).await
    }

    /// Plans a parsed statement.
    ///
    /// # Errors
    /// As [`Self::plan`].
    pub async fn plan_statement(&self, statement: Statement, limit: Limit) -> Result<LogicalPlan, QueryError> {
        let started = Instant::now();
        let context = self.context.clone();
        let (done, planned) = oneshot::channel();
        let plan = async move {
            let plan = async {
                let plan = context.state().statement_to_plan(statement).await?;
                guard::read_only(&plan)?;
                Ok(plan)
            };
            // Whoever asked may have gone.
            let _ = done.send(plan.await);
        };
        let result = async {
            let _work = self.threads.begin(plan, limit, None).await?;
            match timeout_at(limit.deadline, planned).await {
                Ok(Ok(planned)) => planned,
                Ok(Err(_)) => Err(QueryError::Internal("the statement died while it was planned".into())),
                Err(_) => Err(QueryError::Timeout(limit.timeout)),
            }
        };
        let result = result.await;
        self.metrics.refused(&result, started.elapsed());
        result
    }

    /// Runs a plan until its first rows.
    ///
    /// # Errors
    /// When it cannot run, is refused, or fails before its first rows.
    pub async fn run(&self, plan: LogicalPlan, limit: Limit, notes: Arc<Notes>) -> Result<Rows, QueryError> {
        let started = Instant::now();
        let result = self.start(plan, limit, notes).await;
        self.metrics.statement(&result, started.elapsed());
        result
    }

    async fn start(&self, plan: LogicalPlan, limit: Limit, notes: Arc<Notes>) -> Result<Rows, QueryError> {
        let Limit { deadline, timeout } = limit;
        let (sender, receiver) = mpsc::channel(2);
        let (ready, started) = oneshot::channel();
        let watch = Watch::new(deadline.into_std(), timeout, self.max_join_pairs);
        let run = Run { executor: self.clone(), plan, notes, watch: Arc::clone(&watch) };
        let work = self.threads.begin(run.drive(ready, sender), limit, Some(watch)).await?;
        match timeout_at(deadline, started).await {
            Ok(Ok(schema)) => {
                let metrics = Arc::clone(&self.metrics);
                Ok(Rows { schema: schema?, receiver, deadline, timeout, metrics, _work: work })
            }
            Ok(Err(_)) => Err(QueryError::Internal("the statement died before its first rows".into())),
            Err(_) => Err(QueryError::Timeout(timeout)),
        }
    }

    /// Plans, runs and collects at most `max_rows` rows; says whether there were more.
    ///
    /// # Errors
    /// As [`Self::plan`] and [`Self::run`].
    pub async fn query(
        &self,
        text: &str,
        max_rows: usize,
        notes: &Arc<Notes>,
    ) -> Result<(Vec<RecordBatch>, bool), QueryError> {
        let limit = self.limit(None);
        let plan = self.plan(text, limit).await?;
        self.run(plan, limit, Arc::clone(notes)).await?.collect(max_rows).await
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
        self.run(plan, self.limit(None), Arc::clone(notes)).await
    }

    /// A session whose scans write into `notes`.
    fn session(&self, notes: &Arc<Notes>) -> SessionContext {
        let state = self.context.state();
        let config = state.config().clone().with_extension(Arc::clone(notes));
        SessionContext::new_with_state(SessionStateBuilder::new_from_existing(state).with_config(config).build())
    }
}

/// One statement on its way.
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
                // Whoever asked may have gone; the task then ends with the first send.
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

//! Stops statements: at their deadline, when their client has gone, and when their joins compare more pairs of rows than
//! allowed.
//!
//! A task can be cancelled only where it yields, and a join may run for minutes without yielding: it makes thousands of
//! batches from two, and emits none if its condition drops all rows. So every join gets an extra condition that checks the
//! watch for each batch of pairs, and its output goes through a stream that checks and yields.

use std::{
    fmt,
    hash::{Hash, Hasher},
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, FieldRef, Schema, SchemaRef},
};
use datafusion::{
    common::tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    error::{DataFusionError, Result},
    execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext},
    logical_expr::ColumnarValue,
    physical_expr::{PhysicalExpr, expressions::lit},
    physical_plan::{
        ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, ReplaceChildrenOptions,
        coop::make_cooperative,
        joins::{
            CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder, PiecewiseMergeJoinExec,
            SortMergeJoinExec, SymmetricHashJoinExec, utils::JoinFilter,
        },
        recursive_query::RecursiveQueryExec,
        unnest::UnnestExec,
    },
};
use futures::{Stream, StreamExt as _};

use crate::error::QueryError;

/// The watch of one statement, shared by its client and its operators.
#[derive(Debug)]
pub(crate) struct Watch {
    deadline: Instant,
    timeout: Duration,
    pairs: AtomicU64,
    max_pairs: u64,
    abandoned: AtomicBool,
    stopped: OnceLock<Stopped>,
}

/// Why a statement was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    Deadline,
    Pairs,
    /// Its client has gone.
    Abandoned,
}

impl Watch {
    pub(crate) fn new(deadline: Instant, timeout: Duration, max_pairs: u64) -> Arc<Self> {
        let (pairs, abandoned, stopped) = (AtomicU64::new(0), AtomicBool::new(false), OnceLock::new());
        Arc::new(Self { deadline, timeout, pairs, max_pairs, abandoned, stopped })
    }

    /// The client has gone.
    pub(crate) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    /// Why the statement was stopped, if it was. It takes the place of the error that the stop led to.
    pub(crate) fn reason(&self) -> Option<QueryError> {
        Some(match self.stopped.get()? {
            Stopped::Deadline | Stopped::Abandoned => QueryError::Timeout(self.timeout),
            Stopped::Pairs => QueryError::RefusedSql {
                message: format!("its joins compared more than {} pairs of rows", self.max_pairs),
                remedy: "join on more columns, narrow both sides with a condition on `time`, or raise --max-join-pairs",
            },
        })
    }

    /// Counts pairs; an error if the statement has to stop.
    fn check(&self, pairs: usize) -> Result<()> {
        let all = self.pairs.fetch_add(pairs as u64, Ordering::Relaxed).saturating_add(pairs as u64);
        let found = if all > self.max_pairs {
            Some(Stopped::Pairs)
        } else if self.abandoned.load(Ordering::Relaxed) {
            Some(Stopped::Abandoned)
        } else if Instant::now() >= self.deadline {
            Some(Stopped::Deadline)
        } else {
            None
        };
        match found {
            None => Ok(()),
            Some(found) => {
                let found = self.stopped.get_or_init(|| found);
                Err(DataFusionError::ResourcesExhausted(format!("the statement was stopped: {found:?}")))
            }
        }
    }
}

/// The same plan, with checks where an operator may run long without yielding.
///
/// # Errors
/// When the plan cannot be rebuilt.
pub(crate) fn watched(plan: Arc<dyn ExecutionPlan>, watch: &Arc<Watch>) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|plan| {
        let Some((input, counts)) = with_condition(&plan, watch)? else { return Ok(Transformed::no(plan)) };
        Ok(Transformed::yes(Arc::new(Watched { input, watch: Arc::clone(watch), counts }) as _))
    })
    .map(|transformed| transformed.data)
}

/// Whether an operator can emit many rows for few; and whether its pairs are counted by its output, because it has no
/// condition.
fn with_condition(plan: &Arc<dyn ExecutionPlan>, watch: &Arc<Watch>) -> Result<Option<(Arc<dyn ExecutionPlan>, bool)>> {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        let condition = condition(join.filter(), watch);
        return Ok(Some((join.builder().with_filter(Some(condition)).build_exec()?, false)));
    }
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>()
        && let Some(filter) = join.filter()
    {
        let condition = condition(Some(filter), watch);
        let join = NestedLoopJoinExecBuilder::from(join).with_filter(Some(condition)).build()?;
        return Ok(Some((Arc::new(join), false)));
    }
    let joins = plan.is::<CrossJoinExec>()
        || plan.is::<NestedLoopJoinExec>()
        || plan.is::<SortMergeJoinExec>()
        || plan.is::<PiecewiseMergeJoinExec>()
        || plan.is::<SymmetricHashJoinExec>();
    if joins || plan.is::<UnnestExec>() || plan.is::<RecursiveQueryExec>() {
        return Ok(Some((Arc::clone(plan), joins)));
    }
    Ok(None)
}

/// A join's condition that checks the watch each time it is evaluated.
fn condition(filter: Option<&JoinFilter>, watch: &Arc<Watch>) -> JoinFilter {
    let (inner, columns, schema) = match filter {
        Some(filter) => {
            (Arc::clone(filter.expression()), filter.column_indices().to_vec(), Arc::clone(filter.schema()))
        }
        None => (lit(true), Vec::new(), Arc::new(Schema::empty())),
    };
    JoinFilter::new(Arc::new(Condition { inner, watch: Arc::clone(watch) }), columns, schema)
}

/// An expression that checks the watch.
#[derive(Debug)]
struct Condition {
    inner: Arc<dyn PhysicalExpr>,
    watch: Arc<Watch>,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl PartialEq for Condition {
    fn eq(&self, other: &Self) -> bool {
        self.inner.eq(&other.inner) && Arc::ptr_eq(&self.watch, &other.watch)
    }
}

impl Eq for Condition {}

impl Hash for Condition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

impl PhysicalExpr for Condition {
    fn return_field(&self, input_schema: &Schema) -> Result<FieldRef> {
        self.inner.return_field(input_schema)
    }

    fn data_type(&self, input_schema: &Schema) -> Result<DataType> {
        self.inner.data_type(input_schema)
    }

    fn nullable(&self, input_schema: &Schema) -> Result<bool> {
        self.inner.nullable(input_schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.watch.check(batch.num_rows())?;
        self.inner.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.inner]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let inner = children.pop().unwrap_or_else(|| Arc::clone(&self.inner));
        Ok(Arc::new(Self { inner, watch: Arc::clone(&self.watch) }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt_sql(f)
    }
}

/// An operator that checks the watch for each batch of its input.
#[derive(Debug)]
struct Watched {
    input: Arc<dyn ExecutionPlan>,
    watch: Arc<Watch>,
    /// Each output row counts as a pair.
    counts: bool,
}

impl DisplayAs for Watched {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

impl ExecutionPlan for Watched {
    fn name(&self) -> &'static str {
        "Watched"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.pop().unwrap_or_else(|| Arc::clone(&self.input));
        Ok(Arc::new(Self { input, watch: Arc::clone(&self.watch), counts: self.counts }))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = make_cooperative(self.input.execute(partition, context)?);
        Ok(Box::pin(WatchedRows { rows, watch: Arc::clone(&self.watch), counts: self.counts }))
    }
}

struct WatchedRows {
    rows: SendableRecordBatchStream,
    watch: Arc<Watch>,
    counts: bool,
}

impl Stream for WatchedRows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.rows.poll_next_unpin(context));
        Poll::Ready(next.map(|batch| {
            let batch = batch?;
            self.watch.check(if self.counts { batch.num_rows() } else { 0 })?;
            Ok(batch)
        }))
    }
}

impl RecordBatchStream for WatchedRows {
    fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }
}

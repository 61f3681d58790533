//! Limits of a statement: it may only read, and within bounds. Its text is checked before it is parsed (`text`), the statement when it
//! is planned, and its joins once the physical plan is known.
//!
//! A join without an equality compares every pair of rows, so the number of pairs is known beforehand: the join is
//! refused when there could be more than `--max-join-pairs`. The rows of each side are estimated from the files' footers
//! as an upper bound, before any condition. The pairs that other joins compare are counted while they run (`watch`).

mod text;

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::{
    common::stats::Precision,
    execution::context::SQLOptions,
    logical_expr::LogicalPlan,
    physical_plan::{
        ExecutionPlan,
        aggregates::AggregateExec,
        joins::{CrossJoinExec, NestedLoopJoinExec},
        statistics::{StatisticsArgs, StatisticsContext},
        union::UnionExec,
    },
    sql::{
        parser::{DFParserBuilder, Statement},
        sqlparser::dialect::PostgreSqlDialect,
    },
};

pub use text::{MAX_STATEMENT, check, check_length};

use crate::error::{QueryError, READ_ONLY};

/// Most levels of a column's type. Our own have four.
const MAX_TYPE_DEPTH: usize = 64;
/// Assumed rows of tables that are no files: catalogs and generated rows.
const ASSUMED_ROWS: u64 = 10_000;

/// The one statement in a text, which has been checked or is the service's own.
///
/// # Errors
/// When there is none, more than one, or it cannot be parsed.
pub(crate) fn single_statement(text: &str) -> Result<Statement, QueryError> {
    let mut statements = DFParserBuilder::new(text)
        .with_dialect(&PostgreSqlDialect {})
        .build()
        .and_then(|mut parser| parser.parse_statements())?;
    match (statements.pop_front(), statements.len()) {
        (Some(statement), 0) => Ok(statement),
        (None, _) => Err(QueryError::BadSql("expected a statement, found nothing".into())),
        (Some(_), more) => Err(QueryError::RefusedSql {
            message: format!("expected one statement, found {}", more + 1),
            remedy: "send them one by one",
        }),
    }
}

/// Refuses plans that do more than read.
///
/// # Errors
/// When the plan writes, defines or sets something.
pub fn read_only(plan: &LogicalPlan) -> Result<(), QueryError> {
    SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false)
        .verify_plan(plan)
        .map_err(|error| QueryError::RefusedSql {
            message: error.strip_backtrace().replace("Error during planning: ", ""),
            remedy: READ_ONLY,
        })
}

/// Refuses columns whose types are nested too deeply. Many steps that are each within the limits of a text can make one
/// (`with a as (select array[x] as x), b as (select array[x] as x from a), …`), and the encoder of the rows recurses
/// through it, on threads with small stacks.
///
/// # Errors
/// When a column's type has more than [`MAX_TYPE_DEPTH`] levels.
pub fn bounded_types(plan: &LogicalPlan) -> Result<(), QueryError> {
    for field in plan.schema().fields() {
        let mut depth = 0;
        let mut level = vec![field.data_type()];
        while !level.is_empty() {
            depth += 1;
            if depth > MAX_TYPE_DEPTH {
                return Err(QueryError::TooComplex {
                    message: format!(
                        "expected types of at most {MAX_TYPE_DEPTH} levels, found more in column {}",
                        field.name().chars().take(100).collect::<String>()
                    ),
                    remedy: "select parts of the value, or its text",
                });
            }
            level = level.into_iter().flat_map(inner_types).collect();
        }
    }
    Ok(())
}

fn inner_types(data_type: &DataType) -> Vec<&DataType> {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => vec![item.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field.data_type()).collect(),
        DataType::Dictionary(key, value) => vec![key, value],
        DataType::RunEndEncoded(ends, values) => vec![ends.data_type(), values.data_type()],
        _ => Vec::new(),
    }
}

/// Refuses joins that are too large from the start.
///
/// # Errors
/// When a join without an equality may compare more than `max_pairs` pairs.
pub fn bounded_joins(plan: &Arc<dyn ExecutionPlan>, max_pairs: u64) -> Result<(), QueryError> {
    most_rows(plan.as_ref(), max_pairs).map(|_| ())
}

/// The most rows that a plan could give.
fn most_rows(plan: &dyn ExecutionPlan, max_pairs: u64) -> Result<u64, QueryError> {
    let inputs =
        plan.children().into_iter().map(|input| most_rows(input.as_ref(), max_pairs)).collect::<Result<Vec<_>, _>>()?;
    let limit = plan.fetch().map_or(u64::MAX, |fetch| fetch as u64);
    let rows = match inputs.as_slice() {
        [] => leaf_rows(plan),
        [left, right] if plan.is::<CrossJoinExec>() || plan.is::<NestedLoopJoinExec>() => {
            let pairs = left.saturating_mul(*right);
            if pairs > max_pairs {
                return Err(QueryError::RefusedSql {
                    message: format!(
                        "a join without an equality would compare up to {pairs} pairs of rows, more than {max_pairs}"
                    ),
                    remedy: "join on equal columns, narrow both sides with a condition on `time`, or raise --max-join-pairs",
                });
            }
            pairs
        }
        [input] => match plan.downcast_ref::<AggregateExec>() {
            Some(aggregate) if aggregate.group_expr().is_empty() => 1,
            _ => *input,
        },
        inputs if plan.is::<UnionExec>() => inputs.iter().fold(0, |sum: u64, rows| sum.saturating_add(*rows)),
        inputs => inputs.iter().copied().max().unwrap_or(ASSUMED_ROWS),
    };
    Ok(rows.min(limit))
}

fn leaf_rows(plan: &dyn ExecutionPlan) -> u64 {
    let statistics = StatisticsContext::new().compute(plan, &StatisticsArgs::new());
    match statistics.map(|statistics| statistics.num_rows) {
        Ok(Precision::Exact(rows) | Precision::Inexact(rows)) => rows as u64,
        // Generated rows can be any number; a catalog's are few.
        _ if plan.name().contains("Lazy") => u64::MAX,
        _ => ASSUMED_ROWS,
    }
}

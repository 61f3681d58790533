//! The record as tables: files and unflushed rows under one schema, so that each row is seen once and none is missed.
//!
//! Order matters: unflushed rows are fetched first and files listed after, so that a segment that is written in between
//! is seen in the rows; files from that segment on are then left out.

mod chosen;
mod committed;
mod files;
mod footer;
mod renamed;
mod scan;
mod schema;
mod segment;
mod window;

use std::sync::Arc;

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::memory::MemorySourceConfig,
    error::Result,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::{ExecutionPlan, Statistics, union::UnionExec},
};
use netverdict_flowlog::Table;

pub(crate) use chosen::ChosenFiles;
pub use files::Store;
pub(crate) use schema::{file_schema, table_schema, time_column};
pub(crate) use segment::{FileId, Listing, Segment};
pub use window::Window;

use self::schema::{conform, has_gaps};
use crate::{notes::Notes, unflushed::UnflushedAnswer};

/// One table of the record.
#[derive(Debug)]
pub struct RecordTable {
    table: Table,
    schema: SchemaRef,
    store: Arc<Store>,
}

impl RecordTable {
    pub fn new(table: Table, store: Arc<Store>) -> Self {
        Self { table, schema: table_schema(table), store }
    }
}

#[async_trait]
impl TableProvider for RecordTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let notes = state.config().get_extension::<Notes>().unwrap_or_default();
        let window = Window::of(filters, time_column(self.table));
        if has_gaps(self.table) {
            notes.scanned(window);
        }
        if self.table == Table::Flows
            && let Some(until) = self.store.collectors().removed_until()
            && window.from_time().is_none_or(|from| from < until)
        {
            notes
                .stale(format!("flows before {until} are not here any more: they took more space than --mirror-limit"));
        }
        let UnflushedAnswer { rows, problems } = self.store.collectors().rows(self.table, window).await;
        for problem in problems {
            notes.stale(problem);
        }
        let boundaries: Vec<_> = rows.iter().filter_map(|rows| rows.boundary.clone()).collect();
        let files = self.store.list(self.table, window, &boundaries, &notes).await?.segments;
        files.iter().for_each(|segment| notes.read(&segment.object));
        let batches = rows
            .iter()
            .flat_map(|rows| &rows.batches)
            .filter(|batch| batch.num_rows() > 0)
            .map(|batch| conform(self.table, batch, &self.schema))
            .collect::<Result<Vec<_>>>()?;
        let fresh_rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        let mut inputs: Vec<Arc<dyn ExecutionPlan>> = Vec::new();
        if !files.is_empty() {
            inputs.push(scan::files(self.table, &self.store, state, projection, files)?);
        }
        if fresh_rows > 0 || inputs.is_empty() {
            inputs.push(MemorySourceConfig::try_new_exec(&[batches], self.schema(), projection.cloned())?);
        }
        match inputs.len() {
            1 => Ok(inputs.swap_remove(0)),
            _ => UnionExec::try_new(inputs),
        }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // They prune; fresh rows and unpruned pages are filtered above.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    fn statistics(&self) -> Option<Statistics> {
        None
    }
}

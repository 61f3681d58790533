//! The record as tables: files and fresh rows under one schema, so that each row is seen once and none is missed.
//!
//! Order matters: fresh rows are fetched first and files listed after, so that a segment that is written in between is
//! seen in the rows; files from that segment on are then left out.

mod chosen;
mod committed;
mod files;
mod footer;
mod renamed;
mod scan;
mod window;

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, RecordBatch, new_null_array},
    compute::cast,
    datatypes::{Field, FieldRef, Schema, SchemaRef},
};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::stats::Precision,
    datasource::memory::MemorySourceConfig,
    error::Result,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::{ExecutionPlan, Statistics, union::UnionExec},
};
use netverdict_flowlog::{Table, schema::hive_fields};

pub(crate) use chosen::ChosenFiles;
pub use files::Store;
pub(crate) use files::{FileId, Listing, Segment};
pub use window::Window;

use crate::{notes::Notes, unflushed::UnflushedAnswer};

/// The column whose hour names a row's folder.
pub(crate) const fn time_column(table: Table) -> &'static str {
    match table {
        Table::Gaps => "from",
        _ => "time",
    }
}

/// Whether gaps in the record touch what the table says.
const fn has_gaps(table: Table) -> bool {
    match table {
        Table::Gaps | Table::Collectors | Table::Settings => false,
        Table::Flows
        | Table::Policies
        | Table::Endpoints
        | Table::Namespaces
        | Table::Services
        | Table::Attributions
        | Table::Snapshots => true,
    }
}

/// The columns of a table's files as readers see them: any may be null, for older files may lack it.
pub(crate) fn file_schema(table: Table) -> SchemaRef {
    let nullable = |field: &FieldRef| field.as_ref().clone().with_nullable(true);
    Arc::new(Schema::new(table.bare_schema().fields().iter().map(nullable).collect::<Vec<Field>>()))
}

/// A table's schema: the files' columns, then those of the path.
pub(crate) fn table_schema(table: Table) -> SchemaRef {
    let files = file_schema(table);
    let fields = files.fields().iter().cloned().chain(hive_fields().map(Arc::new));
    Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>()))
}

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

/// A batch under the table's schema: columns by name, missing ones null, unknown ones dropped.
fn conform(table: Table, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &FieldRef| -> Result<ArrayRef> {
        // A collector of an earlier release may serve them.
        Ok(match batch.column_by_name(renamed::name_in(table, field.name(), &batch.schema())) {
            None => new_null_array(field.data_type(), batch.num_rows()),
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            Some(column) => cast(column, field.data_type())?,
        })
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Statistics that know only how many rows there are at most.
fn rows_only(schema: &Schema, rows: usize) -> Statistics {
    let mut statistics = Statistics::new_unknown(schema);
    statistics.num_rows = Precision::Inexact(rows);
    statistics
}

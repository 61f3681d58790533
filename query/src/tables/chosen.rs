//! A table over a given list of files: for a reader that knows which files it still needs. Unflushed rows are not in it.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    error::Result,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType},
    physical_plan::{ExecutionPlan, empty::EmptyExec},
};
use netverdict_flowlog::Table;

use super::{files::Store, scan, schema::table_schema, segment::Segment};
use crate::notes::Notes;

#[derive(Debug)]
pub(crate) struct ChosenFiles {
    table: Table,
    schema: SchemaRef,
    store: Arc<Store>,
    segments: Vec<Segment>,
}

impl ChosenFiles {
    pub(crate) fn new(table: Table, store: Arc<Store>, segments: Vec<Segment>) -> Self {
        Self { table, schema: table_schema(table), store, segments }
    }
}

#[async_trait]
impl TableProvider for ChosenFiles {
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
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let notes = state.config().get_extension::<Notes>().unwrap_or_default();
        let segments = self.store.still_readable(&self.segments, &notes);
        segments.iter().for_each(|segment| notes.read(&segment.object));
        if segments.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema.project(columns)?),
                None => self.schema(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        scan::files(self.table, &self.store, state, projection, segments)
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}

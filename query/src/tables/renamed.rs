//! Columns that files of an earlier format have under another name. Expressions over a table are rewritten for each such
//! file, so that its pages are pruned and filtered like those of any other.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::{
    common::tree_node::{Transformed, TransformedResult as _, TreeNode as _},
    error::Result,
    physical_expr::{PhysicalExpr, expressions::Column},
    physical_expr_adapter::{DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory},
};
use netverdict_flowlog::{Table, schema::former_name};

/// Adapts expressions over a table to each of its files.
#[derive(Debug)]
pub(super) struct FileColumns(pub(super) Table);

impl PhysicalExprAdapterFactory for FileColumns {
    fn create(
        &self,
        logical_file_schema: SchemaRef,
        physical_file_schema: SchemaRef,
    ) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let written = |field: &FieldRef| match name_in(self.0, field.name(), &physical_file_schema) {
            name if name == field.name() => Arc::clone(field),
            name => Arc::new(field.as_ref().clone().with_name(name)),
        };
        let written = Arc::new(Schema::new(logical_file_schema.fields().iter().map(written).collect::<Vec<_>>()));
        let same = written.fields() == logical_file_schema.fields();
        let adapter = DefaultPhysicalExprAdapterFactory.create(Arc::clone(&written), physical_file_schema)?;
        Ok(if same { adapter } else { Arc::new(Renamed { table: logical_file_schema, written, adapter }) })
    }
}

/// The name under which a schema has a table's column.
pub(super) fn name_in<'a>(table: Table, name: &'a str, schema: &Schema) -> &'a str {
    let has = |name: &str| schema.column_with_name(name).is_some();
    former_name(table, name).filter(|former| !has(name) && has(former)).unwrap_or(name)
}

#[derive(Debug)]
struct Renamed {
    table: SchemaRef,
    /// The table's schema under the names that the file has.
    written: SchemaRef,
    adapter: Arc<dyn PhysicalExprAdapter>,
}

impl PhysicalExprAdapter for Renamed {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let renamed = expr.transform(|expr| {
            let column = expr.downcast_ref::<Column>();
            let index = column.and_then(|column| self.table.index_of(column.name()).ok());
            Ok(match index.map(|index| self.written.field(index).name()) {
                Some(name) if column.is_some_and(|column| column.name() != name) => {
                    Transformed::yes(Arc::new(Column::new_with_schema(name, &self.written)?) as Arc<dyn PhysicalExpr>)
                }
                _ => Transformed::no(expr),
            })
        });
        self.adapter.rewrite(renamed.data()?)
    }
}

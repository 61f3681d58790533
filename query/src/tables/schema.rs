//! Schemas of the tables as readers see them, independent of the version of the files.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, RecordBatch, new_null_array},
    compute::cast,
    datatypes::{Field, FieldRef, Schema, SchemaRef},
};
use datafusion::{common::stats::Precision, error::Result, physical_plan::Statistics};
use netverdict_flowlog::{Table, schema::hive_fields};

use super::renamed::name_in;

/// The column whose hour names a row's folder.
pub(crate) const fn time_column(table: Table) -> &'static str {
    match table {
        Table::Gaps => "from",
        _ => "time",
    }
}

/// Whether gaps in the record affect the table.
pub(super) const fn has_gaps(table: Table) -> bool {
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

/// The columns of a table's files as readers see them: any may be null, because older files may lack it.
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

/// A batch under the table's schema: columns by name, missing ones null, unknown ones dropped.
pub(super) fn conform(table: Table, batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    let column = |field: &FieldRef| -> Result<ArrayRef> {
        // A collector of an earlier release may serve them.
        Ok(match batch.column_by_name(name_in(table, field.name(), &batch.schema())) {
            None => new_null_array(field.data_type(), batch.num_rows()),
            Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
            Some(column) => cast(column, field.data_type())?,
        })
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

/// Statistics that know only how many rows there are at most.
pub(super) fn rows_only(schema: &Schema, rows: usize) -> Statistics {
    let mut statistics = Statistics::new_unknown(schema);
    statistics.num_rows = Precision::Inexact(rows);
    statistics
}

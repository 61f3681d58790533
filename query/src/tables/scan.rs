//! Files as a physical scan: page indexes and bloom filters used, footers cached. The optimizer brings the predicates,
//! also through the union with fresh rows.

use std::sync::Arc;

use arrow::datatypes::FieldRef;
use datafusion::{
    catalog::Session,
    common::ScalarValue,
    datasource::{
        listing::PartitionedFile,
        physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource, parquet::CachedParquetFileReaderFactory},
        source::DataSourceExec,
        table_schema::TableSchema,
    },
    error::Result,
    physical_plan::ExecutionPlan,
};
use netverdict_flowlog::{Table, schema::hive_fields};

use super::{
    files::Store,
    renamed::FileColumns,
    schema::{file_schema, rows_only, table_schema},
    segment::Segment,
};

/// A scan of `segments`, which must not be empty.
pub(super) fn files(
    table: Table,
    store: &Store,
    state: &dyn Session,
    projection: Option<&Vec<usize>>,
    segments: Vec<Segment>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let hive: Vec<FieldRef> = hive_fields().map(Arc::new).into();
    let schema = TableSchema::builder(file_schema(table)).with_table_partition_cols(hive).build();
    let readers = CachedParquetFileReaderFactory::new(
        Arc::clone(store.objects()),
        state.runtime_env().cache_manager.get_file_metadata_cache(),
    );
    let source = ParquetSource::new(schema)
        .with_parquet_file_reader_factory(Arc::new(readers))
        .with_pushdown_filters(true)
        .with_reorder_filters(true)
        .with_enable_page_index(true)
        .with_bloom_filter_on_read(true);
    let rows = segments.iter().map(|segment| segment.contents.rows).sum();
    let groups = groups(segments, state.config().target_partitions());
    let config = FileScanConfigBuilder::new(store.url().clone(), Arc::new(source))
        .with_file_groups(groups)
        .with_expr_adapter(Some(Arc::new(FileColumns(table))))
        .with_statistics(rows_only(&table_schema(table), rows))
        .with_projection_indices(projection.cloned())?
        .build();
    Ok(DataSourceExec::from_data_source(config))
}

/// Files in as many groups as there are threads, evenly by rows.
fn groups(mut segments: Vec<Segment>, count: usize) -> Vec<FileGroup> {
    let count = count.clamp(1, segments.len());
    let mut groups: Vec<(usize, Vec<PartitionedFile>)> = vec![(0, Vec::new()); count];
    segments.sort_by_key(|segment| std::cmp::Reverse(segment.contents.rows));
    for segment in segments {
        let Some((rows, files)) = groups.iter_mut().min_by_key(|(rows, _)| *rows) else { continue };
        *rows += segment.contents.rows + 1;
        files.push(partitioned(segment));
    }
    groups.into_iter().map(|(_, files)| FileGroup::new(files)).collect()
}

fn partitioned(segment: Segment) -> PartitionedFile {
    let Segment { path, object, id: _, contents: _ } = segment;
    let hour = path.hour();
    let values = [path.cluster().to_owned(), hour.date(), hour.hour()];
    PartitionedFile::new_from_meta(object)
        .with_partition_values(values.map(|value| ScalarValue::Utf8(Some(value))).into())
}

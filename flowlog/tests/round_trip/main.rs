//! Laws of the record: rows that a builder writes, a file gives back; and the metadata of a file.

mod rows;

use std::{fs, path::Path};

use arrow::array::{Array, RecordBatch};
use netverdict_flowlog::{
    FORMAT_VERSION, Table, columns, file,
    path::{Hour, SegmentPath},
    read,
    row::Row,
    schema,
};
use parquet::{
    arrow::arrow_reader::ParquetRecordBatchReaderBuilder,
    file::reader::{FileReader, SerializedFileReader},
};
use proptest::prelude::*;
use tempfile::TempDir;

const BOOT: &str = "3f2b8c1e-5a77-4d09-9b1c-0123456789ab";

fn path(table: Table) -> SegmentPath {
    let hour = Hour::of("2026-11-19T08:00:00Z".parse().unwrap());
    SegmentPath::new(table, "prod", hour, "node-1", BOOT, 42).unwrap()
}

fn write(dir: &Path, table: Table, rows: &[Row]) -> std::path::PathBuf {
    let batches = columns::batches(table, rows).unwrap();
    file::write(dir, &path(table), &batches, &[]).unwrap().path.below(dir)
}

/// Columns by value: the numbering of words in a dictionary does not matter.
fn plain(batch: &RecordBatch) -> Vec<arrow::array::ArrayRef> {
    let plain = |column: &arrow::array::ArrayRef| match column.data_type() {
        arrow::datatypes::DataType::Dictionary(_, value) => arrow::compute::cast(column, value).unwrap(),
        _ => column.clone(),
    };
    batch.columns().iter().map(plain).collect()
}

fn assert_round_trip(table: Table, rows: &[Row]) {
    let batch = columns::batch(table, rows).unwrap();
    assert_eq!(batch.schema(), table.bare_schema());
    let back = read::rows(table, &batch).unwrap();
    assert_eq!(plain(&columns::batch(table, &back).unwrap()), plain(&batch));
    assert_eq!(format!("{rows:?}"), format!("{back:?}"));

    let dir = TempDir::new().unwrap();
    let file = write(dir.path(), table, rows);
    let mut from_file = Vec::new();
    for batch in read::batches(&file).unwrap() {
        let batch = batch.unwrap();
        assert_eq!(batch.schema().fields(), table.bare_schema().fields());
        from_file.extend(read::rows(table, &batch).unwrap());
    }
    let sorted = |rows: &[Row]| {
        let mut texts: Vec<_> = rows.iter().map(|row| format!("{row:?}")).collect();
        texts.sort();
        texts
    };
    assert_eq!(sorted(&from_file), sorted(rows));
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

macro_rules! round_trips {
    ($($test:ident: $table:ident, $row:ident;)+) => {
        proptest! {
            #![proptest_config(cases(48))]
            $(#[test]
            fn $test(rows in prop::collection::vec(rows::$row(), 0..12)) {
                assert_round_trip(Table::$table, &rows);
            })+
        }
    };
}

round_trips! {
    flows_come_back: Flows, flow;
    policies_come_back: Policies, policy;
    endpoints_come_back: Endpoints, endpoint_change;
    namespaces_come_back: Namespaces, namespace;
    services_come_back: Services, service;
    attributions_come_back: Attributions, attribution_row;
    snapshots_come_back: Snapshots, snapshot;
    gaps_come_back: Gaps, gap;
    collectors_come_back: Collectors, collector;
    settings_come_back: Settings, setting;
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn a_damaged_file_is_refused_or_read_but_never_fatal(
        rows in prop::collection::vec(rows::gap(), 1..4),
        at in any::<prop::sample::Index>(),
        bit in 0u8..8,
        cut in any::<bool>(),
    ) {
        let dir = TempDir::new().unwrap();
        let file = write(dir.path(), Table::Gaps, &rows);
        let mut bytes = fs::read(&file).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
        fs::write(&file, &bytes).unwrap();
        let _ = read::footer(&file);
        if let Ok(batches) = read::batches(&file) {
            for batch in batches {
                let Ok(batch) = batch else { break };
                let _ = read::rows(Table::Gaps, &batch);
            }
        }
    }
}

#[test]
fn a_file_says_where_it_is_from() {
    let dir = TempDir::new().unwrap();
    let batches = columns::batches(Table::Gaps, &[]).unwrap();
    let written = file::write(dir.path(), &path(Table::Gaps), &batches, &[("netverdict.note", "x".into())]).unwrap();
    let footer = read::footer(&written.path.below(dir.path())).unwrap();
    for (key, value) in [
        (schema::VERSION, FORMAT_VERSION.to_string().as_str()),
        (file::NODE, "node-1"),
        (file::BOOT, BOOT),
        (file::SEGMENT, "42"),
        (file::CLUSTER, "prod"),
        ("netverdict.note", "x"),
    ] {
        assert_eq!(footer.metadata.get(key).map(String::as_str), Some(value), "{key}");
    }
}

#[test]
fn a_file_of_a_newer_format_is_refused_with_a_remedy() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("x.parquet");
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_key_value_metadata(Some(vec![parquet::file::metadata::KeyValue::new(
            schema::VERSION.into(),
            "9".to_owned(),
        )]))
        .build();
    let out = fs::File::create(&file).unwrap();
    parquet::arrow::ArrowWriter::try_new(out, Table::Gaps.bare_schema(), Some(properties)).unwrap().close().unwrap();
    let error = read::footer(&file).unwrap_err();
    assert!(error.to_string().contains("newer release"), "{error}");
}

#[test]
fn no_reader_sees_a_file_before_it_is_whole() {
    let dir = TempDir::new().unwrap();
    let path = path(Table::Gaps);
    let prepared = file::prepare(dir.path(), &path, &[], &[]).unwrap();
    let target = path.below(dir.path());
    let names =
        || fs::read_dir(target.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    assert_eq!(names().len(), 1);
    assert!(names().iter().all(|name| name.extension().is_some_and(|extension| extension != "parquet")));
    assert_eq!(file::is_unfinished(dir.path(), &names()[0]), Some(path.clone()));
    drop(prepared);
    assert_eq!(names().len(), 0);
    file::prepare(dir.path(), &path, &[], &[]).unwrap().publish().unwrap();
    assert_eq!(names(), [target]);
}

#[test]
fn a_full_disk_is_told_apart() {
    let dir = TempDir::new().unwrap();
    let path = path(Table::Gaps);
    let target = path.below(dir.path());
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    let temporary = format!(".{}.tmp", target.file_name().unwrap().to_str().unwrap());
    std::os::unix::fs::symlink("/dev/full", target.with_file_name(temporary)).unwrap();
    let error = file::write(dir.path(), &path, &[], &[]).unwrap_err();
    assert!(error.is_disk_full(), "{error:?}");
    fs::write(dir.path().join("blocked"), b"").unwrap();
    let error = file::write(&dir.path().join("blocked"), &path, &[], &[]).unwrap_err();
    assert!(!error.is_disk_full(), "{error:?}");
}

#[test]
fn flows_are_sorted_and_indexed_where_questions_prune() {
    let dir = TempDir::new().unwrap();
    let rows = rows::many_flows(20_000);
    let file = write(dir.path(), Table::Flows, &rows);
    let reader = SerializedFileReader::new(fs::File::open(&file).unwrap()).unwrap();
    let group = reader.metadata().row_group(0).clone();
    let column = |name: &str| {
        group.columns().iter().find(|column| column.column_path().string() == name).unwrap_or_else(|| panic!("{name}"))
    };
    for name in ["destination_pod", "source_pod", "source_ip", "destination_ip", "attribution_id", "source_pod_uid"] {
        assert!(column(name).bloom_filter_offset().is_some(), "{name}");
        assert!(column(name).column_index_offset().is_some(), "{name}");
    }
    for name in ["verdict", "packets", "source_labels.key_value.key"] {
        assert!(column(name).bloom_filter_offset().is_none(), "{name}");
    }
    assert!(group.columns().iter().all(|column| column.offset_index_offset().is_some()), "page index");
    let sorting = group.sorting_columns().unwrap();
    assert_eq!(group.column(usize::try_from(sorting[0].column_idx).unwrap()).column_path().string(), "attribution_id");
    let ids = |batch: RecordBatch| {
        let column = batch.column_by_name("attribution_id").unwrap().clone();
        let column = column.as_any().downcast_ref::<arrow::array::Int64Array>().unwrap().clone();
        column.values().to_vec()
    };
    let reader = ParquetRecordBatchReaderBuilder::try_new(fs::File::open(&file).unwrap()).unwrap().build().unwrap();
    assert!(reader.flat_map(|batch| ids(batch.unwrap())).is_sorted());
}

#[test]
fn every_column_is_documented_and_named_once() {
    for table in Table::ALL {
        assert_eq!(Table::from_name(table.name()), Some(table));
        let schema = table.schema();
        for field in schema.fields() {
            assert!(field.metadata().get(schema::DOC).is_some_and(|doc| !doc.is_empty()), "{table}.{}", field.name());
            assert_eq!(schema.fields().iter().filter(|other| other.name() == field.name()).count(), 1);
        }
        assert!(table.bare_schema().fields().iter().all(|field| field.metadata().is_empty()));
    }
    assert_eq!(Table::from_name("Flows"), None);
}

#[test]
fn a_row_of_another_table_is_refused() {
    let rows = rows::many_flows(2);
    let error = columns::batch(Table::Gaps, &rows).unwrap_err();
    assert!(matches!(error, columns::BatchError::OtherTable { found: Table::Flows, index: 0, .. }), "{error}");
}

#[test]
fn columns_that_an_older_version_lacks_are_null() {
    let rows = rows::many_flows(3);
    let batch = columns::batch(Table::Flows, &rows).unwrap();
    let kept: Vec<usize> =
        (0..batch.num_columns()).filter(|index| batch.schema().field(*index).name() != "source_zone").collect();
    let read = read::rows(Table::Flows, &batch.project(&kept).unwrap()).unwrap();
    assert_eq!(read.len(), 3);
    let kept: Vec<usize> =
        (0..batch.num_columns()).filter(|index| batch.schema().field(*index).name() != "time").collect();
    assert!(matches!(read::rows(Table::Flows, &batch.project(&kept).unwrap()), Err(read::ReadError::Column { .. })));
}

/// One file of each table for readers that are not ours: set `NETVERDICT_SAMPLE_DIR` to where they should go.
#[test]
fn samples_of_all_tables_are_written_for_other_readers() {
    let keep = std::env::var_os("NETVERDICT_SAMPLE_DIR");
    let temporary = TempDir::new().unwrap();
    let dir = keep.as_ref().map_or(temporary.path(), Path::new);
    for (table, rows) in rows::samples() {
        write(dir, table, &rows);
        assert_round_trip(table, &rows);
    }
}

#[test]
fn a_row_takes_some_tens_of_bytes() {
    let dir = TempDir::new().unwrap();
    let count = 50_000;
    let batches = columns::batches(Table::Flows, &rows::many_flows(count)).unwrap();
    let written = file::write(dir.path(), &path(Table::Flows), &batches, &[]).unwrap();
    let bytes = written.bytes / count;
    assert!(bytes < 100, "{bytes} bytes a row");
}

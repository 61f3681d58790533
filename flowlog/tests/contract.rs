//! The record's layout as golden files, and its documentation. `NETVERDICT_UPDATE_GOLDEN=1 cargo test -p
//! netverdict-flowlog --test contract` writes both anew; the commit then says `Contract: record`.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use arrow::datatypes::{DataType, Field};
use netverdict_flowlog::{FORMAT_VERSION, Table, layout::Column, read, row::Row, schema::former_name};

const BEGIN: &str = "<!-- columns: generated from the declarations in flowlog/src/row -->";
const END: &str = "<!-- end of columns -->";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn check(path: &Path, found: &str, remedy: &str) {
    if std::env::var_os("NETVERDICT_UPDATE_GOLDEN").is_some() {
        fs::write(path, found).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(
        expected == found,
        "{} is not what the code says: {remedy}, then set NETVERDICT_UPDATE_GOLDEN=1 and run this test again.\n\
         expected:\n{expected}\nfound:\n{found}",
        path.display()
    );
}

#[test]
fn the_tables_are_what_the_format_version_says() {
    let mut text = format!("version {FORMAT_VERSION}\n");
    for table in Table::ALL {
        text.push_str(&format!("\n{}\n", table.name()));
        for field in table.schema().fields() {
            let null = if field.is_nullable() { ", may be null" } else { "" };
            text.push_str(&format!("  {}: {}{null}\n", field.name(), field.data_type()));
        }
    }
    let remedy = "raise netverdict_flowlog::FORMAT_VERSION unless columns were only added";
    check(&root().join("tests/golden/schema.txt"), &text, remedy);
}

#[test]
fn every_column_of_format_1_is_read() {
    let golden = fs::read_to_string(root().join("tests/golden/schema-1.txt")).expect("the layout of format 1");
    let mut table = None;
    let mut former: BTreeMap<Table, Vec<(&str, &str)>> = BTreeMap::new();
    for line in golden.lines().skip(1).filter(|line| !line.is_empty()) {
        match (line.strip_prefix("  ").and_then(|column| column.split_once(": ")), table) {
            (Some((name, layout)), Some(table)) => former.entry(table).or_default().push((name, layout)),
            _ => table = Some(Table::from_name(line).unwrap_or_else(|| panic!("no table {line}"))),
        }
    }
    assert_eq!(former.keys().copied().collect::<Vec<_>>(), Table::ALL);
    for (table, former) in former {
        let schema = table.bare_schema();
        for column in table.declared() {
            let Column { name, nullable, since, .. } = column;
            let written = former_name(table, name).unwrap_or(name);
            let layout = former.iter().find(|(name, _)| *name == written).map(|(_, layout)| *layout);
            let (data_type, null) = (column.data_type.to_string(), if *nullable { ", may be null" } else { "" });
            match layout {
                // It may have become nullable, and nothing else.
                Some(layout) => {
                    let layout = layout.strip_suffix(", may be null").map_or((layout, false), |layout| (layout, true));
                    assert_eq!((layout.0, *since), (data_type.as_str(), 1), "{table}.{name}");
                    assert!(*nullable || !layout.1, "{table}.{name} was null in format 1");
                }
                None => assert!(*since > 1 && *nullable, "{table}.{name}: {data_type}{null} is not in format 1"),
            }
        }
        for (name, _) in former {
            let is_read =
                schema.index_of(name).is_ok() || table.declared().iter().any(|column| column.was == Some(name));
            assert!(is_read, "{table}.{name} of format 1 is read by nobody");
        }
    }
}

#[test]
fn files_of_format_1_are_read() {
    let mut rows: BTreeMap<Table, Vec<Row>> = BTreeMap::new();
    for file in files(&root().join("tests/fixtures/format-1/data")) {
        assert_eq!(read::footer(&file).unwrap().metadata["format_version"], "1");
        let table = Table::ALL.into_iter().find(|table| file.iter().any(|part| part == table.name())).unwrap();
        for batch in read::batches(&file).unwrap() {
            rows.entry(table).or_default().extend(read::rows(table, &batch.unwrap()).unwrap());
        }
    }
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), Table::ALL);
    let numbers = |table| -> Vec<u64> {
        rows[&table].iter().filter_map(|row| row.head()).map(|head| head.snapshot).collect::<Vec<_>>()
    };
    // The policy that was put, changed and deleted, and the policy that stayed.
    let mut policies = numbers(Table::Policies);
    policies.sort_unstable();
    assert_eq!(policies, [1, 1, 2, 4]);
    for row in &rows[&Table::Flows] {
        let Row::Flow(row) = row else { panic!("{row:?}") };
        assert!(row.lane.is_some() && row.cpu.is_some() && row.seq.is_some() && row.cursor.is_none(), "{row:?}");
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn the_columns_are_documented() {
    let path = root().join("docs/record.md");
    let page = fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("the mark where columns begin");
    let (_, after) = rest.split_once(END).expect("the mark where columns end");
    let mut columns = String::new();
    for table in Table::ALL {
        write!(columns, "### {table}\n\n{}.\n\n| column | type | meaning |\n|---|---|---|\n", table.doc()).unwrap();
        for Column { name, data_type, nullable, doc, since, was, .. } in table.declared() {
            let null = if *nullable { ", null" } else { "" };
            let mut meaning = doc.replace('|', "\\|");
            if *since > 1 {
                write!(meaning, "; since format {since}").unwrap();
            }
            if let Some(was) = was {
                write!(meaning, "; `{was}` in format 1").unwrap();
            }
            writeln!(columns, "| `{name}` | {}{null} | {meaning} |", type_name(data_type)).unwrap();
        }
        columns.push('\n');
    }
    check(&path, &format!("{before}{BEGIN}\n\n{columns}{END}{after}"), "its tables are generated");
}

/// Names of types for readers that do not know Arrow.
fn type_name(data_type: &DataType) -> String {
    let names = |fields: &[std::sync::Arc<Field>]| {
        fields.iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
    };
    match data_type {
        DataType::Dictionary(_, value) => type_name(value),
        DataType::Utf8 => "text".into(),
        DataType::Int32 => "int32".into(),
        DataType::Int64 => "int64".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Timestamp(..) => "time".into(),
        DataType::List(item) => format!("list of {}", type_name(item.data_type())),
        DataType::Struct(fields) => format!("({})", names(fields)),
        DataType::Map(entry, _) => match entry.data_type() {
            DataType::Struct(entry) => format!("map of text to {}", type_name(entry[1].data_type())),
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}

//! The Arrow schemas of the tables, from their declarations in [`crate::row`]. The meaning of a column is in its metadata,
//! under [`DOC`].

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

pub use crate::row::Table;
use crate::{FORMAT_VERSION, layout::Column};

/// Key of a field's metadata: the meaning of the column, for people.
pub const DOC: &str = "doc";

/// Key of a schema's and a file's metadata: the layout's version.
pub const VERSION: &str = "format_version";

impl Table {
    /// The columns of a file, with their meanings.
    pub fn schema(self) -> SchemaRef {
        SCHEMAS[self as usize].documented.clone()
    }

    /// The same without any metadata, which would cost each file some kilobytes: the schema that batches and files carry.
    pub fn bare_schema(self) -> SchemaRef {
        SCHEMAS[self as usize].bare.clone()
    }

    /// The columns of a file and those that only its path has ([`hive_fields`]), without metadata: the schema of unflushed
    /// rows that a collector serves.
    pub fn unflushed_schema(self) -> SchemaRef {
        SCHEMAS[self as usize].unflushed.clone()
    }

    /// The columns as they are declared, in the order of the schema.
    pub fn declared(self) -> &'static [Column] {
        &SCHEMAS[self as usize].columns
    }
}

/// The name that a column had in an earlier format; `None` if it had no other.
pub fn former_name(table: Table, column: &str) -> Option<&'static str> {
    table.declared().iter().find(|declared| declared.name == column)?.was
}

/// Values that a path holds for all rows of its file, as columns: cluster, date (`YYYY-MM-DD`) and hour (`HH`, UTC), text.
pub fn hive_fields() -> [Field; 3] {
    ["cluster", "date", "hour"].map(|name| Field::new(name, DataType::Utf8, false))
}

struct Schemas {
    columns: Vec<Column>,
    documented: SchemaRef,
    bare: SchemaRef,
    unflushed: SchemaRef,
}

static SCHEMAS: LazyLock<[Schemas; Table::ALL.len()]> = LazyLock::new(|| {
    Table::ALL.map(|table| {
        let columns = table.columns();
        let field = |column: &Column| Field::new(&column.name, column.data_type.clone(), column.nullable);
        let bare: Vec<Field> = columns.iter().map(field).collect();
        let documented = |column: &Column| field(column).with_metadata([(DOC.into(), column.doc.into())].into());
        let documented: Vec<Field> = columns.iter().map(documented).collect();
        let metadata =
            [(DOC.to_owned(), table.doc().to_owned()), (VERSION.to_owned(), FORMAT_VERSION.to_string())].into();
        let unflushed: Vec<Field> = bare.iter().cloned().chain(hive_fields()).collect();
        Schemas {
            documented: Arc::new(Schema::new_with_metadata(documented, metadata)),
            bare: Arc::new(Schema::new(bare)),
            unflushed: Arc::new(Schema::new(unflushed)),
            columns,
        }
    })
});

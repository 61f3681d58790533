//! The tables and their Arrow schemas. What a column means is in its metadata, under [`DOC`].
//!
//! The lists of columns themselves are beside the code that fills them, in `columns`.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::{FORMAT_VERSION, columns, row::Row};

/// Key of a field's metadata: what the column means, for people.
pub const DOC: &str = "doc";

/// Key of a schema's and a file's metadata: the layout's version.
pub const VERSION: &str = "format_version";

/// Every table of the record, in the order in which files of one segment appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    Flows,
    Policies,
    Endpoints,
    Namespaces,
    Services,
    Attributions,
    Snapshots,
    Gaps,
    Collectors,
    Settings,
}

impl Table {
    pub const ALL: [Self; 10] = [
        Self::Flows,
        Self::Policies,
        Self::Endpoints,
        Self::Namespaces,
        Self::Services,
        Self::Attributions,
        Self::Snapshots,
        Self::Gaps,
        Self::Collectors,
        Self::Settings,
    ];

    /// As SQL and the data directory spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Policies => "policies",
            Self::Endpoints => "endpoints",
            Self::Namespaces => "namespaces",
            Self::Services => "services",
            Self::Attributions => "attributions",
            Self::Snapshots => "snapshots",
            Self::Gaps => "gaps",
            Self::Collectors => "collectors",
            Self::Settings => "settings",
        }
    }

    /// The table that is spelled so; `None` for anything else.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// What the table's rows say, for people.
    pub const fn doc(self) -> &'static str {
        match self {
            Self::Flows => "one verdict a row: who, whom, what, and which policies decided",
            Self::Policies => "every revision of every policy seen, as a log of changes",
            Self::Endpoints => "pods and nodes, as a log of changes",
            Self::Namespaces => "namespaces and their labels, as a log of changes",
            Self::Services => "Services, as a log of changes",
            Self::Attributions => "what an attribution id stands for",
            Self::Snapshots => "when a state of the whole policy came into force on a node",
            Self::Gaps => "what is known to be missing",
            Self::Collectors => "state of the collectors over time",
            Self::Settings => "effective configuration of a collector when it started",
        }
    }

    /// Whether rows are changes of something that lasts, so that an old row may still say how things are now.
    pub const fn is_change_log(self) -> bool {
        match self {
            Self::Policies
            | Self::Endpoints
            | Self::Namespaces
            | Self::Services
            | Self::Attributions
            | Self::Snapshots => true,
            Self::Flows | Self::Gaps | Self::Collectors | Self::Settings => false,
        }
    }

    /// The table that a row is of.
    pub const fn of(row: &Row) -> Self {
        match row {
            Row::Flow(_) => Self::Flows,
            Row::Policy(_) => Self::Policies,
            Row::Endpoint(_) => Self::Endpoints,
            Row::Namespace(_) => Self::Namespaces,
            Row::Service(_) => Self::Services,
            Row::Attribution(_) => Self::Attributions,
            Row::Snapshot(_) => Self::Snapshots,
            Row::Gap(_) => Self::Gaps,
            Row::Collector(_) => Self::Collectors,
            Row::Setting(_) => Self::Settings,
        }
    }

    /// The columns of a file, with what they mean.
    pub fn schema(self) -> SchemaRef {
        SCHEMAS[self.position()].documented.clone()
    }

    /// The same without any metadata: what batches and files carry.
    pub fn bare_schema(self) -> SchemaRef {
        SCHEMAS[self.position()].bare.clone()
    }

    /// The columns of a file and those that only its path has ([`hive_fields`]), without metadata: what a collector
    /// serves of rows that are not in a file yet.
    pub fn fresh_schema(self) -> SchemaRef {
        SCHEMAS[self.position()].fresh.clone()
    }

    fn position(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a path says of all rows in its file, as columns: cluster, date (`YYYY-MM-DD`) and hour (`HH`, UTC), all text.
pub fn hive_fields() -> [Field; 3] {
    ["cluster", "date", "hour"].map(|name| Field::new(name, DataType::Utf8, false))
}

struct Schemas {
    documented: SchemaRef,
    bare: SchemaRef,
    fresh: SchemaRef,
}

static SCHEMAS: LazyLock<[Schemas; Table::ALL.len()]> = LazyLock::new(|| {
    Table::ALL.map(|table| {
        let fields = columns::fields(table);
        let bare = columns::bare(&fields);
        let with_hive: Vec<_> = bare.fields().iter().cloned().chain(hive_fields().map(Arc::new)).collect();
        let metadata =
            [(DOC.to_owned(), table.doc().to_owned()), (VERSION.to_owned(), FORMAT_VERSION.to_string())].into();
        Schemas {
            documented: Arc::new(Schema::new_with_metadata(fields, metadata)),
            bare,
            fresh: Arc::new(Schema::new(with_hive)),
        }
    })
});

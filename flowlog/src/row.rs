//! The tables of the record and their rows, as the collector fills them in: one declaration a table, in the files below.
//!
//! Values that many rows share are behind an `Arc`, so that a row costs little and an encoder can tell by the pointer that
//! rows say the same.

mod changes;
mod decision;
mod flows;
mod state;
mod words;

use std::fmt;

use chrono::{DateTime, Utc};

pub use self::{
    changes::{ChangeHead, EndpointChangeRow, NamespaceRow, PolicyRow, ServiceRow},
    decision::AttributionValue,
    flows::{EndpointRow, FlowRow},
    state::{AttributionRow, CollectorRow, GapRow, SettingRow, SnapshotRow},
    words::{
        ChangeKind, CollectorState, DispositionName, DropReason, EndpointKind, GapCause, LaneName, Method, ModeName,
        Receiver, RecordType, Reporter,
    },
};
use crate::layout::{Cells, Column, Columns, Wrong};

/// Names, documentation and common operations of the tables.
macro_rules! tables {
    ($(
        $(#[doc = $doc:literal])+
        $table:ident $name:literal: $variant:ident($row:ident), $kind:ident by $($time:ident).+
    );+ $(;)?) => {
        /// Every table of the record, in the order in which files of one segment appear.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Table {
            $($(#[doc = $doc])+ $table),+
        }

        impl Table {
            pub const ALL: [Self; [$(Self::$table),+].len()] = [$(Self::$table),+];

            /// As SQL and the data directory spell it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$table => $name),+ }
            }

            /// Meaning of the table's rows, for people.
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$table => concat!($($doc),+).trim_ascii()),+ }
            }

            const fn kind(self) -> Kind {
                match self { $(Self::$table => Kind::$kind),+ }
            }

            /// The table that a row is of.
            pub const fn of(row: &Row) -> Self {
                match row { $(Row::$variant(_) => Self::$table),+ }
            }

            pub(crate) fn columns(self) -> Vec<Column> {
                match self { $(Self::$table => $row::columns()),+ }
            }
        }

        /// A row of any table.
        #[derive(Clone, Debug)]
        pub enum Row {
            $($variant(Box<$row>)),+
        }

        impl Row {
            /// When it happened; of a gap, when it began. The hour of the file that holds the row.
            pub fn time(&self) -> DateTime<Utc> {
                match self { $(Self::$variant(row) => row.$($time).+),+ }
            }

            /// # Errors
            /// A cell holds nothing that its column can.
            pub(crate) fn read(table: Table, cells: &mut Cells<'_>) -> Result<Self, Wrong> {
                Ok(match table { $(Table::$table => Self::$variant(Box::new($row::read(cells)?))),+ })
            }
        }

        $(impl From<$row> for Row {
            fn from(row: $row) -> Self {
                Self::$variant(Box::new(row))
            }
        })+

        /// Calls `$with!(Variant)` for a table.
        macro_rules! of_table {
            ($of:expr, $with:ident) => {
                match $of { $($crate::row::Table::$table => $with!($variant)),+ }
            };
        }
        pub(crate) use of_table;
    };
}

/// Kind of a table's rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Events: old rows do not describe the present.
    Events,
    /// Changes of a lasting object, so that an old row may still describe the present.
    Changes,
}

tables! {
    /// one verdict a row: who, whom, what, and which policies decided
    Flows "flows": Flow(FlowRow), Events by time;
    /// every state of every policy seen, as a log of changes
    Policies "policies": Policy(PolicyRow), Changes by head.time;
    /// pods and nodes, as a log of changes
    Endpoints "endpoints": Endpoint(EndpointChangeRow), Changes by head.time;
    /// namespaces and their labels, as a log of changes
    Namespaces "namespaces": Namespace(NamespaceRow), Changes by head.time;
    /// Services, as a log of changes
    Services "services": Service(ServiceRow), Changes by head.time;
    /// what an attribution id stands for
    Attributions "attributions": Attribution(AttributionRow), Changes by time;
    /// when a state of the whole policy came into force on a node
    Snapshots "snapshots": Snapshot(SnapshotRow), Changes by time;
    /// what is known to be missing
    Gaps "gaps": Gap(GapRow), Events by from;
    /// state of the collectors over time
    Collectors "collectors": Collector(CollectorRow), Events by time;
    /// effective configuration of a collector when it started
    Settings "settings": Setting(SettingRow), Events by time;
}

impl Table {
    /// The table with this name; `None` for other names.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }

    /// Whether rows are changes of a lasting object, so that an old row may still describe the present.
    pub fn is_change_log(self) -> bool {
        self.kind() == Kind::Changes
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Row {
    /// The common start of change log rows; `None` for the other tables.
    pub fn head(&self) -> Option<&ChangeHead> {
        match self {
            Self::Policy(row) => Some(&row.head),
            Self::Endpoint(row) => Some(&row.head),
            Self::Namespace(row) => Some(&row.head),
            Self::Service(row) => Some(&row.head),
            Self::Flow(_)
            | Self::Attribution(_)
            | Self::Snapshot(_)
            | Self::Gap(_)
            | Self::Collector(_)
            | Self::Setting(_) => None,
        }
    }
}

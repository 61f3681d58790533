//! The on-disk contract: rows, their Arrow schema, Parquet properties, paths, format version; and the answers of the query
//! service, typed once for the service and its clients.
//!
//! A table is declared once, in [`row`]: struct, columns, filling, reading, Parquet policy and documentation follow from
//! the declaration. It knows the engine's words and Arrow. It does not know the kernel, Kubernetes objects, SQL or sockets.

pub mod answer;
pub mod columns;
pub mod file;
pub mod flow_id;
pub mod layout;
pub mod manifest;
pub mod objects;
pub mod path;
pub mod read;
pub mod row;
pub mod schema;

pub use row::Table;

/// Version of the tables' layout, in each file's key-value metadata as `format_version`. Readers read every version
/// ever shipped; writers write this one.
pub const FORMAT_VERSION: u32 = 2;

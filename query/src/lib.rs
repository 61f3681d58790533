//! The read service: which policy decided, over HTTP and the PostgreSQL protocol.
//!
//! It reads the collectors' files, and from the collectors the rows that are not in files yet. It changes nothing, talks to
//! no cluster and no kernel, and needs no privilege.

mod addresses;
pub mod cells;
pub mod command_line;
mod copies;
pub mod deadline;
mod dedup_window;
pub mod error;
pub mod execute;
mod flow_condition;
pub mod flows;
mod functions;
pub mod gaps;
pub mod guard;
pub mod history;
pub mod http;
mod last_answers;
pub mod metrics;
mod mirror;
mod names;
pub mod notes;
pub mod options;
mod port;
pub mod ports;
pub mod postgres;
pub mod question;
pub mod records;
pub mod serve;
pub mod session;
pub mod state;
mod status;
pub mod tables;
pub mod threads;
pub mod unflushed;
mod views;
mod watch;
pub mod why;

pub use command_line::Options;
pub use error::QueryError;
pub use execute::Executor;

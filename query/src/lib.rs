//! The read service: which policy decided, over HTTP and the PostgreSQL protocol.
//!
//! It reads what collectors wrote into files and what they have not written yet, and changes nothing. It never talks to
//! a cluster or a kernel and needs no privilege.

pub mod cells;
pub mod error;
pub mod execute;
pub mod flows;
pub mod fresh;
mod functions;
pub mod gaps;
pub mod guard;
pub mod http;
pub mod metrics;
pub mod notes;
pub mod options;
pub mod postgres;
pub mod question;
pub mod records;
pub mod serve;
pub mod session;
pub mod state;
pub mod tables;
pub mod threads;
mod views;
mod watch;
pub mod why;

pub use error::QueryError;
pub use execute::Executor;
pub use options::Options;

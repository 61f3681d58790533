//! The node daemon: the probe's verdicts, made into records, and the cluster's objects, made into the probe's tables.
//!
//! ```text
//! cluster ──► control ──► probe (compile, publish, attach)
//!                │  meanings of ids, facts
//!                ▼
//! rings, receive::goldmane ──► drain ──► write-ahead log ──► pipeline ──► store ──► Parquet, rows port
//! ```
//!
//! The way of one event: [`drain`] takes a [`batch`] and logs it as a [`wal::LogRecord`]; [`write`] gives it to the
//! [`pipeline`], where [`receive`] makes it [`observation`]s, [`sequence`] or [`dedup`] counts each, [`enrich`] names its
//! ends, [`attribute`] finds the decider, and [`aggregate`] gathers repeats; [`write`] gives the rows to the [`store`].
//!
//! [`pipeline`] is pure and the same for live rings, for the write-ahead log after a crash, and for a recorded file.
//! Everything that touches a clock, a file, a socket or the kernel is around it.

pub mod address_history;
pub mod admin;
pub mod aggregate;
pub mod attribute;
pub mod batch;
pub mod clock;
pub mod cluster;
pub mod codes;
pub mod control;
pub mod daemon;
pub mod dedup;
pub mod drain;
pub mod enrich;
pub mod health;
pub mod input;
pub mod meaning;
pub mod metrics;
pub mod observation;
pub mod options;
pub mod persistent_map;
pub mod pipeline;
pub mod receive;
pub mod recording;
pub mod replay;
pub mod sequence;
pub mod serve;
#[cfg(test)]
mod simulated_node;
pub mod snapshots;
pub mod store;
pub mod wal;
pub mod write;

pub use netverdict_cluster::state_file as state;

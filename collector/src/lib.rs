//! The node daemon: what the probe judged, made into records, and what the cluster says, made into the probe's tables.
//!
//! ```text
//! cluster ──► control ──► probe (compile, publish, attach)
//!                │  what ids mean, facts
//!                ▼
//! rings ──► drain ──► write-ahead log ──► pipeline ──► store ──► Parquet, rows port
//! ```
//!
//! [`pipeline`] is pure and the same for live rings, for the write-ahead log after a crash, and for a recorded file.
//! Everything that touches a clock, a file, a socket or the kernel is around it.

pub mod admin;
pub mod aggregate;
pub mod attribute;
pub mod clock;
pub mod cluster;
pub mod control;
pub mod daemon;
pub mod drain;
pub mod enrich;
pub mod health;
pub mod input;
pub mod layered;
pub mod meaning;
pub mod metrics;
pub mod options;
pub mod pipeline;
pub mod receive;
pub mod recording;
pub mod replay;
#[cfg(test)]
mod scene;
pub mod sequence;
pub mod serve;
pub mod snapshots;
pub mod state;
pub mod store;
pub mod wal;
pub mod write;

//! The Kubernetes API: how to reach it, and every object there that a verdict can depend on.
//!
//! All or nothing: without one of the kinds a verdict would be a guess, so what may not be listed is an error. A kind
//! that the cluster does not serve has no objects there.

mod connect;
mod daemon_set;
mod discover;
mod error;
mod list;
mod reach;
mod watch;

pub use self::{
    connect::{Access, Connection},
    daemon_set::NodeCounts,
    error::ClusterError,
    list::ApiList,
    watch::{ApiWatch, KindFigures, WatchOptions, WatchStatus},
};

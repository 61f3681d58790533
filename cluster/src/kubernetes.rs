//! The Kubernetes API: how to reach it, every object there that a verdict can depend on, events about a
//! node, and the way to a Service through it.
//!
//! All or nothing: without one of the kinds a verdict would be a guess, so a kind that may not be listed is an error. A kind
//! that the cluster does not serve has no objects there.

mod connect;
mod daemon_set;
mod discover;
mod error;
mod list;
mod node_events;
mod reach;
mod service_proxy;
mod watch;

pub use self::{
    connect::{Access, Connection},
    daemon_set::NodeCounts,
    error::ClusterError,
    list::ApiList,
    node_events::NodeEvents,
    service_proxy::{ProxiedAnswer, ProxyError, Scheme, ServiceProxy, secret_value, service_scheme},
    watch::{ApiWatch, KindFigures, WatchOptions, WatchStatus},
};

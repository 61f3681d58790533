//! The product on a whole real cluster: pods of a real kubelet, and traffic that a real kube-proxy forwards.
//!
//! `NETVERDICT_LIVE_CLUSTER` says that the programs of a cluster are there; `cargo xtask test cluster-live` builds them.

mod chart;
mod documented;
mod first_packet;
mod install;
mod probes;
mod rights;
mod services;
mod story;
mod world;

//! Kernel to Parquet to an answer, with the programs that users run: kills, restarts, full disks, exact counts.
//!
//! Pods are network namespaces, policies are manifests, packets are real. Run by `cargo xtask test pipeline`, which builds
//! the programs and the BPF object first.

mod copies;
mod dashboards;
mod degraded;
mod durable;
mod foreign;
mod node;
mod own_node;
mod reference;
mod refused;
mod status;
mod unbound;

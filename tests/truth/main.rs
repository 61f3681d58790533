//! Compiled policies against the real kernel: what real sockets meet, and what the record says of it, must both be what
//! the evaluator says.
//!
//! Needs root rights, a BPF file system and a BPF object. Without them every test says `SKIPPED truth: <why>`, or fails
//! where `NETVERDICT_REQUIRE_KERNEL=1` is set. Single features of the probe, with tables made by hand, are the kernel
//! suite's; the collector and what comes after it are the pipeline suite's.

mod attempts;
mod cells;
mod chance;
mod edits;
mod expect;
mod fuzz;
mod node;
mod packets;
mod random;
mod table;

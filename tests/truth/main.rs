//! Compiled policies against the real kernel: the verdict that real sockets get, and the recorded events, must both
//! agree with the evaluator.
//!
//! Needs root, a BPF file system and a BPF object. Without them every test prints `SKIPPED truth: <why>`, or fails if
//! `NETVERDICT_REQUIRE_KERNEL=1` is set. Single features of the probe, with tables written by hand, are tested by the
//! kernel suite; the collector and the stages after it by the pipeline suite.

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

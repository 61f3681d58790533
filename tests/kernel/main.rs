//! The probe against the real kernel: real programs on veths, real sockets in network namespaces.
//!
//! Needs root, a BPF file system and a BPF object. Without them every test prints `SKIPPED kernel: <why>`, or fails if
//! `NETVERDICT_REQUIRE_KERNEL=1` is set. Tables are written by hand here, so that each test shows the content of the
//! maps. The conformance suite tests that compiled policies have the same effect.

mod adoption;
mod compiled;
mod discovery;
mod guarding;
mod judging;
mod node;
mod publishing;
mod rewriting;
mod rings;
mod services;
mod tables;

mod traffic;

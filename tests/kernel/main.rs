//! The probe against the real kernel: real programs on veths, real sockets in network namespaces.
//!
//! Needs root rights, a BPF file system and a BPF object. Without them every test says `SKIPPED kernel: <why>`, or
//! fails where `NETVERDICT_REQUIRE_KERNEL=1` is set. Tables are made by hand here, so that a test says what is in the
//! maps; that compiled policies mean the same is for the conformance suite to say.

mod compiled;
mod discovery;
mod judging;
mod node;
mod publishing;
mod rewriting;
mod rings;
mod tables;
mod takeover;
mod traffic;

//! The developer verbs. They are a library too, since the suites use the demo's [`topology`] and [`services`].

pub mod bench;
pub mod cluster;
pub mod command;
pub mod conformance;
pub mod demo;
pub mod ebpf;
pub mod image;
pub mod machine;
mod progress;
pub mod services;
pub mod setup;
pub mod suites;
pub mod topology;

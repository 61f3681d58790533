//! The developer verbs. They are a library too, since the suites use the demo's [`topology`] and [`services`].

pub mod bench;
pub mod cluster;
pub mod command;
pub mod conformance;
pub mod demo;
mod digest;
pub mod ebpf;
mod gzip;
pub mod image;
pub mod machine;
pub mod package;
mod progress;
mod sbom;
pub mod services;
pub mod setup;
pub mod suites;
mod symbols;
pub mod topology;

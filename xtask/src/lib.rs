//! What the developer verbs are made of. A library too, so that the kernel suites build their network namespaces with
//! the demo's [`topology`].

pub mod bench;
pub mod command;
pub mod demo;
pub mod ebpf;
pub mod machine;
mod progress;
pub mod services;
pub mod setup;
pub mod suites;
pub mod topology;

//! Shared code of the suites. Pods are network namespaces made by [`topology`] (it lives in xtask, since the demo uses it).

pub mod conformance;
pub mod golden;

pub use xtask::topology;

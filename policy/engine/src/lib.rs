//! The policy engine: flow + snapshot → verdict + attribution, and snapshot → decision tables.
//!
//! Pure: no I/O, no clock, no randomness, no Kubernetes types. `netverdict-manifest` turns Kubernetes objects into the
//! [`model`]; the probe's user space turns [`tables`] into map bytes; the record keeps [`decision`]s.
//!
//! Two ways lead to a verdict and must agree: the evaluator reads like the specification and is used where a person
//! asks; the compiler folds everything into tables that the kernel only looks up.

mod address;
mod attribution;
pub mod build;
pub mod compile;
pub mod decision;
pub mod evaluate;
#[cfg(test)]
mod laws;
pub mod model;
mod named;
pub mod tables;

pub use compile::Compiler;
pub use decision::{
    AttributionId, Confidence, Decision, Direction, FailedDimension, NearMiss, Reason, Reference, Role, Verdict,
};
pub use evaluate::{
    End, EvaluateError, Evaluation, Family, Flow, MissingAddress, Point, PointName, evaluate, evaluate_point,
    near_misses, usual_family,
};
pub use model::{ObjectKey, Pod, Policy, Snapshot};
pub use tables::{Change, Tables};

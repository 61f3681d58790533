//! Sources of Kubernetes objects, and the snapshot that several of them make together.
//!
//! ```text
//! manifests ──┐  Update: changes, in sync, stale since
//! kubernetes ─┴─► Cluster: Layers (which object counts) ──► Assembly (its meaning) ──► ClusterState
//! ```
//!
//! A new source is one implementation of [`Source`]; nothing behind the trait knows where an object comes from. Evaluating
//! policies, publishing a snapshot, and recording changes are the business of others.

mod assembly;
mod generations;
mod identity;
mod kept;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod layers;
pub mod manifests;
mod source;
mod state;
pub mod state_file;

pub use self::{
    assembly::{Assembly, PolicyObjects},
    generations::Generations,
    identity::ObjectIdentity,
    layers::Layers,
    source::{Change, Fault, Key, Layer, Location, Scope, Source, Update},
    state::{Cluster, ClusterState, StaleSource},
};

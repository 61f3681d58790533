//! Kubernetes objects, as YAML, JSON or API values, to the engine's model, with findings on what people get wrong.
//!
//! One file per kind. Objects are walked as plain values and never through types that drop what they do not know: an
//! unknown field changes what a rule means, so it has to be noticed (N-13, C-9). It does no I/O and evaluates nothing.
//!
//! The way through: text → [`read`] → [`Object`]s → [`snapshot`] → [`Reading`] → [`lint`]. Those who watch an API take
//! [`object_from_value`] or [`objects_from_value`] and the functions per kind: [`policy`], [`pod`], [`namespace`], [`node`], [`service`].
//!
//! # What happens to what cannot be read
//!
//! | what is wrong | what becomes of it |
//! |---|---|
//! | a document, an object's metadata | a finding; all other objects are read |
//! | kind, apiVersion, `policyTypes`, subject, tier, priority of a policy | not enforced; an API server refuses it |
//! | a field of the specification that is not known | the policy still isolates; rules that accept match nothing |
//! | a rule: unknown field, bad selector, CIDR, port, action | [`Rule::fault`](netverdict_policy::model::Rule): accept matches nothing, deny and pass deny everything |
//! | a NetworkPolicy peer without a field, or with `ipBlock` beside selectors | that peer matches nothing (N-9) |
//! | an address, a port or a phase of a pod, node or Service | left out, with a finding |

mod address;
mod canonical;
mod fields;
mod finding;
mod json;
mod kind;
mod label;
mod lint;
mod metadata;
mod nulls;
mod object;
mod read;
mod selector;
mod snapshot;
mod spelling;
mod yaml;

pub use canonical::content_hash;
pub use finding::{Finding, Invalid, ObjectRef, Report, Severity, code};
pub use json::json_value;
pub use kind::{KINDS, Layout, PolicyKind, Scope, kinds_read, namespace, node, pod, policy, service};
pub use lint::lint;
pub use metadata::object_from_value;
pub use object::{Identity, Object, Origin, text};
pub use read::{objects_from_value, read, read_bytes};
pub use snapshot::{Reading, implied_namespace, snapshot};

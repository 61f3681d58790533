//! Converts Kubernetes objects (YAML, JSON or API values) to the engine's model, with findings about errors in them.
//!
//! An object takes this way:
//!
//! 1. text → documents → JSON values: [`read`] (`read`, `yaml`, `json`), with the types that kubectl gives to YAML scalars;
//! 2. JSON value → [`Object`]: [`object_from_value`] (`metadata`), with its identity and its hash (`canonical`);
//! 3. [`Object`] → [`Policy`](netverdict_policy::model::Policy), pod, node, namespace or Service: [`policy`], [`pod`], [`node`],
//!    [`namespace`], [`service`] (`kind` and one file per kind below it), which read `fields`, `selector`s and `address`es;
//! 4. all objects → [`Snapshot`](netverdict_policy::model::Snapshot): [`snapshot`];
//! 5. checks of the objects against each other: [`lint`].
//!
//! Values are read field by field, never through types that ignore unknown fields: an unknown field may change the meaning of a
//! rule, so it must be noticed (N-13, C-9). The crate does no I/O and evaluates no flows.
//!
//! # Treatment of invalid input
//!
//! | invalid part | effect |
//! |---|---|
//! | a document, the metadata of an object | a finding; all other objects are read |
//! | kind, apiVersion, `policyTypes`, subject, tier or priority of a policy | not enforced; an API server refuses it |
//! | an unknown field of the specification | the policy still isolates; rules that accept match nothing |
//! | a rule: unknown field, selector, CIDR, port, action | [`Rule::fault`](netverdict_policy::model::Rule): accept matches nothing, deny and pass deny everything |
//! | a NetworkPolicy peer without a field, or with `ipBlock` beside selectors | that peer matches nothing (N-9) |
//! | an address, port or phase of a pod, node or Service | left out, with a finding |

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
mod trim;
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
pub use trim::{LastChange, created, last_change, trim};

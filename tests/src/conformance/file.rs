//! The files as they are written. Unknown fields are refused: a misspelt expectation would expect nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use anyhow::bail;
use netverdict_policy::{Confidence, Family, Flow, Reason, Verdict, build, model::Protocol};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    /// File under `fixtures/` that every case starts from; without one, from nothing.
    pub(super) fixture: Option<String>,
    #[serde(default)]
    pub(super) also_v1alpha1: bool,
    pub(super) cases: Vec<CaseText>,
}

#[derive(Debug, Deserialize)]
#[serde(from = "CaseFields")]
pub(super) struct CaseText {
    pub(super) id: String,
    pub(super) says: String,
    pub(super) v1alpha1: bool,
    pub(super) base: StepText,
    pub(super) steps: Vec<StepText>,
}

/// A case with one step has its fields beside its own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseFields {
    id: String,
    says: String,
    v1alpha1: Option<bool>,
    #[serde(default)]
    policies: Vec<Value>,
    #[serde(default)]
    objects: Vec<Value>,
    #[serde(default)]
    findings: Vec<String>,
    #[serde(default)]
    flows: Vec<FlowText>,
    #[serde(default)]
    steps: Vec<StepText>,
}

impl From<CaseFields> for CaseText {
    fn from(fields: CaseFields) -> Self {
        let CaseFields { id, says, v1alpha1, policies, objects, findings, flows, steps } = fields;
        let base = StepText { policies, objects, remove: Vec::new(), names: None, findings, flows };
        Self { id, says, v1alpha1: v1alpha1.unwrap_or(true), base, steps }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StepText {
    /// Added, or put in the place of the object of the same kind, namespace and name.
    #[serde(default)]
    pub(super) policies: Vec<Value>,
    /// The same, for other objects than policies.
    #[serde(default)]
    pub(super) objects: Vec<Value>,
    /// `Kind namespace/name`.
    #[serde(default)]
    pub(super) remove: Vec<String>,
    /// All names that are known from here on.
    pub(super) names: Option<BTreeMap<String, BTreeSet<IpAddr>>>,
    /// Codes of findings.
    #[serde(default)]
    pub(super) findings: Vec<String>,
    #[serde(default)]
    pub(super) flows: Vec<FlowText>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FlowText {
    /// `x/a -> y/b:80/tcp`.
    pub(super) flow: String,
    pub(super) family: Option<u8>,
    #[serde(default)]
    pub(super) state: State,
    pub(super) via: Option<SocketAddr>,
    pub(super) verdict: Verdict,
    /// Absent: no policy.
    pub(super) egress: Option<PointText>,
    pub(super) ingress: Option<PointText>,
}

/// The state of a packet's connection for the datapath.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Begins a connection.
    #[default]
    New,
    /// Of a connection that was allowed before the step.
    Established,
    /// Answers the flow, in the other direction.
    Reply,
    /// An ICMP error about the flow.
    Related,
    NeighbourDiscovery,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PointText {
    /// As records spell it.
    #[serde(deserialize_with = "reason")]
    pub(super) reason: Reason,
    pub(super) confidence: Option<Confidence>,
    #[serde(default)]
    pub(super) decided_by: Vec<String>,
    #[serde(default)]
    pub(super) passed: Vec<String>,
    #[serde(default)]
    pub(super) near_miss: Vec<String>,
}

fn reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Reason, D::Error> {
    let name = String::deserialize(deserializer)?;
    Reason::from_name(&name).ok_or_else(|| D::Error::custom(format!("no reason is called {name}")))
}

impl FlowText {
    pub(super) fn read(&self) -> anyhow::Result<Flow> {
        let mut flow = build::flow(&self.flow);
        match self.family {
            None | Some(4) => {}
            Some(6) => {
                flow.family = Family::V6;
                if flow.protocol == Protocol::ICMP {
                    flow.protocol = Protocol::ICMPV6;
                }
            }
            Some(other) => bail!("family is 4 or 6, not {other}"),
        }
        Ok(flow)
    }
}

/// Policies say their kind; its version is filled in here.
pub(super) fn with_version(mut value: Value) -> anyhow::Result<Value> {
    if value.get("apiVersion").is_none() {
        value["apiVersion"] = match value.get("kind").and_then(Value::as_str) {
            Some("NetworkPolicy") => json!("networking.k8s.io/v1"),
            Some("ClusterNetworkPolicy") => json!("policy.networking.k8s.io/v1alpha2"),
            other => bail!("apiVersion of {other:?} is missing"),
        };
    }
    Ok(value)
}

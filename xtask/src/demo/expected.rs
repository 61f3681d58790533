//! The results that the policies demand, to compare with those of real packets.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::traffic::{Cell, Transport, WAYS};

/// The expected result of one attempt.
#[derive(Debug)]
pub(super) struct Expectation {
    pub source: String,
    pub destination: String,
    pub transport: Transport,
    pub family: u8,
    pub allowed: bool,
    /// `namespace/name` of the policies at the first point that denies; empty if it is allowed.
    pub denied_by: BTreeSet<String>,
}

impl Expectation {
    pub(super) fn read(
        source: &str,
        destination: &str,
        transport: Transport,
        family: u8,
        answer: &Value,
    ) -> Result<Self> {
        let flow = answer["flows"].get(0).unwrap_or(answer);
        let allowed = match flow["verdict"].as_str() {
            Some("allowed") => true,
            Some("denied") => false,
            _ => bail!("no verdict expected here: {answer}"),
        };
        let first_denying =
            flow["points"].as_array().and_then(|points| points.iter().find(|p| p["verdict"] == "denied"));
        let denied_by = first_denying.map(|point| policy_names(&point["decided_by"])).unwrap_or_default();
        Ok(Self {
            source: source.to_owned(),
            destination: destination.to_owned(),
            transport,
            family,
            allowed,
            denied_by,
        })
    }
}

pub(super) fn policy_names(deciders: &Value) -> BTreeSet<String> {
    let name = |decider: &Value| Some(format!("{}/{}", decider["namespace"].as_str()?, decider["name"].as_str()?));
    deciders.as_array().map(|deciders| deciders.iter().filter_map(name).collect()).unwrap_or_default()
}

/// Fails if an attempt did not end as the policies say.
pub(super) fn compare(cells: &[Cell], expected: &[Expectation]) -> Result<()> {
    let mut wrong = Vec::new();
    for expectation in expected {
        let Expectation { source, destination, transport, family, allowed, .. } = expectation;
        let reached = cells
            .iter()
            .find(|cell| cell.source == *source && cell.destination == *destination)
            .and_then(|cell| WAYS.iter().position(|way| *way == (*transport, *family)).map(|way| cell.reached[way]));
        if reached != Some(*allowed) {
            wrong.push(format!(
                "{source} to {destination} by {transport} over IPv{family}: reached {reached:?}, allowed {allowed}"
            ));
        }
    }
    ensure!(wrong.is_empty(), "the datapath and the policies disagree:\n{}", wrong.join("\n"));
    Ok(())
}

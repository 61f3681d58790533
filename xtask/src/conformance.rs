//! Long tests on a whole cluster: the suites of others, and a cluster in churn.
//!
//! The product enforces on a cluster of its own. The report names every case, with what it was run on.

mod choice;
mod churn;
mod cyclonus;
mod netpol;
mod policy_api;
mod probe;
mod record;
mod report;
mod world;

use anyhow::Result;
use clap::Subcommand;

use self::choice::Choice;
use crate::machine;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Kubernetes' own tests of NetworkPolicy. A whole run takes some twenty minutes, and writes docs/conformance/netpol.md.
    Netpol(netpol::Options),
    /// The cases that cyclonus generates, each probe also compared with the record. A whole run takes some twenty minutes for
    /// each kind of destination, and writes docs/conformance/cyclonus-DESTINATION.md.
    Cyclonus(cyclonus::Options),
    /// The conformance suite of network-policy-api (ClusterNetworkPolicy, both tiers), on two nodes. Writes
    /// docs/conformance/network-policy-api.md, and beside it the report in the format of that project.
    NetworkPolicyApi(Choice),
    /// A cluster whose objects change all the time, and whose API server, kubelet, container runtime and collector are killed.
    /// Every pod tries every other beside it. Writes docs/conformance/churn.md.
    Churn(churn::Options),
}

pub fn run(verb: &Verb) -> Result<()> {
    machine::kernel().map_err(anyhow::Error::msg)?;
    match verb {
        Verb::Netpol(options) => netpol::run(options),
        Verb::Cyclonus(options) => cyclonus::run(options),
        Verb::NetworkPolicyApi(choice) => policy_api::run(choice),
        Verb::Churn(options) => churn::run(options),
    }
}

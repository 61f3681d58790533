//! Findings about objects in relation to each other: policies that are enforced as written but probably not as intended.
//!
//! These checks change no verdict. Errors inside a single object are found where it is read.

mod addresses;
mod context;
mod dns;
mod host_network;
mod order;
mod pod_index;
mod ports;
mod selection;

use self::context::Lint;
use crate::{finding::Finding, snapshot::Reading};

/// Checks the objects of a reading against each other. The findings of single objects are in [`Reading::findings`].
///
/// Without pods (or nodes) in the reading, selectors that match none are not reported.
pub fn lint(reading: &Reading) -> Vec<Finding> {
    let lint = Lint::of(reading);
    let dns = dns::DnsCheck::of(&lint);
    let mut order = order::check(&lint);
    let mut findings = Vec::new();
    for policy in reading.snapshot.policies.values() {
        let mut report = lint.report(&policy.key);
        selection::check(&lint, policy, &mut report);
        host_network::check(&lint, policy, &mut report);
        ports::check(&lint, policy, &mut report);
        addresses::check(&lint, policy, &mut report);
        dns.report(policy, &mut report);
        for (severity, invalid) in order.remove(&policy.key).unwrap_or_default() {
            report.add(severity, invalid);
        }
        findings.extend(report.finish());
    }
    findings.extend(addresses::duplicates(&lint));
    findings
}

#[cfg(test)]
mod tests;

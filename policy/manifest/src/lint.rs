//! Findings that take more than one object: what is enforced as written and seldom what was meant.
//!
//! Nothing here changes a verdict. What a single object gets wrong is found where it is read.

mod addresses;
mod context;
mod dns;
mod hosts;
mod order;
mod population;
mod ports;
mod selection;

use self::context::Lint;
use crate::{finding::Finding, snapshot::Reading};

/// Checks the objects of a reading against each other. The findings of single objects are in [`Reading::findings`].
///
/// Where a reading has no pods (or nodes), nothing is said about what selects none of them.
pub fn lint(reading: &Reading) -> Vec<Finding> {
    let lint = Lint::of(reading);
    let dns = dns::Names::of(&lint);
    let mut order = order::check(&lint);
    let mut findings = Vec::new();
    for policy in reading.snapshot.policies.values() {
        let mut report = lint.report(&policy.key);
        selection::check(&lint, policy, &mut report);
        hosts::check(&lint, policy, &mut report);
        ports::check(&lint, policy, &mut report);
        addresses::check(&lint, policy, &mut report);
        dns.check(policy, &mut report);
        for remark in order.remove(&policy.key).unwrap_or_default() {
            match remark {
                order::Remark::Unreachable(invalid) => report.warning(invalid),
                order::Remark::SamePriority(invalid) => report.info(invalid),
            }
        }
        findings.extend(report.finish());
    }
    findings.extend(addresses::duplicates(&lint));
    findings
}

#[cfg(test)]
mod tests;

//! Pods on the host's network that a policy seems to select.

use netverdict_policy::model::Policy;

use super::{Lint, remark, subject_path};
use crate::finding::{Report, code};

pub(super) fn check(lint: &Lint<'_>, policy: &Policy, report: &mut Report) {
    let pods = lint.population.select_on_host(&policy.subject.namespaces, &policy.subject.pods);
    if let Some(first) = pods.first() {
        let message = format!(
            "{} pods on the host's network have these labels, {} among them: no policy applies to them",
            pods.len(),
            first.key()
        );
        let remedy = "guard them by the node's firewall, or run them without hostNetwork";
        report.warning(remark(code::HOST_NETWORK_SELECTED, subject_path(policy), message, remedy));
    }
}

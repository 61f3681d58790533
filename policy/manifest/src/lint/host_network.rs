//! Pods on the host's network whose labels a policy selects: no policy applies to them.

use netverdict_policy::model::Policy;

use super::context::{Lint, subject_path};
use crate::finding::{Invalid, Report, code};

pub(super) fn check(lint: &Lint<'_>, policy: &Policy, report: &mut Report) {
    let pods = lint.pods.select_on_host(&policy.subject.namespaces, &policy.subject.pods);
    if let Some(first) = pods.first() {
        let message = match pods.len() {
            1 => format!(
                "the pod {} has these labels and is on the host's network: no policy applies to it",
                first.key()
            ),
            count => format!(
                "{count} pods on the host's network have these labels, {} among them: no policy applies to them",
                first.key()
            ),
        };
        let remedy = "guard them by the node's firewall, or run them without hostNetwork";
        report.warning(Invalid::new(code::HOST_NETWORK_SELECTED, subject_path(policy), message, remedy));
    }
}

//! Rules of every policy kind: reads the list of one direction, and makes a rule with an error fail closed.

use netverdict_policy::model::{Action, Direction, Rule};

use crate::{
    fields::{Field, Fields, Read},
    finding::{Invalid, Report},
};

/// Collects the errors of one rule. All of them are reported, with their effect on the rule; the first is recorded as the
/// reason why it fails closed.
#[derive(Default)]
pub(super) struct Faults {
    /// At most [`Report::MOST`].
    found: Vec<Invalid>,
    left_out: usize,
}

impl Faults {
    pub(super) fn add(&mut self, invalid: Invalid) {
        if self.found.len() < Report::MOST {
            self.found.push(invalid);
        } else {
            self.left_out += 1;
        }
    }

    /// The value, or `None` and one more error.
    pub(super) fn take<T>(&mut self, read: Read<T>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(invalid) => {
                self.add(*invalid);
                None
            }
        }
    }

    /// The rule to enforce: with an error, accept matches no peer and no port, deny and pass match all of them.
    pub(super) fn finish(self, mut rule: Rule, report: &mut Report) -> Rule {
        if let Some(first) = self.found.first() {
            fail(&mut rule, format!("{}: {}", first.field, first.message));
        }
        let effect = match rule.action {
            Action::Accept => "matches nothing",
            Action::Deny | Action::Pass => "denies everything",
        };
        for invalid in self.found {
            report.error(Invalid { message: format!("{}; the rule {effect}", invalid.message), ..invalid });
        }
        report.leave_out(self.left_out);
        rule
    }
}

/// Makes a rule fail closed (N-13, C-9).
pub(super) fn fail(rule: &mut Rule, fault: String) {
    let matches = match rule.action {
        Action::Accept => Some(()),
        Action::Deny | Action::Pass => None,
    };
    rule.peers = matches.map(|()| Vec::new());
    rule.ports = matches.map(|()| Vec::new());
    rule.fault = Some(fault);
}

pub(super) fn empty(direction: Direction, index: u32, action: Action) -> Rule {
    Rule { direction, index, name: String::new(), action, peers: None, ports: None, fault: None }
}

/// Reads the rules of one direction. Where the field is no list, the policy fails closed: the result is one rule with an
/// error and the action `unreadable`.
pub(super) fn each(
    spec: &mut Fields<'_>,
    direction: Direction,
    unreadable: Action,
    report: &mut Report,
    mut read: impl FnMut(u32, Field<'_>, &mut Report) -> Rule,
) -> Vec<Rule> {
    let list = match spec.list(direction.as_str()) {
        Ok(list) => list,
        Err(invalid) => {
            let mut faults = Faults::default();
            faults.add(*invalid);
            return vec![faults.finish(empty(direction, 0, unreadable), report)];
        }
    };
    let rules = list.iter().flat_map(|list| list.iter());
    rules.zip(0..).map(|(rule, index)| read(index, rule, report)).collect()
}

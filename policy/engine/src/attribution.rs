//! The id of a decision: the same bytes, hence the same id, on every node and after every restart.

use sha2::{Digest, Sha256};

use crate::decision::{AttributionId, Decision, Reference};

/// Raised whenever the byte form changes, so that old and new ids never mean the same by accident.
const FORM: &str = "netverdict attribution 1";

impl AttributionId {
    /// 63 bits of the SHA-256 over a canonical form in which every part is preceded by its length; never
    /// [`AttributionId::NONE`]. `salt` is 0 unless another decision has the id already.
    pub fn of(decision: &Decision, salt: u32) -> Self {
        let Decision { verdict, verdict_if_enforced, reason, tier, confidence, references } = decision;
        let mut form = Form(Sha256::new());
        form.text(FORM);
        form.number(u64::from(salt));
        form.text(verdict.as_str());
        form.text(verdict_if_enforced.map_or("", |verdict| verdict.as_str()));
        form.text(reason.as_str());
        form.text(tier.map_or("", |tier| tier.as_str()));
        form.text(confidence.as_str());
        form.number(references.len() as u64);
        for reference in references {
            form.reference(reference);
        }
        let digest = form.0.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        Self((u64::from_be_bytes(first) >> 1).max(1))
    }
}

struct Form(Sha256);

impl Form {
    fn reference(&mut self, reference: &Reference) {
        let Reference { role, policy, uid, generation, content_hash, tier, rule_index, rule_name, action } = reference;
        self.text(role.as_str());
        self.text(&policy.kind);
        self.text(&policy.namespace);
        self.text(&policy.name);
        self.text(uid);
        self.0.update(generation.to_be_bytes());
        self.text(content_hash);
        self.text(tier.as_str());
        self.text(&rule_index.map_or_else(String::new, |index| index.to_string()));
        self.text(rule_name);
        self.text(action.map_or("", |action| action.as_str()));
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text);
    }

    fn number(&mut self, number: u64) {
        self.0.update(number.to_be_bytes());
    }
}

//! Findings: errors and oddities of an object, with their place and a remedy.
//!
//! The list of codes is closed: scripts may rely on a code, but not on a message.

use std::fmt;

use serde::Serialize;

/// The effect of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The object, or a part of it, is not enforced as written.
    Error,
    /// Enforced as written, but probably not as intended.
    Warning,
    /// Information only.
    Info,
}

impl Severity {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The object that a finding is about. Parts that could not be read are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectRef {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.kind.is_empty() { "object" } else { &self.kind })?;
        match (self.namespace.as_str(), self.name.as_str()) {
            ("", "") => Ok(()),
            ("", name) => write!(f, " {name}"),
            (namespace, name) => write!(f, " {namespace}/{name}"),
        }
    }
}

/// One statement about an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    /// One of [`code::ALL`].
    pub code: &'static str,
    /// `None` where the text holds no readable object.
    pub object: Option<ObjectRef>,
    /// The file and the position in it, or `None` where that is unknown.
    pub origin: Option<String>,
    /// Path of the field, for instance `spec.ingress[0].from[1].podSelector`; empty for the object as a whole.
    pub field: String,
    /// Expected value, found value, and the effect.
    pub message: String,
    /// How to repair it.
    pub remedy: String,
}

impl Finding {
    pub(crate) fn new(severity: Severity, object: Option<ObjectRef>, origin: Option<String>, invalid: Invalid) -> Self {
        let Invalid { code, field, message, remedy } = invalid;
        Self { severity, code, object, origin, field, message, remedy }
    }

    /// Whether a policy is not evaluated, or not as written: every answer with a verdict must show such findings.
    pub fn changes_verdicts(&self) -> bool {
        self.severity == Severity::Error || [code::FOREIGN_POLICY, code::DUPLICATE_OBJECT].contains(&self.code)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.severity)?;
        if let Some(object) = &self.object {
            write!(f, "{object}")?;
            if !self.field.is_empty() {
                write!(f, ", {}", self.field)?;
            }
            f.write_str(": ")?;
        }
        write!(f, "{}; {} [{}]", self.message, self.remedy, self.code)?;
        match &self.origin {
            Some(origin) => write!(f, " ({origin})"),
            None => Ok(()),
        }
    }
}

/// An error in one field. It becomes a [`Finding`] when its severity for the object is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    pub code: &'static str,
    pub field: String,
    pub message: String,
    pub remedy: String,
}

impl Invalid {
    pub fn new(
        code: &'static str,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { code, field: field.into(), message: message.into(), remedy: remedy.into() }
    }
}

/// Collects the findings of one object; keeps the first [`Report::MOST`] of them.
#[derive(Clone, Debug, Default)]
pub struct Report {
    object: Option<ObjectRef>,
    origin: Option<String>,
    findings: Vec<Finding>,
    left_out: usize,
}

impl Report {
    /// A bound on memory: a hostile object could have millions of errors.
    pub const MOST: usize = 100;

    pub(crate) fn about(object: ObjectRef, origin: Option<String>) -> Self {
        Self { object: Some(object), origin, ..Self::default() }
    }

    pub fn error(&mut self, invalid: Invalid) {
        self.add(Severity::Error, invalid);
    }

    pub fn warning(&mut self, invalid: Invalid) {
        self.add(Severity::Warning, invalid);
    }

    pub fn info(&mut self, invalid: Invalid) {
        self.add(Severity::Info, invalid);
    }

    /// Adds findings that are counted but not kept.
    pub(crate) fn leave_out(&mut self, count: usize) {
        self.left_out += count;
    }

    /// The value, or `None` and a warning: for objects of which a part may be left out.
    pub(crate) fn lenient<T>(&mut self, read: Result<T, Box<Invalid>>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(invalid) => {
                self.warning(*invalid);
                None
            }
        }
    }

    pub(crate) fn add(&mut self, severity: Severity, invalid: Invalid) {
        if self.findings.len() >= Self::MOST {
            self.left_out += 1;
            return;
        }
        self.findings.push(Finding::new(severity, self.object.clone(), self.origin.clone(), invalid));
    }

    /// All findings, and one more with the number of findings left out.
    pub fn finish(mut self) -> Vec<Finding> {
        if self.left_out > 0 {
            let message = format!("{} more findings are left out", self.left_out);
            let invalid = Invalid::new(code::MORE_FINDINGS, "", message, "repair the first ones and read again");
            self.findings.push(Finding::new(Severity::Info, self.object, self.origin, invalid));
        }
        self.findings
    }
}

macro_rules! codes {
    ($($name:ident = $text:literal: $meaning:literal;)+) => {
        /// The codes of findings: a closed list.
        pub mod code {
            $(#[doc = $meaning] pub const $name: &str = $text;)+

            /// Every code and its meaning.
            pub const ALL: &[(&str, &str)] = &[$(($text, $meaning)),+];
        }
    };
}

codes! {
    // reading documents
    BROKEN_DOCUMENT = "broken-document": "A document that is neither YAML nor JSON, that kubectl does not read, or that nests or expands beyond the bounds.";
    TOO_LARGE = "too-large": "The text is larger than what is read at once.";
    INVALID_OBJECT = "invalid-object": "apiVersion, kind or metadata cannot be read; the object is ignored.";
    INVALID_KIND = "invalid-kind": "The kind is a misspelt policy kind, or one of a policy group that is not read; the object is not enforced.";
    UNKNOWN_KIND = "unknown-kind": "The kind says nothing about network policy; the object is ignored.";
    FOREIGN_POLICY = "foreign-policy": "A policy of another system, which is not evaluated.";
    UNKNOWN_VERSION = "unknown-version": "A policy kind with an apiVersion that is not known; the object is not enforced.";
    DUPLICATE_OBJECT = "duplicate-object": "The same kind, namespace and name twice; the last one counts.";
    IMPLIED_NAMESPACE = "implied-namespace": "Pods or policies name a namespace that no object defines.";
    MORE_FINDINGS = "more-findings": "The object has more findings than are listed.";
    // any field
    UNKNOWN_FIELD = "unknown-field": "A field that the kind does not have; it fails closed.";
    WRONG_TYPE = "wrong-type": "A field holds another type than it must.";
    MISSING_FIELD = "missing-field": "A required field is missing.";
    INVALID_SELECTOR = "invalid-selector": "A label selector that an API server refuses.";
    INVALID_MODE = "invalid-mode": "The annotation netverdict.io/mode has a value other than audit.";
    INVALID_ADDRESS = "invalid-address": "An address that cannot be read; it is left out.";
    // policies
    AUDITED = "audited": "The policy is audited: it decides nothing.";
    INVALID_POLICY_TYPES = "invalid-policy-types": "policyTypes is no list of Ingress and Egress; the object is not enforced.";
    ISOLATES_INGRESS_TOO = "isolates-ingress-too": "A policy with egress rules alone isolates ingress, since it has no policyTypes.";
    IGNORED_RULES = "ignored-rules": "Rules of a direction that policyTypes leaves out count for nothing.";
    INVALID_PEER = "invalid-peer": "A peer that names nothing, or too much; it fails closed.";
    INVALID_CIDR = "invalid-cidr": "A block of addresses that cannot be read; the rule fails closed.";
    LEGACY_CIDR = "legacy-cidr": "A block with host bits or leading zeros, or IPv4 written as IPv6; it counts as the block that is meant.";
    EXCEPT_OUTSIDE_BLOCK = "except-outside-block": "An except that is no part of its own block.";
    INVALID_PORT = "invalid-port": "A port, range or protocol that cannot be read: the rule fails closed; or a name that no port can have: it matches nothing.";
    INVALID_ACTION = "invalid-action": "An action that the kind does not have; the rule fails closed.";
    INVALID_TIER = "invalid-tier": "A tier that does not exist; the object is not enforced.";
    INVALID_PRIORITY = "invalid-priority": "A priority outside 0 to 1000; the object is not enforced.";
    INVALID_SUBJECT = "invalid-subject": "A subject that cannot be read; the object is not enforced.";
    INVALID_NAME = "invalid-name": "A name that the kind does not permit, of the object or of a rule.";
    INVALID_DOMAIN_NAME = "invalid-domain-name": "A domain name that cannot be read, or in a rule that does not accept; the rule fails closed.";
    NAMED_PORT_WITHOUT_PODS = "named-port-without-pods": "A named port beside peers that are no pods; the rule fails closed.";
    DUPLICATE_ITEM = "duplicate-item": "The same network or domain name twice in one peer.";
    TOO_MANY_ITEMS = "too-many-items": "A list that is longer than an API server takes.";
    // across objects
    SELECTS_NOTHING = "selects-nothing": "A policy's subject or a peer matches no pod, namespace or node.";
    NAMED_PORT_NOWHERE = "named-port-nowhere": "No pod that the rule is about has a port of that name and protocol.";
    DNS_CUT_OFF = "dns-cut-off": "Pods that policies keep from port 53 of every name server.";
    UNREACHABLE_RULE = "unreachable-rule": "An earlier rule matches all that this one does.";
    SAME_PRIORITY = "same-priority": "Policies of one tier share a priority: their order is undefined.";
    BLOCK_NAMES_PODS = "block-names-pods": "A block of addresses names pods, whose addresses change.";
    HOST_NETWORK_SELECTED = "host-network-selected": "A policy selects pods on the host's network, which no policy applies to.";
    DUPLICATE_ADDRESS = "duplicate-address": "Two owners have the same address.";
}

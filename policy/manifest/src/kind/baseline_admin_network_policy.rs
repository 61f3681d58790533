//! `policy.networking.k8s.io/v1alpha1` BaselineAdminNetworkPolicy to the model: the one object `default`, whose rules
//! apply where no network policy does. It allows or denies; it never passes.

use netverdict_policy::model::{Policy, Tier};

use super::{
    admin_network_policy::{SELECTORS, read_port},
    ordered::{self, Dialect, Precedence, SUBJECT, peers_of},
    policy_kind::{Layout, PolicyKind, Scope},
};
use crate::{
    fields::quoted,
    finding::{Invalid, Report, code},
    object::Object,
};

#[derive(Debug)]
pub(super) struct BaselineAdminNetworkPolicy;

const DIALECT: Dialect = Dialect {
    accept: "Allow",
    can_pass: false,
    names_domains: false,
    required_selectors: SELECTORS,
    ports: "ports",
    read_port,
    most_items: 100,
};

/// The only name that an API server accepts.
const NAME: &str = "default";

impl PolicyKind for BaselineAdminNetworkPolicy {
    fn kind(&self) -> &'static str {
        "BaselineAdminNetworkPolicy"
    }

    fn api_versions(&self) -> &'static [&'static str] {
        &["policy.networking.k8s.io/v1alpha1"]
    }

    fn scope(&self) -> Scope {
        Scope::Cluster
    }

    fn layout(&self) -> &'static Layout {
        &Layout { subject: SUBJECT, ports: DIALECT.ports, peers_of }
    }

    fn read(&self, object: &Object, report: &mut Report) -> Option<Policy> {
        if object.name != NAME {
            let message =
                format!("expected the name {NAME}, found {}; the object is not enforced", quoted(&object.name));
            let remedy = "name it default; a cluster has one of this kind";
            report.error(Invalid::new(code::INVALID_NAME, "metadata.name", message, remedy));
        }
        let policy =
            ordered::read(object, &DIALECT, report, |_, _| Some(Precedence { tier: Tier::Baseline, priority: 0 }));
        policy.filter(|_| object.name == NAME)
    }
}

//! The rights that the chart gives to collectors: each is used, and none is missing, by the API server's own account.

use std::{collections::BTreeSet, fs};

use serde_json::Value;
use xtask::cluster::Cluster;

const ACCOUNT: &str = "system:serviceaccount:netverdict:netverdict-collector";

/// A verb on a kind: group, resource, verb.
type Right = (String, String, String);

/// Requests of the collectors until now: granted and refused.
pub(crate) struct Asked {
    pub(crate) granted: BTreeSet<Right>,
    pub(crate) refused: BTreeSet<Right>,
}

pub(crate) fn asked(cluster: &Cluster) -> Asked {
    let log = fs::read_to_string(cluster.plan().audit_log()).expect("the audit log");
    let (mut granted, mut refused) = (BTreeSet::new(), BTreeSet::new());
    // The last line may be half of one.
    for event in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let object = &event["objectRef"];
        if event["user"]["username"] != ACCOUNT || !object["resource"].is_string() {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let right = (text(&object["apiGroup"]), text(&object["resource"]), text(&event["verb"]));
        let is_refused = event["responseStatus"]["code"] == 403;
        if is_refused {
            refused.insert(right)
        } else {
            granted.insert(right)
        };
    }
    Asked { granted, refused }
}

/// Rights of the role that nothing was asked with.
pub(crate) fn unused(cluster: &Cluster, granted: &BTreeSet<Right>) -> Vec<Right> {
    let role = cluster.ask(&["get", "clusterrole", "netverdict-collector", "-o", "json"]).expect("the role");
    let role: Value = serde_json::from_str(&role).expect("JSON");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rights = Vec::new();
    for rule in list(&role["rules"]) {
        for group in list(&rule["apiGroups"]) {
            for resource in list(&rule["resources"]) {
                rights.extend(list(&rule["verbs"]).iter().map(|verb| (text(&group), text(&resource), text(verb))));
            }
        }
    }
    let is_used = |(group, resource, verb): &Right| {
        granted.iter().any(|(of, on, asked)| (of, asked) == (group, verb) && (resource == "*" || resource == on))
    };
    rights.retain(|right| !is_used(right));
    rights
}

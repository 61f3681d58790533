//! A small cluster that changes at random, and what its policies ask for: namespaces, pods and NetworkPolicies.

use std::{collections::BTreeMap, net::IpAddr};

use fastrand::Rng;
use serde_json::{Value, json};

/// The ports that every pod serves.
pub(super) const PORTS: [u16; 2] = [8080, 8081];
const TEAMS: [&str; 2] = ["red", "blue"];
const APPS: [&str; 3] = ["web", "api", "db"];
const NAMESPACES: [&str; 3] = ["churn-x", "churn-y", "churn-z"];
const PODS_EACH: usize = 4;
const MOST_POLICIES: usize = 7;

/// Pods and policies by `namespace/name`.
#[derive(Debug)]
pub(super) struct Model {
    rng: Rng,
    /// With the label `team` of each.
    namespaces: BTreeMap<String, &'static str>,
    pub(super) pods: BTreeMap<String, Pod>,
    policies: BTreeMap<String, Policy>,
    /// Of the next object: no name is used twice, but for those that replace another.
    next: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Pod {
    app: &'static str,
    /// Empty until it is known that it runs.
    pub(super) addresses: Vec<IpAddr>,
}

#[derive(Clone, Debug)]
struct Policy {
    /// The pods of its namespace that it is about, by their label `app`; all if `None`.
    subject: Option<&'static str>,
    ingress: Option<Vec<Rule>>,
    egress: Option<Vec<Rule>>,
}

#[derive(Clone, Debug)]
struct Rule {
    /// Labels of the peer's namespace and of the peer; without the first the policy's own namespace is meant.
    peer: Option<(Option<&'static str>, Option<&'static str>)>,
    port: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    Egress,
    Ingress,
}

/// A change of the cluster, in the order in which it is made.
#[derive(Debug)]
pub(super) enum Step {
    Apply(Value),
    /// Kind, and `namespace/name`; without a namespace for a kind that has none.
    Delete(&'static str, String),
}

/// A change, and its name in the report.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) kind: &'static str,
    pub(super) steps: Vec<Step>,
}

impl Model {
    pub(super) fn new(seed: u64) -> Self {
        let mut model = Self {
            rng: Rng::with_seed(seed),
            namespaces: BTreeMap::new(),
            pods: BTreeMap::new(),
            policies: BTreeMap::new(),
            next: 0,
        };
        for name in NAMESPACES {
            let team = model.pick(&TEAMS);
            model.namespaces.insert(name.to_owned(), team);
            for _ in 0..PODS_EACH {
                model.add_pod(name);
            }
        }
        model
    }

    /// Everything that there is.
    pub(super) fn objects(&self, image: &str) -> Vec<Value> {
        let namespaces = self.namespaces.iter().map(|(name, team)| namespace(name, team));
        let pods = self.pods.iter().map(|(key, it)| it.object(key, image));
        let policies = self.policies.iter().map(|(key, it)| it.object(key));
        namespaces.chain(pods).chain(policies).collect()
    }

    /// Makes a change at random.
    pub(super) fn change(&mut self, image: &str) -> Change {
        match self.rng.u32(0..100) {
            0..38 => self.write_policy(),
            38..57 => self.delete_policy(),
            57..75 => self.label_pod(image),
            75..85 => self.label_namespace(),
            85..98 => self.replace_pod(image),
            _ => self.replace_namespace(image),
        }
    }

    fn write_policy(&mut self) -> Change {
        let key = match self.policies.len() < MOST_POLICIES && self.rng.bool() {
            true => format!("{}/policy-{}", self.pick(&NAMESPACES), self.number()),
            false => match self.one_of_policies() {
                Some(key) => key,
                None => return self.label_namespace(),
            },
        };
        let policy = self.policy();
        let object = policy.object(&key);
        self.policies.insert(key, policy);
        Change { kind: "policy written", steps: vec![Step::Apply(object)] }
    }

    fn delete_policy(&mut self) -> Change {
        let Some(key) = self.one_of_policies() else { return self.write_policy() };
        self.policies.remove(&key);
        Change { kind: "policy deleted", steps: vec![Step::Delete("networkpolicy", key)] }
    }

    fn label_pod(&mut self, image: &str) -> Change {
        let (key, app) = (self.one_of_pods(), self.pick(&APPS));
        let pod = self.pods.get_mut(&key).expect("it was picked");
        pod.app = app;
        Change { kind: "pod labelled", steps: vec![Step::Apply(pod.object(&key, image))] }
    }

    fn label_namespace(&mut self) -> Change {
        let (name, team) = (self.pick(&NAMESPACES), self.pick(&TEAMS));
        self.namespaces.insert(name.to_owned(), team);
        Change { kind: "namespace labelled", steps: vec![Step::Apply(namespace(name, team))] }
    }

    /// By one of the same name, or of another: both may get the address of the old one.
    fn replace_pod(&mut self, image: &str) -> Change {
        let old = self.one_of_pods();
        self.pods.remove(&old);
        let (namespace, _) = old.split_once('/').expect("namespace/name");
        let new = match self.rng.bool() {
            true => {
                let app = self.pick(&APPS);
                self.pods.insert(old.clone(), Pod { app, addresses: Vec::new() });
                old.clone()
            }
            false => self.add_pod(namespace),
        };
        let object = self.pods[&new].object(&new, image);
        Change { kind: "pod replaced", steps: vec![Step::Delete("pod", old), Step::Apply(object)] }
    }

    /// With everything in it; policies of the old one do not come back.
    fn replace_namespace(&mut self, image: &str) -> Change {
        let (name, team) = (self.pick(&NAMESPACES), self.pick(&TEAMS));
        self.policies.retain(|key, _| !is_in(key, name));
        self.pods.retain(|key, _| !is_in(key, name));
        self.namespaces.insert(name.to_owned(), team);
        let mut steps = vec![Step::Delete("namespace", name.to_owned()), Step::Apply(namespace(name, team))];
        for _ in 0..PODS_EACH {
            let key = self.add_pod(name);
            steps.push(Step::Apply(self.pods[&key].object(&key, image)));
        }
        Change { kind: "namespace replaced", steps }
    }

    /// The policies that deny at one end; none if it is allowed there.
    pub(super) fn denying(&self, direction: Direction, source: &str, destination: &str, port: u16) -> Vec<String> {
        let (subject, peer) = match direction {
            Direction::Egress => (source, destination),
            Direction::Ingress => (destination, source),
        };
        let (own, _) = subject.split_once('/').expect("namespace/name");
        let about = |(key, policy): &(&String, &Policy)| {
            is_in(key, own) && policy.subject.is_none_or(|app| app == self.pods[subject].app)
        };
        let rules = |policy: &'_ Policy| match direction {
            Direction::Egress => policy.egress.clone(),
            Direction::Ingress => policy.ingress.clone(),
        };
        let isolating = self.policies.iter().filter(about);
        let isolating: Vec<_> = isolating.filter_map(|(key, policy)| Some((key.clone(), rules(policy)?))).collect();
        let allows = |rule: &Rule| self.allows(rule, own, peer, port);
        match isolating.iter().any(|(_, rules)| rules.iter().any(allows)) {
            true => Vec::new(),
            false => isolating.into_iter().map(|(key, _)| key).collect(),
        }
    }

    fn allows(&self, rule: &Rule, own: &str, peer: &str, port: u16) -> bool {
        let (of_peer, _) = peer.split_once('/').expect("namespace/name");
        let is_peer = rule.peer.is_none_or(|(team, app)| {
            let is_namespace = team.map_or(of_peer == own, |team| self.namespaces[of_peer] == team);
            is_namespace && app.is_none_or(|app| self.pods[peer].app == app)
        });
        is_peer && rule.port.is_none_or(|only| only == port)
    }

    pub(super) fn chance(&mut self) -> &mut Rng {
        &mut self.rng
    }

    fn policy(&mut self) -> Policy {
        let (ingress, egress) = match self.rng.u32(0..4) {
            0 => (None, Some(self.rules())),
            1 => (Some(self.rules()), Some(self.rules())),
            _ => (Some(self.rules()), None),
        };
        // A policy about every pod of a namespace leaves little that is allowed.
        let subject = (self.rng.u32(0..4) > 0).then(|| self.pick(&APPS));
        Policy { subject, ingress, egress }
    }

    fn rules(&mut self) -> Vec<Rule> {
        (0..self.rng.u32(0..4))
            .map(|_| {
                let peer = (self.perhaps(&TEAMS), self.perhaps(&APPS));
                let peer = (self.rng.u32(0..4) > 0).then_some(peer);
                Rule { peer, port: self.rng.bool().then(|| PORTS[self.rng.usize(0..PORTS.len())]) }
            })
            .collect()
    }

    fn add_pod(&mut self, namespace: &str) -> String {
        let key = format!("{namespace}/pod-{}", self.number());
        let app = self.pick(&APPS);
        self.pods.insert(key.clone(), Pod { app, addresses: Vec::new() });
        key
    }

    fn one_of_pods(&mut self) -> String {
        let number = self.rng.usize(0..self.pods.len());
        self.pods.keys().nth(number).expect("there are pods").clone()
    }

    fn one_of_policies(&mut self) -> Option<String> {
        let number = self.rng.usize(0..self.policies.len().max(1));
        self.policies.keys().nth(number).cloned()
    }

    fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.rng.usize(0..from.len())]
    }

    fn perhaps(&mut self, from: &[&'static str]) -> Option<&'static str> {
        self.rng.bool().then(|| self.pick(from))
    }
}

impl Pod {
    fn object(&self, key: &str, image: &str) -> Value {
        let serve = |port: &u16| json!({ "name": format!("SERVE_PORT_{port}"), "value": "served" });
        let (namespace, name) = key.split_once('/').expect("namespace/name");
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "namespace": namespace, "name": name, "labels": { "app": self.app } },
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "server", "image": image, "args": ["porter"], "env": PORTS.iter().map(serve).collect::<Vec<_>>(),
                }],
            },
        })
    }
}

impl Policy {
    fn object(&self, key: &str) -> Value {
        let selector = |label: &str, value: Option<&str>| match value {
            None => json!({}),
            Some(value) => json!({ "matchLabels": { label: value } }),
        };
        let rules = |rules: &[Rule], side: &str| -> Vec<Value> {
            let peer = |(team, app): (Option<&str>, Option<&str>)| match team {
                None => json!({ "podSelector": selector("app", app) }),
                Some(team) => {
                    json!({ "namespaceSelector": selector("team", Some(team)), "podSelector": selector("app", app) })
                }
            };
            let rule = |rule: &Rule| {
                let mut object = json!({});
                if let Some(of) = rule.peer {
                    object[side] = json!([peer(of)]);
                }
                if let Some(port) = rule.port {
                    object["ports"] = json!([{ "port": port }]);
                }
                object
            };
            rules.iter().map(rule).collect()
        };
        let types = [("Ingress", &self.ingress), ("Egress", &self.egress)];
        let types: Vec<_> = types.iter().filter(|(_, rules)| rules.is_some()).map(|(name, _)| *name).collect();
        let (namespace, name) = key.split_once('/').expect("namespace/name");
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "namespace": namespace, "name": name },
            "spec": {
                "podSelector": selector("app", self.subject), "policyTypes": types,
                "ingress": rules(self.ingress.as_deref().unwrap_or_default(), "from"),
                "egress": rules(self.egress.as_deref().unwrap_or_default(), "to"),
            },
        })
    }
}

fn namespace(name: &str, team: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": { "team": team } } })
}

fn is_in(key: &str, namespace: &str) -> bool {
    key.split_once('/').is_some_and(|(of, _)| of == namespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_isolating_policy_denies_whatever_no_rule_allows() {
        let mut model = Model::new(1);
        let [one, other] = ["churn-x/a", "churn-y/b"];
        for (key, app) in [(one, "web"), (other, "db")] {
            model.pods.insert(key.to_owned(), Pod { app, addresses: Vec::new() });
        }
        model.namespaces.insert("churn-x".to_owned(), "red");
        let denying = |model: &Model| model.denying(Direction::Ingress, one, other, 8080);
        assert!(denying(&model).is_empty(), "no policies");
        let rule = Rule { peer: Some((Some("red"), Some("web"))), port: Some(8080) };
        let policy = |rules| Policy { subject: Some("db"), ingress: Some(rules), egress: None };
        model.policies.insert("churn-y/none".to_owned(), policy(Vec::new()));
        assert_eq!(denying(&model), ["churn-y/none"]);
        model.policies.insert("churn-y/some".to_owned(), policy(vec![rule]));
        assert!(denying(&model).is_empty(), "allowed by one");
        assert_eq!(model.denying(Direction::Ingress, one, other, 8081), ["churn-y/none", "churn-y/some"]);
        model.namespaces.insert("churn-x".to_owned(), "blue");
        assert_eq!(denying(&model).len(), 2, "of another team");
        assert!(model.denying(Direction::Egress, one, other, 8080).is_empty(), "the other end");
    }

    #[test]
    fn every_kind_of_change_comes_and_leaves_a_whole_cluster() {
        let mut model = Model::new(7);
        let kinds: std::collections::BTreeSet<_> = (0..500).map(|_| model.change("image").kind).collect();
        assert_eq!(kinds.len(), 6, "{kinds:?}");
        assert_eq!(model.pods.len(), NAMESPACES.len() * PODS_EACH);
        assert!(model.policies.len() <= MOST_POLICIES && model.objects("image").len() > model.pods.len());
    }
}

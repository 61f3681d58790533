//! A long life: a compiler that followed thousands of edits of a cluster with many classes.

use std::sync::Arc;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::{
    clusters::{NODE, labels, one_pod, policy},
    compile,
    edits::{Edit, edit},
    form::Form,
    kernel,
};
use crate::{
    build::{address, cluster},
    compile::Compiler,
    model::{Namespace, Pod, Policy, Snapshot, Tier},
    tables::IdFloor,
};

const NAMESPACES: usize = 20;
const PODS: usize = 240;
const POLICIES: usize = 200;
/// As many of the policies at most are of the whole cluster: each of these is in most classes.
const CLUSTER_POLICIES: usize = 6;
const EDITS: usize = 2_000;
/// How often a new compiler is asked.
const CHECKPOINTS: usize = 10;

/// Draws that are the same in every run.
struct Draws(TestRunner);

impl Draws {
    fn of<T: std::fmt::Debug>(&mut self, strategy: impl Strategy<Value = T>) -> T {
        strategy.new_tree(&mut self.0).expect("nothing is filtered out").current()
    }
}

fn big_cluster(draws: &mut Draws) -> Snapshot {
    let nodes = cluster().node(NODE, &["192.168.0.1", "fd01::1"], &[("app", "a")]).node("n2", &["192.168.0.2"], &[]);
    let mut snapshot = nodes.pod_range("10.0.0.0/24").snapshot();
    let names: Vec<String> = ["x", "y", "z"].map(str::to_owned).into_iter().chain((3..NAMESPACES).map(ns)).collect();
    for name in &names {
        let namespace = Namespace { name: name.clone(), uid: String::new(), labels: draws.of(labels()), audit: false };
        snapshot.namespaces.insert(name.clone(), Arc::new(namespace));
    }
    for number in 0..PODS {
        let (namespace, name) = (names[number % names.len()].clone(), format!("p{}", number / names.len()));
        let addresses = vec![address(&format!("10.0.{}.{}", number / 200, 10 + number % 200)), address(&v6(number))];
        let pod = Pod { uid: format!("uid-{name}"), name, namespace, addresses, ..draws.of(one_pod()) };
        snapshot.pods.insert(pod.key(), Arc::new(pod));
    }
    for number in 0..POLICIES {
        let edit = Edit::PutPolicy(number * 65, Box::new(draws.of(policy())));
        take(&mut snapshot, &edit);
    }
    snapshot
}

/// Makes an edit, unless too many policies would be of the whole cluster.
fn take(snapshot: &mut Snapshot, edit: &Edit) {
    let of_cluster = |policy: &Policy| policy.tier != Tier::NetworkPolicy;
    let full = snapshot.policies.values().filter(|policy| of_cluster(policy)).count() >= CLUSTER_POLICIES;
    if !matches!(edit, Edit::PutPolicy(_, policy) if full && of_cluster(policy)) {
        edit.apply(snapshot);
    }
}

fn ns(number: usize) -> String {
    format!("ns-{number}")
}

fn v6(number: usize) -> String {
    format!("fd00::{:x}", 16 + number)
}

#[test]
fn thousands_of_edits_leave_what_a_new_compiler_makes_and_nothing_else() {
    let mut draws = Draws(TestRunner::deterministic());
    let mut now = big_cluster(&mut draws);
    let mut compiler = Compiler::new(NODE, IdFloor::default());
    let mut held = compiler.compile(&Arc::new(now.clone())).put;
    let classes: std::collections::BTreeSet<_> =
        held.subjects.values().flat_map(|subject| [subject.egress_class, subject.ingress_class]).collect();
    assert!(classes.len() > 80, "{} classes", classes.len());
    let mut made = 0;
    for checkpoint in 1..=CHECKPOINTS {
        while made < EDITS * checkpoint / CHECKPOINTS {
            for _ in 0..draws.of(1..4usize) {
                take(&mut now, &draws.of(edit()));
                made += 1;
            }
            let change = compiler.compile(&Arc::new(now.clone()));
            kernel::apply(&mut held, &change).expect("each write does something");
        }
        let anew = compile(&now);
        assert!(Form::of(&compiler) == Form::of(&anew), "after {made} edits");
        assert!(held == *compiler.tables(), "after {made} edits");
        assert_eq!(compiler.remembers(), anew.remembers(), "after {made} edits");
    }
}

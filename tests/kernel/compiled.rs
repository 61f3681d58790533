//! One policy, compiled by the engine and enforced by the kernel.

use std::sync::Arc;

use netverdict_abi::{KernelReason, Mode, Verdict};
use netverdict_policy::{
    AttributionId, Compiler, Pod, Policy, Reason, Snapshot,
    model::{
        Action, Direction, Isolates, Namespace, NamespaceScope, Node as ClusterNode, Operator, Peer, PolicyKey,
        PortMatch, Protocol, Requirement, Rule, Selector, Subject, Tier,
    },
    tables::IdFloor,
};

use crate::{
    node::{Node, key, uid},
    traffic::{arrives, connects},
};

fn labelled(app: &str) -> Selector {
    let operator = Operator::In([app.to_owned()].into());
    Selector { requirements: vec![Requirement { key: "app".to_owned(), operator }] }
}

/// `db/pg` accepts TCP 5432 from `shop/web`, and nothing else.
fn policy() -> Policy {
    Policy {
        key: PolicyKey { kind: "NetworkPolicy".to_owned(), namespace: "db".to_owned(), name: "pg".to_owned() },
        uid: "uid-of-the-policy".to_owned(),
        generation: 3,
        content_hash: "00".repeat(32),
        tier: Tier::NetworkPolicy,
        priority: 0,
        audit: false,
        subject: Subject { namespaces: NamespaceScope::Named("db".to_owned()), pods: labelled("pg") },
        isolates: Isolates { egress: false, ingress: true },
        rules: vec![Rule {
            direction: Direction::Ingress,
            index: 0,
            name: String::new(),
            action: Action::Accept,
            peers: Some(vec![Peer::Pods {
                namespaces: NamespaceScope::Named("shop".to_owned()),
                pods: labelled("web"),
            }]),
            ports: Some(vec![PortMatch::Range { protocol: Protocol::TCP, first: 5432, last: 5432 }]),
            fault: None,
        }],
    }
}

fn snapshot(node: &Node) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for network in node.topology.pods() {
        let key = key(network);
        let namespace = Namespace { name: key.namespace.clone(), ..Namespace::default() };
        snapshot.namespaces.insert(key.namespace.clone(), Arc::new(namespace));
        let pod = Pod {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: uid(network),
            labels: [("app".to_owned(), key.name.clone())].into(),
            addresses: vec![network.v4.into(), network.v6.into()],
            node: "here".to_owned(),
            ..Pod::default()
        };
        snapshot.pods.insert(key, Arc::new(pod));
    }
    let here = ClusterNode {
        name: "here".to_owned(),
        addresses: node.topology.node_addresses().into(),
        ..ClusterNode::default()
    };
    snapshot.nodes.insert(here.name.clone(), Arc::new(here));
    snapshot.pod_ranges = node.topology.pod_ranges().iter().map(|range| range.parse().unwrap()).collect();
    snapshot
}

#[test]
fn compiled_policy_decides_and_is_named() {
    let Some(mut node) = Node::start(Mode::Enforce, &["shop/web", "shop/cart", "db/pg"]) else { return };
    let (web, cart, pg) = (node.pod("shop/web"), node.pod("shop/cart"), node.pod("db/pg"));
    let mut snapshot = snapshot(&node);
    let mut compiler = Compiler::new("here", IdFloor::default());
    node.publish_and_attach(&compiler.compile(&Arc::new(snapshot.clone())));
    assert!(connects(&cart, &pg, 4, 5000), "no policy yet");

    let policy = policy();
    snapshot.policies.insert(policy.key.clone(), Arc::new(policy));
    let change = compiler.compile(&Arc::new(snapshot.clone()));
    assert!(!change.complete, "only what a policy changes");
    node.probe().publish(2, &change).unwrap();
    for family in [4, 6] {
        node.forget_events();
        assert!(connects(&web, &pg, family, 5432));
        assert!(!connects(&web, &pg, family, 5433));
        assert!(!connects(&cart, &pg, family, 5432));
        assert!(!arrives(&web, &pg, family, 5432), "UDP is not TCP");
        let ifindex = node.ifindex(&pg);
        for event in node.events().into_iter().filter(|event| event.ifindex == ifindex) {
            assert_eq!(event.reason, KernelReason::ByPolicy as u8);
            let decision = compiler.decision(AttributionId(event.attribution)).expect("it is in the catalogue");
            let expected =
                if event.verdict == Verdict::Allowed as u8 { Reason::RuleMatch } else { Reason::IsolatedNoMatch };
            assert_eq!(decision.reason, expected);
            assert_eq!(decision.references[0].uid, "uid-of-the-policy");
        }
    }

    // A restarted process compiles everything again, with ids above all that are in use.
    node.stop();
    let restored = node.start_again();
    let known = restored.attributions.values().filter(|decision| decision.reason == Reason::RuleMatch).count();
    assert_eq!(known, 1);
    node.attach_all();
    let mut compiler = Compiler::new("here", restored.floor);
    node.probe().publish(3, &compiler.compile(&Arc::new(snapshot.clone()))).unwrap();
    assert!(connects(&web, &pg, 4, 5432));
    assert!(!connects(&cart, &pg, 4, 5432));

    // `shop/cart` gets the label of `shop/web`.
    let mut pod = Pod::clone(&snapshot.pods[&key(&cart)]);
    pod.labels.insert("app".to_owned(), "web".to_owned());
    snapshot.pods.insert(key(&cart), Arc::new(pod));
    node.probe().publish(4, &compiler.compile(&Arc::new(snapshot))).unwrap();
    assert!(connects(&cart, &pg, 6, 5432));
    assert!(!connects(&cart, &pg, 6, 5433));
}

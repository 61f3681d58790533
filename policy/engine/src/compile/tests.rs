//! Properties that a user of the tables would notice: few entries, small changes, stable meanings.

use std::{collections::BTreeSet, sync::Arc};

use super::Compiler;
use crate::{
    build::*,
    decision::{AttributionId, Confidence, Decision, Reason, Verdict},
    model::{Direction, Protocol, Snapshot},
    tables::{Change, IdFloor, IdentityId, Outcome, Owner, OwnerId, PeerEntry, Tables},
};

const NODE: &str = "n1";

impl Compiler {
    /// How many policy rules, terms, identities, sets of CIDR facts and of attributes it keeps.
    pub(crate) fn remembers(&self) -> [usize; 5] {
        let [cidr_facts, attributes] = self.records.interned();
        [
            self.output.policy_rules.len(),
            self.output.terms.iter().count(),
            self.identities.len(),
            cidr_facts,
            attributes,
        ]
    }
}

/// Pods web-0 … web-4 of shop (remote), db/pg (local), and a policy that lets web into db at 5432.
fn fixture() -> Cluster {
    let mut cluster = cluster()
        .node(NODE, &["192.168.0.1"], &[])
        .namespace("shop", &[("team", "shop")])
        .namespace("db", &[])
        .pod(pod("db/pg").labels(&[("app", "pg")]).at(&["10.0.1.1"]).on(NODE))
        .policy(
            network_policy("db/from-web")
                .ingress(accept().peer(pods(&[("team", "shop")], &[("app", "web")])).port(tcp(5432))),
        );
    for n in 0..5 {
        let web = pod(&format!("shop/web-{n}")).labels(&[("app", "web")]).at(&[&format!("10.0.0.{n}")]).on("n2");
        cluster = cluster.pod(web);
    }
    cluster
}

fn compiled(cluster: Cluster) -> Compiler {
    let mut compiler = Compiler::new(NODE, IdFloor::default());
    compiler.compile(&Arc::new(cluster.snapshot()));
    compiler
}

fn step(compiler: &mut Compiler, cluster: Cluster) -> Change {
    compiler.compile(&Arc::new(cluster.snapshot()))
}

fn entry(compiler: &Compiler, text: &str) -> PeerEntry {
    compiler.tables().addresses[&address(text)]
}

fn ingress(compiler: &Compiler, peer: &str, port: u16) -> Verdict {
    let found = compiler.lookup(&key("db/pg"), Direction::Ingress, address(peer), Protocol::TCP, Some(port));
    found.expect("db/pg is a subject").0
}

#[test]
fn peers_that_no_rule_tells_apart_share_one_identity_and_one_pair() {
    let compiler = compiled(fixture());
    let web: BTreeSet<IdentityId> = (0..5).map(|n| entry(&compiler, &format!("10.0.0.{n}")).identity).collect();
    assert_eq!(web.len(), 1);
    assert_eq!(compiler.tables().pairs.len(), 1 + 1, "web's, and the exemption of the node");
    assert_eq!(compiler.tables().columns.len(), 1);
    assert_eq!(
        (ingress(&compiler, "10.0.0.3", 5432), ingress(&compiler, "10.0.0.3", 80)),
        (Verdict::Allowed, Verdict::Denied)
    );
    assert_eq!(ingress(&compiler, "203.0.113.7", 5432), Verdict::Denied);
}

#[test]
fn the_first_change_is_complete_and_the_same_snapshot_again_is_none() {
    let mut compiler = Compiler::new(NODE, IdFloor::default());
    let snapshot = Arc::new(fixture().snapshot());
    let first = compiler.compile(&snapshot);
    assert!(first.complete);
    assert_eq!(first.put, *compiler.tables());
    assert!(!first.attributions.is_empty() && !first.owners.is_empty());
    let again = compiler.compile(&Arc::new(Snapshot::clone(&snapshot)));
    assert!(again.is_empty() && again.attributions.is_empty() && again.owners.is_empty());
}

#[test]
fn relabelling_a_pod_writes_its_address_only() {
    let mut compiler = compiled(fixture());
    let change = step(&mut compiler, fixture().pod(pod("shop/web-3").at(&["10.0.0.3"]).on("n2")));
    assert_eq!(change.put.addresses.keys().collect::<Vec<_>>(), [&address("10.0.0.3")]);
    assert_eq!(Tables { addresses: Default::default(), ..change.put }, Tables::default());
    assert_eq!(change.delete, Default::default());
    assert_eq!(ingress(&compiler, "10.0.0.3", 5432), Verdict::Denied);
}

#[test]
fn a_new_policy_that_names_all_pods_moves_no_address() {
    let mut compiler = compiled(fixture());
    let change = step(&mut compiler, fixture().policy(network_policy("db/any").ingress(accept().peer(pods(&[], &[])))));
    assert!(change.put.addresses.is_empty());
    assert_eq!(ingress(&compiler, "10.0.0.3", 80), Verdict::Allowed);
    assert_eq!(ingress(&compiler, "203.0.113.7", 80), Verdict::Denied);
}

#[test]
fn ids_are_not_given_out_twice() {
    let mut compiler = compiled(fixture());
    let before: BTreeSet<_> = compiler.tables().columns.keys().copied().collect();
    let floor = compiler.floor();
    step(&mut compiler, cluster());
    assert_eq!(compiler.tables(), &Tables::default());
    step(&mut compiler, fixture());
    let after: BTreeSet<_> = compiler.tables().columns.keys().copied().collect();
    assert!(before.is_disjoint(&after));
    assert!(compiler.tables().subjects.values().all(|subject| subject.ingress_class.0 >= floor.class));
    let mut next = Compiler::new(NODE, compiler.floor());
    let change = next.compile(&Arc::new(fixture().snapshot()));
    assert!(change.owners.iter().all(|(id, _)| id.0 >= compiler.floor().owner));
}

#[test]
fn an_owner_is_the_same_until_the_pod_is_another() {
    let mut compiler = compiled(fixture());
    let pg = |uid: &str| Owner::Pod { key: key("db/pg"), uid: uid.into() };
    let first = compiler.owner_id(&pg("uid-db-pg")).expect("known");
    step(&mut compiler, fixture().pod(pod("db/pg").labels(&[("app", "other")]).at(&["10.0.1.1"]).on(NODE)));
    assert_eq!(entry(&compiler, "10.0.1.1").owner, first);
    let mut reborn = pod("db/pg").at(&["10.0.1.1"]).on(NODE).finish();
    reborn.uid = "second".into();
    let mut snapshot = fixture().snapshot();
    snapshot.pods.insert(reborn.key(), Arc::new(reborn));
    compiler.compile(&Arc::new(snapshot));
    let second = entry(&compiler, "10.0.1.1").owner;
    assert_ne!(second, first);
    assert_eq!(compiler.owner(second), Some(&pg("second")));
    assert_eq!(compiler.owner(first), Some(&pg("uid-db-pg")), "records of the first still ask");
    assert_eq!(compiler.tables().subjects[&key("db/pg")].owner, second);
}

#[test]
fn what_is_known_of_an_address_goes_with_it() {
    let cluster = fixture()
        .service("shop/web", &["10.96.0.1"])
        .pod_range("10.0.0.0/16")
        .pod(pod("shop/twin").at(&["10.0.0.1"]).on("n2"));
    let compiler = compiled(cluster);
    assert_eq!(compiler.owner(entry(&compiler, "192.168.0.1").owner), Some(&Owner::Node { name: NODE.into() }));
    let service = entry(&compiler, "10.96.0.1");
    assert!(service.service);
    assert_eq!(compiler.owner(service.owner), Some(&Owner::Service { key: key("shop/web") }));
    assert_eq!(entry(&compiler, "10.0.0.1").owner, OwnerId::NOBODY, "two pods claim it");
    assert!(compiler.tables().blocks[&block("10.0.0.0/16")].unknown_pod);
    let looked_up = compiler.lookup(&key("db/pg"), Direction::Egress, address("10.96.0.1"), Protocol::TCP, Some(80));
    assert_eq!(looked_up, Some((Verdict::Unknown, AttributionId::NONE)));
}

#[test]
fn an_ipv6_block_that_holds_everything_does_not_hold_ipv4() {
    let compiler = compiled(fixture().policy(network_policy("db/v6").ingress(accept().peer(net("::/0", &[])))));
    let blocks = &compiler.tables().blocks;
    assert_eq!(blocks[&block("0.0.0.0/0")].identity, IdentityId::WORLD, "stops an IPv4 address in a common trie");
    assert_eq!(ingress(&compiler, "203.0.113.7", 80), Verdict::Denied);
    assert_eq!(ingress(&compiler, "2001:db8::1", 80), Verdict::Allowed);
}

#[test]
fn overlapping_blocks_hold_what_all_terms_say_of_them() {
    let cluster = fixture()
        .policy(network_policy("db/wide").ingress(accept().peer(net("203.0.0.0/8", &["203.0.113.0/24"])).port(tcp(1))))
        .policy(network_policy("db/narrow").ingress(accept().peer(net("203.0.113.8/29", &[])).port(tcp(2))));
    let compiler = compiled(cluster);
    let allowed = |peer| [1, 2].map(|port| ingress(&compiler, peer, port) == Verdict::Allowed);
    assert_eq!(allowed("203.1.1.1"), [true, false]);
    assert_eq!(allowed("203.0.113.1"), [false, false]);
    assert_eq!(allowed("203.0.113.9"), [false, true]);
}

#[test]
fn an_address_follows_the_name_that_it_has_now() {
    let out = || {
        network_policy("db/out")
            .egress(accept().peer(domain("www.example.org")).port(tcp(1)))
            .egress(accept().peer(domain("api.example.org")).port(tcp(2)))
    };
    let mut compiler = compiled(fixture().policy(out()).name("www.example.org", &["203.0.113.7"]));
    let allowed = |compiler: &Compiler| {
        [1, 2].map(|port| {
            let peer = address("203.0.113.7");
            let found = compiler.lookup(&key("db/pg"), Direction::Egress, peer, Protocol::TCP, Some(port));
            found.expect("db/pg is a subject").0 == Verdict::Allowed
        })
    };
    assert_eq!(allowed(&compiler), [true, false]);
    step(&mut compiler, fixture().policy(out()).name("api.example.org", &["203.0.113.7"]));
    assert_eq!(allowed(&compiler), [false, true]);
    step(&mut compiler, fixture().policy(out()));
    assert_eq!(allowed(&compiler), [false, false]);
    assert!(!compiler.tables().addresses.contains_key(&address("203.0.113.7")));
}

#[test]
fn a_policy_without_ports_needs_no_column() {
    let compiler = compiled(
        fixture().policy(network_policy("db/from-web").ingress(accept().peer(pods(&[("team", "shop")], &[])))),
    );
    assert!(compiler.tables().columns.is_empty());
    let web = entry(&compiler, "10.0.0.0").identity;
    let class = compiler.tables().subjects[&key("db/pg")].ingress_class;
    assert!(matches!(compiler.tables().pairs[&(class, web)], Outcome::Final { verdict: Verdict::Allowed, .. }));
}

#[test]
fn an_attribution_id_means_the_same_everywhere() {
    let decision = Decision {
        verdict: Verdict::Allowed,
        verdict_if_enforced: None,
        reason: Reason::NoPolicy,
        tier: None,
        confidence: Confidence::Exact,
        references: Vec::new(),
    };
    // Records on disk hold these numbers: another form of the bytes would be another format.
    assert_eq!(AttributionId::of(&decision, 0), AttributionId(5_036_333_629_278_751_568));
    assert_ne!(AttributionId::of(&decision, 1), AttributionId::of(&decision, 0));
    let denied = Decision { verdict_if_enforced: Some(Verdict::Denied), ..decision.clone() };
    assert_ne!(AttributionId::of(&denied, 0), AttributionId::of(&decision, 0));
    let ids = |mut compiler: Compiler| {
        let change = compiler.compile(&Arc::new(fixture().snapshot()));
        change.attributions.into_iter().collect::<std::collections::HashMap<_, _>>()
    };
    let (here, there) = (
        ids(Compiler::new(NODE, IdFloor::default())),
        ids(Compiler::new(NODE, IdFloor { column: 77, ..IdFloor::default() })),
    );
    assert_eq!(here, there);
}

#[test]
fn a_decision_outlives_the_policy_that_made_it() {
    let mut compiler = compiled(fixture());
    let (_, id) = compiler
        .lookup(&key("db/pg"), Direction::Ingress, address("10.0.0.1"), Protocol::TCP, Some(5432))
        .expect("known");
    step(&mut compiler, cluster());
    let decision = compiler.decision(id).expect("still known");
    assert_eq!(decision.references[0].policy.name, "from-web");
}

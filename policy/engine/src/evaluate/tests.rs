//! Verdict, attribution and near miss, by the rules of `docs/semantics.md`.

use crate::{
    build::*,
    decision::{Confidence, FailedDimension, Role, Verdict},
    evaluate::{EvaluateError, Evaluation, Family, Flow, Point, PointName, evaluate, usual_family},
    model::{NamespaceScope, Operator, Peer, Phase, PortMatch, Protocol, Requirement, Selector, Snapshot},
};

/// Namespaces x, y, z of pods a, b, c, x on node n1, the others on n2.
fn fixture() -> Cluster {
    let mut cluster = cluster().node("n1", &["10.1.0.1"], &[("zone", "1")]).node("n2", &["10.1.0.2"], &[]);
    for (i, namespace) in ["x", "y", "z"].into_iter().enumerate() {
        cluster = cluster.namespace(namespace, &[("ns", namespace)]);
        for (j, name) in ["a", "b", "c"].into_iter().enumerate() {
            let v4 = format!("10.0.{}.{}", i + 1, j + 1);
            let v6 = format!("fd00::{}:{}", i + 1, j + 1);
            let pod = pod(&format!("{namespace}/{name}"))
                .labels(&[("pod", name)])
                .at(&[&v4, &v6])
                .on(if namespace == "x" { "n1" } else { "n2" })
                .port("serve-80-tcp", Protocol::TCP, 80)
                .port("serve-81-tcp", Protocol::TCP, 81)
                .port("dns", Protocol::UDP, 53);
            cluster = cluster.pod(pod);
        }
    }
    cluster
}

fn judge(snapshot: &Snapshot, text: &str) -> Evaluation {
    evaluate(snapshot, &flow(text)).expect("known ends")
}

fn point(evaluation: &Evaluation, name: PointName) -> &Point {
    evaluation.points.iter().find(|point| point.name == name).expect("point is there")
}

/// `allowed rule_match x/p#0`, `denied isolated_no_match x/a x/b`: verdict, reason, and the deciding policies.
fn told(point: &Point) -> String {
    let mut text = format!("{} {}", point.decision.verdict, point.decision.reason);
    for reference in point.decision.decided_by() {
        let namespace = &reference.policy.namespace;
        let slash = if namespace.is_empty() { "" } else { "/" };
        text += &format!(" {namespace}{slash}{}", reference.policy.name);
        if let Some(index) = reference.rule_index {
            text += &format!("#{index}");
        }
    }
    text
}

fn check_ingress(cluster: Cluster, cases: &[(&str, &str)]) {
    check(cluster, PointName::DestinationIngress, cases);
}

fn check_egress(cluster: Cluster, cases: &[(&str, &str)]) {
    check(cluster, PointName::SourceEgress, cases);
}

fn check(cluster: Cluster, name: PointName, cases: &[(&str, &str)]) {
    let snapshot = cluster.snapshot();
    for (flow, expected) in cases {
        assert_eq!(told(point(&judge(&snapshot, flow), name)), *expected, "{flow}");
    }
}

fn near(cluster: Cluster, flow: &str) -> Vec<(Option<u32>, FailedDimension, String)> {
    let evaluation = judge(&cluster.snapshot(), flow);
    let misses = evaluation.points.into_iter().flat_map(|point| point.near_misses);
    misses.map(|miss| (miss.rule_index, miss.failed, miss.detail)).collect()
}

fn one_near(cluster: Cluster, flow: &str, failed: FailedDimension, detail: &str) {
    assert_eq!(near(cluster, flow), [(Some(0), failed, detail.to_owned())]);
}

fn excludes(key: &str, value: &str) -> Selector {
    Selector { requirements: vec![Requirement { key: key.into(), operator: Operator::NotIn([value.into()].into()) }] }
}

#[test]
fn isolation_without_rules_denies_and_names_every_isolating_policy() {
    let cluster = fixture().policy(network_policy("x/deny-in").isolate_ingress());
    check_ingress(
        cluster.clone(),
        &[
            ("y/a -> x/a:80/tcp", "denied isolated_no_match x/deny-in"),
            ("x/b -> x/a:80/tcp", "denied isolated_no_match x/deny-in"),
            ("x/a -> y/a:80/tcp", "allowed no_policy"),
        ],
    );
    check_ingress(
        cluster.clone().policy(network_policy("x/also").isolate_ingress()),
        &[("y/a -> x/a:80/tcp", "denied isolated_no_match x/also x/deny-in")],
    );
    let expected = (None, FailedDimension::NoRules, "the policy has no ingress rule".to_owned());
    assert_eq!(near(cluster, "y/a -> x/a:80/tcp"), [expected]);
}

#[test]
fn both_ends_are_judged_even_where_the_first_denies() {
    let cluster = fixture()
        .policy(network_policy("x/deny-all").isolate_ingress().isolate_egress())
        .policy(network_policy("y/deny-in").isolate_ingress());
    let evaluation = judge(&cluster.snapshot(), "x/a -> y/a:80/tcp");
    let points: Vec<String> = evaluation.points.iter().map(told).collect();
    assert_eq!(points, ["denied isolated_no_match x/deny-all", "denied isolated_no_match y/deny-in"]);
    assert_eq!(evaluation.verdict, Verdict::Denied);
}

#[test]
fn pod_selector_alone_means_the_policys_own_namespace() {
    let policy = network_policy("x/p").select(&[("pod", "a")]).ingress(accept().peer(pods_in("x", &[("pod", "b")])));
    check_ingress(
        fixture().policy(policy.clone()),
        &[
            ("x/b -> x/a:80/tcp", "allowed rule_match x/p#0"),
            ("x/c -> x/a:80/tcp", "denied isolated_no_match x/p"),
            ("y/b -> x/a:80/tcp", "denied isolated_no_match x/p"),
        ],
    );
    let cluster = fixture().policy(policy);
    one_near(cluster.clone(), "x/c -> x/a:80/tcp", FailedDimension::Peer, "pod label pod=c is not pod=b");
    one_near(cluster, "y/b -> x/a:80/tcp", FailedDimension::Peer, "namespace y is not x");
}

#[test]
fn selectors_never_match_what_is_not_a_pod() {
    let cluster = fixture()
        .policy(network_policy("x/p").ingress(accept().peer(pods(&[], &[]))))
        .pod(pod("y/host").at(&["10.1.0.2"]).on("n2").host_network());
    check_ingress(
        cluster,
        &[
            ("z/c -> x/a:80/tcp", "allowed rule_match x/p#0"),
            ("203.0.113.10 -> x/a:80/tcp", "denied isolated_no_match x/p"),
            ("10.1.0.2 -> x/a:80/tcp", "denied isolated_no_match x/p"),
            ("y/host -> x/a:80/tcp", "denied isolated_no_match x/p"),
        ],
    );
}

#[test]
fn only_matching_rules_are_credited_in_order_of_policy_and_rule() {
    let cluster = fixture()
        .policy(network_policy("x/deny").isolate_ingress())
        .policy(network_policy("x/b").ingress(accept().port(tcp(81))).ingress(accept().peer(pods(&[], &[]))))
        .policy(network_policy("x/a").ingress(accept()));
    check_ingress(cluster, &[("y/a -> x/a:80/tcp", "allowed rule_match x/a#0 x/b#1")]);
}

#[test]
fn ports_are_the_destinations_and_protocols_do_not_mix() {
    let cluster = fixture().policy(
        network_policy("x/p").ingress(accept().peer(pods(&[("ns", "y")], &[])).port(range(Protocol::TCP, 80, 90))),
    );
    check_ingress(
        cluster.clone(),
        &[
            ("y/a -> x/a:79/tcp", "denied isolated_no_match x/p"),
            ("y/a -> x/a:80/tcp", "allowed rule_match x/p#0"),
            ("y/a -> x/a:90/tcp", "allowed rule_match x/p#0"),
            ("y/a -> x/a:91/tcp", "denied isolated_no_match x/p"),
            ("y/a -> x/a:80/sctp", "denied isolated_no_match x/p"),
            ("y/a -> x/a/icmp", "denied isolated_no_match x/p"),
            ("y/a -> x/a/tcp", "denied isolated_no_match x/p"),
        ],
    );
    one_near(cluster.clone(), "y/a -> x/a:79/tcp", FailedDimension::Port, "port 79 is not in 80-90");
    let all = "all ports are asked for at once, the rule names 80-90";
    one_near(cluster.clone(), "y/a -> x/a/tcp", FailedDimension::Port, all);
    one_near(cluster.clone(), "y/a -> x/a:80/udp", FailedDimension::Protocol, "protocol UDP is not TCP");
    one_near(
        cluster.clone(),
        "z/a -> x/a:80/tcp",
        FailedDimension::Peer,
        "namespace z: namespace label ns=z is not ns=y",
    );
    one_near(cluster, "y/a -> x/a/icmp", FailedDimension::Protocol, "ICMP has no ports, the rule names TCP ports");
}

#[test]
fn a_fragment_passes_only_where_every_port_does() {
    let all = |policy: &str, last| network_policy(policy).ingress(accept().port(range(Protocol::TCP, 1, last)));
    check_ingress(
        fixture().policy(all("x/p", 65535)),
        &[("y/a -> x/a/tcp", "allowed rule_match x/p#0"), ("y/a -> x/a/udp", "denied isolated_no_match x/p")],
    );
    let halves = all("x/p", 65000).ingress(accept().port(range(Protocol::TCP, 65001, 65535)));
    let evaluation = judge(&fixture().policy(halves).snapshot(), "y/a -> x/a/tcp");
    let ingress = point(&evaluation, PointName::DestinationIngress);
    assert_eq!(told(ingress), "allowed rule_match x/p#0");
    assert_eq!(ingress.decision.confidence, Confidence::Partial, "another rule allows the other ports");
}

#[test]
fn named_ports_resolve_on_the_destination_pod() {
    let rule = || accept().port(port_named(Protocol::TCP, "serve-81-tcp"));
    let moved = || pod("x/b").at(&["10.0.1.2"]).on("n1").port("serve-81-tcp", Protocol::TCP, 8181);
    check_ingress(
        fixture().pod(moved()).policy(network_policy("x/p").ingress(rule())),
        &[
            ("y/a -> x/a:81/tcp", "allowed rule_match x/p#0"),
            ("y/a -> x/a:80/tcp", "denied isolated_no_match x/p"),
            ("y/a -> x/a:81/udp", "denied isolated_no_match x/p"),
            ("y/a -> x/b:8181/tcp", "allowed rule_match x/p#0"),
            ("y/a -> x/b:81/tcp", "denied isolated_no_match x/p"),
        ],
    );
    let egress = fixture().pod(moved()).policy(network_policy("y/p").egress(rule()));
    check_egress(
        egress.clone(),
        &[
            ("y/a -> x/b:8181/tcp", "allowed rule_match y/p#0"),
            ("y/a -> x/a:81/tcp", "allowed rule_match y/p#0"),
            ("y/a -> x/b:81/tcp", "denied isolated_no_match y/p"),
            ("y/a -> 203.0.113.10:81/tcp", "denied isolated_no_match y/p"),
        ],
    );
    one_near(
        egress,
        "y/a -> 203.0.113.10:81/tcp",
        FailedDimension::NamedPortUnresolved,
        "named port serve-81-tcp is not defined on address 203.0.113.10, which is not a pod",
    );
    let dns = fixture().policy(network_policy("x/p").ingress(accept().port(port_named(Protocol::TCP, "dns"))));
    one_near(
        dns,
        "y/a -> x/a:53/tcp",
        FailedDimension::NamedPortUnresolved,
        "named port dns is not defined on x/a for TCP, only for UDP",
    );
}

#[test]
fn blocks_match_pod_addresses_and_except_subtracts_only_inside_its_own() {
    let wide = network_policy("x/p").egress(accept().peer(net("10.0.0.0/16", &["10.0.1.2/32"])));
    check_egress(
        fixture().policy(wide.clone()),
        &[
            ("x/a -> x/b:80/tcp", "denied isolated_no_match x/p"),
            ("x/a -> x/c:80/tcp", "allowed rule_match x/p#0"),
            ("x/a -> x/c/icmp", "allowed rule_match x/p#0"),
        ],
    );
    one_near(
        fixture().policy(wide.clone()),
        "x/a -> x/b:80/tcp",
        FailedDimension::IpBlockExcept,
        "address 10.0.1.2 is in except 10.0.1.2/32",
    );
    check_egress(
        fixture().policy(wide).policy(network_policy("x/q").egress(accept().peer(net("10.0.1.2/32", &[])))),
        &[("x/a -> x/b:80/tcp", "allowed rule_match x/q#0")],
    );
    check_egress(
        fixture().policy(network_policy("x/p").egress(accept().peer(net("10.0.2.9/24", &[])))),
        &[("x/a -> y/c:80/tcp", "allowed rule_match x/p#0")],
    );
}

#[test]
fn a_verdict_is_per_address_family() {
    let cluster = fixture().policy(network_policy("x/p").ingress(accept().peer(net("0.0.0.0/0", &[]))));
    check_ingress(
        cluster.clone(),
        &[
            ("y/a -> x/a:80/tcp", "allowed rule_match x/p#0"),
            ("fd00::2:1 -> [fd00::1:1]:80/tcp", "denied isolated_no_match x/p"),
            ("::ffff:10.0.2.1 -> x/a:80/tcp", "allowed rule_match x/p#0"),
        ],
    );
    one_near(
        cluster.clone(),
        "fd00::2:1 -> [fd00::1:1]:80/tcp",
        FailedDimension::IpFamily,
        "address is IPv6, block 0.0.0.0/0 is IPv4",
    );
    let mut by_name = flow("y/a -> x/a:80/tcp");
    by_name.family = Family::V6;
    assert_eq!(evaluate(&cluster.snapshot(), &by_name).unwrap().verdict, Verdict::Denied);
}

#[test]
fn the_own_node_is_exempt_from_network_policies_in_both_directions() {
    let cluster = fixture()
        .policy(network_policy("x/deny").isolate_ingress().isolate_egress())
        .pod(pod("y/host").at(&["10.1.0.1"]).on("n1").host_network());
    check_ingress(
        cluster.clone(),
        &[
            ("10.1.0.1 -> x/a:80/tcp", "allowed node_local_exempt"),
            ("y/host -> x/a:80/tcp", "allowed node_local_exempt"),
            ("10.1.0.2 -> x/a:80/tcp", "denied isolated_no_match x/deny"),
        ],
    );
    check_egress(
        cluster.clone(),
        &[
            ("x/a -> 10.1.0.1:80/tcp", "allowed node_local_exempt"),
            ("x/a -> 10.1.0.2:80/tcp", "denied isolated_no_match x/deny"),
        ],
    );
    check_egress(
        cluster.policy(admin("no-nodes", 1).egress(deny().peer(nodes(&[("zone", "1")])))),
        &[("x/a -> 10.1.0.1:80/tcp", "denied explicit_deny no-nodes#0")],
    );
}

#[test]
fn host_network_and_finished_pods_are_no_subjects() {
    let cluster = fixture()
        .policy(network_policy("x/deny").isolate_ingress().isolate_egress())
        .pod(pod("x/host").at(&["10.1.0.1"]).on("n1").host_network())
        .pod(pod("x/done").at(&["10.0.1.9"]).on("n1").phase(Phase::Succeeded))
        .pod(pod("x/leaving").at(&["10.0.1.8"]).on("n1").terminating())
        .snapshot();
    let evaluation = judge(&cluster, "x/host -> 203.0.113.10:80/tcp");
    assert_eq!((evaluation.verdict, evaluation.points.len()), (Verdict::Allowed, 0));
    assert_eq!(judge(&cluster, "203.0.113.10 -> x/done:80/tcp").points.len(), 0);
    assert_eq!(judge(&cluster, "203.0.113.10 -> x/leaving:80/tcp").verdict, Verdict::Denied);
}

#[test]
fn a_finished_pod_gives_its_address_up() {
    let rule = || accept().peer(pods_in("x", &[("pod", "old")]));
    let cluster = fixture()
        .policy(network_policy("x/p").select(&[("pod", "a")]).ingress(rule()))
        .pod(pod("x/old").labels(&[("pod", "old")]).at(&["10.0.3.1"]).phase(Phase::Succeeded));
    check_ingress(
        cluster,
        &[
            ("z/a -> x/a:80/tcp", "denied isolated_no_match x/p"),
            ("10.0.3.1 -> x/a:80/tcp", "denied isolated_no_match x/p"),
            ("x/old -> x/a:80/tcp", "denied isolated_no_match x/p"),
        ],
    );
}

#[test]
fn a_pod_may_always_talk_to_itself() {
    let cluster = fixture()
        .policy(network_policy("x/deny").isolate_ingress().isolate_egress())
        .policy(admin("deny", 1).ingress(deny()).egress(deny()));
    check_egress(cluster.clone(), &[("x/a -> x/a:80/tcp", "allowed self"), ("x/a -> 10.0.1.1:80/tcp", "allowed self")]);
    check_ingress(cluster, &[("x/a -> x/a:80/tcp", "allowed self")]);
}

#[test]
fn a_services_address_is_not_judged_at_the_source() {
    let cluster = fixture()
        .service("x/s", &["10.96.1.1"])
        .policy(network_policy("x/deny").isolate_egress())
        .policy(network_policy("y/deny").isolate_ingress());
    check_egress(cluster.clone(), &[("x/a -> 10.96.1.1:80/tcp", "unknown service_not_resolved")]);
    assert_eq!(judge(&cluster.clone().snapshot(), "x/a -> 10.96.1.1:80/tcp").verdict, Verdict::Unknown);
    let from_outside = judge(&cluster.snapshot(), "203.0.113.7 -> 10.96.1.1:80/tcp");
    assert_eq!((from_outside.verdict, from_outside.points.len()), (Verdict::Unknown, 0));
}

#[test]
fn missing_label_satisfies_negative_requirements_only() {
    let peer = Peer::Pods { namespaces: NamespaceScope::Named("x".into()), pods: excludes("pod", "b") };
    check_ingress(
        fixture()
            .pod(pod("x/bare").at(&["10.0.1.7"]))
            .policy(network_policy("x/p").select(&[("pod", "a")]).ingress(accept().peer(peer))),
        &[("x/bare -> x/a:80/tcp", "allowed rule_match x/p#0"), ("x/b -> x/a:80/tcp", "denied isolated_no_match x/p")],
    );
    let wants =
        network_policy("x/p").select(&[("pod", "a")]).ingress(accept().peer(pods(&[("ns", "x")], &[("app", "api")])));
    one_near(
        fixture().policy(wants),
        "x/b -> x/a:80/tcp",
        FailedDimension::Peer,
        "namespace x matches; pod has no label app (wanted app=api)",
    );
}

#[test]
fn every_namespace_has_its_name_as_a_label() {
    let rule = accept().peer(pods(&[("kubernetes.io/metadata.name", "w")], &[]));
    check_ingress(
        fixture().pod(pod("w/a").at(&["10.0.4.1"])).policy(network_policy("x/p").ingress(rule)),
        &[("w/a -> x/a:80/tcp", "allowed rule_match x/p#0"), ("y/a -> x/a:80/tcp", "denied isolated_no_match x/p")],
    );
}

#[test]
fn unreadable_rules_fail_closed() {
    let broken = |rule: RuleBuilder| rule.fault("unknown field form").peer(pods(&[], &[]));
    check_ingress(
        fixture().policy(network_policy("x/p").ingress(broken(accept()))),
        &[("y/a -> x/a:80/tcp", "denied isolated_no_match x/p")],
    );
    one_near(
        fixture().policy(network_policy("x/p").ingress(broken(accept()))),
        "y/a -> x/a:80/tcp",
        FailedDimension::Fault,
        "unknown field form",
    );
    for (rule, expected) in [
        (broken(accept()), "allowed no_policy"),
        (broken(deny()), "denied fail_closed p#0"),
        (broken(pass()), "denied fail_closed p#0"),
    ] {
        check_ingress(fixture().policy(admin("p", 5).ingress(rule)), &[("203.0.113.10 -> x/a:80/tcp", expected)]);
    }
}

mod tiers {
    use super::*;

    fn from_y() -> Peer {
        pods(&[("ns", "y")], &[])
    }

    #[test]
    fn admin_goes_before_network_policy_before_baseline() {
        let np = network_policy("x/np").ingress(accept().peer(from_y()));
        let base = baseline("base", 1).ingress(deny().named("all"));
        let with =
            |rule: RuleBuilder| fixture().policy(admin("top", 10).ingress(rule.peer(from_y()))).policy(base.clone());
        check_ingress(with(deny()).policy(np.clone()), &[("y/a -> x/a:80/tcp", "denied explicit_deny top#0")]);
        check_ingress(with(pass()).policy(np), &[("y/a -> x/a:80/tcp", "allowed rule_match x/np#0")]);
        check_ingress(with(pass()), &[("y/a -> x/a:80/tcp", "denied baseline_deny base#0")]);
        check_ingress(with(accept()), &[("y/a -> x/a:80/tcp", "allowed explicit_accept top#0")]);
        let passed = judge(&with(pass()).snapshot(), "y/a -> x/a:80/tcp");
        let decision = &point(&passed, PointName::DestinationIngress).decision;
        assert_eq!(decision.passed().map(|r| r.policy.name.as_str()).collect::<Vec<_>>(), ["top"]);
        assert_eq!(decision.references[0].role, Role::Passed);
    }

    #[test]
    fn baseline_is_reached_per_direction() {
        check_ingress(
            fixture().policy(network_policy("x/np").isolate_egress()).policy(baseline("base", 1).ingress(deny())),
            &[("y/a -> x/a:80/tcp", "denied baseline_deny base#0")],
        );
    }

    #[test]
    fn the_first_matching_rule_by_priority_and_position_decides() {
        let cluster = |first, second| {
            fixture()
                .policy(admin("a", second).ingress(deny()))
                .policy(admin("b", first).ingress(pass()))
                .policy(baseline("base", 0).ingress(accept()).ingress(deny()))
        };
        check_ingress(cluster(60, 50), &[("y/a -> x/a:80/tcp", "denied explicit_deny a#0")]);
        check_ingress(cluster(40, 50), &[("y/a -> x/a:80/tcp", "allowed baseline_accept base#0")]);
        check_ingress(
            fixture()
                .policy(admin("a", 1).ingress(accept().port(tcp(80)).peer(from_y())).ingress(deny().peer(from_y()))),
            &[
                ("y/a -> x/a:80/tcp", "allowed explicit_accept a#0"),
                ("y/a -> x/a:81/tcp", "denied explicit_deny a#1"),
                ("y/a -> x/a/icmp", "denied explicit_deny a#1"),
                ("z/a -> x/a:80/tcp", "allowed no_policy"),
            ],
        );
    }

    #[test]
    fn disagreement_at_one_priority_is_ambiguous_and_names_all() {
        let cluster =
            fixture().policy(admin("b", 7).ingress(deny())).policy(admin("a", 7).ingress(accept())).snapshot();
        let evaluation = judge(&cluster, "y/a -> x/a:80/tcp");
        let ingress = point(&evaluation, PointName::DestinationIngress);
        assert_eq!(told(ingress), "allowed explicit_accept a#0 b#0");
        assert_eq!(ingress.decision.confidence, Confidence::Ambiguous);
        let passed = fixture().policy(admin("b", 7).ingress(deny())).policy(admin("a", 7).ingress(pass())).snapshot();
        let evaluation = judge(&passed, "y/a -> x/a:80/tcp");
        let ingress = point(&evaluation, PointName::DestinationIngress);
        assert_eq!(told(ingress), "allowed no_policy", "whoever would have denied has not allowed");
        assert_eq!(ingress.decision.confidence, Confidence::Ambiguous);
        assert_eq!(ingress.decision.passed().map(|by| by.policy.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let agreed = fixture().policy(admin("b", 7).ingress(deny())).policy(admin("a", 7).ingress(deny()));
        check_ingress(agreed, &[("y/a -> x/a:80/tcp", "denied explicit_deny a#0")]);
    }

    #[test]
    fn names_match_the_addresses_that_they_are_known_to_have() {
        let cluster = fixture()
            .name("www.kubernetes.io", &["203.0.113.7"])
            .name("kubernetes.io", &["203.0.113.8"])
            .policy(admin("dns", 1).egress(accept().peer(domain("*.kubernetes.io")).port(tcp(443))).egress(deny()));
        check_egress(
            cluster,
            &[
                ("x/a -> 203.0.113.7:443/tcp", "allowed explicit_accept dns#0"),
                ("x/a -> 203.0.113.8:443/tcp", "denied explicit_deny dns#1"),
                ("x/a -> 203.0.113.9:443/tcp", "denied explicit_deny dns#1"),
            ],
        );
    }

    #[test]
    fn a_named_port_without_protocol_is_whichever_the_name_has() {
        let any = PortMatch::Named { protocol: None, name: "dns".into() };
        check_ingress(
            fixture().policy(admin("p", 1).ingress(deny().port(any))),
            &[("y/a -> x/a:53/udp", "denied explicit_deny p#0"), ("y/a -> x/a:53/tcp", "allowed no_policy")],
        );
    }
}

mod audit {
    use super::*;

    fn staged(cluster: Cluster) -> (Verdict, Option<Verdict>, Vec<String>) {
        let evaluation = judge(&cluster.snapshot(), "y/a -> x/a:80/tcp");
        let decision = &point(&evaluation, PointName::DestinationIngress).decision;
        let staged = decision.staged().map(|reference| reference.policy.name.clone()).collect();
        (decision.verdict, decision.verdict_if_enforced, staged)
    }

    #[test]
    fn an_audited_policy_decides_nothing_and_says_what_it_would() {
        let deny = network_policy("x/deny").isolate_ingress();
        let expected = (Verdict::Allowed, Some(Verdict::Denied), vec!["deny".to_owned()]);
        assert_eq!(staged(fixture().policy(deny.clone().audit())), expected);
        assert_eq!(staged(fixture().audited_namespace("x", &[]).policy(deny.clone())), expected);
        assert_eq!(staged(fixture().audit_all().policy(deny.clone())), expected);
        assert_eq!(staged(fixture().audited_namespace("y", &[]).policy(deny)), (Verdict::Denied, None, vec![]));
    }

    #[test]
    fn audited_and_enforced_policies_mix_on_one_pod() {
        let cluster = fixture()
            .policy(network_policy("x/deny").isolate_ingress())
            .policy(network_policy("x/open").ingress(accept()).audit());
        assert_eq!(staged(cluster), (Verdict::Denied, Some(Verdict::Allowed), vec!["open".to_owned()]));
    }

    #[test]
    fn an_audited_policy_that_does_not_select_the_pod_takes_no_part() {
        let other = network_policy("x/p").select(&[("pod", "b")]).isolate_ingress().audit();
        assert_eq!(staged(fixture().policy(other)), (Verdict::Allowed, None, vec![]));
    }

    #[test]
    fn near_misses_are_told_of_the_staged_denial_too() {
        let cluster = fixture().policy(network_policy("x/p").ingress(accept().port(tcp(81))).audit());
        one_near(cluster, "y/a -> x/a:80/tcp", FailedDimension::Port, "port 80 is not 81");
    }
}

mod doubt {
    use super::*;

    fn ingress(cluster: Cluster, text: &str) -> (String, Confidence) {
        let evaluation = judge(&cluster.snapshot(), text);
        let ingress = point(&evaluation, PointName::DestinationIngress);
        (told(ingress), ingress.decision.confidence)
    }

    #[test]
    fn an_unknown_pod_may_be_denied_by_selector_but_never_allowed_or_passed() {
        let selector = || pods(&[("ns", "y")], &[]);
        let fixture = || fixture().pod_range("10.0.0.0/16");
        let stranger = "10.0.9.9 -> x/a:80/tcp";
        let denied = fixture().policy(admin("p", 1).ingress(deny().peer(selector())));
        assert_eq!(ingress(denied, stranger), ("denied unknown_pod p#0".into(), Confidence::Partial));
        let allowed = fixture().policy(network_policy("x/p").ingress(accept().peer(selector())));
        assert_eq!(ingress(allowed, stranger), ("denied isolated_no_match x/p".into(), Confidence::Partial));
        let passed = fixture().policy(admin("p", 1).ingress(pass().peer(selector())).ingress(deny()));
        assert_eq!(ingress(passed, stranger), ("denied explicit_deny p#1".into(), Confidence::Partial));
        let block = fixture().policy(network_policy("x/p").ingress(accept().peer(net("10.0.9.0/24", &[]))));
        assert_eq!(ingress(block, stranger), ("allowed rule_match x/p#0".into(), Confidence::Exact));
    }

    #[test]
    fn an_address_that_two_pods_claim_is_judged_as_the_more_restricted() {
        let fixture = || fixture().pod(pod("z/twin").at(&["10.0.2.1"]));
        let from = |namespace| accept().peer(pods(&[("ns", namespace)], &[]));
        let shared = "10.0.2.1 -> x/a:80/tcp";
        let one = fixture().policy(network_policy("x/p").ingress(from("y"))).snapshot();
        let judged = evaluate(&one, &flow(shared));
        assert!(matches!(judged, Err(EvaluateError::ContestedAddress { pods, .. }) if pods.len() == 2));
        let point = |cluster: Cluster| {
            let (key, peer) = (key("x/a"), end("10.0.2.1"));
            let direction = PointName::DestinationIngress.direction();
            crate::evaluate_point(
                &cluster.snapshot(),
                &key,
                direction,
                &peer,
                None,
                Family::V4,
                Protocol::TCP,
                Some(80),
            )
            .map(|decision| (decision.verdict, decision.confidence))
        };
        let one = fixture().policy(network_policy("x/p").ingress(from("y")));
        assert_eq!(point(one), Some((Verdict::Denied, Confidence::Partial)));
        let both = fixture().policy(network_policy("x/p").ingress(from("y").peer(pods(&[("ns", "z")], &[]))));
        assert_eq!(point(both), Some((Verdict::Allowed, Confidence::Exact)));
    }

    #[test]
    fn a_pod_that_is_not_in_the_snapshot_is_an_error() {
        let judged = evaluate(&fixture().snapshot(), &flow("x/nobody -> x/a:80/tcp"));
        assert_eq!(judged, Err(EvaluateError::UnknownPod(key("x/nobody"))));
    }

    #[test]
    fn ends_of_two_families_are_an_error() {
        let judged = evaluate(&fixture().snapshot(), &flow("10.0.1.1 -> [fd00::2:1]:80/tcp"));
        assert!(matches!(judged, Err(EvaluateError::FamilyMismatch { .. })));
    }
}

#[test]
fn a_missing_address_is_told_where_a_verdict_hangs_on_it() {
    let v4_only = || fixture().pod(pod("x/four").labels(&[("pod", "four")]).at(&["10.0.1.9"]).on("n1"));
    let policy = |rule: RuleBuilder| v4_only().policy(admin("p", 1).ingress(rule)).snapshot();
    let by_v6 =
        |snapshot: &Snapshot| evaluate(snapshot, &Flow { family: Family::V6, ..flow("x/four -> y/a:80/tcp") }).unwrap();
    let v6 = |snapshot: &Snapshot| {
        let evaluation = by_v6(snapshot);
        let missing: Vec<_> = evaluation.missing.iter().map(|missing| missing.pod.to_string()).collect();
        (told(point(&evaluation, PointName::DestinationIngress)), missing)
    };
    let unknown = ("unknown unknown_endpoint".to_owned(), vec!["x/four".to_owned()]);
    let known = |told: &str| (told.to_owned(), Vec::<String>::new());
    assert_eq!(v6(&v4_only().snapshot()), known("allowed no_policy"));
    assert_eq!(v6(&policy(deny().peer(net("2001:db8::/32", &[])))), unknown);
    assert_eq!(v6(&policy(deny().peer(domain("example.com")))), unknown);
    assert_eq!(v6(&policy(deny().port(tcp(81)).peer(net("::/0", &[])))), known("allowed no_policy"));
    assert_eq!(v6(&policy(deny())), known("denied explicit_deny p#0"));
    let selected = deny().peer(pods_in("x", &[("pod", "four")])).peer(net("::/0", &[]));
    assert_eq!(v6(&policy(selected)), known("denied explicit_deny p#0"));
    // Whether it is passed on or accepted makes no difference.
    let alike = || accept().peer(net("::/0", &[]));
    assert_eq!(v6(&policy(alike())), known("allowed no_policy"));
    let isolated = network_policy("y/p").isolate_ingress().ingress(alike());
    assert_eq!(v6(&v4_only().policy(isolated).snapshot()), unknown);
    // A block that can never hold its address does not matter.
    for block in ["fe80::/10", "10.0.0.0/8", "ff00::/8"] {
        assert_eq!(v6(&policy(deny().peer(net(block, &[])))), known("allowed no_policy"), "{block}");
    }
    let ranged = |range| v4_only().pod_range(range).policy(admin("p", 1).ingress(deny().peer(net("fd00::/16", &[]))));
    assert_eq!(v6(&ranged("fd00:1::/64").snapshot()), unknown);
    assert_eq!(v6(&ranged("fd01::/64").snapshot()), known("allowed no_policy"));
    assert_eq!(v6(&ranged("10.0.0.0/8").snapshot()), unknown);
    // Any address that a new pod gets is in the block of all addresses.
    let new = |block| {
        let isolated = network_policy("y/p").isolate_ingress().ingress(accept().peer(net(block, &[])));
        let snapshot = fixture().pod(pod("x/new").on("n1")).policy(isolated).snapshot();
        told(point(&judge(&snapshot, "x/new -> y/a:80/tcp"), PointName::DestinationIngress))
    };
    assert_eq!(new("0.0.0.0/0"), "allowed rule_match y/p#0");
    assert_eq!(new("::/0"), "denied isolated_no_match y/p");
    assert_eq!(new("0.0.0.0/1"), "unknown unknown_endpoint");
    // The address that it has is read.
    let evaluation = judge(&policy(deny().peer(net("10.0.1.0/24", &[]))), "x/four -> y/a:80/tcp");
    assert_eq!((evaluation.verdict, evaluation.missing), (Verdict::Denied, vec![]));
    // Another point that denies has the last word.
    let egress = v4_only()
        .policy(admin("p", 1).ingress(deny().peer(net("::/0", &[]))))
        .policy(network_policy("x/closed").isolate_egress());
    assert_eq!(by_v6(&egress.snapshot()).verdict, Verdict::Denied);
}

#[test]
fn the_usual_family_is_one_that_the_ends_have() {
    let snapshot = fixture().pod(pod("x/six").at(&["fd00::9"])).pod(pod("x/none")).snapshot();
    for (source, destination, expected) in [
        ("x/a", "x/b", Family::V4),
        ("x/six", "x/a", Family::V6),
        ("x/a", "x/six", Family::V6),
        ("x/none", "x/a", Family::V4),
        ("x/a", "2001:db8::1", Family::V6),
        ("x/ghost", "x/a", Family::V4),
    ] {
        assert_eq!(usual_family(&snapshot, [&end(source), &end(destination)]), expected, "{source} {destination}");
    }
}

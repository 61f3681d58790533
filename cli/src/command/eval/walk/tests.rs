//! What a person reads.

use netverdict_policy::{
    build::{accept, admin, baseline, cluster, deny, flow, net, network_policy, pass, pod, pods, pods_in, tcp},
    evaluate,
    model::Phase,
};

use super::*;

fn check(snapshot: &Snapshot, text: &str, expected: &str) {
    let flow = flow(text);
    let evaluation = evaluate(snapshot, &flow).unwrap();
    assert_eq!(explain(snapshot, &flow, &evaluation, Paint::default()), expected);
}

fn shop() -> netverdict_policy::build::Cluster {
    cluster()
        .namespace("shop", &[])
        .namespace("db", &[])
        .pod(pod("shop/web").labels(&[("app", "web")]).at(&["10.0.1.2"]))
        .pod(pod("db/pg").labels(&[("app", "pg")]).at(&["10.0.2.2"]))
}

#[test]
fn nothing_applies() {
    check(
        &shop().snapshot(),
        "shop/web -> db/pg:5432/tcp",
        "\
allowed: shop/web to db/pg port 5432/TCP; no policy takes part

source egress of shop/web: allowed
  admin           no rule matches
  network policy  none isolates shop/web for egress
  baseline        no rule matches
  default         allowed

destination ingress of db/pg: allowed
  admin           no rule matches
  network policy  none isolates db/pg for ingress
  baseline        no rule matches
  default         allowed
",
    );
}

#[test]
fn a_denial_names_the_nearest_rule() {
    let snapshot = shop()
        .policy(network_policy("db/default-deny").isolate_ingress())
        .policy(
            network_policy("db/allow-api")
                .isolate_ingress()
                .ingress(accept().peer(pods_in("shop", &[("app", "api")])).port(tcp(5432))),
        )
        .snapshot();
    check(
        &snapshot,
        "shop/web -> db/pg:5432/tcp",
        "\
denied at destination ingress by db/allow-api, db/default-deny: shop/web to db/pg port 5432/TCP; isolated, and no rule matches; nearest: db/allow-api rule 0 — pod label app=web is not app=api

source egress of shop/web: allowed
  admin           no rule matches
  network policy  none isolates shop/web for egress
  baseline        no rule matches
  default         allowed

destination ingress of db/pg: denied
  admin           no rule matches
  network policy  NetworkPolicy db/allow-api isolates it; nearest rule 0: pod label app=web is not app=api
  network policy  NetworkPolicy db/default-deny isolates it; the policy has no ingress rule
",
    );
}

#[test]
fn passes_and_staged_policies_are_told() {
    let everyone = || pods(&[], &[]);
    let snapshot = shop()
        .policy(admin("tenants", 10).ingress(pass().peer(everyone()).named("leave-it-to-tenants")))
        .policy(network_policy("db/trial").isolate_ingress().audit())
        .policy(baseline("default", 0).ingress(accept().peer(everyone())))
        .snapshot();
    check(
        &snapshot,
        "203.0.113.10 -> db/pg:5432/tcp",
        "\
allowed: 203.0.113.10 to db/pg port 5432/TCP; no policy takes part; with all that is audited enforced: denied at destination ingress by db/trial

destination ingress of db/pg: allowed
  admin           no rule matches
  network policy  none isolates db/pg for ingress
  baseline        no rule matches
  default         allowed
  if enforced     denied, by NetworkPolicy db/trial
",
    );
    let text = {
        let flow = flow("shop/web -> db/pg:5432/tcp");
        explain(&snapshot, &flow, &evaluate(&snapshot, &flow).unwrap(), Paint::default())
    };
    let steps = "\
  admin           passed on by ClusterNetworkPolicy tenants rule 0 \"leave-it-to-tenants\"
  network policy  none isolates db/pg for ingress
  baseline        ClusterNetworkPolicy default rule 0 accepts it
  if enforced     denied, by NetworkPolicy db/trial
";
    assert!(text.ends_with(steps), "{text}");
}

#[test]
fn an_end_that_is_not_judged_says_why() {
    let snapshot = shop()
        .pod(pod("shop/agent").at(&["10.1.0.1"]).on("n1").host_network())
        .pod(pod("shop/job").at(&["10.0.1.9"]).phase(Phase::Succeeded))
        .snapshot();
    check(
        &snapshot,
        "shop/job -> shop/agent:80/tcp",
        "\
allowed: shop/job to shop/agent port 80/TCP; no policy takes part

source egress of shop/job: not judged
  no tier         the pod has finished: no policy applies to it, and its address may be another's by now

destination ingress of shop/agent: not judged
  no tier         the pod is on its host's network: no policy applies to it, and its traffic is the node's
",
    );
}

#[test]
fn a_missing_address_is_told() {
    let snapshot = shop()
        .pod(pod("shop/new").labels(&[("app", "new")]))
        .policy(admin("servers", 1).egress(deny().peer(net("198.51.100.0/24", &[]))))
        .snapshot();
    check(
        &snapshot,
        "shop/web -> shop/new:80/tcp",
        "\
unknown at source egress: shop/web to shop/new port 80/TCP; policies ask for the IPv4 address of shop/new, which has none in its status.podIPs

source egress of shop/web: unknown
  no tier         an end is not known

destination ingress of shop/new: allowed
  admin           no rule matches
  network policy  none isolates shop/new for ingress
  baseline        no rule matches
  default         allowed
",
    );
}

fn first_line(snapshot: &Snapshot, text: &str) -> String {
    let flow = flow(text);
    let explained = explain(snapshot, &flow, &evaluate(snapshot, &flow).unwrap(), Paint::default());
    explained.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn the_nearest_rule_is_that_of_the_policy_that_came_furthest_and_denies() {
    let everyone = || pods(&[], &[]);
    let snapshot = shop()
        .policy(network_policy("db/a").isolate_ingress().ingress(accept().peer(pods_in("shop", &[("app", "api")]))))
        .policy(network_policy("db/b").isolate_ingress().ingress(accept().peer(everyone()).port(tcp(80))))
        .policy(network_policy("db/trial").isolate_ingress().ingress(accept().peer(everyone()).port(tcp(81))).audit())
        .snapshot();
    let sentence = first_line(&snapshot, "shop/web -> db/pg:5432/tcp");
    assert!(sentence.contains("; nearest: db/b rule 0 — "), "{sentence}");
}

#[test]
fn rules_of_equal_priority_that_disagree_are_told_as_such() {
    let snapshot = shop()
        .policy(admin("a", 5).ingress(accept().peer(pods(&[], &[]))))
        .policy(admin("b", 5).ingress(deny().peer(pods(&[], &[]))))
        .snapshot();
    check(
        &snapshot,
        "shop/web -> db/pg:5432/tcp",
        "\
allowed: shop/web to db/pg port 5432/TCP, by a rule 0; but b rule 0 has the same priority and denies it

source egress of shop/web: allowed
  admin           no rule matches
  network policy  none isolates shop/web for egress
  baseline        no rule matches
  default         allowed

destination ingress of db/pg: allowed
  admin           ClusterNetworkPolicy a rule 0 accepts it
  admin           ClusterNetworkPolicy b rule 0 denies it: of the same priority, and Kubernetes leaves their order open
",
    );
}

#[test]
fn an_allow_without_deciders_says_why() {
    let snapshot = shop()
        .node("n1", &["10.1.0.1"], &[])
        .pod(pod("db/here").at(&["10.0.2.3"]).on("n1"))
        .policy(network_policy("db/deny").isolate_ingress())
        .policy(admin("open", 1).egress(pass().peer(pods(&[], &[]))))
        .snapshot();
    for (flow, expected) in [
        ("10.1.0.1 -> db/here:80/tcp", "; traffic of the pod's own node is exempt"),
        ("db/pg -> db/pg:80/tcp", "; a pod may always reach itself"),
        ("db/pg -> shop/web:80/tcp", "; passed on, and no policy decides it"),
        ("203.0.113.10 -> shop/web:80/tcp", "; no policy takes part"),
    ] {
        let sentence = first_line(&snapshot, flow);
        assert!(sentence.starts_with("allowed: ") && sentence.ends_with(expected), "{sentence}");
    }
}

#[test]
fn what_is_audited_is_told_where_it_would_change_the_verdict() {
    let snapshot = shop()
        .policy(network_policy("db/deny").isolate_ingress())
        .policy(network_policy("db/open").isolate_ingress().ingress(accept().port(tcp(80))).audit())
        .snapshot();
    let sentence = first_line(&snapshot, "shop/web -> db/pg:80/tcp");
    assert!(sentence.starts_with("denied") && sentence.ends_with("enforced: allowed by db/open rule 0"), "{sentence}");
    let sentence = first_line(&snapshot, "shop/web -> db/pg:81/tcp");
    assert!(sentence.starts_with("denied") && !sentence.contains("audited"), "{sentence}");
}

#[test]
fn a_services_address_says_what_to_ask_instead() {
    let snapshot = shop().service("db/pg", &["10.96.0.7"]).snapshot();
    for source in ["shop/web", "203.0.113.10"] {
        let sentence = first_line(&snapshot, &format!("{source} -> 10.96.0.7:80/tcp"));
        assert!(sentence.starts_with("unknown"), "{sentence}");
        assert!(sentence.ends_with("; name a pod behind it, with that pod's own port"), "{sentence}");
    }
}

use crate::{Finding, code, lint, read, snapshot};

/// Namespaces `x` and `dns` with two pods each, one of `x` on the host's network.
const CLUSTER: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {team: a}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: dns}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {zone: z}}, spec: {podCIDR: 10.0.1.0/24}, status: {addresses: [{type: InternalIP, address: 10.1.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x, labels: {pod: a}}, spec: {containers: [{ports: [{name: web, containerPort: 80}, {name: names, containerPort: 53, protocol: UDP}]}]}, status: {podIP: 10.0.1.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: h, namespace: x, labels: {pod: h}}, spec: {hostNetwork: true}, status: {podIP: 10.1.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: s, namespace: dns, labels: {k8s-app: kube-dns}}, spec: {containers: [{ports: [{name: dns, containerPort: 53, protocol: UDP}, {name: dns-tcp, containerPort: 53}]}]}, status: {podIP: 10.0.1.3}}
---
";

fn findings(policies: &str) -> Vec<Finding> {
    let (objects, findings) = read(&format!("{CLUSTER}{policies}"), "f");
    assert_eq!(findings, []);
    let reading = snapshot(&objects);
    let found = lint(&reading);
    for finding in &found {
        assert!(code::ALL.iter().any(|(code, _)| *code == finding.code), "{finding}");
    }
    found
}

fn network_policy(spec: &str) -> String {
    format!(
        "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: x}}, spec: {spec}}}\n"
    )
}

fn cluster_policy(name: &str, priority: u16, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {{name: {name}}}, spec: {{tier: Admin, priority: {priority}, {spec}}}}}\n"
    )
}

/// Code and field of each finding.
fn check(policies: &str, expected: &[(&str, &str)]) {
    let found = findings(policies);
    let got: Vec<_> = found.iter().map(|finding| (finding.code, finding.field.as_str())).collect();
    assert_eq!(got, expected, "{policies}\n{found:#?}");
}

#[test]
fn selectors_that_match_nothing_are_found() {
    check(&network_policy("{podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {}}]}]}"), &[]);
    check(&network_policy("{podSelector: {matchLabels: {pod: z}}}"), &[(code::SELECTS_NOTHING, "spec.podSelector")]);
    for (peer, nothing) in [
        ("{podSelector: {matchLabels: {pod: z}}}", true),
        ("{namespaceSelector: {matchLabels: {team: z}}}", true),
        ("{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {k8s-app: kube-dns}}}", true),
        ("{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}", false),
        ("{namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}", false),
        ("{ipBlock: {cidr: 192.0.2.0/24}}", false),
    ] {
        let policy = network_policy(&format!(
            "{{podSelector: {{matchLabels: {{pod: a}}}}, ingress: [{{}}, {{from: [{{podSelector: {{}}}}, {{}}, {peer}]}}]}}"
        ));
        let expected = [(code::SELECTS_NOTHING, "spec.ingress[1].from[2]")];
        check(&policy, if nothing { &expected } else { &[] });
    }
    let subject = "subject: {namespaces: {matchLabels: {team: a}}}";
    check(
        &cluster_policy(
            "c",
            1,
            &format!(
                "{subject}, egress: [{{action: Deny, to: [{{networks: [192.0.2.0/24, 198.51.100.0/24]}}, {{nodes: {{matchLabels: {{zone: 'y'}}}}}}]}}]"
            ),
        ),
        &[(code::HOST_NETWORK_SELECTED, "spec.subject"), (code::SELECTS_NOTHING, "spec.egress[0].to[1]")][..]
            .iter()
            .rev()
            .copied()
            .collect::<Vec<_>>(),
    );
}

#[test]
fn a_peer_on_the_hosts_network_is_distinguished_from_a_wrong_label() {
    let remedy = |label: &str| {
        let peer = format!("{{podSelector: {{matchLabels: {{pod: {label}}}}}}}");
        let spec = format!("{{podSelector: {{matchLabels: {{pod: a}}}}, ingress: [{{from: [{peer}]}}]}}");
        findings(&network_policy(&spec)).remove(0).remedy
    };
    assert!(remedy("h").starts_with("allow the nodes' addresses by ipBlock"), "{}", remedy("h"));
    assert!(remedy("z").starts_with("compare the labels"), "{}", remedy("z"));
}

#[test]
fn nothing_is_said_about_pods_where_none_are_known() {
    let policy = network_policy(
        "{podSelector: {matchLabels: {pod: z}}, ingress: [{from: [{podSelector: {}}], ports: [{port: web}]}]}",
    );
    let (objects, _) = read(&policy, "f");
    assert_eq!(lint(&snapshot(&objects)), []);
}

#[test]
fn named_ports_that_no_pod_has_are_found() {
    for (direction, ports, found) in [
        ("ingress", "[{port: web}]", false),
        ("ingress", "[{port: metrics}]", true),
        ("ingress", "[{port: names}]", true),
        ("ingress", "[{port: names, protocol: UDP}]", false),
        ("egress", "[{port: web}, {protocol: UDP, port: 53}, {port: 53}]", false),
        ("egress", "[{port: metrics}, {protocol: UDP, port: 53}, {port: 53}]", true),
    ] {
        let types = if direction == "egress" { ", policyTypes: [Egress]" } else { "" };
        let policy = network_policy(&format!(
            "{{podSelector: {{matchLabels: {{pod: a}}}}, {direction}: [{{ports: {ports}}}]{types}}}"
        ));
        let field = format!("spec.{direction}[0].ports[0]");
        let expected = [(code::NAMED_PORT_NOWHERE, field.as_str())];
        check(&policy, if found { &expected } else { &[] });
    }
}

#[test]
fn dns_that_no_egress_rule_reaches_is_found() {
    for (egress, expected) in [
        ("[]", Some("warning")),
        ("[{}]", None),
        ("[{ports: [{port: 443}]}]", Some("warning")),
        ("[{ports: [{port: 53, protocol: UDP}]}]", Some("info")),
        ("[{ports: [{port: 53, protocol: UDP}, {port: 53}]}]", None),
        ("[{ports: [{port: 1, endPort: 100, protocol: UDP}, {}]}]", None),
        ("[{to: [{podSelector: {}}]}]", Some("warning")),
        ("[{to: [{namespaceSelector: {}}]}]", None),
        ("[{to: [{ipBlock: {cidr: 169.254.20.10/32}}]}]", None),
        ("[{form: []}]", Some("warning")),
    ] {
        let found = findings(&network_policy(&format!(
            "{{podSelector: {{matchLabels: {{pod: a}}}}, policyTypes: [Egress], egress: {egress}}}"
        )));
        let dns: Vec<_> = found.iter().filter(|finding| finding.code == code::DNS_CUT_OFF).collect();
        assert_eq!(dns.iter().map(|finding| finding.severity.as_str()).next(), expected, "{egress}");
    }
}

#[test]
fn dns_that_another_policy_opens_is_open() {
    let deny = network_policy("{podSelector: {}, policyTypes: [Egress]}");
    let dns = network_policy(
        "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: 53}, {port: 53, protocol: UDP}]}]}",
    );
    let found = findings(&format!("{deny}---\n{}", dns.replace("name: p,", "name: q,")));
    assert!(found.iter().all(|finding| finding.code != code::DNS_CUT_OFF), "{found:?}");
    let audited = dns.replace("name: p,", "name: q, annotations: {netverdict.io/mode: audit},");
    let found = findings(&format!("{deny}---\n{audited}"));
    assert_eq!(found.iter().filter(|finding| finding.code == code::DNS_CUT_OFF).count(), 1, "{found:?}");
}

#[test]
fn dns_that_a_rule_of_an_ordered_tier_denies_is_found() {
    let subject = "subject: {namespaces: {matchLabels: {team: a}}}";
    let port_53 = "protocols: [{udp: {destinationPort: {number: 53}}}, {tcp: {destinationPort: {number: 53}}}]";
    let udp_53 = "protocols: [{udp: {destinationPort: {number: 53}}}]";
    let servers = "to: [{pods: {podSelector: {matchLabels: {k8s-app: kube-dns}}}}]";
    let deny_all = "{action: Deny, to: [{namespaces: {}}]}";
    for (rules, expected) in [
        (deny_all.to_owned(), Some(("warning", "spec.egress[0]"))),
        (format!("{{action: Accept, {servers}, {port_53}}}, {deny_all}"), None),
        (format!("{{action: Accept, {servers}, {udp_53}}}, {deny_all}"), Some(("info", "spec.egress[1]"))),
        (format!("{{action: Pass, {servers}}}, {deny_all}"), None),
        (format!("{{action: Pass, {servers}, {udp_53}}}, {deny_all}"), Some(("info", "spec.egress[1]"))),
        (format!("{deny_all}, {{action: Accept, {servers}, {port_53}}}"), Some(("warning", "spec.egress[0]"))),
        // May be a node's own cache.
        (format!("{{action: Accept, to: [{{networks: [169.254.20.10/32]}}]}}, {deny_all}"), None),
        ("{action: Deny, to: [{networks: [192.0.2.0/24]}]}".to_owned(), None),
        ("{action: Deny, to: [{networks: [0.0.0.0/0]}]}".to_owned(), Some(("warning", "spec.egress[0]"))),
        ("{action: Deny, to: [{pods: {podSelector: {matchLabels: {pod: a}}}}]}".to_owned(), None),
        ("{action: Deny, too: []}".to_owned(), Some(("warning", "spec.egress[0]"))),
    ] {
        for tier in ["Admin", "Baseline"] {
            let policy = cluster_policy("c", 1, &format!("{subject}, egress: [{rules}]")).replace("Admin", tier);
            let (objects, _) = read(&format!("{CLUSTER}{policy}"), "f");
            let found = lint(&snapshot(&objects));
            let dns = found.iter().find(|finding| finding.code == code::DNS_CUT_OFF);
            let got = dns.map(|finding| (finding.severity.as_str(), finding.field.as_str()));
            assert_eq!(got, expected, "{tier} {rules} {found:#?}");
        }
    }
}

#[test]
fn dns_is_cut_off_by_the_tier_that_decides() {
    let cut_off_by = |policies: &str| {
        let found = findings(policies);
        let dns = found.into_iter().filter(|finding| finding.code == code::DNS_CUT_OFF);
        dns.map(|finding| finding.object.map_or(String::new(), |object| object.name)).collect::<Vec<_>>()
    };
    let subject = "subject: {namespaces: {matchLabels: {team: a}}}";
    let rule = |action: &str| format!("{subject}, egress: [{{action: {action}, to: [{{namespaces: {{}}}}]}}]");
    let isolating = network_policy("{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}");
    let opening = network_policy("{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{}]}");
    let admin = |action: &str| cluster_policy("c", 1, &rule(action));
    let baseline = |action: &str| admin(action).replace("Admin", "Baseline");
    assert_eq!(cut_off_by(&isolating), ["p"]);
    assert_eq!(cut_off_by(&format!("{isolating}{}", admin("Accept"))), [""; 0]);
    assert_eq!(cut_off_by(&format!("{isolating}{}", admin("Pass"))), ["p"]);
    assert_eq!(cut_off_by(&format!("{isolating}{}", admin("Deny"))), ["c"]);
    assert_eq!(cut_off_by(&format!("{isolating}{}", baseline("Accept"))), ["p"]);
    assert_eq!(cut_off_by(&format!("{opening}{}", baseline("Deny"))), [""; 0]);
    assert_eq!(cut_off_by(&format!("{}{}", admin("Pass"), baseline("Deny").replace("name: c", "name: d"))), ["d"]);
    let audited = admin("Deny").replace("name: c", "name: c, annotations: {netverdict.io/mode: audit}");
    assert_eq!(cut_off_by(&audited), [""; 0]);
}

#[test]
fn without_pods_a_policys_subject_stands_for_them() {
    let cut_off_by = |policies: &str| {
        let (objects, _) = read(policies, "f");
        let found = lint(&snapshot(&objects)).into_iter().filter(|finding| finding.code == code::DNS_CUT_OFF);
        found.map(|finding| finding.object.map_or(String::new(), |object| object.name)).collect::<Vec<_>>()
    };
    let isolating = network_policy("{podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress]}");
    let admin = |namespaces: &str, action: &str| {
        let rule = format!("egress: [{{action: {action}, to: [{{namespaces: {{}}}}]}}]");
        cluster_policy("c", 1, &format!("subject: {{namespaces: {namespaces}}}, {rule}"))
    };
    assert_eq!(cut_off_by(&isolating), ["p"]);
    assert_eq!(cut_off_by(&format!("{isolating}{}", admin("{}", "Accept"))), [""; 0]);
    // Whether it selects the same pods is not known.
    assert_eq!(cut_off_by(&format!("{isolating}{}", admin("{matchLabels: {team: a}}", "Accept"))), ["p"]);
    assert_eq!(cut_off_by(&admin("{matchLabels: {team: a}}", "Deny")), ["c"]);
    assert_eq!(cut_off_by(&format!("{isolating}{}", admin("{}", "Deny"))), ["c"]);
}

#[test]
fn rules_that_an_earlier_one_leaves_nothing_are_found() {
    let subject = "subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: dns}}}";
    let deny_all = "{action: Deny, from: [{namespaces: {}}]}";
    let accept_a = "{action: Accept, from: [{pods: {podSelector: {matchLabels: {pod: a}}}}]}";
    let accept_80 = "{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}";
    let accept_range = "{action: Pass, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 1, end: 100}}}}]}";
    for (rules, unreachable) in [
        (format!("{accept_a}, {deny_all}"), None),
        (format!("{deny_all}, {accept_a}"), Some("spec.ingress[1]")),
        (format!("{accept_range}, {accept_80}"), Some("spec.ingress[1]")),
        (format!("{accept_80}, {accept_range}"), None),
        (format!("{accept_a}, {accept_a}"), Some("spec.ingress[1]")),
        (format!("{accept_a}, {}", accept_a.replace("pods", "podz")), None),
    ] {
        let expected: Vec<_> = unreachable.map(|field| (code::UNREACHABLE_RULE, field)).into_iter().collect();
        check(&cluster_policy("c", 1, &format!("{subject}, ingress: [{rules}]")), &expected);
    }
    let first = cluster_policy("b", 5, &format!("{subject}, ingress: [{deny_all}]"));
    let second = cluster_policy("a", 6, &format!("{subject}, ingress: [{accept_a}]"));
    check(&format!("{first}{second}"), &[(code::UNREACHABLE_RULE, "spec.ingress[0]")]);
    let other_subject = second.replace("metadata.name: dns", "metadata.name: x");
    let found = findings(&format!("{first}{other_subject}"));
    assert!(found.iter().all(|finding| finding.code != code::UNREACHABLE_RULE), "{found:?}");
}

#[test]
fn shared_priorities_are_reported() {
    let subject = "subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: dns}}}";
    let policies = format!("{}{}", cluster_policy("a", 5, subject), cluster_policy("b", 5, subject));
    check(&policies, &[(code::SAME_PRIORITY, "spec.priority"); 2]);
    // Neither has a defined precedence.
    let rule = "ingress: [{action: Deny, from: [{namespaces: {}}]}]";
    let equal = policies.replace(subject, &format!("{subject}, {rule}"));
    check(&equal, &[(code::SAME_PRIORITY, "spec.priority"); 2]);
    check(&policies.replace("Admin, priority: 5", "Baseline, priority: 5").replacen("Baseline", "Admin", 1), &[]);
}

#[test]
fn blocks_that_name_pods_are_found() {
    for (cidr, found) in [
        ("10.0.1.1/32", true),
        ("10.0.1.128/25", true),
        ("10.0.1.0/24", false),
        ("10.0.0.0/8", false),
        ("192.0.2.1/32", false),
    ] {
        let policy = network_policy(&format!(
            "{{podSelector: {{matchLabels: {{pod: a}}}}, ingress: [{{from: [{{podSelector: {{}}}}, {{ipBlock: {{cidr: {cidr}}}}}]}}]}}"
        ));
        let expected = [(code::BLOCK_NAMES_PODS, "spec.ingress[0].from[1]")];
        check(&policy, if found { &expected } else { &[] });
    }
}

#[test]
fn pods_on_the_host_network_are_distinguished() {
    check(&network_policy("{podSelector: {}}"), &[(code::HOST_NETWORK_SELECTED, "spec.podSelector")]);
}

#[test]
fn an_address_of_two_owners_is_found() {
    let pod = |name: &str, address: &str, phase: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: x}}, status: {{podIP: {address}, phase: {phase}}}}}\n"
        )
    };
    check(&pod("b", "10.0.1.1", "Running"), &[(code::DUPLICATE_ADDRESS, "status")]);
    check(&pod("b", "10.1.0.1", "Running"), &[(code::DUPLICATE_ADDRESS, "status")]);
    check(&pod("b", "10.0.1.1", "Succeeded"), &[]);
}

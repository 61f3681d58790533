//! One table per behaviour: YAML in, policy and findings out.

use std::net::IpAddr;

use netverdict_policy::model::{
    Action, ContainerPort, Direction, Isolates, NamePattern, NamespaceScope, Peer, Phase, Policy, PortMatch, Protocol,
    Rule, Selector, Tier, Workload,
};

use super::*;
use crate::{fields::Field, read};

fn object(yaml: &str) -> Object {
    let (mut objects, findings) = read(yaml, "test.yaml");
    assert_eq!(findings, [], "{yaml}");
    assert_eq!(objects.len(), 1, "{yaml}");
    objects.remove(0)
}

/// A NetworkPolicy `x/p` with this specification, in flow style.
fn network_policy(spec: &str) -> (Option<Policy>, Vec<Finding>) {
    let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: x}\n";
    policy(&object(&format!("{head}spec: {spec}\n")))
}

/// A policy of an ordered tier with this specification.
fn ordered(kind: &str, version: &str, spec: &str) -> (Option<Policy>, Vec<Finding>) {
    let head = format!("apiVersion: policy.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: default}}\n");
    policy(&object(&format!("{head}spec: {spec}\n")))
}

fn cluster_policy(rules: &str) -> (Option<Policy>, Vec<Finding>) {
    ordered(
        "ClusterNetworkPolicy",
        "v1alpha2",
        &format!("{{tier: Admin, priority: 10, subject: {{namespaces: {{}}}}, {rules}}}"),
    )
}

fn codes(findings: &[Finding]) -> Vec<&'static str> {
    for finding in findings {
        assert!(code::ALL.iter().any(|(code, _)| *code == finding.code), "{finding}");
        assert!(!finding.message.is_empty() && !finding.remedy.is_empty(), "{finding}");
    }
    findings.iter().map(|finding| finding.code).collect()
}

/// The only rule of a policy without findings.
fn only_rule((policy, findings): (Option<Policy>, Vec<Finding>)) -> Rule {
    assert_eq!(findings, []);
    let mut rules = policy.expect("a policy").rules;
    assert_eq!(rules.len(), 1);
    rules.remove(0)
}

fn labels(text: &str) -> Selector {
    let yaml = format!("apiVersion: v1\nkind: X\nmetadata: {{name: x}}\ns: {text}\n");
    crate::selector::selector(Field::new(&object(&yaml).value["s"], "", None)).unwrap()
}

fn range(protocol: Protocol, first: u16, last: u16) -> PortMatch {
    PortMatch::Range { protocol, first, last }
}

#[test]
fn policy_types_are_defaulted_as_an_api_server_does() {
    for (spec, ingress, egress, codes_expected) in [
        ("{podSelector: {}}", true, false, vec![]),
        ("{podSelector: {}, policyTypes: []}", true, false, vec![]),
        ("{podSelector: {}, egress: []}", true, false, vec![]),
        ("{podSelector: {}, egress: [{}]}", true, true, vec![code::ISOLATES_INGRESS_TOO]),
        ("{podSelector: {}, egress: [{}], ingress: [{}]}", true, true, vec![]),
        ("{podSelector: {}, policyTypes: [Egress]}", false, true, vec![]),
        ("{podSelector: {}, policyTypes: [Egress], ingress: [{}]}", false, true, vec![code::IGNORED_RULES]),
        ("{podSelector: {}, policyTypes: [Ingress], egress: [{}]}", true, false, vec![code::IGNORED_RULES]),
        ("{podSelector: {}, policyTypes: [Ingress, Egress]}", true, true, vec![]),
    ] {
        let (policy, findings) = network_policy(spec);
        let policy = policy.unwrap();
        assert_eq!((policy.isolates.ingress, policy.isolates.egress), (ingress, egress), "{spec}");
        assert_eq!(codes(&findings), codes_expected, "{spec}");
        assert!(policy.rules.iter().all(|rule| policy.isolates.in_direction(rule.direction)), "{spec}");
    }
}

#[test]
fn absent_null_and_empty_are_distinguished_where_kubernetes_does() {
    for spec in ["{}", "{podSelector: null}", "{podSelector: {}}"] {
        assert_eq!(network_policy(spec).0.unwrap().subject.pods, Selector::default(), "{spec}");
    }
    for spec in ["{podSelector: {}}", "{podSelector: {}, ingress: []}", "{podSelector: {}, ingress: null}"] {
        assert_eq!(network_policy(spec).0.unwrap().rules, [], "{spec}");
    }
    for rule in ["{}", "{from: [], ports: []}", "{from: null, ports: null}"] {
        let rule = only_rule(network_policy(&format!("{{podSelector: {{}}, ingress: [{rule}]}}")));
        assert_eq!((rule.peers, rule.ports), (None, None));
    }
}

#[test]
fn peers_are_scoped_as_their_selectors_say() {
    let own = || NamespaceScope::Named("x".into());
    for (peer, expected) in [
        (
            "{podSelector: {matchLabels: {a: b}}}",
            Peer::Pods { namespaces: own(), pods: labels("{matchLabels: {a: b}}") },
        ),
        ("{podSelector: {}}", Peer::Pods { namespaces: own(), pods: Selector::default() }),
        (
            "{namespaceSelector: {matchLabels: {team: m}}}",
            Peer::Pods {
                namespaces: NamespaceScope::Selected(labels("{matchLabels: {team: m}}")),
                pods: Selector::default(),
            },
        ),
        (
            "{namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}",
            Peer::Pods {
                namespaces: NamespaceScope::Selected(Selector::default()),
                pods: labels("{matchLabels: {a: b}}"),
            },
        ),
        (
            "{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}",
            Peer::Block { cidr: "10.0.0.0/8".parse().unwrap(), except: vec!["10.1.0.0/16".parse().unwrap()] },
        ),
    ] {
        let rule = only_rule(network_policy(&format!("{{podSelector: {{}}, ingress: [{{from: [{peer}]}}]}}")));
        assert_eq!(rule.peers, Some(vec![expected]), "{peer}");
    }
}

#[test]
fn ports_default_to_tcp_and_a_missing_port_is_all_of_them() {
    for (port, expected) in [
        ("{}", PortMatch::Protocol(Protocol::TCP)),
        ("{protocol: UDP}", PortMatch::Protocol(Protocol::UDP)),
        ("{port: 80}", range(Protocol::TCP, 80, 80)),
        ("{port: 80, endPort: 90, protocol: SCTP}", range(Protocol::SCTP, 80, 90)),
        ("{port: web}", PortMatch::Named { protocol: Some(Protocol::TCP), name: "web".into() }),
    ] {
        let rule = only_rule(network_policy(&format!("{{podSelector: {{}}, ingress: [{{ports: [{port}]}}]}}")));
        assert_eq!(rule.ports, Some(vec![expected]), "{port}");
    }
}

#[test]
fn a_rule_that_cannot_be_read_whole_matches_nothing_and_the_policy_still_isolates() {
    for (rule, field, expected) in [
        ("{form: [{podSelector: {}}]}", "spec.ingress[0].form", code::UNKNOWN_FIELD),
        ("{from: [{podSelecter: {}}]}", "spec.ingress[0].from[0].podSelecter", code::UNKNOWN_FIELD),
        (
            "{from: [{podSelector: {matchLabel: {a: b}}}]}",
            "spec.ingress[0].from[0].podSelector.matchLabel",
            code::UNKNOWN_FIELD,
        ),
        ("{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}", "spec.ingress[0].from[0].ipBlock.cidr", code::INVALID_CIDR),
        ("{from: [{ipBlock: {}}]}", "spec.ingress[0].from[0].ipBlock.cidr", code::MISSING_FIELD),
        ("{from: [{podSelector: {}}, null]}", "spec.ingress[0].from[1]", code::WRONG_TYPE),
        ("{from: {podSelector: {}}}", "spec.ingress[0].from", code::WRONG_TYPE),
        ("{ports: [{port: 0}]}", "spec.ingress[0].ports[0].port", code::INVALID_PORT),
        ("{ports: [{port: 70000}]}", "spec.ingress[0].ports[0].port", code::INVALID_PORT),
        ("{ports: [{port: 80.5}]}", "spec.ingress[0].ports[0].port", code::INVALID_PORT),
        ("{ports: [{port: '80'}]}", "spec.ingress[0].ports[0].port", code::INVALID_PORT),
        ("{ports: [{port: true}]}", "spec.ingress[0].ports[0].port", code::WRONG_TYPE),
        ("{ports: [{port: 80, endPort: 79}]}", "spec.ingress[0].ports[0].endPort", code::INVALID_PORT),
        ("{ports: [{endPort: 79}]}", "spec.ingress[0].ports[0].endPort", code::INVALID_PORT),
        ("{ports: [{port: web, endPort: 79}]}", "spec.ingress[0].ports[0].endPort", code::INVALID_PORT),
        ("{ports: [{protocol: tcp}]}", "spec.ingress[0].ports[0].protocol", code::INVALID_PORT),
        ("{ports: [{protocol: ICMP}]}", "spec.ingress[0].ports[0].protocol", code::INVALID_PORT),
        ("all", "spec.ingress[0]", code::WRONG_TYPE),
    ] {
        let (policy, findings) = network_policy(&format!("{{podSelector: {{}}, ingress: [{rule}, {{}}]}}"));
        let policy = policy.unwrap();
        assert!(policy.isolates.ingress);
        assert_eq!(codes(&findings), [expected], "{rule}");
        assert_eq!(findings[0].field, field, "{rule}");
        let [faulty, whole] = policy.rules.as_slice() else { panic!("{rule}: two rules") };
        assert!(faulty.fault.as_ref().is_some_and(|fault| fault.starts_with(field)), "{rule}: {:?}", faulty.fault);
        assert_eq!((faulty.peers.as_deref(), faulty.ports.as_deref()), (Some(&[][..]), Some(&[][..])), "{rule}");
        assert_eq!((whole.index, &whole.fault, &whole.peers), (1, &None, &None), "{rule}");
    }
}

#[test]
fn a_peer_that_names_nothing_or_too_much_matches_nothing_and_leaves_the_others() {
    for peer in ["{}", "{podSelector: null}", "{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}"] {
        let spec =
            format!("{{podSelector: {{}}, ingress: [{{from: [{peer}, {{podSelector: {{}}}}]}}, {{from: [{peer}]}}]}}");
        let (policy, findings) = network_policy(&spec);
        let rules = policy.unwrap().rules;
        assert_eq!(codes(&findings), [code::INVALID_PEER; 2], "{peer}");
        assert_eq!(rules[0].peers.as_ref().map(Vec::len), Some(1), "{peer}");
        assert_eq!((&rules[1].peers, &rules[1].fault), (&Some(vec![]), &None), "{peer}");
    }
}

#[test]
fn legacy_blocks_are_masked_with_a_warning() {
    for cidr in ["10.0.2.9/24", "010.0.2.0/24", "::ffff:10.0.2.0/120"] {
        let spec = format!("{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: '{cidr}'}}}}]}}]}}");
        let (policy, findings) = network_policy(&spec);
        assert_eq!(codes(&findings), [code::LEGACY_CIDR], "{cidr}");
        let block = Peer::Block { cidr: "10.0.2.0/24".parse().unwrap(), except: vec![] };
        assert_eq!(policy.unwrap().rules[0].peers, Some(vec![block]), "{cidr}");
    }
}

#[test]
fn numbers_count_for_what_kubectl_makes_of_them() {
    for (written, number) in [
        ("08080", 8080),
        ("017620", 8080),
        ("0o17620", 8080),
        ("0x1F90", 8080),
        ("8_080", 8080),
        ("8080.0", 8080),
        ("8e3", 8000),
    ] {
        let rule =
            only_rule(network_policy(&format!("{{podSelector: {{}}, ingress: [{{ports: [{{port: {written}}}]}}]}}")));
        assert_eq!(rule.ports, Some(vec![range(Protocol::TCP, number, number)]), "{written}");
    }
    let json = "{\"apiVersion\":\"networking.k8s.io/v1\",\"kind\":\"NetworkPolicy\",\"metadata\":{\"name\":\"p\"},\"spec\":{\"podSelector\":{},\"ingress\":[{\"ports\":[{\"port\":8080.0}]}]}}";
    let rule = only_rule(policy(&object(json)));
    assert_eq!(rule.ports, Some(vec![range(Protocol::TCP, 8080, 8080)]));
}

#[test]
fn messages_say_what_is_written_and_what_kubectl_reads() {
    for (rule, field, message) in [
        (
            "{ports: [{port: 0x1_1170}]}",
            "spec.ingress[0].ports[0].port",
            "found 0x1_1170, which kubectl reads as 70000",
        ),
        ("{ports: [{port: 080.50}]}", "spec.ingress[0].ports[0].port", "found 080.50, which kubectl reads as 80.5"),
        ("{ports: [{port: yes}]}", "spec.ingress[0].ports[0].port", "found yes, which kubectl reads as true"),
        (
            "{ports: [{port: 80, endPort: 0x0}]}",
            "spec.ingress[0].ports[0].endPort",
            "found 0x0, which kubectl reads as 0",
        ),
        (
            "{from: [{podSelector: {matchLabels: {canary: yes}}}]}",
            "spec.ingress[0].from[0].podSelector.matchLabels[\"canary\"]",
            "expected text, found yes, which kubectl reads as true",
        ),
        (
            "{from: [{podSelector: {matchExpressions: [{key: v, operator: In, values: [1.10]}]}}]}",
            "spec.ingress[0].from[0].podSelector.matchExpressions[0].values[0]",
            "expected text, found 1.10, which kubectl reads as 1.1",
        ),
    ] {
        let (policy, findings) = network_policy(&format!("{{podSelector: {{}}, ingress: [{rule}]}}"));
        assert_eq!((findings.len(), findings[0].field.as_str()), (1, field), "{rule}: {findings:?}");
        assert!(findings[0].message.contains(message), "{findings:?}");
        let fault = policy.unwrap().rules.remove(0).fault.unwrap();
        assert!(fault.contains(message), "{fault}");
    }
    let (_, findings) = cluster_policy("ingress: [{action: yes, from: [{namespaces: {}}]}]");
    assert!(findings[0].message.starts_with("expected text, found yes, which kubectl reads as true"), "{findings:?}");
    assert_eq!(findings[0].remedy, "put the value in quotes");
    // Items of a List keep their spelling, too.
    let list = "{apiVersion: v1, kind: List, items: [{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p}, spec: {podSelector: {}, policyTypes: [on]}}]}";
    let (_, findings) = policy(&object(list));
    assert!(
        findings[0].message.starts_with("expected a policy type, found on, which kubectl reads as true"),
        "{findings:?}"
    );
}

#[test]
fn a_key_that_kubectl_reads_as_another_is_reported() {
    let yaml = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, labels: {on: x}}\nspec: {podSelector: {matchLabels: {y: b}}}\n";
    let object = object(yaml);
    let findings = crate::snapshot(std::slice::from_ref(&object)).findings;
    let told: Vec<_> = findings
        .iter()
        .filter(|finding| finding.code == code::WRONG_TYPE)
        .map(|finding| (finding.severity, finding.field.as_str(), finding.message.as_str()))
        .collect();
    let warning = crate::Severity::Warning;
    assert_eq!(
        told,
        [
            (warning, "metadata.labels", "kubectl reads the unquoted key on as \"true\""),
            (warning, "spec.podSelector.matchLabels", "kubectl reads the unquoted key y as \"true\""),
        ]
    );
    assert_eq!(policy(&object).0.unwrap().subject.pods, labels("{matchLabels: {'true': b}}"));
}

#[test]
fn null_counts_for_what_an_api_server_makes_of_it() {
    for (written, stored, field) in [
        ("ingress: [null]", "ingress: [{}]", "spec.ingress[0]"),
        ("policyTypes: [Egress], egress: [~]", "policyTypes: [Egress], egress: [{}]", "spec.egress[0]"),
        ("ingress: [{ports: [null]}]", "ingress: [{ports: [{}]}]", "spec.ingress[0].ports[0]"),
        (
            "ingress: [{from: [{podSelector: {matchLabels: {app: }}}, {podSelector: {}}]}]",
            "ingress: [{from: [{podSelector: {matchLabels: {app: ''}}}, {podSelector: {}}]}]",
            "spec.ingress[0].from[0].podSelector.matchLabels[\"app\"]",
        ),
        (
            "ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [null]}]}}]}]",
            "ingress: [{from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: ['']}]}}]}]",
            "spec.ingress[0].from[0].podSelector.matchExpressions[0].values[0]",
        ),
    ] {
        let (policy, findings) = network_policy(&format!("{{podSelector: {{}}, {written}}}"));
        assert_eq!(codes(&findings), [code::WRONG_TYPE], "{written}");
        assert_eq!((findings[0].severity, findings[0].field.as_str()), (crate::Severity::Warning, field), "{written}");
        let (expected, findings) = network_policy(&format!("{{podSelector: {{}}, {stored}}}"));
        assert_eq!(findings, [], "{stored}");
        assert_eq!(policy.unwrap().rules, expected.unwrap().rules, "{written}");
    }
    // A schema drops the label instead, and the selector would select everything.
    let (policy, findings) =
        cluster_policy("ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: }}}]}]");
    assert_eq!(codes(&findings), [code::WRONG_TYPE]);
    assert!(policy.unwrap().rules[0].fault.is_some());
}

#[test]
fn what_stands_around_the_specification_is_checked() {
    let head = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n";
    for (rest, expected, field) in [
        ("metadata: {name: p}\nspec: {podSelector: {}}\negress: [{}]\n", Some(code::UNKNOWN_FIELD), "egress"),
        ("metadata: {name: p}\nspec: {podSelector: {}}\npolicyTypes: null\n", Some(code::UNKNOWN_FIELD), "policyTypes"),
        ("metadata: {name: Deny_All}\nspec: {podSelector: {}}\n", Some(code::INVALID_NAME), "metadata.name"),
        ("metadata: {name: p.q-1}\nspec: {podSelector: {}}\nstatus: {}\n", None, ""),
        (
            "metadata: {name: p, managedFields: [{a: b}], annotations: {a: }, labels: {b: }}\nspec: {podSelector: {}}\n",
            None,
            "",
        ),
    ] {
        let (policy, findings) = policy(&object(&format!("{head}{rest}")));
        assert!(policy.unwrap().isolates.ingress, "{rest}");
        assert_eq!(codes(&findings), Vec::from_iter(expected), "{rest}");
        assert!(findings.iter().all(|finding| finding.field == field), "{rest}: {findings:?}");
    }
}

#[test]
fn an_except_outside_its_block_is_reported() {
    for except in ["10.0.0.0/8", "192.168.0.0/16", "fd00::/8", "0.0.0.0/0"] {
        let spec = format!(
            "{{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: 10.0.0.0/8, except: ['{except}']}}}}]}}]}}"
        );
        let (policy, findings) = network_policy(&spec);
        assert_eq!(codes(&findings), [code::EXCEPT_OUTSIDE_BLOCK], "{except}");
        assert_eq!(findings[0].severity, crate::Severity::Warning);
        assert_eq!(policy.unwrap().rules[0].fault, None);
        let nothing_left = ["10.0.0.0/8", "0.0.0.0/0"].contains(&except);
        assert_eq!(findings[0].message.ends_with("out: the peer matches nothing"), nothing_left, "{findings:?}");
    }
}

#[test]
fn an_unknown_field_of_the_specification_leaves_the_isolation_and_takes_the_rules() {
    let (policy, findings) = network_policy("{podSelector: {}, ingress: [{}], egres: [{}]}");
    let policy = policy.unwrap();
    assert_eq!(codes(&findings), [code::UNKNOWN_FIELD]);
    assert_eq!(findings[0].remedy, "did you mean egress?");
    assert!(policy.isolates.ingress && policy.rules.iter().all(|rule| rule.fault.is_some()));
    let (policy, findings) = cluster_policy(
        "logging: true, ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Deny, from: [{pods: {podSelector: {}}}]}]",
    );
    assert_eq!(codes(&findings), [code::UNKNOWN_FIELD]);
    let rules = policy.unwrap().rules;
    assert!(rules[0].fault.is_some() && rules[1].fault.is_none());
}

#[test]
fn a_policy_whose_subject_or_types_cannot_be_read_is_not_enforced() {
    for (spec, expected) in [
        ("{podSelector: {matchLabel: {}}}", code::UNKNOWN_FIELD),
        ("{podSelector: all}", code::WRONG_TYPE),
        ("{podSelector: {}, policyTypes: Ingress}", code::INVALID_POLICY_TYPES),
        ("{podSelector: {}, policyTypes: [ingress]}", code::INVALID_POLICY_TYPES),
        ("{podSelector: {}, policyTypes: [null]}", code::INVALID_POLICY_TYPES),
        ("{podSelector: {}, policyTypes: [Ingress, Egress, Ingress]}", code::INVALID_POLICY_TYPES),
        ("deny", code::WRONG_TYPE),
    ] {
        let (policy, findings) = network_policy(spec);
        assert_eq!(policy, None, "{spec}");
        assert_eq!(codes(&findings), [expected], "{spec}");
        assert!(findings[0].message.ends_with("the object is not enforced"), "{spec}");
    }
}

#[test]
fn a_direction_that_is_no_list_isolates_and_matches_nothing() {
    let (policy, findings) = network_policy("{podSelector: {}, egress: {to: []}, policyTypes: [Egress]}");
    let policy = policy.unwrap();
    assert_eq!(codes(&findings), [code::WRONG_TYPE]);
    assert!(policy.isolates.egress && policy.rules[0].fault.is_some());
}

#[test]
fn a_fault_says_what_becomes_of_its_rule() {
    for (action, effect) in [
        ("Accept", "; the rule matches nothing"),
        ("Deny", "; the rule denies everything"),
        ("Pass", "; the rule denies everything"),
    ] {
        let rule = format!("{{action: {action}, from: [{{namespaces: {{}}}}], protocols: [{{icmp: {{}}}}]}}");
        let spec = format!("{{tier: Admin, priority: 1, subject: {{namespaces: {{}}}}, ingress: [{rule}]}}");
        let (_, findings) = ordered("ClusterNetworkPolicy", "v1alpha2", &spec);
        assert_eq!(codes(&findings), [code::UNKNOWN_FIELD]);
        assert!(findings[0].message.ends_with(effect), "{findings:?}");
    }
    let (_, findings) = network_policy("{podSelector: {}, ingress: [{form: []}], policyType: [Egress]}");
    let messages: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
    assert!(messages[0].ends_with("; the rule matches nothing"), "{messages:?}");
    assert!(messages[1].ends_with("; the rules match nothing"), "{messages:?}");
    // A rule with very many faults keeps a bounded number of them and counts the rest.
    let (_, findings) =
        network_policy(&format!("{{podSelector: {{}}, ingress: [{{ports: [{}]}}]}}", "0, ".repeat(250)));
    assert_eq!((findings.len(), findings[100].message.as_str()), (101, "150 more findings are left out"));
}

#[test]
fn misspelt_kinds_and_other_versions_are_not_enforced() {
    for (api_version, kind, expected) in [
        ("networking.k8s.io/v1", "Network Policy", code::INVALID_KIND),
        ("networking.k8s.io/v1", "networkpolicy", code::INVALID_KIND),
        ("extensions/v1beta1", "NetworkPolicy", code::UNKNOWN_VERSION),
        ("policy.networking.k8s.io/v1alpha1", "ClusterNetworkPolicy", code::UNKNOWN_VERSION),
        ("policy.networking.k8s.io/v1", "ClusterNetworkPolicy", code::UNKNOWN_VERSION),
        ("policy.networking.k8s.io/v1beta1", "AdminNetworkPolicy", code::UNKNOWN_VERSION),
        ("v1", "NetworkPolicy", code::UNKNOWN_VERSION),
        ("network.k8s.io/v1", "NetworkPolicy", code::UNKNOWN_VERSION),
        ("networking.k8s.io/v1", "NetworkPolicies", code::INVALID_KIND),
        ("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolcy", code::INVALID_KIND),
        ("crd.antrea.io/v1beta1", "NetworkPolicy", code::FOREIGN_POLICY),
        ("crd.projectcalico.org/v1", "GlobalNetworkPolicy", code::FOREIGN_POLICY),
        ("networking.k8s.io/v1", "NetPolicy", code::INVALID_KIND),
        ("networking.k8s.io/v1", "Firewall", code::INVALID_KIND),
        ("networking.k8s.io/v1", "ServiceCIDR", code::UNKNOWN_KIND),
        ("policy.networking.k8s.io/v1", "TenantNetworkPolicy", code::INVALID_KIND),
        ("networking.k8s.io/v1", "Ingress", code::UNKNOWN_KIND),
        ("apps/v1", "Deployment", code::UNKNOWN_KIND),
    ] {
        let yaml = format!(
            "apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: p}}\nspec: {{podSelector: {{}}, tier: Admin, priority: 1, subject: {{namespaces: {{}}}}}}\n"
        );
        let (policy, findings) = policy(&object(&yaml));
        assert_eq!(policy, None, "{kind}");
        assert_eq!(findings[0].code, expected, "{kind}");
    }
}

#[test]
fn the_manifest_of_article_1_as_printed_has_two_findings_and_is_not_enforced() {
    let yaml = "apiVersion: networking.k8s.io/v1\nkind : Network Policy\nmetadata:\n  name: default-deny-ingress\n  namespace: backend\nspec:\n  podSelector: {}\n  policyTypes: Ingress\n";
    let (policy, findings) = policy(&object(yaml));
    assert_eq!(policy, None);
    assert_eq!(codes(&findings), [code::INVALID_KIND, code::INVALID_POLICY_TYPES]);
    assert_eq!(findings[0].remedy, "write NetworkPolicy");
    assert_eq!(findings[1].remedy, "write [Ingress]");
}

#[test]
fn the_mode_annotation_audits_and_nothing_else_does() {
    for (mode, audit, expected) in
        [("audit", true, code::AUDITED), ("Audit", false, code::INVALID_MODE), ("", false, code::INVALID_MODE)]
    {
        let yaml = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, annotations: {{netverdict.io/mode: '{mode}'}}}}\nspec: {{podSelector: {{}}}}\n"
        );
        let (policy, findings) = policy(&object(&yaml));
        assert_eq!(policy.unwrap().audit, audit, "{mode}");
        assert_eq!(codes(&findings), [expected], "{mode}");
        let yaml = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: p, annotations: {{netverdict.io/mode: '{mode}'}}}}\n"
        );
        assert_eq!(namespace(&object(&yaml)).0.unwrap().audit, audit, "{mode}");
    }
}

#[test]
fn ordered_kinds_are_read_in_their_own_words() {
    for (kind, version, place, accept, ports, tier, priority) in [
        (
            "ClusterNetworkPolicy",
            "v1alpha2",
            "tier: Admin, priority: 7",
            "Accept",
            "protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 8000, end: 8090}}}}, {sctp: {destinationPort: {number: 9}}}]",
            Tier::Admin,
            7,
        ),
        (
            "ClusterNetworkPolicy",
            "v1alpha2",
            "tier: Baseline, priority: 0",
            "Accept",
            "protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 8000, end: 8090}}}}, {sctp: {destinationPort: {number: 9}}}]",
            Tier::Baseline,
            0,
        ),
        (
            "AdminNetworkPolicy",
            "v1alpha1",
            "priority: 7",
            "Allow",
            "ports: [{portNumber: {protocol: TCP, port: 80}}, {portRange: {protocol: UDP, start: 8000, end: 8090}}, {portRange: {protocol: SCTP, start: 1, end: 65535}}]",
            Tier::Admin,
            7,
        ),
        (
            "BaselineAdminNetworkPolicy",
            "v1alpha1",
            "",
            "Allow",
            "ports: [{portNumber: {port: 80}}, {portRange: {protocol: UDP, start: 8000, end: 8090}}, {portRange: {protocol: SCTP, start: 1, end: 65535}}]",
            Tier::Baseline,
            0,
        ),
    ] {
        let place = if place.is_empty() { String::new() } else { format!("{place}, ") };
        let spec = format!(
            "{{{place}subject: {{pods: {{namespaceSelector: {{matchLabels: {{team: m}}}}, podSelector: {{matchLabels: {{a: b}}}}}}}}, ingress: [{{name: one, action: {accept}, from: [{{namespaces: {{}}}}], {ports}}}], egress: [{{action: Deny, to: [{{networks: [10.0.0.0/8, '::/0']}}, {{nodes: {{}}}}]}}]}}"
        );
        let (policy, findings) = ordered(kind, version, &spec);
        assert_eq!(findings, [], "{kind}");
        let policy = policy.unwrap();
        assert_eq!((policy.tier, policy.priority), (tier, priority), "{kind}");
        assert_eq!(policy.isolates, Isolates::default(), "{kind}");
        assert_eq!(policy.subject.namespaces, NamespaceScope::Selected(labels("{matchLabels: {team: m}}")));
        assert_eq!(policy.subject.pods, labels("{matchLabels: {a: b}}"));
        let [ingress, egress] = policy.rules.as_slice() else { panic!("{kind}: two rules") };
        assert_eq!(
            (ingress.name.as_str(), ingress.action, ingress.direction),
            ("one", Action::Accept, Direction::Ingress)
        );
        let ports = ingress.ports.as_deref().unwrap();
        assert_eq!(ports[..2], [range(Protocol::TCP, 80, 80), range(Protocol::UDP, 8000, 8090)], "{kind}");
        assert_eq!((egress.action, egress.index, &egress.ports), (Action::Deny, 0, &None));
        let blocks = ["10.0.0.0/8", "::/0"].map(|cidr| Peer::Block { cidr: cidr.parse().unwrap(), except: vec![] });
        assert_eq!(egress.peers.as_deref().unwrap()[..2], blocks);
        assert_eq!(egress.peers.as_deref().unwrap()[2], Peer::Nodes(Selector::default()));
    }
}

#[test]
fn a_cluster_policy_says_the_same_in_both_its_versions() {
    let spec = "{tier: Admin, priority: 3, subject: {namespaces: {}}, egress: [{action: Deny, to: [{pods: {podSelector: {matchLabels: {a: b}}}}], protocols: [{tcp: {destinationPort: {range: {start: 1, end: 9}}}}]}]}";
    let read = |version| {
        let (policy, findings) = ordered("ClusterNetworkPolicy", version, spec);
        assert_eq!(findings, [], "{version}");
        Policy { content_hash: String::new(), ..policy.unwrap() }
    };
    let newer = read("v1beta1");
    assert_eq!(newer.rules.len(), 1);
    assert_eq!(newer, read("v1alpha2"));
    let of_kind = kinds_read().find(|(_, kind)| *kind == "ClusterNetworkPolicy").unwrap();
    assert_eq!(of_kind.0, ["policy.networking.k8s.io/v1beta1", "policy.networking.k8s.io/v1alpha2"]);
}

#[test]
fn pods_name_the_selectors_that_their_version_requires() {
    for (kind, version, pods, expected) in [
        ("ClusterNetworkPolicy", "v1beta1", "{podSelector: {}}", None),
        ("ClusterNetworkPolicy", "v1alpha2", "{namespaceSelector: null, podSelector: {}}", None),
        ("ClusterNetworkPolicy", "v1beta1", "{namespaceSelector: {}}", Some("podSelector")),
        ("ClusterNetworkPolicy", "v1beta1", "{namespaceSelector: {}, podSelector: null}", Some("podSelector")),
        ("AdminNetworkPolicy", "v1alpha1", "{namespaceSelector: {}, podSelector: {}}", None),
        ("AdminNetworkPolicy", "v1alpha1", "{podSelector: {}}", Some("namespaceSelector")),
        ("BaselineAdminNetworkPolicy", "v1alpha1", "{namespaceSelector: {}}", Some("podSelector")),
    ] {
        let place = match kind {
            "ClusterNetworkPolicy" => "tier: Admin, priority: 1, ",
            "AdminNetworkPolicy" => "priority: 1, ",
            _ => "",
        };
        let rule = "ingress: [{action: Deny, from: [{namespaces: {}}]}]";
        let (policy, findings) = ordered(kind, version, &format!("{{{place}subject: {{pods: {pods}}}, {rule}}}"));
        let missing = expected.map(|name| format!("spec.subject.pods.{name}"));
        assert_eq!(findings.first().map(|finding| &finding.field), missing.as_ref(), "{kind} {pods}");
        assert_eq!(policy.is_some(), expected.is_none(), "{kind} {pods}");

        let rule = format!("ingress: [{{action: Deny, from: [{{pods: {pods}}}]}}]");
        let (policy, findings) = ordered(kind, version, &format!("{{{place}subject: {{namespaces: {{}}}}, {rule}}}"));
        let missing = expected.map(|name| format!("spec.ingress[0].from[0].pods.{name}"));
        assert_eq!(findings.first().map(|finding| &finding.field), missing.as_ref(), "{kind} {pods}");
        assert_eq!(policy.unwrap().rules[0].fault.is_some(), expected.is_some(), "{kind} {pods}");
    }
}

#[test]
fn ports_that_no_cluster_can_mean_are_reported_and_count_as_they_are_written() {
    let rule = |protocol: &str| {
        let (policy, findings) = cluster_policy(&format!(
            "ingress: [{{action: Deny, from: [{{namespaces: {{}}}}], protocols: [{protocol}]}}]"
        ));
        assert!(findings.iter().all(|finding| finding.severity == crate::Severity::Warning), "{protocol}");
        let rule = policy.unwrap().rules.remove(0);
        assert_eq!(rule.fault, None, "{protocol}");
        (rule.ports, codes(&findings))
    };
    assert_eq!(rule("{sctp: {}}"), (Some(vec![PortMatch::Protocol(Protocol::SCTP)]), vec![code::MISSING_FIELD]));
    for name in ["HTTP", "80", "a-name-that-is-too-long"] {
        let named = PortMatch::Named { protocol: None, name: name.into() };
        let found = rule(&format!("{{destinationNamedPort: '{name}'}}"));
        assert_eq!(found, (Some(vec![named]), vec![code::INVALID_PORT]), "{name}");
    }
}

#[test]
fn a_range_of_one_port_is_refused_where_the_schema_does() {
    let (policy, findings) = cluster_policy(
        "ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {range: {start: 80, end: 80}}}}]}]",
    );
    assert_eq!(codes(&findings), [code::INVALID_PORT]);
    assert!(policy.unwrap().rules[0].fault.is_some());
    let older = "{priority: 1, subject: {namespaces: {}}, ingress: [{action: Allow, from: [{namespaces: {}}], ports: [{portRange: {start: 80, end: 80}}]}]}";
    let rule = only_rule(ordered("AdminNetworkPolicy", "v1alpha1", older));
    assert_eq!(rule.ports, Some(vec![range(Protocol::TCP, 80, 80)]));
}

#[test]
fn what_a_peer_says_twice_is_reported_and_counts() {
    for peer in ["networks: [10.0.0.0/8, fd00::/8, 10.0.0.0/8]", "domainNames: [a.com, b.com, a.com]"] {
        let (policy, findings) = cluster_policy(&format!("egress: [{{action: Accept, to: [{{{peer}}}]}}]"));
        assert_eq!(codes(&findings), [code::DUPLICATE_ITEM], "{peer}");
        assert!(findings[0].field.ends_with("[2]"), "{peer}: {}", findings[0].field);
        assert_eq!(policy.unwrap().rules[0].fault, None, "{peer}");
    }
}

#[test]
fn domain_names_are_exact_or_a_suffix() {
    let rule =
        only_rule(cluster_policy("egress: [{action: Accept, to: [{domainNames: ['*.Kubernetes.io', example.com.]}]}]"));
    let names = [NamePattern::Suffix("kubernetes.io".into()), NamePattern::Exact("example.com".into())];
    assert_eq!(rule.peers, Some(names.map(Peer::Name).to_vec()));
}

#[test]
fn ordered_rules_fail_closed_by_their_action() {
    let from = "from: [{namespaces: {}}]";
    for (rule, action, expected) in [
        (format!("action: Allow, {from}"), Action::Accept, code::INVALID_ACTION),
        (format!("action: accept, {from}"), Action::Accept, code::INVALID_ACTION),
        (format!("action: Drop, {from}"), Action::Deny, code::INVALID_ACTION),
        (from.to_owned(), Action::Deny, code::MISSING_FIELD),
        ("action: Accept".into(), Action::Accept, code::MISSING_FIELD),
        ("action: Accept, from: []".into(), Action::Accept, code::MISSING_FIELD),
        ("action: Accept, from: [{services: {}}]".into(), Action::Accept, code::UNKNOWN_FIELD),
        ("action: Deny, from: [{services: {}}]".into(), Action::Deny, code::UNKNOWN_FIELD),
        ("action: Pass, from: [{services: {}}]".into(), Action::Pass, code::UNKNOWN_FIELD),
        ("action: Pass, from: [{}]".into(), Action::Pass, code::INVALID_PEER),
        (
            "action: Accept, from: [{namespaces: {}, pods: {podSelector: {}}}]".into(),
            Action::Accept,
            code::INVALID_PEER,
        ),
        ("action: Accept, from: [{networks: [10.0.0.0/8]}]".into(), Action::Accept, code::UNKNOWN_FIELD),
        (format!("action: Accept, {from}, protocols: []"), Action::Accept, code::INVALID_PORT),
        (format!("action: Accept, {from}, protocols: [{{}}]"), Action::Accept, code::INVALID_PORT),
        (format!("action: Accept, {from}, protocols: [{{icmp: {{}}}}]"), Action::Accept, code::UNKNOWN_FIELD),
        (
            format!("action: Deny, {from}, protocols: [{{tcp: {{destinationPort: {{}}}}}}]"),
            Action::Deny,
            code::INVALID_PORT,
        ),
        (format!("action: Accept, {from}, ports: [{{portNumber: {{port: 80}}}}]"), Action::Accept, code::UNKNOWN_FIELD),
    ] {
        let (policy, findings) = cluster_policy(&format!("ingress: [{{{rule}}}]"));
        assert_eq!(codes(&findings), [expected], "{rule}");
        let rule_read = policy.unwrap().rules.remove(0);
        assert_eq!(rule_read.action, action, "{rule}");
        assert!(rule_read.fault.is_some(), "{rule}");
        assert_eq!(rule_read.peers.is_none(), action != Action::Accept, "{rule}");
        assert_eq!(rule_read.ports.is_none(), action != Action::Accept, "{rule}");
    }
    for (egress, expected) in [
        ("action: Deny, to: [{domainNames: [example.com]}]", code::INVALID_DOMAIN_NAME),
        ("action: Accept, to: [{domainNames: ['*.']}]", code::INVALID_DOMAIN_NAME),
        ("action: Accept, to: [{domainNames: ['a.*.com']}]", code::INVALID_DOMAIN_NAME),
        ("action: Accept, to: [{networks: []}]", code::INVALID_PEER),
        (
            "action: Accept, to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: web}]",
            code::NAMED_PORT_WITHOUT_PODS,
        ),
    ] {
        let (policy, findings) = cluster_policy(&format!("egress: [{{{egress}}}]"));
        assert_eq!(codes(&findings), [expected], "{egress}");
        assert!(policy.unwrap().rules[0].fault.is_some(), "{egress}");
    }
}

#[test]
fn a_baseline_object_never_passes_and_is_named_default() {
    let (policy, findings) = ordered(
        "BaselineAdminNetworkPolicy",
        "v1alpha1",
        "{subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}]}",
    );
    assert_eq!(codes(&findings), [code::INVALID_ACTION]);
    assert!(policy.unwrap().rules[0].fault.is_some());
    let (policy, findings) = ordered(
        "BaselineAdminNetworkPolicy",
        "v1alpha1",
        "{subject: {namespaces: {}}, egress: [{action: Allow, to: [{domainNames: [example.com]}]}]}",
    );
    assert_eq!(codes(&findings), [code::UNKNOWN_FIELD]);
    assert!(policy.unwrap().rules[0].fault.is_some());
    let yaml = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: BaselineAdminNetworkPolicy\nmetadata: {name: other}\nspec: {subject: {namespaces: {}}}\n";
    let (policy, findings) = super::policy(&object(yaml));
    assert_eq!((policy, codes(&findings)), (None, vec![code::INVALID_NAME]));
}

#[test]
fn an_ordered_policy_without_place_or_subject_is_not_enforced() {
    for (spec, expected) in [
        ("{priority: 1, subject: {namespaces: {}}}", code::MISSING_FIELD),
        ("{tier: NetworkPolicy, priority: 1, subject: {namespaces: {}}}", code::INVALID_TIER),
        ("{tier: Admin, subject: {namespaces: {}}}", code::MISSING_FIELD),
        ("{tier: Admin, priority: 1001, subject: {namespaces: {}}}", code::INVALID_PRIORITY),
        ("{tier: Admin, priority: '1', subject: {namespaces: {}}}", code::WRONG_TYPE),
        ("{tier: Admin, priority: 1}", code::MISSING_FIELD),
        ("{tier: Admin, priority: 1, subject: {}}", code::INVALID_SUBJECT),
        ("{tier: Admin, priority: 1, subject: {namespaces: {}, pods: {podSelector: {}}}}", code::INVALID_SUBJECT),
        ("{tier: Admin, priority: 1, subject: {nodes: {}}}", code::UNKNOWN_FIELD),
        ("null", code::WRONG_TYPE),
    ] {
        let (policy, findings) = ordered("ClusterNetworkPolicy", "v1alpha2", spec);
        assert_eq!(policy, None, "{spec}");
        assert_eq!(codes(&findings), [expected], "{spec}");
    }
}

#[test]
fn a_pod_is_read_with_its_addresses_ports_and_owner() {
    let yaml = "
apiVersion: v1
kind: Pod
metadata:
  name: web-6c4-x1
  namespace: shop
  uid: u-1
  labels: {app: web, pod-template-hash: 6c4}
  deletionTimestamp: '2024-01-01T00:00:00Z'
  ownerReferences: [{kind: ReplicaSet, name: web-6c4, controller: true}]
spec:
  nodeName: n1
  serviceAccountName: web
  containers:
  - ports: [{name: http, containerPort: 80}, {containerPort: 53, protocol: UDP}]
  initContainers:
  - ports: [{name: setup, containerPort: 1}]
  - {restartPolicy: Always, ports: [{name: proxy, containerPort: 15001}]}
status:
  phase: Running
  podIP: 10.0.1.1
  podIPs: [{ip: 10.0.1.1}, {ip: 'fd00::1'}]
";
    let (pod, findings) = pod(&object(yaml));
    assert_eq!(findings, []);
    let pod = pod.unwrap();
    assert_eq!(pod.addresses, ["10.0.1.1", "fd00::1"].map(|text| text.parse::<IpAddr>().unwrap()));
    let port = |name: &str, port, protocol| ContainerPort { name: name.into(), port, protocol };
    let ports = [port("", 53, Protocol::UDP), port("http", 80, Protocol::TCP), port("proxy", 15001, Protocol::TCP)];
    assert_eq!(pod.container_ports, ports);
    assert_eq!(pod.workload, Some(Workload { kind: "Deployment".into(), name: "web".into() }));
    assert_eq!((pod.phase, pod.terminating, pod.host_network), (Phase::Running, true, false));
    assert_eq!((pod.uid.as_str(), pod.node.as_str(), pod.service_account.as_str()), ("u-1", "n1", "web"));
}

#[test]
fn a_pod_with_an_address_and_no_phase_runs() {
    for (status, phase, addresses) in [
        ("{podIP: 10.0.0.1}", Phase::Running, 1),
        ("{podIP: 10.0.0.1, phase: Succeeded}", Phase::Succeeded, 1),
        ("{}", Phase::Pending, 0),
        ("{podIP: ''}", Phase::Pending, 0),
    ] {
        let (pod, findings) =
            pod(&object(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nstatus: {status}\n")));
        let pod = pod.unwrap();
        assert_eq!((pod.phase, pod.addresses.len(), findings.len()), (phase, addresses, 0), "{status}");
    }
}

#[test]
fn what_is_wrong_in_a_pod_is_left_out_with_a_finding() {
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {hostNetwork: maybe, containers: [{ports: [{containerPort: 0}, {containerPort: 80}]}, 7]}\nstatus: {podIPs: [{ip: nowhere}, {ip: 10.0.0.1}, 3], phase: Dancing}\n";
    let (pod, findings) = pod(&object(yaml));
    let pod = pod.unwrap();
    assert_eq!(
        codes(&findings),
        [
            code::WRONG_TYPE,
            code::INVALID_PORT,
            code::WRONG_TYPE,
            code::INVALID_ADDRESS,
            code::WRONG_TYPE,
            code::WRONG_TYPE
        ]
    );
    assert_eq!((pod.addresses.len(), pod.container_ports.len(), pod.phase), (1, 1, Phase::Pending));
}

#[test]
fn a_node_owns_its_gateway_addresses_and_ranges() {
    let yaml = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, annotations: {netverdict.io/gateway-addresses: '10.0.1.254, fd00::fe,,x'}}\nspec: {podCIDR: 10.0.1.0/24, podCIDRs: [10.0.1.0/24, 'fd00:1::/64']}\nstatus: {addresses: [{type: InternalIP, address: 10.1.0.1}, {type: Hostname, address: n1}]}\n";
    let (node, findings) = node(&object(yaml));
    let node = node.unwrap();
    assert_eq!(codes(&findings), [code::INVALID_ADDRESS]);
    assert_eq!(node.addresses, ["10.1.0.1", "10.0.1.254", "fd00::fe"].map(|text| text.parse::<IpAddr>().unwrap()));
    assert_eq!(node.pod_ranges.len(), 2);
}

#[test]
fn a_service_has_all_its_addresses_and_ports() {
    let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: s, namespace: x}\nspec: {clusterIP: 10.96.1.1, clusterIPs: [10.96.1.1, 'fd00::1'], externalIPs: [198.51.100.1], selector: {app: web}, ports: [{port: 80, targetPort: 8080}, {name: dns, port: 53, protocol: UDP, targetPort: dns}, {port: 9}]}\nstatus: {loadBalancer: {ingress: [{ip: 203.0.113.9}, {hostname: lb.example.com}]}}\n";
    let (service, findings) = service(&object(yaml));
    let service = service.unwrap();
    assert_eq!(findings, []);
    assert_eq!(service.addresses.len(), 4);
    let ports: Vec<_> =
        service.ports.iter().map(|port| (port.port, port.target_port.as_str(), port.protocol)).collect();
    assert_eq!(ports, [(80, "8080", Protocol::TCP), (53, "dns", Protocol::UDP), (9, "9", Protocol::TCP)]);
    let headless = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {clusterIP: None}\n";
    assert_eq!(super::service(&object(headless)).0.unwrap().addresses, Vec::<IpAddr>::new());
}

#[test]
fn a_namespace_always_has_the_label_of_its_name() {
    let yaml = "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {team: a, kubernetes.io/metadata.name: forged}}\n";
    let labels = namespace(&object(yaml)).0.unwrap().labels;
    assert_eq!(labels.get(NAME_LABEL).map(String::as_str), Some("x"));
    assert_eq!(labels.get("team").map(String::as_str), Some("a"));
}

#[test]
fn a_label_that_is_null_is_empty_as_an_api_server_stores_it() {
    let yaml = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {app: , tier: web}, annotations: {note: }}\n";
    let labels = pod(&object(yaml)).0.unwrap().labels;
    assert_eq!(
        labels.iter().collect::<Vec<_>>(),
        [(&"app".to_owned(), &String::new()), (&"tier".into(), &"web".into())]
    );
}

#[test]
fn findings_of_one_object_are_bounded() {
    let rules = "{form: 1}, ".repeat(500);
    let (policy, findings) = network_policy(&format!("{{podSelector: {{}}, ingress: [{rules}]}}"));
    assert_eq!(policy.unwrap().rules.len(), 500);
    assert_eq!(findings.len(), Report::MOST + 1);
    assert_eq!(findings.last().unwrap().code, code::MORE_FINDINGS);
}

use super::*;
use crate::read;

fn reading(yaml: &str) -> Reading {
    let (objects, findings) = read(yaml, "f");
    assert_eq!(findings, []);
    snapshot(&objects)
}

fn codes(reading: &Reading) -> Vec<&'static str> {
    reading.findings.iter().map(|finding| finding.code).collect()
}

const CLUSTER: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: x, labels: {team: a}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDR: 10.0.1.0/24}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, namespace: x}}
---
{apiVersion: v1, kind: Service, metadata: {name: s, namespace: x}, spec: {clusterIP: 10.96.0.1}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {podSelector: {}}}
";

#[test]
fn every_kind_finds_its_place() {
    let reading = reading(CLUSTER);
    let Snapshot { namespaces, pods, nodes, services, policies, names, pod_ranges, audit_all } = &reading.snapshot;
    assert_eq!((namespaces.len(), pods.len(), nodes.len(), services.len(), policies.len()), (1, 1, 1, 1, 1));
    assert!(names.is_empty() && !audit_all);
    assert_eq!(pod_ranges.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.1.0/24"]);
    assert_eq!(reading.findings, []);
    assert_eq!(reading.objects.len(), 1);
}

#[test]
fn undefined_namespaces_are_implied() {
    let reading =
        reading(&format!("{CLUSTER}---\n{{apiVersion: v1, kind: Pod, metadata: {{name: b, namespace: 'y'}}}}\n"));
    assert_eq!(codes(&reading), [code::IMPLIED_NAMESPACE]);
    assert_eq!(*reading.snapshot.namespaces["y"], implied_namespace("y"));
    assert_eq!(reading.snapshot.namespaces["y"].labels["kubernetes.io/metadata.name"], "y");
}

#[test]
fn the_last_of_duplicates_counts_even_where_it_cannot_be_read() {
    let other = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {podSelector: {}, policyTypes: [Egress]}}";
    let egress = reading(&format!("{CLUSTER}---\n{other}\n"));
    assert_eq!(codes(&egress), [code::DUPLICATE_OBJECT]);
    assert!(egress.findings[0].message.contains("f#6"), "{}", egress.findings[0]);
    assert!(egress.snapshot.policies.values().next().unwrap().isolates.egress);
    let broken = reading(&format!("{CLUSTER}---\n{}\n", other.replace("[Egress]", "Egress")));
    assert_eq!(codes(&broken), [code::DUPLICATE_OBJECT, code::INVALID_POLICY_TYPES]);
    assert!(broken.snapshot.policies.is_empty() && broken.objects.is_empty());
}

#[test]
fn kinds_of_other_groups_are_neither_read_nor_duplicates() {
    let reading = reading(&format!(
        "{CLUSTER}---\n{{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {{name: s, namespace: x}}}}\n"
    ));
    assert_eq!(codes(&reading), [code::UNKNOWN_KIND]);
    assert_eq!(reading.snapshot.services.len(), 1);
}

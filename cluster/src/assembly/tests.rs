use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::source::Scope;

const POOL: [&str; 12] = [
    "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a}}}",
    "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: b}}}",
    "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, status: {podIP: 10.0.0.1}}",
    "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: api}}, status: {podIP: 10.0.0.1}}",
    "{apiVersion: v1, kind: Pod, metadata: {name: pg, namespace: db}, status: {podIP: 10.0.0.2}}",
    "{apiVersion: v1, kind: Node, metadata: {name: 'n'}, spec: {podCIDRs: [10.0.0.0/24]}}",
    "{apiVersion: v1, kind: Node, metadata: {name: 'n'}, spec: {podCIDRs: [10.0.0.0/24, 10.1.0.0/24]}}",
    "{apiVersion: v1, kind: Node, metadata: {name: m}, spec: {podCIDRs: [10.1.0.0/24]}}",
    "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.96.0.1}}",
    "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: shop, generation: 1}, spec: {podSelector: {}}}",
    "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: shop, generation: 2}, spec: {podSelector: {}, policyTypes: [Egress]}}",
    "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: shop, generation: 3}, spec: {podSelector: {}, policyTypes: [Inngress]}}",
];

fn objects_of(documents: &[usize], name: &str) -> Vec<Object> {
    let text: Vec<&str> = documents.iter().map(|document| POOL[*document]).collect();
    netverdict_manifest::read(&text.join("\n---\n"), name).0
}

fn replace(assembly: &mut Assembly, layer: usize, file: &str, documents: &[usize], generations: &mut Generations) {
    let changes = Change::replace(&Scope::File(Path::new(file).into()), objects_of(documents, file));
    assembly.apply(Layer(layer), changes, generations);
}

proptest! {
    #[test]
    fn edits_lead_to_what_all_texts_say_read_at_once(
        edits in prop::collection::vec((0_usize..3, 0_usize..3, prop::collection::vec(0..POOL.len(), 0..5)), 1..12),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut generations = Generations::open(folder.path()).unwrap();
        let mut assembly = Assembly::default();
        let mut texts = BTreeMap::new();
        for (layer, file, documents) in edits {
            let name = format!("{file}.yaml");
            replace(&mut assembly, layer, &name, &documents, &mut generations);
            texts.insert((layer, name), documents);
            let all: Vec<Object> =
                texts.iter().flat_map(|((_, name), documents)| objects_of(documents, name)).collect();
            let reading = netverdict_manifest::snapshot(&all);
            prop_assert_eq!(&*assembly.snapshot(), &reading.snapshot);
            let written = reading.objects.into_iter().map(|object| (key_of(&object), object)).collect::<PolicyObjects>();
            prop_assert_eq!(&*assembly.policies(), &written);
            let errors = reading.findings.iter().filter(|finding| finding.severity == Severity::Error);
            let errors: std::collections::BTreeSet<String> = errors.map(ToString::to_string).collect();
            prop_assert_eq!(assembly.errors().cloned().collect::<std::collections::BTreeSet<_>>(), errors);
        }
    }
}

#[test]
fn what_an_edit_leaves_alone_is_not_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut generations = Generations::open(folder.path()).unwrap();
    let mut assembly = Assembly::default();
    replace(&mut assembly, 0, "a", &[2, 4], &mut generations);
    let before = assembly.snapshot();
    replace(&mut assembly, 0, "a", &[3, 4], &mut generations);
    let after = assembly.snapshot();
    let same = |name: &str| {
        let pod = |snapshot: &Snapshot| snapshot.pods.iter().find(|(key, _)| key.name == name).unwrap().1.clone();
        Arc::ptr_eq(&pod(&before), &pod(&after))
    };
    assert!(same("pg") && !same("web"));
}

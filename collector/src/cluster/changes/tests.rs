use super::*;
use crate::cluster::{assembly::Assembly, generations::Generations};

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, uid: u, labels: {app: web}}, spec: {nodeName: n}, status: {phase: Running}}";
const POLICY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: shop}, spec: {podSelector: {}}}";

fn cluster(texts: &[&str]) -> ClusterState {
    let (objects, findings) = netverdict_manifest::read(&texts.join("\n---\n"), "a.yaml");
    assert!(findings.is_empty(), "{findings:?}");
    let mut assembly = Assembly::default();
    let folder = tempfile::tempdir().unwrap();
    assembly.replace(Path::new("a.yaml"), objects, &mut Generations::open(folder.path()).unwrap());
    ClusterState::of(&assembly, Vec::new())
}

struct Log(tempfile::TempDir);

impl Log {
    fn open(&self, boot: &str, anew: bool) -> Changes {
        Changes::open(self.0.path(), "n".into(), boot.into(), anew).unwrap()
    }
}

/// (change, name, seconds), sorted.
fn told(changes: &mut Changes, cluster: &ClusterState, second: i64) -> Vec<(ChangeKind, String, i64)> {
    let facts = changes.rows(cluster, 1, second * 1_000_000_000, |_| OwnerId(4));
    changes.save().unwrap();
    let mut said: Vec<_> = facts
        .into_iter()
        .map(|mut fact| {
            let head = fact.head_mut().unwrap().clone();
            let name = match fact {
                Fact::Policy(row) => row.name,
                Fact::Endpoint(row) => row.name,
                Fact::Namespace(row) => row.name,
                Fact::Service(row) => row.name,
                Fact::Attribution(_) | Fact::Snapshot(_) | Fact::Gap(_) => unreachable!("it has a head"),
            };
            (head.change, name, head.time.timestamp())
        })
        .collect();
    said.sort();
    said
}

#[test]
fn changes_are_told_once_and_deletions_by_name() {
    let log = Log(tempfile::tempdir().unwrap());
    let mut changes = log.open("b", false);
    let put = |name: &str, at| (ChangeKind::Put, name.to_owned(), at);
    let both = cluster(&[POD, POLICY]);
    assert_eq!(told(&mut changes, &both, 1), [put("a", 1), put("shop", 1), put("web", 1)]);
    assert_eq!(told(&mut changes, &both, 2), []);
    let relabelled = cluster(&[&POD.replace("app: web", "app: api"), POLICY]);
    assert_eq!(told(&mut changes, &relabelled, 3), [put("web", 3)]);
    // Down while the policy is deleted.
    let mut changes = log.open("b", false);
    let pod = cluster(&[&POD.replace("app: web", "app: api")]);
    assert_eq!(told(&mut changes, &pod, 4), [(ChangeKind::Delete, "a".to_owned(), 4)]);
    assert_eq!(told(&mut log.open("b", false), &pod, 5), []);
    // After a crash of the node all is told again, as of when it began.
    assert_eq!(told(&mut log.open("c", false), &pod, 6), [put("shop", 1), put("web", 3)]);
    assert_eq!(told(&mut log.open("c", true), &pod, 7), [put("shop", 7), put("web", 7)]);
}

#[test]
fn policy_is_kept_with_its_whole_text() {
    let log = Log(tempfile::tempdir().unwrap());
    let facts = log.open("b", false).rows(&cluster(&[POLICY]), 1, 0, |_| OwnerId::NOBODY);
    let text = facts.iter().find_map(|fact| if let Fact::Policy(row) = fact { Some(&row.text) } else { None }).unwrap();
    assert!(text.contains("podSelector"), "{text}");
}

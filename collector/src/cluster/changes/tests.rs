use netverdict_cluster::{Change, Cluster, Generations, Scope, Update};

use super::*;

const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, uid: u, labels: {app: web}}, spec: {nodeName: 'n'}, status: {phase: Running}}";
const POLICY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: shop}, spec: {podSelector: {}}}";

fn cluster(texts: &[&str]) -> ClusterState {
    cluster_of(&texts.join("\n---\n"))
}

fn cluster_of(text: &str) -> ClusterState {
    let (objects, findings) = netverdict_manifest::read(text, "a.yaml");
    assert!(findings.is_empty(), "{findings:?}");
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(Generations::open(folder.path()).unwrap());
    let layer = cluster.add_source("manifests");
    let scope = Scope::File(Path::new("a.yaml").into());
    cluster.apply(layer, Update::Changes(Change::replace(&scope, objects)));
    cluster.apply(layer, Update::InSync);
    cluster.state(0).unwrap()
}

struct Log(tempfile::TempDir);

impl Log {
    fn open(&self, boot: &str, anew: bool) -> Changes {
        Changes::open(self.0.path(), "n".into(), boot.into(), anew).unwrap()
    }
}

/// (change, name, seconds), sorted.
fn recorded(changes: &mut Changes, cluster: &ClusterState, second: i64) -> Vec<(ChangeKind, String, i64)> {
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
fn changes_are_recorded_once_and_deletions_by_name() {
    let log = Log(tempfile::tempdir().unwrap());
    let mut changes = log.open("b", false);
    let put = |name: &str, at| (ChangeKind::Put, name.to_owned(), at);
    let both = cluster(&[POD, POLICY]);
    assert_eq!(recorded(&mut changes, &both, 1), [put("a", 1), put("shop", 1), put("web", 1)]);
    assert_eq!(recorded(&mut changes, &both, 2), []);
    let relabelled = cluster(&[&POD.replace("app: web", "app: api"), POLICY]);
    assert_eq!(recorded(&mut changes, &relabelled, 3), [put("web", 3)]);
    // Down while the policy is deleted.
    let mut changes = log.open("b", false);
    let pod = cluster(&[&POD.replace("app: web", "app: api")]);
    assert_eq!(recorded(&mut changes, &pod, 4), [(ChangeKind::Delete, "a".to_owned(), 4)]);
    assert_eq!(recorded(&mut log.open("b", false), &pod, 5), []);
    // After a crash of the node all rows are repeated, with their first times.
    assert_eq!(recorded(&mut log.open("c", false), &pod, 6), [put("shop", 1), put("web", 3)]);
    assert_eq!(recorded(&mut log.open("c", true), &pod, 7), [put("shop", 7), put("web", 7)]);
}

#[test]
fn policy_is_kept_with_its_whole_text() {
    let log = Log(tempfile::tempdir().unwrap());
    let facts = log.open("b", false).rows(&cluster(&[POLICY]), 1, 0, |_| OwnerId::NOBODY);
    let text = facts.iter().find_map(|fact| if let Fact::Policy(row) = fact { Some(&row.text) } else { None }).unwrap();
    assert!(text.contains("podSelector"), "{text}");
}

#[test]
fn policy_of_an_api_server_is_kept_with_its_author_and_the_servers_times() {
    let log = Log(tempfile::tempdir().unwrap());
    let written = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, spec: {podSelector: {}}, metadata: {
        name: a, namespace: shop, uid: u, generation: 3, resourceVersion: '812', creationTimestamp: '2026-03-01T08:00:00Z',
        managedFields: [
          {manager: kubectl-create, time: '2026-03-01T08:00:00Z', fieldsV1: {f:spec: {f:podSelector: {}}}},
          {manager: argocd, time: '2026-05-01T11:20:00Z', fieldsV1: {f:spec: {f:podSelector: {}}}},
          {manager: labeller, time: '2026-06-01T00:00:00Z', fieldsV1: {f:metadata: {f:labels: {}}}}]}}";
    let facts = log.open("b", false).rows(&cluster(&[written]), 1, 0, |_| OwnerId::NOBODY);
    let row = facts.iter().find_map(|fact| if let Fact::Policy(row) = fact { Some(row) } else { None }).unwrap();
    assert_eq!((row.uid.as_str(), row.generation, row.resource_version.as_str()), ("u", 3, "812"));
    let time = |time: Option<DateTime<Utc>>| time.unwrap().to_rfc3339();
    assert_eq!((row.author.as_str(), time(row.changed_time)), ("argocd", "2026-05-01T11:20:00+00:00".to_owned()));
    assert_eq!(time(row.created_time), "2026-03-01T08:00:00+00:00");
    assert!(!row.text.contains("managedFields"), "{}", row.text);
}

/// The present state as a reader of the change logs sees it: content by kind, namespace and name.
type Present = BTreeMap<String, String>;

fn key_of(fact: &Fact) -> String {
    match fact {
        Fact::Policy(row) => format!("policy {}/{}", row.namespace, row.name),
        Fact::Endpoint(row) => format!("pod {}/{}", row.namespace, row.name),
        Fact::Namespace(row) => format!("namespace {}", row.name),
        Fact::Service(row) => format!("service {}/{}", row.namespace, row.name),
        Fact::Attribution(_) | Fact::Snapshot(_) | Fact::Gap(_) => unreachable!("it has a head"),
    }
}

fn take(present: &mut Present, facts: Vec<Fact>) {
    for mut fact in facts {
        let change = fact.head_mut().unwrap().change;
        let key = key_of(&fact);
        match change {
            ChangeKind::Put => _ = present.insert(key, content_of(&fact)),
            ChangeKind::Delete => _ = present.remove(&key),
        }
    }
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let listed = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    listed.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// Puts the folder into the state in which a crash left it that came when `written` of the new bytes were written.
fn tear(before: &BTreeMap<PathBuf, Vec<u8>>, folder: &Path, written: usize) {
    let after = files(folder);
    for (path, bytes) in before {
        std::fs::write(path, bytes).unwrap();
    }
    for (path, bytes) in after {
        let kept = before.get(&path).map_or(0, Vec::len);
        std::fs::write(path, &bytes[..(kept + written).min(bytes.len())]).unwrap();
    }
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Saved,
    /// The rows are safe, and the state is not.
    Killed,
    /// The same; and so much of it was written.
    Torn(usize),
    /// Neither is.
    KilledBefore,
    Restarted,
    Rebooted,
}

fn ending() -> impl proptest::strategy::Strategy<Value = Ending> {
    use proptest::prelude::*;
    prop_oneof![
        3 => Just(Ending::Saved),
        1 => Just(Ending::Killed),
        2 => (0_usize..3_000).prop_map(Ending::Torn),
        1 => Just(Ending::KilledBefore),
        1 => Just(Ending::Restarted),
        1 => Just(Ending::Rebooted),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 32, ..Default::default() })]
    #[test]
    fn change_logs_agree_with_the_cluster_after_every_crash(
        steps in proptest::collection::vec(
            (proptest::collection::btree_map(0_u8..8, 1_u16..4, 0..8), ending()),
            1..14,
        ),
    ) {
        let log = Log(tempfile::tempdir().unwrap());
        let folder = log.0.path().join(FOLDER);
        let (mut changes, mut boot) = (log.open("b", false), 0);
        let mut present = Present::new();
        // Last recorded changes of a collector that died before it could note them: if an object has its earlier content
        // when the next collector starts, nothing shows that another content was recorded.
        let mut unremembered = BTreeSet::new();
        for (objects, ending) in steps {
            let texts: Vec<String> = objects.iter().map(|(name, content)| match name % 4 {
                0 => format!("{{apiVersion: v1, kind: Service, metadata: {{name: s{name}, namespace: a}}, spec: {{clusterIP: 10.0.0.{content}}}}}"),
                1 => POLICY.replace("name: a", &format!("name: q{name}, generation: {content}")),
                2 => POD.replace("name: web", &format!("name: p{name}")).replace("app: web", &format!("app: a{content}")),
                _ => format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: n{name}, labels: {{team: t{content}}}}}}}"),
            }).collect();
            let cluster = cluster_of(&texts.join("\n---\n"));
            let facts = changes.rows(&cluster, 1, 1, |_| OwnerId(4));
            if matches!(ending, Ending::KilledBefore) {
                changes = log.open(&format!("b{boot}"), false);
                continue;
            }
            let mentioned: Vec<String> = facts.iter().map(key_of).collect();
            take(&mut present, facts);
            let mut expected = Present::new();
            let other = Log(tempfile::tempdir().unwrap());
            take(&mut expected, other.open("b", false).rows(&cluster, 1, 1, |_| OwnerId(4)));
            mentioned.iter().for_each(|key| _ = unremembered.remove(key));
            let known = |all: &Present| -> Present {
                all.iter().filter(|(key, _)| !unremembered.contains(*key)).map(|(key, content)| (key.clone(), content.clone())).collect()
            };
            proptest::prop_assert_eq!(known(&present), known(&expected));
            if matches!(ending, Ending::Killed | Ending::Torn(_)) {
                unremembered.extend(mentioned);
            }
            let before = files(&folder);
            match ending {
                Ending::Killed => {}
                Ending::Torn(written) => {
                    changes.save().unwrap();
                    tear(&before, &folder, written);
                }
                _ => changes.save().unwrap(),
            }
            boot += u32::from(matches!(ending, Ending::Rebooted));
            if !matches!(ending, Ending::Saved) {
                changes = log.open(&format!("b{boot}"), false);
            }
        }
    }
}

#[test]
fn state_of_the_release_before_the_log_counts() {
    let log = Log(tempfile::tempdir().unwrap());
    let mut changes = log.open("b", false);
    let _ = recorded(&mut changes, &cluster(&[POD, POLICY]), 1);
    let former = log.0.path().join(FORMER_FILE);
    let Recorded { boot_id, attributions, objects } = &changes.recorded;
    let text = serde_json::json!({"boot_id": boot_id, "attributions": attributions, "objects": objects}).to_string();
    std::fs::remove_dir_all(log.0.path().join(FOLDER)).unwrap();
    std::fs::write(&former, text).unwrap();
    let expected = [(ChangeKind::Delete, "a".to_owned(), 2)];
    assert_eq!(recorded(&mut log.open("b", false), &cluster(&[POD]), 2), expected);
    assert!(!former.exists(), "the log says it now");
    assert_eq!(recorded(&mut log.open("b", false), &cluster(&[POD]), 3), []);
}

#[test]
fn log_of_recorded_objects_does_not_grow_without_end() {
    let log = Log(tempfile::tempdir().unwrap());
    let mut changes = log.open("b", false);
    let note = "x".repeat(60);
    for round in 0..400 {
        let labels: Vec<String> = (0..40).map(|label| format!("l{label}: {note}-{round}")).collect();
        let pod = POD.replace("app: web", &labels.join(", ")).replace("-", "");
        let cluster = cluster_of(&pod);
        let _ = changes.rows(&cluster, 1, round, |_| OwnerId(4));
        changes.save().unwrap();
    }
    let files = files(&log.0.path().join(FOLDER));
    assert_eq!(files.len(), 1);
    let bytes: usize = files.values().map(Vec::len).sum();
    assert!(bytes < 600 << 10, "{bytes} bytes for one pod");
}

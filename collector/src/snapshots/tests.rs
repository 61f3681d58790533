use std::{collections::BTreeSet, fs};

use netverdict_policy::ObjectKey;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::meaning::WholeState;

/// A cluster to be changed at will.
#[derive(Clone, Debug, Default)]
struct Cluster {
    /// By name: label and address.
    pods: BTreeMap<u8, (u8, u8)>,
    policies: BTreeMap<u8, u16>,
    services: BTreeSet<u8>,
    nodes: BTreeSet<u8>,
    audit_all: bool,
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Pod(u8, Option<(u8, u8)>),
    Policy(u8, Option<u16>),
    Service(u8, bool),
    Node(u8, bool),
    Audit(bool),
}

impl Cluster {
    fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Pod(name, Some(pod)) => _ = self.pods.insert(name, pod),
            Turn::Pod(name, None) => _ = self.pods.remove(&name),
            Turn::Policy(name, Some(port)) => _ = self.policies.insert(name, port),
            Turn::Policy(name, None) => _ = self.policies.remove(&name),
            Turn::Service(name, true) => _ = self.services.insert(name),
            Turn::Service(name, false) => _ = self.services.remove(&name),
            Turn::Node(name, true) => _ = self.nodes.insert(name),
            Turn::Node(name, false) => _ = self.nodes.remove(&name),
            Turn::Audit(audit_all) => self.audit_all = audit_all,
        }
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        let mut texts = Vec::new();
        for (name, (label, address)) in &self.pods {
            texts.push(format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: p{name}, namespace: n{}, uid: u{name}, labels: {{app: a{label}}}}}, \
                 spec: {{nodeName: 'n'}}, status: {{phase: Running, podIPs: [{{ip: 10.0.0.{address}}}]}}}}",
                name % 2
            ));
        }
        for (name, port) in &self.policies {
            texts.push(format!(
                "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: q{name}, namespace: n{}}}, \
                 spec: {{podSelector: {{}}, ingress: [{{from: [{{podSelector: {{matchLabels: {{app: a{name}}}}}}}, \
                 {{ipBlock: {{cidr: 172.16.{name}.0/24}}}}], ports: [{{port: {port}}}]}}]}}}}",
                name % 2
            ));
        }
        for name in &self.services {
            texts.push(format!(
                "{{apiVersion: v1, kind: Service, metadata: {{name: s{name}, namespace: n0}}, \
                 spec: {{clusterIP: 10.96.0.{name}, ports: [{{port: 80}}]}}}}"
            ));
        }
        for name in &self.nodes {
            texts.push(format!(
                "{{apiVersion: v1, kind: Node, metadata: {{name: k{name}}}, spec: {{podCIDRs: [10.{name}.0.0/24]}}, \
                 status: {{addresses: [{{type: InternalIP, address: 192.168.0.{name}}}]}}}}"
            ));
        }
        let (objects, findings) = netverdict_manifest::read(&texts.join("\n---\n"), "cluster.yaml");
        assert!(findings.is_empty(), "{findings:?}");
        let snapshot = netverdict_manifest::snapshot(&objects).snapshot;
        Arc::new(Snapshot { audit_all: self.audit_all, ..snapshot })
    }
}

fn small() -> Cluster {
    Cluster { pods: [(1, (1, 1)), (2, (2, 2))].into(), policies: [(1, 80)].into(), ..Cluster::default() }
}

/// Expected text of a state, made from the snapshot and the compiler alone.
fn said(
    number: u64,
    (boot, revision, seen_ns): (&str, u64, i64),
    snapshot: &Arc<Snapshot>,
    compiler: &Compiler,
) -> String {
    let tables = compiler.tables();
    let owners = tables.addresses.values().filter_map(|entry| Some((entry.owner, compiler.owner(entry.owner)?)));
    text(&WholeState {
        number,
        boot_id: boot.into(),
        revision,
        seen_ns,
        snapshot: snapshot.clone(),
        addresses: tables.addresses.clone(),
        blocks: tables.blocks.clone(),
        owners: owners.map(|(id, owner)| (id, Arc::new(owner.clone()))).collect(),
    })
}

fn text(state: &impl serde::Serialize) -> String {
    serde_json::to_string(state).unwrap()
}

/// A collector that keeps snapshots, dies, and starts again.
struct Run {
    folder: TempDir,
    snapshots: Snapshots,
    compiler: Compiler,
    anew: bool,
    boot: u64,
    /// States that were kept and came into force, by number.
    kept: BTreeMap<u64, String>,
    /// Revision is number, as the probe would tell it.
    revisions: Vec<(u64, u64)>,
    forgotten: u64,
    highest: u64,
    seen_ns: i64,
}

impl Run {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(folder.path()).unwrap();
        let compiler = Compiler::new("n", IdFloor::default());
        let (kept, revisions) = (BTreeMap::new(), Vec::new());
        Self { folder, snapshots, compiler, anew: true, boot: 0, kept, revisions, forgotten: 0, highest: 0, seen_ns: 0 }
    }

    fn keep(&mut self, snapshot: &Arc<Snapshot>) -> Result<u64, SnapshotsError> {
        let change = self.compiler.compile(snapshot);
        assert_eq!(change.complete, std::mem::take(&mut self.anew));
        let boot = format!("b{}", self.boot);
        self.seen_ns += 10;
        let state =
            self.snapshots.keep(&boot.as_str().into(), self.seen_ns, snapshot, &self.compiler, change.complete)?;
        assert!(state.number > self.highest, "{} was given out before", state.number);
        self.highest = state.number;
        assert_eq!(text(&*state), said(state.number, (&boot, 0, self.seen_ns), snapshot, &self.compiler));
        Ok(state.number)
    }

    fn publish(&mut self, number: u64, snapshot: &Arc<Snapshot>, noted: bool) {
        if noted {
            self.snapshots.published(number, number).unwrap();
        }
        self.revisions.push((number, number));
        let boot = format!("b{}", self.boot);
        self.kept.insert(number, said(number, (&boot, number, self.seen_ns), snapshot, &self.compiler));
    }

    /// Keeps and publishes.
    fn force(&mut self, snapshot: &Arc<Snapshot>) -> u64 {
        let number = self.keep(snapshot).unwrap();
        self.publish(number, snapshot, true);
        number
    }

    fn restart(&mut self) {
        self.snapshots = Snapshots::open(self.folder.path()).unwrap();
        self.compiler = Compiler::new("n", self.compiler.floor());
        self.anew = true;
    }

    fn reboot(&mut self) {
        // Revisions that were not noted are lost.
        let noted: BTreeSet<u64> = self.found().keys().copied().collect();
        self.boot += 1;
        self.revisions.clear();
        self.restart();
        self.compiler = Compiler::new("n", IdFloor::default());
        self.kept.retain(|number, _| noted.contains(number));
    }

    /// States found of all boots, without the probe's knowledge.
    fn found(&self) -> BTreeMap<u64, String> {
        found(self.folder.path(), self.boot, &[])
    }

    fn forget(&mut self, number: u64) {
        self.snapshots.forget_through(number).unwrap();
        self.forgotten = self.forgotten.max(number);
    }

    /// Every state that may still be needed is there, and every state found is true.
    fn check(&self) {
        let found = found(self.folder.path(), self.boot, &self.revisions);
        for (number, text) in &found {
            assert_eq!(Some(text), self.kept.get(number), "state {number}");
        }
        for number in self.kept.range(self.forgotten + 1..).map(|(number, _)| number) {
            assert!(found.contains_key(number), "state {number} is lost, of {:?}", found.keys());
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        files(self.folder.path())
    }
}

fn files(state_dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(state_dir.join(FOLDER)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// States found by a start, as text by number. `revisions`: those that the probe knows of the last boot.
fn found(state_dir: &Path, boots: u64, revisions: &[(u64, u64)]) -> BTreeMap<u64, String> {
    let copy = copied(state_dir);
    let snapshots = Snapshots::open(copy.path()).unwrap();
    let of = |boot| snapshots.found(&format!("b{boot}"), if boot == boots { revisions } else { &[] });
    (0..=boots).flat_map(of).map(|state| (state.number, text(&*state))).collect()
}

fn copied(state_dir: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join(FOLDER)).unwrap();
    for path in files(state_dir).into_iter().chain([state_dir.join(NUMBER_FILE)]) {
        if path.exists() {
            fs::copy(&path, copy.path().join(path.strip_prefix(state_dir).unwrap())).unwrap();
        }
    }
    copy
}

#[derive(Clone, Debug)]
enum Step {
    Force(Vec<Turn>),
    /// Kept and published, and killed before that was noted.
    Killed(Vec<Turn>),
    Refused(Vec<Turn>),
    DiskFull(Vec<Turn>),
    Forget(u64),
    Restart,
    Reboot,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        4 => (0_u8..40, any::<Option<(u8, u8)>>()).prop_map(|(name, pod)| Turn::Pod(name, pod)),
        2 => (0_u8..6, any::<Option<u16>>()).prop_map(|(name, port)| Turn::Policy(name, port.map(|port| port.max(1)))),
        1 => (1_u8..5, any::<bool>()).prop_map(|(name, there)| Turn::Service(name, there)),
        1 => (1_u8..5, any::<bool>()).prop_map(|(name, there)| Turn::Node(name, there)),
        1 => any::<bool>().prop_map(Turn::Audit),
    ];
    prop::collection::vec(turn, 0..30)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => turns().prop_map(Step::Force),
        1 => turns().prop_map(Step::Killed),
        1 => turns().prop_map(Step::Refused),
        1 => turns().prop_map(Step::DiskFull),
        2 => (0_u64..4).prop_map(Step::Forget),
        1 => Just(Step::Restart),
        1 => Just(Step::Reboot),
    ];
    prop::collection::vec(step, 1..24)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]
    #[test]
    fn after_any_history_every_needed_state_is_found_and_says_what_it_said(steps in steps()) {
        let mut run = Run::new();
        let mut cluster = Cluster::default();
        for step in steps {
            if let Step::Force(turns) | Step::Killed(turns) | Step::Refused(turns) | Step::DiskFull(turns) = &step {
                turns.iter().for_each(|turn| cluster.turn(*turn));
            }
            let snapshot = cluster.snapshot();
            match step {
                Step::Force(_) => _ = run.force(&snapshot),
                Step::Killed(_) => {
                    let number = run.keep(&snapshot).unwrap();
                    run.publish(number, &snapshot, false);
                    run.restart();
                }
                Step::Refused(_) => {
                    let number = run.keep(&snapshot).unwrap();
                    run.snapshots.abandoned(number).unwrap();
                    // As control does after a publication that failed.
                    run.compiler = Compiler::new("n", run.compiler.floor());
                    run.anew = true;
                }
                Step::DiskFull(_) => {
                    run.snapshots.lock().chain.fill_disk();
                    // A whole goes to a file of its own, which finds room.
                    if let Err(error) = run.keep(&snapshot) {
                        prop_assert!(matches!(error, SnapshotsError::Log(error) if error.is_disk_full()));
                    }
                    run.compiler = Compiler::new("n", run.compiler.floor());
                    run.anew = true;
                }
                Step::Forget(back) => run.forget(run.highest.saturating_sub(back)),
                Step::Restart => run.restart(),
                Step::Reboot => run.reboot(),
            }
            run.check();
        }
    }
}

#[test]
fn snapshots_come_back_with_the_revision_they_became() {
    let mut run = Run::new();
    let mut cluster = small();
    let first = run.force(&cluster.snapshot());
    cluster.turn(Turn::Pod(3, Some((3, 3))));
    let second = run.keep(&cluster.snapshot()).unwrap();
    run.publish(second, &cluster.snapshot(), false);
    cluster.turn(Turn::Pod(4, Some((4, 4))));
    let third = run.keep(&cluster.snapshot()).unwrap();
    // The second was published, and the collector died before it was noted; the third was not.
    let numbers = |revisions: &[_]| found(run.folder.path(), 0, revisions).into_keys().collect::<Vec<_>>();
    assert_eq!(numbers(&[(second, second)]), [first, second]);
    assert_eq!(numbers(&[]), [first], "after a reboot nobody knows");
    let snapshots = Snapshots::open(run.folder.path()).unwrap();
    assert!(snapshots.found("another", &[(second, second)]).is_empty());
    run.restart();
    assert_eq!(run.keep(&cluster.snapshot()).unwrap(), third + 1);
}

/// Three states in one file, with its bytes and where each of them ends.
fn three() -> (Run, Vec<u8>, Vec<(usize, u64)>) {
    let mut run = Run::new();
    let mut cluster = small();
    let mut ends = Vec::new();
    for address in 1..=3 {
        cluster.turn(Turn::Pod(2, Some((2, address + 10))));
        let snapshot = cluster.snapshot();
        let number = run.keep(&snapshot).unwrap();
        ends.push((fs::read(&run.files()[0]).unwrap().len(), number));
        run.publish(number, &snapshot, address % 2 == 0);
    }
    assert_eq!(run.files().len(), 1);
    let bytes = fs::read(&run.files()[0]).unwrap();
    (run, bytes, ends)
}

#[test]
fn file_cut_at_any_byte_gives_the_states_before_the_cut_and_takes_more() {
    let (mut run, bytes, ends) = three();
    let (file, (before, _)) = (run.files().remove(0), ends[1]);
    // The first records in strides, the last byte by byte.
    for length in (0..before).step_by(37).chain(before..=bytes.len()) {
        fs::write(&file, &bytes[..length]).unwrap();
        let expected: Vec<u64> = ends.iter().filter(|(end, _)| *end <= length).map(|(_, number)| *number).collect();
        let found = found(run.folder.path(), 0, &run.revisions);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), expected, "cut to {length} bytes");
        for (number, text) in &found {
            assert_eq!(Some(text), run.kept.get(number));
        }
    }
    let all = run.kept.clone();
    for length in [0, 7, 16, before + 5, bytes.len() - 1] {
        run.files().iter().for_each(|path| fs::remove_file(path).unwrap());
        fs::write(&file, &bytes[..length]).unwrap();
        run.kept.clone_from(&all);
        let there = found(run.folder.path(), 0, &run.revisions);
        run.kept.retain(|number, _| there.contains_key(number));
        run.restart();
        // Numbers go on after the lost ones.
        run.force(&small().snapshot());
        run.check();
    }
}

#[test]
fn flipped_bits_lose_states_and_never_change_one() {
    let (mut run, bytes, ends) = three();
    let file = run.files().remove(0);
    for index in (0..16).chain((16..bytes.len()).step_by(13)) {
        let mut flipped = bytes.clone();
        flipped[index] ^= 1 << (index % 8);
        fs::write(&file, &flipped).unwrap();
        let found = found(run.folder.path(), 0, &run.revisions);
        for (number, text) in &found {
            assert_eq!(Some(text), run.kept.get(number), "byte {index}");
        }
        let untouched = ends.iter().filter(|(end, _)| *end <= index && index >= 16);
        untouched.for_each(|(_, number)| assert!(found.contains_key(number), "byte {index}"));
    }
    // A number that a lost record named is not given out again: its events may be on record.
    let mut flipped = bytes;
    flipped[ends[0].0 + 20] ^= 4;
    fs::write(&file, &flipped).unwrap();
    run.kept.retain(|number, _| *number == ends[0].1);
    run.restart();
    run.force(&small().snapshot());
    run.check();
}

#[test]
fn record_that_is_not_understood_is_left_out_with_what_builds_on_it() {
    let mut run = Run::new();
    let first = run.force(&small().snapshot());
    let folder = run.folder.path().join(FOLDER);
    let write = |layout, payload: &[u8]| {
        let (mut chain, _, _) = Chain::open(&folder, layout).unwrap();
        chain.difference(payload).unwrap();
    };
    let state = br#"{"state":{"number":9,"from":8,"boot_id":"b0","seen_ns":0,"difference":{"namespaces":[],"pods":[],"nodes":[],"services":[],"policies":[],"names":null,"pod_ranges":null,"audit_all":false,"addresses":[],"blocks":[],"owners":[]}}}"#;
    // Of a state that is not there; of a later release; no state at all.
    write(LAYOUT, state);
    write(LAYOUT + 1, &String::from_utf8_lossy(state).replace(":8,", ":1,").into_bytes());
    write(LAYOUT, b"{\"unheard\": 1}");
    run.revisions.push((9, 9));
    assert_eq!(found(run.folder.path(), 0, &run.revisions).into_keys().collect::<Vec<_>>(), [first]);
    run.restart();
    run.highest = 9;
    run.force(&small().snapshot());
    run.check();
}

#[test]
fn differences_that_outgrow_the_whole_begin_a_new_file_and_old_ones_go_once_they_are_forgotten() {
    let mut run = Run::new();
    let mut snapshot = small().snapshot();
    let mut begun = Vec::new();
    while begun.len() < 3 {
        let files = run.files();
        let change = run.highest.to_string().repeat(4_000);
        let pod = Arc::make_mut(&mut snapshot).pods.get_mut(&ObjectKey::new("n0", "p2")).unwrap();
        Arc::make_mut(pod).labels.insert("note".into(), change);
        let number = run.force(&snapshot);
        if run.files() != files {
            begun.push(number);
        }
        assert!(number < 1_000, "it is written as a whole again some day");
    }
    run.check();
    let all = run.files();
    assert_eq!(all.len(), 3);
    run.forget(begun[1] - 2);
    assert_eq!(run.files(), all, "the first file's last state may still be asked for");
    run.check();
    run.forget(begun[1] - 1);
    assert_eq!(run.files(), all[1..]);
    run.check();
    run.restart();
    run.forget(run.highest);
    assert_eq!(run.files(), all[2..], "until the next whole, the last file stays");
    run.force(&snapshot);
    run.forget(run.highest - 1);
    assert_eq!(run.files().len(), 1, "a start writes a whole");
    run.check();
}

#[test]
fn states_that_are_read_share_what_is_equal_in_them() {
    let mut run = Run::new();
    let mut cluster = small();
    run.force(&cluster.snapshot());
    cluster.turn(Turn::Pod(2, Some((2, 7))));
    run.force(&cluster.snapshot());
    run.restart();
    cluster.turn(Turn::Policy(1, Some(81)));
    run.force(&cluster.snapshot());
    run.restart();
    let states = run.snapshots.found("b0", &[]);
    assert_eq!(states.len(), 3);
    let pod = |index: usize, name: &str| {
        let namespace = if name == "p1" { "n1" } else { "n0" };
        std::ptr::from_ref(states[index].pod(&ObjectKey::new(namespace, name)).unwrap())
    };
    assert_eq!([pod(1, "p1"), pod(2, "p1")], [pod(0, "p1"); 2], "over differences and wholes");
    assert!(pod(0, "p2") != pod(1, "p2") && pod(1, "p2") == pod(2, "p2"));
}

#[test]
fn snapshots_of_the_former_layout_are_read_until_they_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |name: &str| folder.path().join(FOLDER).join(name);
    fs::create_dir(folder.path().join(FOLDER)).unwrap();
    let state = |number: u64| WholeState {
        number,
        boot_id: "b".into(),
        snapshot: Arc::new(Snapshot { audit_all: number.is_multiple_of(2), ..Snapshot::clone(&small().snapshot()) }),
        ..WholeState::default()
    };
    for (number, name) in [(3, "3-7.json"), (4, "4-8.json"), (5, "5.json"), (6, "6.json")] {
        fs::write(in_folder(name), text(&state(number))).unwrap();
    }
    fs::write(in_folder("2-6.json"), "{").unwrap();
    fs::write(folder.path().join(NUMBER_FILE), "6").unwrap();
    let snapshots = Snapshots::open(folder.path()).unwrap();
    let found = |snapshots: &Snapshots| -> Vec<(u64, u64, String)> {
        let found = snapshots.found("b", &[(9, 5)]);
        found.iter().map(|state| (state.number, state.revision, text(&state.snapshot()))).collect()
    };
    let expected = [(3, 7), (4, 8), (5, 9)].map(|(number, revision)| (number, revision, text(&state(number).snapshot)));
    assert_eq!(found(&snapshots), expected, "the fifth as the probe tells, the sixth judged nothing");
    let mut compiler = Compiler::new("n", IdFloor::default());
    let snapshot = small().snapshot();
    let change = compiler.compile(&snapshot);
    let next = snapshots.keep(&"b".into(), 0, &snapshot, &compiler, change.complete).unwrap();
    assert_eq!(next.number, 7);
    snapshots.forget_through(4).unwrap();
    assert_eq!(found(&snapshots), expected[2..]);
    assert!(!in_folder("2-6.json").exists() && !in_folder("4-8.json").exists() && in_folder("5.json").exists());
    assert_eq!(found(&Snapshots::open(folder.path()).unwrap()), expected[2..]);
    snapshots.forget_through(6).unwrap();
    assert!(files(folder.path()).iter().all(|path| path.extension().is_some_and(|extension| extension == "log")));
}

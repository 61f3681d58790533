use super::*;
use crate::{Cluster, ClusterState, Generations, Layer};

const POLICY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: db}, spec: {podSelector: {}}}\n";

struct Folder {
    root: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("manifests")).unwrap();
        Self { root }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.root.path().join("manifests").join(name);
        let beside = self.root.path().join("written");
        fs::write(&beside, text).unwrap();
        // Settled long ago.
        let past = SystemTime::now() - Duration::from_secs(10);
        fs::File::options().write(true).open(&beside).unwrap().set_modified(past).unwrap();
        fs::rename(&beside, path).unwrap();
    }

    fn open(&self) -> Followed {
        let state = self.root.path().join("state");
        let manifests = Manifests::open(&self.root.path().join("manifests"), &state, Duration::ZERO).unwrap();
        let mut cluster = Cluster::new(Generations::open(&state).unwrap());
        let layer = cluster.add_source(manifests.name());
        Followed { manifests, cluster, layer }
    }
}

/// A folder, and the cluster that it alone makes.
struct Followed {
    manifests: Manifests,
    cluster: Cluster,
    layer: Layer,
}

impl Followed {
    /// Polls the folder: the cluster as it is now, or `None` if nothing was reported.
    fn look(&mut self) -> Option<ClusterState> {
        self.manifests.poll();
        let updates: Vec<Update> = self.manifests.updates.drain(..).collect();
        let reported = !updates.is_empty();
        updates.into_iter().for_each(|update| self.cluster.apply(self.layer, update));
        self.cluster.state(0).filter(|_| reported)
    }
}

fn policies(state: &ClusterState) -> Vec<String> {
    state.snapshot.policies.keys().map(ToString::to_string).collect()
}

/// Looks until there is a new state.
fn look(manifests: &mut Followed) -> ClusterState {
    let began = Instant::now();
    loop {
        if let Some(state) = manifests.look() {
            return state;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "nothing is said");
        thread::yield_now();
    }
}

#[test]
fn folder_is_read_once_and_again_when_it_changes() {
    let folder = Folder::new();
    folder.write("a.yaml", POLICY);
    folder.write("notes.txt", "no manifest");
    let mut manifests = folder.open();
    let state = manifests.look().unwrap();
    assert_eq!(policies(&state), ["NetworkPolicy db/a"]);
    assert_eq!(state.policies.values().map(|policy| policy.generation).collect::<Vec<_>>(), [1]);
    assert!(manifests.look().is_none(), "nothing has changed");
    folder.write("a.yaml", POLICY);
    assert!(manifests.look().is_none(), "written again, and the same");
    folder.write("b.yaml", &POLICY.replace("name: a", "name: b"));
    assert_eq!(policies(&look(&mut manifests)), ["NetworkPolicy db/a", "NetworkPolicy db/b"]);
    fs::remove_file(folder.root.path().join("manifests/a.yaml")).unwrap();
    assert_eq!(policies(&look(&mut manifests)), ["NetworkPolicy db/b"]);
}

#[test]
fn broken_file_keeps_its_last_good_objects_over_a_restart_and_stops_no_other() {
    let folder = Folder::new();
    folder.write("a.yaml", POLICY);
    let mut manifests = folder.open();
    look(&mut manifests);
    folder.write("a.yaml", "kind: [");
    folder.write("b.yaml", &POLICY.replace("name: a", "name: b"));
    for mut manifests in [manifests, folder.open()] {
        let state = look(&mut manifests);
        assert_eq!(policies(&state), ["NetworkPolicy db/a", "NetworkPolicy db/b"]);
        assert!(state.troubles[0].contains("a.yaml"), "{:?}", state.troubles);
        assert!(state.errors > 0);
        folder.write("a.yaml", POLICY);
        let repaired = look(&mut manifests);
        assert!(repaired.troubles.is_empty(), "{:?}", repaired.troubles);
        folder.write("a.yaml", "kind: [");
    }
}

#[test]
fn edit_that_an_api_server_would_refuse_changes_nothing() {
    let folder = Folder::new();
    folder.write("a.yaml", POLICY);
    let mut manifests = folder.open();
    let good = look(&mut manifests);
    folder.write("a.yaml", &POLICY.replace("podSelector: {}", "podSelector: {}, policyTypes: [Inngress]"));
    let refused = look(&mut manifests);
    assert_eq!(refused.snapshot, good.snapshot);
    assert!(refused.troubles[0].contains("policyTypes"), "{:?}", refused.troubles);
}

#[test]
fn file_that_is_being_written_is_waited_for() {
    let folder = Folder::new();
    folder.write("a.yaml", POLICY);
    let mut manifests = folder.open();
    look(&mut manifests);
    // A program truncates the file and has yet to write: an empty file is a good one, and would lift all isolation.
    fs::write(folder.root.path().join("manifests/a.yaml"), "").unwrap();
    assert!(manifests.look().is_none());
    fs::write(folder.root.path().join("manifests/a.yaml"), POLICY.replace("name: a", "name: c")).unwrap();
    assert_eq!(policies(&look(&mut manifests)), ["NetworkPolicy db/c"]);
}

#[test]
fn mounted_config_map_changes_by_its_links() {
    let folder = Folder::new();
    let mount = folder.root.path().join("manifests");
    let version = |name: &str, text: &str| {
        fs::create_dir(mount.join(name)).unwrap();
        folder.write(&format!("{name}/a.yaml"), text);
        std::os::unix::fs::symlink(name, mount.join("..data.next")).unwrap();
        fs::rename(mount.join("..data.next"), mount.join("..data")).unwrap();
    };
    version("..1", POLICY);
    std::os::unix::fs::symlink("..data/a.yaml", mount.join("a.yaml")).unwrap();
    let mut manifests = folder.open();
    assert_eq!(policies(&look(&mut manifests)), ["NetworkPolicy db/a"]);
    version("..2", &POLICY.replace("name: a", "name: b"));
    assert_eq!(policies(&look(&mut manifests)), ["NetworkPolicy db/b"]);
}

#[test]
fn folder_that_vanishes_leaves_everything_as_it_was() {
    let folder = Folder::new();
    folder.write("a.yaml", POLICY);
    let mut manifests = folder.open();
    look(&mut manifests);
    fs::rename(folder.root.path().join("manifests"), folder.root.path().join("elsewhere")).unwrap();
    let state = look(&mut manifests);
    assert_eq!(policies(&state), ["NetworkPolicy db/a"]);
    assert!(state.troubles[0].contains("manifest folder"), "{:?}", state.troubles);
    assert_eq!(state.stale.iter().map(|stale| stale.source).collect::<Vec<_>>(), ["manifests"]);
    fs::rename(folder.root.path().join("elsewhere"), folder.root.path().join("manifests")).unwrap();
    let state = look(&mut manifests);
    assert_eq!((policies(&state).len(), state.troubles.len(), state.stale.len()), (1, 0, 0));
    assert!(Manifests::open(Path::new("/nowhere"), folder.root.path(), Duration::ZERO).is_err());
}

#[test]
fn file_that_is_no_utf8_is_left_out_and_told_and_keeps_its_last_good_objects() {
    let folder = Folder::new();
    folder.write("a.yaml", POLICY);
    let mut manifests = folder.open();
    look(&mut manifests);
    let path = folder.root.path().join("manifests/a.yaml");
    // A name in Latin-1: with replaced characters it would be another object.
    fs::write(&path, POLICY.replace("name: a", "name: caf\u{e9}").chars().map(|c| c as u8).collect::<Vec<u8>>())
        .unwrap();
    let state = look(&mut manifests);
    assert_eq!(policies(&state), ["NetworkPolicy db/a"]);
    assert!(state.troubles[0].contains("not UTF-8 from byte"), "{:?}", state.troubles);
}

#[test]
fn copies_of_manifests_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    folder.write("secret.yaml", "{apiVersion: v1, kind: Secret, metadata: {name: a}, stringData: {password: hunter2}}");
    look(&mut folder.open());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let kept = folder.root.path().join("state/manifests");
    let copies: Vec<_> = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!((mode(&kept), copies.iter().map(|copy| mode(copy)).collect::<Vec<_>>()), (0o700, vec![0o600]));
}

#[tokio::test]
async fn source_reports_what_it_holds_then_that_it_is_in_sync_then_each_change() {
    let folder = Folder::new();
    folder.write("a.yaml", POLICY);
    let mut manifests = folder.open().manifests;
    assert!(matches!(manifests.next().await, Ok(Some(Update::Changes(changes))) if changes.len() == 3));
    assert!(matches!(manifests.next().await, Ok(Some(Update::InSync))));
    folder.write("b.yaml", &POLICY.replace("name: a", "name: b"));
    assert!(matches!(manifests.next().await, Ok(Some(Update::Changes(_)))));
}

use super::*;

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

    fn open(&self) -> Manifests {
        Manifests::open(&self.root.path().join("manifests"), &self.root.path().join("state")).unwrap()
    }
}

fn policies(state: &ClusterState) -> Vec<String> {
    state.snapshot.policies.keys().map(ToString::to_string).collect()
}

/// Looks until something is said.
fn look(manifests: &mut Manifests) -> ClusterState {
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
    assert!(Manifests::open(Path::new("/nowhere"), folder.root.path()).is_err());
}

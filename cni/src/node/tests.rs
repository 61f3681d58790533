use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const PROGRAM: &[u8] = b"a program";
/// Not as we would write it: two spaces, another order.
const LIST: &str = r#"{ "name":  "pods", "cniVersion": "1.0.0",
  "plugins": [ {"type": "ptp", "ipam": {"type": "host-local"}}, {"type": "portmap"} ] }"#;

struct Node(TempDir);

impl Node {
    /// A node with these files in the folder of its network.
    fn new(files: &[(&str, &str)]) -> Self {
        let node = Self(tempfile::tempdir().unwrap());
        for folder in ["conf", "bin"] {
            fs::create_dir(node.path(folder)).unwrap();
        }
        for (name, text) in files {
            fs::write(node.path("conf").join(name), text).unwrap();
        }
        node
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn options(&self, verb: &str, more: &[&str]) -> Options {
        let folders = [self.path("conf"), self.path("bin")].map(|path| path.display().to_string());
        let words = [verb, "--conf-dir", &folders[0], "--bin-dir", &folders[1]];
        Options::read(&words.iter().chain(more).map(|word| (*word).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn install(&self, more: &[&str]) -> Result<Vec<String>, NodeError> {
        install(&self.options("install", more), PROGRAM)
    }

    fn uninstall(&self) -> Result<Vec<String>, NodeError> {
        uninstall(&self.options("uninstall", &[]))
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path("conf").join(name)).unwrap()
    }

    fn plugins(&self, name: &str) -> Value {
        serde_json::from_str::<Value>(&self.text(name)).unwrap()["plugins"].clone()
    }

    /// The names of all files of the node.
    fn files(&self) -> Vec<String> {
        let of = |folder: &str| fs::read_dir(self.path(folder)).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = of("conf").chain(of("bin")).map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }
}

#[test]
fn the_plugin_is_the_last_of_the_list_and_uninstall_brings_the_very_bytes_back() {
    let node = Node::new(&[("10-pods.conflist", LIST), ("99-other.conflist", LIST)]);
    fs::set_permissions(node.path("conf/10-pods.conflist"), fs::Permissions::from_mode(0o600)).unwrap();
    node.install(&["--on-unavailable", "allow", "--wait-seconds=7"]).unwrap();
    let ours = json!({ "type": "netverdict-cni", "onUnavailable": "allow", "waitSeconds": 7 });
    let others = [json!({ "type": "ptp", "ipam": { "type": "host-local" } }), json!({ "type": "portmap" })];
    assert_eq!(node.plugins("10-pods.conflist"), json!([others[0], others[1], ours]));
    assert_eq!(node.text("99-other.conflist"), LIST, "runtimes do not read it");
    assert_eq!(fs::read(node.path("bin/netverdict-cni")).unwrap(), PROGRAM);
    assert_eq!(fs::metadata(node.path("bin/netverdict-cni")).unwrap().mode() & 0o777, 0o755);
    assert_eq!(fs::metadata(node.path("conf/10-pods.conflist")).unwrap().mode() & 0o777, 0o600);

    let done = node.uninstall().unwrap();
    assert!(done[0].contains("taken out of") && done[1].contains("removed"), "{done:?}");
    assert_eq!(node.text("10-pods.conflist"), LIST);
    assert_eq!(node.files(), ["10-pods.conflist", "99-other.conflist"]);
    assert_eq!(node.uninstall().unwrap(), ["nothing of it was there"]);
}

#[test]
fn a_second_install_changes_nothing_and_one_with_other_settings_only_those() {
    let node = Node::new(&[("10-pods.conflist", LIST)]);
    node.install(&[]).unwrap();
    let first = node.text("10-pods.conflist");
    let written = |node: &Node| fs::metadata(node.path("conf/10-pods.conflist")).unwrap().ino();
    let inode = written(&node);
    let done = node.install(&[]).unwrap();
    assert_eq!((node.text("10-pods.conflist"), written(&node)), (first, inode), "{done:?}");
    node.install(&["--run-dir", "/run/other"]).unwrap();
    assert_eq!(node.plugins("10-pods.conflist")[2], json!({ "type": "netverdict-cni", "runDir": "/run/other" }));
    assert_eq!(node.plugins("10-pods.conflist").as_array().unwrap().len(), 3);
    node.uninstall().unwrap();
    assert_eq!(node.text("10-pods.conflist"), LIST);
}

#[test]
fn what_others_changed_meanwhile_stays() {
    let node = Node::new(&[("10-pods.conflist", LIST)]);
    node.install(&[]).unwrap();
    let changed = node.text("10-pods.conflist").replace("portmap", "bandwidth");
    fs::write(node.path("conf/10-pods.conflist"), changed).unwrap();
    node.uninstall().unwrap();
    assert_eq!(node.plugins("10-pods.conflist")[1], json!({ "type": "bandwidth" }));
    assert_eq!(node.plugins("10-pods.conflist").as_array().unwrap().len(), 2);
    assert_eq!(node.files(), ["10-pods.conflist"]);

    // The network's own software has written its list anew: the copy is of no use any more.
    node.install(&[]).unwrap();
    fs::write(node.path("conf/10-pods.conflist"), LIST).unwrap();
    node.uninstall().unwrap();
    assert_eq!((node.text("10-pods.conflist").as_str(), node.files().len()), (LIST, 1));
}

#[test]
fn what_is_not_understood_is_left_as_it_is_with_the_remedy() {
    let huge = format!("{{\"cniVersion\": \"1.0.0\", \"x\": \"{}\"}}", "a".repeat(1 << 20));
    for (name, text, reason) in [
        ("10-a.conf", r#"{"cniVersion": "1.0.0", "type": "ptp"}"#, "make it a .conflist"),
        ("10-a.conflist", "{", "no JSON"),
        ("10-a.conflist", &huge, "larger than 1 MiB"),
        ("10-a.conflist", r#"{"cniVersion": "0.2.0", "plugins": [{"type": "ptp"}]}"#, "its cniVersion is 0.2.0"),
        ("10-a.conflist", r#"{"plugins": [{"type": "ptp"}]}"#, "its cniVersion is none"),
        ("10-a.conflist", r#"{"cniVersion": "1.0.0", "plugins": {}}"#, "no list `plugins`"),
        ("10-a.conflist", r#"{"cniVersion": "1.0.0", "plugins": []}"#, "no plugin before ours"),
        (
            "10-a.conflist",
            r#"{"cniVersion": "1.0.0", "plugins": [{"type": "netverdict-cni"}]}"#,
            "no plugin before ours",
        ),
        ("10-a.conflist", r#"{"cniVersion": "1.0.0", "plugins": [{"type": "ptp"}, 7]}"#, "plugin 1 of its list"),
    ] {
        let node = Node::new(&[(name, text)]);
        let error = node.install(&[]).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains(name), "{error}");
        assert!(node.text(name) == text && node.files() == [name], "{error}");
    }
    let error = Node::new(&[("README", "")]).install(&[]).unwrap_err().to_string();
    assert!(error.contains("--conf-dir"), "{error}");

    let node = Node::new(&[("list", LIST)]);
    symlink(node.path("conf/list"), node.path("conf/10-a.conflist")).unwrap();
    assert!(matches!(node.install(&[]), Err(NodeError::Link(_))));
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_and_the_list_is_whole() {
    let node = Node::new(&[("10-pods.conflist", LIST)]);
    // Also root cannot make a file there.
    fs::remove_dir(node.path("bin")).unwrap();
    let error = node.install(&[]).unwrap_err().to_string();
    assert!(error.contains("bin/netverdict-cni: cannot be written"), "{error}");
    assert_eq!(node.text("10-pods.conflist"), LIST);
}

#[test]
fn arguments_that_are_not_understood_are_refused_with_the_usage() {
    for words in [
        &["remove"][..],
        &["install", "--conf-dir"],
        &["install", "--wait-seconds", "61"],
        &["install", "--on-unavailable", "perhaps"],
        &["uninstall", "--run-dir", "/run"],
    ] {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let error = run(&words).unwrap_err().to_string();
        assert!(error.contains("usage: netverdict-cni install|uninstall"), "{error}");
    }
}

//! The commands of the documentation, run as a reader types them: section by section, in the order of the page, in one
//! shell. A command has to succeed, unless the page shows that it fails; each line of output that the page shows has to be
//! part of what the command says.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use xtask::{
    cluster::{Cluster, NETWORK_FOLDER, PLUGIN_FOLDER, REGISTRY},
    command::{root, target},
    setup,
};

const PAGES: [&str; 4] = ["docs/install.md", "docs/upgrade.md", "docs/troubleshooting.md", "docs/uninstall.md"];
/// Commands that cannot be run here, each with the reason.
const NOT_RUN: &[(&str, &str)] = &[
    ("export REGISTRY=", "the test has a registry's name of its own"),
    ("cargo xtask image", "the images are written without building the programs anew, by the function that it calls"),
    ("podman load", "there is no registry: the cluster's nodes load the archives"),
    (
        "kubectl apply -f deploy/kustomize/base/namespace.yaml",
        "the base names the usual folders of a node, not this one's",
    ),
    ("kubectl -n netverdict create secret generic netverdict", "with the base"),
    ("deploy/kustomize/certificates", "with the base"),
    ("kubectl apply -k", "with the base, which the API server accepts in another step of this test"),
    ("kubectl delete -k", "with the base"),
    ("kubectl -n netverdict wait --for=condition=Complete job/netverdict-uninstall", "with the base"),
    ("kubectl -n netverdict get pods -o wide -l app.kubernetes.io/component=uninstall", "no node stays unclean here"),
    ("kubectl -n netverdict logs POD -c cni", "no node stays unclean here"),
    ("netverdict-cni uninstall", "it names the usual folders of a node, not this one's"),
    ("netverdict probe detach", "the uninstall has done it"),
    ("apt ", "no package is installed on the machine of the tests"),
];

/// Types the commands of the pages.
pub(crate) struct Reader<'a> {
    cluster: &'a Cluster,
    home: PathBuf,
    read: RefCell<BTreeSet<String>>,
}

/// A command of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Documented {
    /// As root on a node, not at the reader's own machine.
    on_node: bool,
    text: String,
    /// Lines that the page shows below it.
    shown: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(cluster: &'a Cluster, home: PathBuf) -> Self {
        let programs = home.join("bin");
        fs::create_dir_all(&programs).expect("a folder");
        for folder in ["deploy", "docs"] {
            symlink(root().join(folder), home.join(folder)).expect("a link");
        }
        let kubectl = cluster.kubectl();
        symlink(kubectl.get_program(), programs.join("kubectl")).expect("a link");
        let helm = setup::found_helm().expect("`cargo xtask setup` builds Helm");
        // Where these nodes have what others have at the usual paths.
        let folders = format!("--set=cni.confDir={NETWORK_FOLDER},cni.binDir={PLUGIN_FOLDER}");
        let script = format!(
            "#!/bin/sh\ncase $1 in install | upgrade) set -- \"$@\" {folders} $HELM_VALUES;; esac\nexec {} \"$@\"\n",
            helm.display()
        );
        let wrapper = programs.join("helm");
        fs::write(&wrapper, script).expect("written");
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("permissions");
        Self { cluster, home, read: RefCell::default() }
    }

    pub(crate) fn read(&self, page: &str, section: &str) {
        self.read_with(page, section, "");
    }

    /// The same with further flags of `helm install` and `upgrade`.
    pub(crate) fn read_with(&self, page: &str, section: &str, helm_values: &str) {
        let commands = section_of(&text(page), section);
        assert!(!commands.is_empty(), "{page} has no commands in section `{section}`");
        let typed: Vec<_> = commands.iter().filter(|command| reason_not_to_run(&command.text).is_none()).collect();
        for part in typed.chunk_by(|one, next| one.on_node == next.on_node) {
            self.type_in(page, section, part, helm_values);
        }
        self.read.borrow_mut().extend(typed.into_iter().map(|command| command.text.clone()));
    }

    fn type_in(&self, page: &str, section: &str, commands: &[&Documented], helm_values: &str) {
        let mut script = "trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT\n".to_owned();
        for (number, Documented { text, .. }) in commands.iter().enumerate() {
            // A program in the background has to listen before it is asked.
            let pause = if text.ends_with('&') { "sleep 5" } else { ":" };
            script.push_str(&format!("echo '@@ {number}'\n{text}\necho \"@@ ended $?\"\n{pause}\n"));
        }
        let said_to = self.home.join("said");
        let file = fs::File::create(&said_to).expect("a file");
        let mut shell = Command::new("bash");
        shell.args(["-c", &script]).current_dir(&self.home).stdin(Stdio::null());
        shell.stderr(file.try_clone().expect("a second handle")).stdout(file);
        shell.env("PATH", self.path()).env("HELM_VALUES", helm_values);
        shell.env("KUBECONFIG", self.cluster.plan().kubeconfig()).env("REGISTRY", REGISTRY).env("HOME", &self.home);
        if commands[0].on_node {
            self.cluster.node().enter(|| shell.status()).expect("inside of the node").expect("bash starts");
        } else {
            shell.status().expect("bash starts");
        }
        let said = fs::read_to_string(&said_to).expect("what was said");
        println!("{page}, {section}:\n{said}");
        let parts: Vec<&str> = said.split("@@ ").collect();
        for (number, Documented { text, shown, .. }) in commands.iter().enumerate() {
            let part = |beginning: String| parts.iter().find_map(|part| part.strip_prefix(beginning.as_str()));
            let output = part(format!("{number}\n")).unwrap_or_else(|| panic!("{page}: `{text}` was not reached"));
            let ended = parts.iter().skip_while(|part| !part.starts_with(&format!("{number}\n"))).nth(1);
            let ended = ended.and_then(|part| part.strip_prefix("ended ")).map_or("?", |part| part.trim());
            let code = ended.lines().next().unwrap_or("?");
            let expected = shown.iter().find_map(|line| line.strip_prefix("command terminated with exit code "));
            assert_eq!(code, expected.unwrap_or("0"), "{page}: the exit code of `{text}`");
            for line in shown {
                assert!(output.contains(line.as_str()), "{page}: `{text}` does not say `{line}`");
            }
        }
    }

    fn path(&self) -> String {
        let usual = std::env::var("PATH").unwrap_or_default();
        format!("{}:{}:{usual}", self.home.join("bin").display(), target().join("debug").display())
    }

    /// A program with the environment of the reader's shell.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.home.join("bin").join(program));
        command.env("KUBECONFIG", self.cluster.plan().kubeconfig()).env("HOME", &self.home).current_dir(&self.home);
        command.env("HELM_VALUES", "");
        command
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    /// Each command of every page was run, or the reason why it cannot be is known.
    pub(crate) fn has_read_all(&self) {
        let read = self.read.borrow();
        let of_page = |page: &&str| all(&text(page)).into_iter().map(|(_, command)| command.text).collect::<Vec<_>>();
        let unread: Vec<_> = PAGES
            .iter()
            .flat_map(of_page)
            .filter(|text| !read.contains(text) && reason_not_to_run(text).is_none())
            .collect();
        assert!(unread.is_empty(), "commands of the documentation that no step of the test runs: {unread:#?}");
    }
}

fn reason_not_to_run(command: &str) -> Option<&'static str> {
    NOT_RUN.iter().find(|(beginning, _)| command.starts_with(beginning)).map(|(_, reason)| *reason)
}

fn text(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap_or_else(|error| panic!("{page}: {error}"))
}

fn section_of(text: &str, section: &str) -> Vec<Documented> {
    let commands = all(text).into_iter().filter(|(title, _)| title == section);
    commands.map(|(_, command)| command).collect()
}

/// The commands of a page, each with the title of its section.
fn all(text: &str) -> Vec<(String, Documented)> {
    let (mut commands, mut title, mut is_console, mut continues) = (Vec::new(), String::new(), false, false);
    for line in text.lines() {
        if line.starts_with("```") {
            is_console = line == "```console";
        } else if !is_console {
            if let Some(heading) = line.strip_prefix('#') {
                title = heading.trim_start_matches('#').trim().to_owned();
            }
        } else if continues {
            let (_, command): &mut (String, Documented) = commands.last_mut().expect("its first line");
            command.text.push('\n');
            command.text.push_str(line);
            continues = line.ends_with('\\');
        } else if let Some(first) = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")) {
            let on_node = line.starts_with('#');
            commands.push((title.clone(), Documented { on_node, text: first.to_owned(), shown: Vec::new() }));
            continues = line.ends_with('\\');
        } else if let Some((_, command)) = commands.last_mut() {
            command.shown.push(line.trim_end().to_owned());
        }
    }
    commands
}

#[test]
fn commands_are_found_with_their_sections_and_what_they_say() {
    let page = "# A\n\n```console\n$ one \\\n    two\n# three &\nsays this\n```\n\n## B\n```sql\n$ no\n```\n";
    let command = |on_node, text: &str, shown: &[&str]| Documented {
        on_node,
        text: text.to_owned(),
        shown: shown.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(
        section_of(page, "A"),
        [command(false, "one \\\n    two", &[]), command(true, "three &", &["says this"])]
    );
    assert_eq!(section_of(page, "B"), []);
}

//! The arguments of the verbs. By hand: a kubelet starts this program for every pod, so it stays small.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::list::PLUGIN;

pub(super) const USAGE: &str = "netverdict-cni install|uninstall [OPTION VALUE]…; --help says more";
pub(super) const HELP: &str = "\
Puts the plugin in place on this node, so that a pod's first packet is judged by policy, and takes it away again.
A container runtime starts it for each pod; without a verb it speaks the protocol of CNI plugins.

Usage: netverdict-cni install [OPTION VALUE]…
       netverdict-cni uninstall [OPTION VALUE]…

Options:
  --conf-dir DIR         where the container runtime reads the configuration of the network [default: /etc/cni/net.d]
  --bin-dir DIR          where it looks for plugins [default: /opt/cni/bin]

Options of install:
  --run-dir DIR          runtime directory of the collector [default: /run/netverdict]
  --pin-root DIR         where the collector pins programs and maps [default: /sys/fs/bpf/netverdict]
  --wait-seconds SECONDS how long a pod waits until it is judged, at most 60 [default: 5]
  --on-unavailable fail|allow
                         what becomes of a new pod where no collector answers and nothing is pinned [default: fail]";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Install,
    Uninstall,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Options {
    pub(super) verb: Verb,
    /// Where the container runtime reads the configuration of the network.
    pub(super) conf_dir: PathBuf,
    /// Where it looks for plugins.
    pub(super) bin_dir: PathBuf,
    /// Our settings in the list; those that are not given have their defaults.
    settings: Vec<(&'static str, Value)>,
}

impl Options {
    /// # Errors
    /// The argument that is not understood.
    pub(super) fn read(arguments: &[String]) -> Result<Self, String> {
        let verb = match arguments.first().map(String::as_str) {
            Some("install") => Verb::Install,
            Some("uninstall") => Verb::Uninstall,
            other => return Err(format!("no verb {}", other.unwrap_or_default())),
        };
        let mut options =
            Self { verb, conf_dir: "/etc/cni/net.d".into(), bin_dir: "/opt/cni/bin".into(), settings: Vec::new() };
        let mut words = arguments[1..].iter();
        while let Some(word) = words.next() {
            let (word, value) = match word.split_once('=') {
                Some((word, value)) => (word, value),
                None => (word.as_str(), words.next().ok_or_else(|| format!("{word} needs a value"))?.as_str()),
            };
            let setting = match (word, verb) {
                ("--conf-dir", _) => {
                    options.conf_dir = value.into();
                    continue;
                }
                ("--bin-dir", _) => {
                    options.bin_dir = value.into();
                    continue;
                }
                ("--run-dir", Verb::Install) => ("runDir", json!(value)),
                ("--pin-root", Verb::Install) => ("pinRoot", json!(value)),
                ("--wait-seconds", Verb::Install) => {
                    let seconds =
                        value.parse::<u64>().ok().filter(|seconds| *seconds <= crate::configuration::LONGEST_WAIT);
                    let seconds = seconds.ok_or_else(|| format!("--wait-seconds {value}: expected 0 to 60"))?;
                    ("waitSeconds", json!(seconds))
                }
                ("--on-unavailable", Verb::Install) if ["fail", "allow"].contains(&value) => {
                    ("onUnavailable", json!(value))
                }
                _ => return Err(format!("{word} {value} is not understood")),
            };
            options.settings.push(setting);
        }
        Ok(options)
    }

    /// Our entry in the list.
    pub(super) fn entry(&self) -> Value {
        let mut entry = json!({ "type": PLUGIN });
        for (name, value) in &self.settings {
            entry[*name] = value.clone();
        }
        entry
    }
}

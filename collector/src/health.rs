//! Present problems, by part: read by `/readyz`, `/v1/status`, and the rows that record gaps.
//!
//! A part replaces its own list; no action on a problem is decided here.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use netverdict_service::health::{Effect, HealthRegistry};

/// Names in one line of text; the rest is counted.
const MOST_NAMES: usize = 5;

/// A part of the collector that can have problems. Also a label of a metric: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Not everything has been started yet, or it is being stopped.
    Start,
    /// The cluster source.
    Source,
    /// Tables in the kernel.
    Publish,
    /// Interfaces and their programs.
    Attach,
    /// Interfaces that are not judged by policy: of no known pod, or not covered.
    Unbound,
    /// Judging behind the translation of addresses.
    Services,
    /// The write-ahead log.
    Log,
    /// Parquet files.
    Store,
}

impl Part {
    pub const ALL: [Self; 8] =
        [Self::Start, Self::Source, Self::Publish, Self::Attach, Self::Unbound, Self::Services, Self::Log, Self::Store];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Source => "source",
            Self::Publish => "publish",
            Self::Attach => "attach",
            Self::Unbound => "unbound",
            Self::Services => "services",
            Self::Log => "log",
            Self::Store => "store",
        }
    }

    /// Whether a problem means that the node should not be relied on. A broken manifest keeps its last good objects; an
    /// endpoint that is not ready is denied, and one pod must not make the node unready; a record that cannot be written is
    /// data being lost.
    pub const fn effect(self) -> Effect {
        match self {
            Self::Start | Self::Publish | Self::Attach | Self::Services | Self::Log | Self::Store => Effect::Unready,
            Self::Source | Self::Unbound => Effect::Warning,
        }
    }

    /// The remedy where the problem itself does not name one.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Start => "wait; if it lasts, the problems of the source name what has not been read yet",
            Self::Source => {
                "repair the object or the connection that is named; what was read last stays in force until then"
            }
            Self::Publish => {
                "the state before it stays in force and publishing is tried again each second; raise the limit of a map that \
                 is full (--max-pairs, --max-connections), or free the memory or disk that is missing"
            }
            Self::Attach => {
                "attaching is tried again each second; packets of such an interface are not judged until then: see the \
                 collector's log, and `netverdict doctor` on the node"
            }
            Self::Unbound => "compare the pods that the cluster source has with those of this node",
            Self::Services => {
                "load nf_conntrack where connection tracking cannot be read; what passes unseen meanwhile is treated as \
                 --unresolved-services says"
            }
            Self::Log => {
                "free space for --state-dir; the rings hold events until they are full, and then count what is lost"
            }
            Self::Store => {
                "free space for --data-dir, or raise --disk-cap; rows wait in memory and in the write-ahead log"
            }
        }
    }
}

/// A present problem of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    pub text: String,
    /// Empty: that of the part.
    pub remedy: String,
    /// The endpoints that have it.
    pub names: Vec<String>,
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

/// As one line.
impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, remedy, names } = self;
        f.write_str(text)?;
        if !remedy.is_empty() {
            write!(f, "; {remedy}")?;
        }
        for (index, name) in names.iter().take(MOST_NAMES).enumerate() {
            write!(f, "{}{name}", if index == 0 { ": " } else { ", " })?;
        }
        match names.len().saturating_sub(MOST_NAMES) {
            0 => Ok(()),
            rest => write!(f, " and {rest} more"),
        }
    }
}

/// The problems of one part; at least one.
#[derive(Clone, Debug)]
pub struct Present {
    /// Since when the part has had problems, not always these.
    pub since: DateTime<Utc>,
    pub troubles: Vec<Trouble>,
}

/// The problems of all parts.
#[derive(Debug, Default)]
pub struct Health {
    present: Mutex<BTreeMap<Part, Present>>,
}

impl Health {
    /// Registers every part as a check.
    pub fn register(self: &Arc<Self>, registry: &HealthRegistry) {
        for part in Part::ALL {
            let health = Arc::clone(self);
            registry.register(part.as_str(), part.effect(), move || health.of(part));
        }
    }

    /// Replaces the problems of a part; empty if all is well. Returns whether the list has changed.
    pub fn set(&self, part: Part, troubles: Vec<String>) -> bool {
        self.set_named(part, troubles.into_iter().map(Trouble::from).collect())
    }

    /// The same for problems with a remedy or names of their own.
    pub fn set_named(&self, part: Part, troubles: Vec<Trouble>) -> bool {
        let mut all = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.remove(&part);
        let changed = before.as_ref().map_or(!troubles.is_empty(), |before| before.troubles != troubles);
        if !troubles.is_empty() {
            let since = before.map_or_else(Utc::now, |before| before.since);
            all.insert(part, Present { since, troubles });
        }
        changed
    }

    /// The problems of a part, each as a line.
    pub fn of(&self, part: Part) -> Vec<String> {
        self.present(part).map_or_else(Vec::new, |present| present.troubles.iter().map(ToString::to_string).collect())
    }

    /// The problems of a part; `None` if all is well.
    pub fn present(&self, part: Part) -> Option<Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner).get(&part).cloned()
    }

    pub fn is_ready(&self) -> bool {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        !present.keys().any(|part| part.effect() == Effect::Unready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_manifest_is_told_but_does_not_make_the_node_unready() {
        let health = Health::default();
        assert!(health.set(Part::Source, vec!["a.yaml is broken".into()]));
        assert!(!health.set(Part::Source, vec!["a.yaml is broken".into()]), "the same again");
        assert!(health.is_ready());
        health.set(Part::Log, vec!["no space left".into()]);
        assert!(!health.is_ready());
        assert_eq!(health.of(Part::Log), ["no space left"]);
        assert!(health.set(Part::Log, Vec::new()));
        assert!(health.is_ready());
    }
    #[test]
    fn a_problem_counts_all_names_and_shows_a_few() {
        let names: Vec<String> = (0..7).map(|number| format!("n{number}")).collect();
        let trouble = Trouble { text: "7 things".to_owned(), names, ..Trouble::default() };
        assert_eq!(trouble.to_string(), "7 things: n0, n1, n2, n3, n4 and 2 more");
        let mended = Trouble { remedy: "mend them".to_owned(), names: vec!["n0".to_owned()], ..trouble };
        assert_eq!(mended.to_string(), "7 things; mend them: n0");
    }

    #[test]
    fn a_part_has_problems_since_the_first_one_of_an_unbroken_row() {
        let health = Health::default();
        health.set(Part::Store, vec!["full".into()]);
        let since = health.present(Part::Store).unwrap().since;
        health.set(Part::Store, vec!["still full".into()]);
        assert_eq!(health.present(Part::Store).unwrap().since, since);
        health.set(Part::Store, Vec::new());
        assert!(health.present(Part::Store).is_none());
    }
}

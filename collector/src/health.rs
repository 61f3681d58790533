//! Present problems, by part: read by `/readyz`, `/v1/status`, and the rows that record gaps.
//!
//! A part replaces its own list; no action on a problem is decided here.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use netverdict_service::health::{Effect, HealthRegistry};

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
}

/// The problems of all parts.
#[derive(Debug, Default)]
pub struct Health {
    troubles: Mutex<BTreeMap<Part, Vec<String>>>,
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
        let mut all = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if troubles.is_empty() { all.remove(&part) } else { all.insert(part, troubles.clone()) };
        before.unwrap_or_default() != troubles
    }

    pub fn of(&self, part: Part) -> Vec<String> {
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner).get(&part).cloned().unwrap_or_default()
    }

    /// The problems of all parts.
    pub fn all(&self) -> Vec<(Part, String)> {
        let all = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().flat_map(|(part, troubles)| troubles.iter().map(|trouble| (*part, trouble.clone()))).collect()
    }

    pub fn is_ready(&self) -> bool {
        !self.all().iter().any(|(part, _)| part.effect() == Effect::Unready)
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
        assert_eq!(health.all().len(), 2);
        assert!(health.set(Part::Log, Vec::new()));
        assert!(health.is_ready());
    }
}

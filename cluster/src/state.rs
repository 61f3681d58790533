//! The state of all sources together: the snapshot, whether it may be used yet, and its problems.

use std::{collections::BTreeSet, error::Error as _, sync::Arc};

use netverdict_policy::Snapshot;

use crate::{
    assembly::{Assembly, PolicyObjects},
    generations::Generations,
    source::{Layer, Update},
    state_file::StateError,
};

/// The cluster at a moment.
#[derive(Clone, Debug, Default)]
pub struct ClusterState {
    pub snapshot: Arc<Snapshot>,
    /// The policies of the snapshot as they were written.
    pub policies: Arc<PolicyObjects>,
    /// Problems of the sources and their objects, a line each for people. Empty when there are none.
    pub troubles: Vec<String>,
    /// Findings of severity error: objects and fields that may be missing in the snapshot.
    pub errors: u64,
    /// Sources that cannot see changes. Each has a line in `troubles` too.
    pub stale: Vec<StaleSource>,
    /// When it was read, in nanoseconds since 1970.
    pub seen_ns: i64,
}

/// A source that cannot see changes; its last objects stay in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleSource {
    pub source: &'static str,
    /// Nanoseconds since 1970.
    pub since_ns: i64,
    /// One line for people.
    pub reason: String,
}

/// The sources laid over one another, kept up to date by their updates.
#[derive(Debug)]
pub struct Cluster {
    /// By layer.
    sources: Vec<SourceStatus>,
    assembly: Assembly,
    generations: Generations,
}

#[derive(Debug)]
struct SourceStatus {
    name: &'static str,
    /// It has reported all of its objects, once.
    was_in_sync: bool,
    /// Since when it is stale, and why.
    stale: Option<(i64, String)>,
}

impl Cluster {
    pub fn new(generations: Generations) -> Self {
        Self { sources: Vec::new(), assembly: Assembly::default(), generations }
    }

    /// Adds a source above the existing ones.
    pub fn add_source(&mut self, name: &'static str) -> Layer {
        self.sources.push(SourceStatus { name, was_in_sync: false, stale: None });
        Layer(self.sources.len() - 1)
    }

    /// Applies an update of the source that is `layer`.
    pub fn apply(&mut self, layer: Layer, update: Update) {
        let status = self.sources.get_mut(layer.0);
        match (update, status) {
            (Update::Changes(changes), _) => self.assembly.apply(layer, changes, &mut self.generations),
            (Update::InSync, Some(status)) => (status.was_in_sync, status.stale) = (true, None),
            (Update::Stale { since_ns, reason }, Some(status)) => {
                // A source that fails in another way has been stale since it first failed.
                let since_ns = status.stale.as_ref().map_or(since_ns, |(since_ns, _)| *since_ns);
                status.stale = Some((since_ns, reason));
            }
            (Update::InSync | Update::Stale { .. }, None) => {}
        }
    }

    /// Sources that are missing for a first state: a line for each source that was not in sync yet, for people. Empty
    /// once all were.
    pub fn waiting(&self) -> Vec<String> {
        let missing = self.sources.iter().filter(|source| !source.was_in_sync);
        let line = |source: &SourceStatus| match &source.stale {
            Some((_, reason)) => reason.clone(),
            None => format!("{}: not read whole yet", source.name),
        };
        missing.map(line).collect()
    }

    /// The cluster as it is now. `None` until each source was in sync once: before that, a policy that is missing may
    /// only not have been read yet. `now_ns`: nanoseconds since 1970.
    pub fn state(&mut self, now_ns: i64) -> Option<ClusterState> {
        if !self.sources.iter().all(|source| source.was_in_sync) {
            return None;
        }
        let stale = self.sources.iter().filter_map(|source| {
            let (since_ns, reason) = source.stale.clone()?;
            Some(StaleSource { source: source.name, since_ns, reason })
        });
        let stale: Vec<StaleSource> = stale.collect();
        let mut troubles: Vec<String> = stale.iter().map(|source| source.reason.clone()).collect();
        troubles.extend(self.assembly.faults().map(ToString::to_string));
        troubles.extend(self.generations.save().err().as_ref().map(with_source));
        let errors = troubles.len() as u64 + self.assembly.errors().count() as u64;
        // A fault that the source and the snapshot both report is one trouble.
        let troubles: BTreeSet<String> = troubles.into_iter().chain(self.assembly.errors().cloned()).collect();
        Some(ClusterState {
            snapshot: self.assembly.snapshot(),
            policies: self.assembly.policies(),
            troubles: troubles.into_iter().collect(),
            errors,
            stale,
            seen_ns: now_ns,
        })
    }
}

fn with_source(error: &StateError) -> String {
    error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests;

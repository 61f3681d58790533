//! Generations for policies without one, such as policies from files: a counter of content changes that outlives restarts.

use std::{collections::BTreeMap, path::PathBuf};

use netverdict_manifest::{KINDS, Object};
use serde::{Deserialize, Serialize};

use crate::state_file::{self, StateError};

const FILE: &str = "generations.json";

/// Counters per object; an object that was deleted and created again continues its counter.
#[derive(Debug)]
pub struct Generations {
    path: PathBuf,
    counts: BTreeMap<String, Count>,
    unsaved: bool,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Count {
    hash: String,
    generation: i64,
}

impl Generations {
    /// # Errors
    /// The file in the state directory cannot be read.
    pub fn open(state_dir: &std::path::Path) -> Result<Self, StateError> {
        let path = state_dir.join(FILE);
        Ok(Self { counts: state_file::load(&path)?.unwrap_or_default(), path, unsaved: false })
    }

    /// Sets the generation of a policy that has none.
    pub(crate) fn count(&mut self, object: &mut Object) {
        if object.generation != 0 || !KINDS.iter().any(|kind| kind.kind() == object.kind) {
            return;
        }
        let key = format!("{}/{}/{}", object.kind, object.namespace, object.name);
        let count = self.counts.entry(key).or_insert(Count { hash: String::new(), generation: 0 });
        if count.hash != object.content_hash {
            count.hash.clone_from(&object.content_hash);
            count.generation += 1;
            self.unsaved = true;
        }
        object.generation = count.generation;
    }

    /// Writes the counters to disk.
    ///
    /// # Errors
    /// They could not be written: after a restart, a generation may be given twice.
    pub(crate) fn save(&mut self) -> Result<(), StateError> {
        if self.unsaved {
            state_file::save(&self.path, &self.counts)?;
            self.unsaved = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(port: u16) -> Object {
        let text = format!(
            "{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: a, namespace: db}}, \
             spec: {{podSelector: {{}}, ingress: [{{ports: [{{port: {port}}}]}}]}}}}"
        );
        netverdict_manifest::read(&text, "a.yaml").0.remove(0)
    }

    #[test]
    fn generation_counts_changes_of_content_over_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let generation = |port| {
            let mut object = policy(port);
            let mut generations = Generations::open(folder.path()).unwrap();
            generations.count(&mut object);
            generations.save().unwrap();
            object.generation
        };
        assert_eq!([generation(80), generation(80), generation(81), generation(80)], [1, 1, 2, 3]);
    }
}

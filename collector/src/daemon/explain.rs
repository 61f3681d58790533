//! Meanings of a boot's ids, as inputs of the pipeline: from the probe's state for this boot, from the kept snapshots
//! for earlier ones.

use std::sync::Arc;

use netverdict_probe::Restored;

use crate::{
    input::Input,
    meaning::Meanings,
    snapshots::{self, Snapshots},
};

/// Source of the meanings of a boot's ids.
#[derive(Clone)]
pub(super) struct Explain {
    pub(super) node: Arc<str>,
    pub(super) boot_id: Arc<str>,
    pub(super) kept: Snapshots,
    pub(super) restored: Restored,
}

impl Explain {
    /// The inputs with the meanings. Of this boot the probe remembers everything; of others the kept snapshots do.
    pub(super) fn boot(&self, boot_id: &str) -> Vec<Input> {
        let revisions = &self.restored.snapshots;
        if boot_id != &*self.boot_id {
            let states = self.kept.found(boot_id, &[]);
            let meanings = Input::Meanings(snapshots::recompile(&states, &self.node));
            return [meanings].into_iter().chain(states.into_iter().map(Input::Snapshot)).collect();
        }
        let states = self.kept.found(boot_id, revisions).into_iter();
        let Restored { attributions, owners, bindings, revision: _, floor: _, adopted: _, snapshots: _ } =
            &self.restored;
        let meanings = Meanings {
            attributions: attributions.iter().map(|(id, decision)| (*id, decision.clone())).collect(),
            owners: owners.iter().map(|(id, owner)| (*id, owner.clone())).collect(),
        };
        let bound = bindings.iter().map(|bound| Input::Bound {
            interface: bound.ifindex,
            pod: bound.pod.clone(),
            uid: bound.pod_uid.clone(),
        });
        [Input::Meanings(meanings)].into_iter().chain(states.map(Input::Snapshot)).chain(bound).collect()
    }
}

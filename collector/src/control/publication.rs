//! Publication: snapshots are compiled, their meanings sent to the pipeline, and their tables written to the kernel.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use netverdict_flowlog::row::{ModeName, SnapshotRow};
use netverdict_policy::{
    Change, Compiler,
    tables::{Owner, OwnerId},
};
use netverdict_service::error_chain::chain;

use super::{
    own_node::{self, KnownHere},
    state::{InForce, Publication, State},
};
use crate::{
    clock,
    cluster::ClusterState,
    health::Part,
    input::{Fact, Input},
    meaning::Meanings,
    metrics::signed,
};

/// Between attempts to publish.
const RETRY: Duration = Duration::from_secs(1);

impl State {
    pub(super) fn want(&mut self, state: ClusterState) {
        if self.parts.health.set(Part::Source, told(&state)) && !state.troubles.is_empty() {
            tracing::warn!(source.troubles = ?state.troubles, "cluster source cannot be read whole");
        }
        self.parts.metrics.troubles(Part::Source, state.troubles.len());
        self.parts.metrics.stale(state.stale.iter().map(|source| source.since_ns).min());
        self.publication.cluster = Some(state);
        self.complete_and_publish();
    }

    /// The node has other addresses than before.
    pub(super) fn use_own_addresses(&mut self, addresses: BTreeSet<IpAddr>) {
        tracing::info!(node.addresses = addresses.len(), "addresses of the node's interfaces changed");
        self.publication.own_addresses = addresses;
        if let Some(cluster) = &mut self.publication.cluster {
            cluster.seen_ns = clock::now_ns();
        }
        self.complete_and_publish();
    }

    pub(super) fn complete_and_publish(&mut self) {
        let assigned = self.assigned_addresses();
        let Publication { cluster: Some(cluster), own_addresses, .. } = &self.publication else { return };
        let session = &self.parts.session;
        let audit_all = session.mode == ModeName::Audit;
        let known_here = KnownHere { node: &session.node, own_addresses, assigned: &assigned };
        let snapshot = own_node::complete(&cluster.snapshot, &known_here, audit_all);
        self.publication.wanted = Some(Arc::new(ClusterState { snapshot, ..cluster.clone() }));
        self.bring_into_force();
        self.attachments.bind_again = true;
    }

    /// Publishes the newest state of the cluster.
    pub(super) fn bring_into_force(&mut self) {
        let Some(cluster) = self.publication.wanted.clone() else { return };
        let troubles = match self.publish(&cluster) {
            Ok(()) => Vec::new(),
            Err(error) => {
                self.parts.metrics.failed(Part::Publish);
                self.publication.compiler = None;
                self.publication.retry_at = Some(Instant::now() + RETRY);
                vec![error]
            }
        };
        self.parts.metrics.troubles(Part::Publish, troubles.len());
        let failed = troubles.first().cloned();
        if self.parts.health.set(Part::Publish, troubles) {
            match failed {
                Some(error) => tracing::error!(%error, "snapshot not published; the one before it stays in force"),
                None => tracing::info!("snapshots are published again"),
            }
        }
    }

    fn publish(&mut self, cluster: &Arc<ClusterState>) -> Result<(), String> {
        let snapshot = cluster.snapshot.clone();
        if let Some(in_force) = &self.publication.in_force
            && self.publication.compiler.is_some()
            && (Arc::ptr_eq(&in_force.snapshot, &snapshot) || *in_force.snapshot == *snapshot)
        {
            // The objects may hold more than the snapshot does: an annotation, a comment in a text.
            let number = in_force.number;
            self.append_changes(cluster, number, clock::now_ns());
            return Ok(());
        }
        let span = tracing::info_span!("publish", snapshot = tracing::field::Empty);
        let _entered = span.enter();
        let compiler = self
            .publication
            .compiler
            .get_or_insert_with(|| Compiler::new(self.parts.session.node.to_string(), self.parts.probe.floor()));
        let change = tracing::info_span!("compile").in_scope(|| compiler.compile(&snapshot));
        let boot_id = &self.parts.session.boot_id;
        let kept = tracing::info_span!("keep")
            .in_scope(|| self.parts.snapshots.keep(boot_id, cluster.seen_ns, &snapshot, compiler, change.complete));
        let state = kept.map_err(|error| chain(&error))?;
        let number = state.number;
        span.record("snapshot", number);
        let Change { attributions, owners, .. } = &change;
        self.send(Input::Meanings(Meanings { attributions: attributions.clone(), owners: owners.clone() }));
        self.send(Input::Snapshot(state));
        let time_ns = clock::now_ns();
        let published = tracing::info_span!("write_maps").in_scope(|| self.parts.probe.publish(number, &change));
        let revision = match published {
            Ok(revision) => revision,
            Err(error) => {
                self.send(Input::Abandoned { number });
                if let Err(error) = self.parts.snapshots.abandoned(number) {
                    tracing::warn!(error = %chain(&error), "abandoned snapshot not noted");
                }
                return Err(chain(&error));
            }
        };
        self.send(Input::Published { number, revision });
        if let Err(error) = self.parts.snapshots.published(number, revision) {
            tracing::warn!(error = %chain(&error), "revision of a kept snapshot not noted");
        }
        self.publication.in_force = Some(InForce { number, snapshot });
        self.note(cluster, number, revision);
        let mut facts = self.parts.changes.attributions(&change.attributions, time_ns);
        facts.push(Fact::Snapshot(Box::new(SnapshotRow {
            time: clock::at(time_ns),
            node: self.parts.session.node.clone(),
            boot_id: self.parts.session.boot_id.clone(),
            snapshot: number,
            revision,
            policies: cluster.snapshot.policies.len() as u64,
            pods: cluster.snapshot.pods.len() as u64,
            namespaces: cluster.snapshot.namespaces.len() as u64,
            audit_all: self.parts.session.mode == ModeName::Audit,
            errors: cluster.errors,
        })));
        self.append(facts);
        self.append_changes(cluster, number, time_ns);
        Ok(())
    }

    fn note(&self, cluster: &ClusterState, number: u64, revision: u64) {
        self.parts.metrics.publications.inc();
        self.parts.metrics.snapshot.set(signed(number));
        self.parts.metrics.in_force();
        self.parts.metrics.revision.set(signed(revision));
        self.parts.metrics.policies.set(signed(cluster.snapshot.policies.len() as u64));
        self.parts.metrics.pods.set(signed(cluster.snapshot.pods.len() as u64));
        #[expect(clippy::cast_precision_loss, reason = "a figure to look at: microseconds are enough")]
        let seconds = (clock::now_ns() - cluster.seen_ns) as f64 / 1e9;
        self.parts.metrics.publish_seconds.observe(seconds.max(0.0));
        tracing::info!(
            snapshot.number = number,
            snapshot.revision = revision,
            snapshot.policies = cluster.snapshot.policies.len(),
            snapshot.pods = cluster.snapshot.pods.len(),
            snapshot.errors = cluster.errors,
            "snapshot in force"
        );
    }

    /// Appends the changes to the change logs, and remembers them.
    fn append_changes(&mut self, cluster: &ClusterState, number: u64, time_ns: i64) {
        let compiler = self.publication.compiler.as_ref();
        let owner_id =
            |owner: &Owner| compiler.and_then(|compiler| compiler.owner_id(owner)).unwrap_or(OwnerId::NOBODY);
        let facts = self.parts.changes.rows(cluster, number, time_ns, owner_id);
        // Changes are remembered only once they are durable: a repetition is better than a loss.
        if self.append(facts)
            && let Err(error) = self.parts.changes.save()
        {
            tracing::warn!(error = %chain(&error), "a restart will record these changes again");
        }
    }
}

/// Problems of the sources, as answers and health checks show them: staleness with its beginning.
fn told(cluster: &ClusterState) -> Vec<String> {
    let since =
        |line: &String| cluster.stale.iter().find(|source| source.reason == *line).map(|source| source.since_ns);
    let line = |line: &String| match since(line) {
        Some(since_ns) => format!("{line}; stale since {}", clock::at(since_ns).format("%Y-%m-%dT%H:%M:%SZ")),
        None => line.clone(),
    };
    cluster.troubles.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use netverdict_cluster::StaleSource;

    use super::*;

    #[test]
    fn staleness_is_told_with_its_beginning() {
        let reason = "kubernetes: cannot reach the API server".to_owned();
        let stale =
            vec![StaleSource { source: "kubernetes", since_ns: 1_777_634_400_000_000_000, reason: reason.clone() }];
        let troubles = vec!["a.yaml: cannot be read".to_owned(), reason];
        let expected =
            ["a.yaml: cannot be read", "kubernetes: cannot reach the API server; stale since 2026-05-01T11:20:00Z"];
        assert_eq!(told(&ClusterState { troubles, stale, ..ClusterState::default() }), expected);
    }
}

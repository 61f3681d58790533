//! A watch of an API server, and the state of the cluster that it makes.

use std::{path::PathBuf, time::Duration};

use netverdict_cluster::{
    Cluster, ClusterState, Generations, Layer, Source, Update,
    kubernetes::{Access, ApiWatch, KindFigures, WatchOptions},
};
use netverdict_policy::model::{ObjectKey, PolicyKey};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Far longer than any passing test takes, on build machines too.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Follower {
    watch: ApiWatch,
    cluster: Cluster,
    layer: Layer,
    runtime: Runtime,
    _state: TempDir,
}

/// Seconds where a collector has minutes.
pub(crate) fn hasty() -> WatchOptions {
    WatchOptions {
        discover_every: Duration::from_secs(1),
        lifetime: Duration::from_secs(1),
        grace: Duration::from_millis(500),
        first_backoff: Duration::from_millis(50),
        most_backoff: Duration::from_secs(1),
        ..WatchOptions::default()
    }
}

impl Follower {
    pub(crate) fn start(kubeconfig: PathBuf, options: WatchOptions) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let mut cluster = Cluster::new(Generations::open(state.path()).expect("a state directory"));
        let layer = cluster.add_source("kubernetes");
        let runtime = Runtime::new().expect("a runtime");
        let access = Access { kubeconfig: Some(kubeconfig), context: None };
        let watch = runtime.block_on(ApiWatch::open(access, options)).expect("a configuration");
        Self { watch, cluster, layer, runtime, _state: state }
    }

    /// The state, once everything was read.
    pub(crate) fn synced(&mut self) -> ClusterState {
        self.until("in sync", |_| true)
    }

    /// Follows the watch until the state is so.
    pub(crate) fn until(&mut self, what: &str, is_so: impl Fn(&ClusterState) -> bool) -> ClusterState {
        self.follow(what, |cluster| cluster.state(0).filter(&is_so))
    }

    /// Follows the watch until this is among the reasons why there is no state yet.
    pub(crate) fn waits_for(&mut self, reason: &str) {
        self.follow(reason, |cluster| cluster.waiting().iter().any(|line| line.contains(reason)).then_some(()));
    }

    fn follow<T>(&mut self, what: &str, found: impl Fn(&mut Cluster) -> Option<T>) -> T {
        let Self { watch, cluster, layer, runtime, .. } = self;
        let following = async {
            loop {
                if let Some(found) = found(cluster) {
                    return found;
                }
                let Ok(update) = watch.next().await;
                let update: Update = update.expect("a watch does not end");
                cluster.apply(*layer, update);
            }
        };
        let followed = runtime.block_on(async { tokio::time::timeout(PATIENCE, following).await });
        followed.unwrap_or_else(|_| panic!("not in time: {what}; {:?} {:?}", cluster.waiting(), cluster.state(0)))
    }

    pub(crate) fn figures(&self, kind: &str) -> KindFigures {
        let all = self.watch.status().figures();
        all.into_iter().find(|(known, _)| **known == *kind).unwrap_or_else(|| panic!("{kind} is not watched")).1
    }
}

pub(crate) fn pods(state: &ClusterState) -> Vec<String> {
    state.snapshot.pods.keys().map(ToString::to_string).collect()
}

pub(crate) fn has_pod(state: &ClusterState, namespace: &str, name: &str) -> bool {
    state.snapshot.pods.contains_key(&ObjectKey::new(namespace, name))
}

/// Names of the policies in force, sorted by kind.
pub(crate) fn policies(state: &ClusterState) -> Vec<&str> {
    state.snapshot.policies.keys().map(|PolicyKey { name, .. }| name.as_str()).collect()
}

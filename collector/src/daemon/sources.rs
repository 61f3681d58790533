//! The sources of the cluster's objects: opened by the options, each followed in a thread of its own.

use std::{convert::Infallible, path::Path};

use netverdict_cluster::{
    Cluster, Layer, Source, Update,
    kubernetes::{Access, ApiWatch, ClusterError, NodeEvents, WatchOptions, WatchStatus},
    manifests::Manifests,
};
use netverdict_service::{queue::QueueSender, shutdown::Shutdown, thread_group::ThreadGroup};
use tokio::runtime::Handle;

use super::unbound_events::COMPONENT;
use crate::{cluster, options::SourceOptions};

/// Where the cluster's objects come from: at least one.
pub(super) struct Sources {
    kubernetes: Option<ApiWatch>,
    /// Its objects count instead of the cluster's.
    manifests: Option<Manifests>,
}

impl Sources {
    /// # Errors
    /// A folder cannot be read, or no cluster is configured. A cluster that cannot be reached is no error.
    pub(super) async fn open(options: SourceOptions, state_dir: &Path) -> anyhow::Result<Self> {
        let folder = options.folder();
        let SourceOptions { kubernetes, kubeconfig, context, manifests: _, manifest_interval } = options;
        let manifests = folder.map(|folder| Manifests::open(&folder, state_dir, manifest_interval)).transpose()?;
        let kubernetes = match kubernetes {
            true => Some(
                ApiWatch::open(Access { kubeconfig, context }, WatchOptions::default()).await.map_err(with_remedy)?,
            ),
            false => None,
        };
        Ok(Self { kubernetes, manifests })
    }

    /// The numbers of the cluster's watch, if there is one.
    pub(super) fn watch_status(&self) -> Option<WatchStatus> {
        self.kubernetes.as_ref().map(ApiWatch::status)
    }

    /// Starts a thread for each. Of two with the same object the later one counts.
    pub(super) fn follow(
        self,
        cluster: &mut Cluster,
        updates: &QueueSender<(Layer, Update)>,
        threads: &mut ThreadGroup,
        shutdown: &Shutdown,
    ) -> anyhow::Result<()> {
        let Self { kubernetes, manifests } = self;
        if let Some(kubernetes) = kubernetes {
            follow("kubernetes", kubernetes, cluster, updates, threads, shutdown)?;
        }
        if let Some(manifests) = manifests {
            follow("manifests", manifests, cluster, updates, threads, shutdown)?;
        }
        Ok(())
    }
}

/// The events of a node, where a cluster is watched.
///
/// # Errors
/// No cluster is configured. A cluster that cannot be reached is no error.
pub(super) async fn node_events(options: &SourceOptions, node: &str) -> anyhow::Result<Option<NodeEvents>> {
    let SourceOptions { kubernetes, kubeconfig, context, manifests: _, manifest_interval: _ } = options;
    if !kubernetes {
        return Ok(None);
    }
    let access = Access { kubeconfig: kubeconfig.clone(), context: context.clone() };
    NodeEvents::open(access, node, COMPONENT).await.map(Some).map_err(with_remedy)
}

/// Starts a thread for a source, as a layer above the existing ones.
fn follow<S: Source<Error = Infallible> + 'static>(
    name: &'static str,
    source: S,
    cluster: &mut Cluster,
    updates: &QueueSender<(Layer, Update)>,
    threads: &mut ThreadGroup,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let layer = cluster.add_source(source.name());
    let (runtime, updates, stop) = (Handle::current(), updates.clone(), shutdown.clone());
    threads.spawn(name, move || cluster::follow(source, layer, &updates, &runtime, &stop).map_err(Into::into))?;
    Ok(())
}

fn with_remedy(error: ClusterError) -> anyhow::Error {
    let remedy = match &error {
        ClusterError::Kubeconfig(_) => "name a kubeconfig with --kubeconfig or KUBECONFIG",
        ClusterError::InCluster(_) => "the pod's service account has to be mounted",
        ClusterError::UnknownContext { .. } => "choose another one with --context",
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}; {remedy}")
}

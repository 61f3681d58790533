//! The cluster that a command reads: which one, how far it is, and what to do when it cannot be read.

use std::path::PathBuf;

use clap::Args;
use netverdict_cluster::{
    Layer, Layers, Source as _, Update,
    kubernetes::{Access, ApiList, ClusterError},
};

/// Rights that a role needs to read a whole cluster.
const RIGHTS: &str = "list on pods, namespaces, nodes, services and the network policies of all namespaces";

/// Which cluster to ask.
#[derive(Args, Debug, Clone, Default)]
pub(crate) struct ClusterOptions {
    /// Kubeconfig of the cluster to read [default: $KUBECONFIG, ~/.kube/config, or the pod's own account]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

impl ClusterOptions {
    /// Whether the user said which cluster.
    pub(crate) fn is_named(&self) -> bool {
        self.kubeconfig.is_some() || self.context.is_some()
    }

    pub(crate) fn access(&self) -> Access {
        Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }

    /// Reads the cluster into a layer. Returns the namespace of the context: what a name without one means.
    /// `progress` gets a line before each page.
    pub(crate) async fn read(
        &self,
        layers: &mut Layers,
        layer: Layer,
        progress: &mut dyn FnMut(&str),
    ) -> anyhow::Result<String> {
        self.list(layers, layer, progress).await.map_err(with_remedy)
    }

    async fn list(
        &self,
        layers: &mut Layers,
        layer: Layer,
        progress: &mut dyn FnMut(&str),
    ) -> Result<String, ClusterError> {
        let connection = self.access().connect().await?;
        let namespace = connection.namespace().to_owned();
        let mut list = ApiList::open(connection).await?;
        loop {
            if let Some((count, plural)) = list.progress() {
                progress(&format!("reading {count} {plural}"));
            }
            match list.next().await? {
                Some(Update::Changes(changes)) => _ = layers.apply(layer, changes),
                // A list that fails is an error, so it is never stale.
                Some(Update::InSync | Update::Stale { .. }) => {}
                None => return Ok(namespace),
            }
        }
    }
}

fn with_remedy(error: ClusterError) -> anyhow::Error {
    let remedy = match &error {
        ClusterError::Kubeconfig(_) => "name manifests with -f, or a kubeconfig with --kubeconfig or KUBECONFIG".into(),
        ClusterError::InCluster(_) => {
            "the pod's service account has to be mounted, or name manifests with -f".to_owned()
        }
        ClusterError::Credentials { .. } => {
            "log in to the cluster again, or choose another one with --context".to_owned()
        }
        ClusterError::Forbidden { .. } => format!("ask for a role with {RIGHTS}, or name manifests with -f"),
        ClusterError::Unreachable { .. } => {
            "is it the right cluster? `kubectl config get-contexts` lists them, --context chooses".to_owned()
        }
        ClusterError::UnknownContext { .. } | ClusterError::Refused { .. } | ClusterError::Object { .. } => {
            return error.into();
        }
    };
    anyhow::anyhow!("{error}\n  {remedy}")
}

//! Which API server to ask, with which credentials: a kubeconfig, or the account of the pod that this runs in.

use std::{path::PathBuf, time::Duration};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::error::ClusterError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An API server itself gives up after a minute.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);

/// Which cluster to ask. If empty: the cluster that kubectl would ask, or else that of the pod that this runs in.
#[derive(Clone, Debug, Default)]
pub struct Access {
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; `None` for its current one.
    pub context: Option<String>,
}

/// A client of an API server. Nothing has been asked yet.
#[derive(Clone)]
pub struct Connection {
    pub(super) client: Client,
    /// URL of the server, for messages.
    pub(super) server: String,
    namespace: String,
}

impl Access {
    /// # Errors
    /// There is no cluster to ask, or its configuration cannot be used.
    pub async fn connect(&self) -> Result<Connection, ClusterError> {
        let mut config = self.config().await?;
        config.read_timeout = Some(ANSWER_TIMEOUT);
        Self::connect_by(config)
    }

    /// For a client that retries by itself, and whose connections may be silent for so long.
    pub(super) async fn connect_to_watch(&self, silence: Duration) -> Result<Connection, ClusterError> {
        let mut config = self.config().await?;
        config.read_timeout = Some(silence);
        config.default_retry = false;
        Self::connect_by(config)
    }

    fn connect_by(mut config: Config) -> Result<Connection, ClusterError> {
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.reset_reader_on_write = true;
        let server = config.cluster_url.to_string();
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|source| ClusterError::asking(&server, "connect", source))?;
        Ok(Connection { client, server, namespace })
    }

    async fn config(&self) -> Result<Config, ClusterError> {
        let kubeconfig = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path).map_err(ClusterError::Kubeconfig)?,
            None => match Kubeconfig::read() {
                Ok(kubeconfig) => kubeconfig,
                // A pod has an account instead, unless a context was asked for, which it has not.
                Err(_) if self.context.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() => {
                    return Config::incluster().map_err(ClusterError::InCluster);
                }
                Err(source) => return Err(ClusterError::Kubeconfig(source)),
            },
        };
        let known: Vec<&str> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
        if let Some(context) = self.context.as_deref().filter(|context| !known.contains(context)) {
            return Err(ClusterError::UnknownContext { context: context.to_owned(), known: known.join(", ") });
        }
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(ClusterError::Kubeconfig)
    }
}

impl Connection {
    /// The namespace of the context, for names without one.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

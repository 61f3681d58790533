//! The way to an API server, which is found again when it changes: certificates, tokens and addresses of a kubeconfig are
//! replaced while this runs.
//!
//! A token in a file of its own, as pods have it, is read again by the client itself.

use std::time::Duration;

use tokio::{sync::Mutex, time::Instant};

use super::{
    connect::{Access, Connection},
    error::ClusterError,
};

/// Between readings of the configuration.
const RENEW: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Reach {
    access: Access,
    /// The longest silence on a connection.
    silence: Duration,
    current: Mutex<Current>,
}

struct Current {
    connection: Connection,
    read_at: Instant,
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current").field("server", &self.connection.server).finish_non_exhaustive()
    }
}

impl Reach {
    pub(super) async fn open(access: Access, silence: Duration) -> Result<Self, ClusterError> {
        let connection = access.connect_to_watch(silence).await?;
        Ok(Self { access, silence, current: Mutex::new(Current { connection, read_at: Instant::now() }) })
    }

    pub(super) async fn connection(&self) -> Connection {
        self.current.lock().await.connection.clone()
    }

    /// Reads the configuration again. If it cannot be used, the one before it stays.
    pub(super) async fn renew(&self) {
        let mut current = self.current.lock().await;
        if current.read_at.elapsed() < RENEW {
            return;
        }
        current.read_at = Instant::now();
        match self.access.connect_to_watch(self.silence).await {
            Ok(connection) => current.connection = connection,
            Err(error) => tracing::warn!(%error, "cluster configuration cannot be read again"),
        }
    }
}

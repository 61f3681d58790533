//! Events about a node, as `kubectl describe node` and `kubectl get events` show them. They are the only objects that we
//! write, and the right to do so may be missing.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};

use super::{connect::Access, error::ClusterError, reach::Reach};

/// Where events of objects without a namespace are.
const NAMESPACE: &str = "default";
/// Characters that the API server takes.
const MOST_MESSAGE: usize = 1_024;
const SILENCE: Duration = Duration::from_secs(20);

/// Writes events of one program about one node.
#[derive(Debug)]
pub struct NodeEvents {
    reach: Reach,
    node: String,
    component: &'static str,
}

impl NodeEvents {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// There is no cluster, or its configuration cannot be used.
    pub async fn open(access: Access, node: &str, component: &'static str) -> Result<Self, ClusterError> {
        Ok(Self { reach: Reach::open(access, SILENCE).await?, node: node.to_owned(), component })
    }

    /// Writes a warning. `reason` is one word for machines.
    ///
    /// # Errors
    /// The API server cannot be reached, or does not let us.
    pub async fn warn(&self, reason: &str, message: &str) -> Result<(), ClusterError> {
        let connection = self.reach.connection().await;
        let events: Api<Event> = Api::namespaced(connection.client.clone(), NAMESPACE);
        match events.create(&PostParams::default(), &self.warning(reason, message)).await {
            Ok(_) => Ok(()),
            Err(error) => {
                self.reach.renew().await;
                Err(ClusterError::asking(&connection.server, "create events", error))
            }
        }
    }

    fn warning(&self, reason: &str, message: &str) -> Event {
        let now = Timestamp::now();
        Event {
            metadata: ObjectMeta {
                // As unique as kubectl's own: two in one nanosecond are one too many.
                name: Some(format!("{}.{:x}", self.node, now.as_nanosecond())),
                namespace: Some(NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            // The kubelet too refers to its node by the name, and tools look for that.
            involved_object: ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(self.node.clone()),
                uid: Some(self.node.clone()),
                ..ObjectReference::default()
            },
            type_: Some("Warning".to_owned()),
            reason: Some(reason.to_owned()),
            message: Some(message.chars().take(MOST_MESSAGE).collect()),
            source: Some(EventSource { component: Some(self.component.to_owned()), host: Some(self.node.clone()) }),
            reporting_component: Some(self.component.to_owned()),
            reporting_instance: Some(self.node.clone()),
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            ..Event::default()
        }
    }
}

//! On how many nodes a DaemonSet is ready: how an uninstall knows that every node is clean.

use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::Value;

use super::{connect::Connection, error::ClusterError};

/// The nodes of a DaemonSet, as its controller counted them last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeCounts {
    /// Where it should run.
    pub desired: u64,
    /// Where its pod is ready.
    pub ready: u64,
}

impl NodeCounts {
    pub fn is_complete(self) -> bool {
        self.ready >= self.desired
    }
}

impl Connection {
    /// `None` while its controller has not counted.
    ///
    /// # Errors
    /// There is no such DaemonSet, or the API server does not say.
    pub async fn daemon_set(&self, namespace: &str, name: &str) -> Result<Option<NodeCounts>, ClusterError> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "DaemonSet"));
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        let doing = format!("get the DaemonSet {namespace}/{name}");
        let object = api.get(name).await.map_err(|source| ClusterError::asking(&self.server, &doing, source))?;
        Ok(counts(object.metadata.generation, &object.data))
    }
}

fn counts(generation: Option<i64>, object: &Value) -> Option<NodeCounts> {
    let status = &object["status"];
    // Of an older state of the object: the counts say nothing of this one.
    let observed = status["observedGeneration"].as_i64()?;
    generation.is_none_or(|generation| observed >= generation).then_some(())?;
    Some(NodeCounts { desired: status["desiredNumberScheduled"].as_u64()?, ready: status["numberReady"].as_u64()? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_of_an_older_state_are_not_believed() {
        let object = json!({ "status": {
            "observedGeneration": 1, "desiredNumberScheduled": 3, "numberReady": 3, "currentNumberScheduled": 3,
        } });
        let complete = counts(Some(1), &object).unwrap();
        assert_eq!(complete, NodeCounts { desired: 3, ready: 3 });
        assert!(complete.is_complete() && !NodeCounts { ready: 2, ..complete }.is_complete());
        assert_eq!(counts(Some(2), &object), None);
        assert_eq!(counts(Some(1), &json!({ "spec": {} })), None);
    }
}

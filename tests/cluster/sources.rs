//! The listed cluster as a source: it feeds the same assembly as a folder of manifests.

use std::path::Path;

use netverdict_cluster::{
    Change, Cluster, ClusterState, Generations, Layer, Scope, Source, Update,
    kubernetes::{Access, ApiList},
};
use netverdict_policy::model::{ObjectKey, PolicyKey};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{
    SHOP,
    server::{NETWORK_POLICY, Server},
};

struct Sources {
    cluster: Cluster,
    api: Layer,
    manifests: Layer,
    runtime: Runtime,
    _state: TempDir,
}

impl Sources {
    fn new() -> Self {
        let state = tempfile::tempdir().expect("a folder");
        let mut cluster = Cluster::new(Generations::open(state.path()).expect("a state directory"));
        let (api, manifests) = (cluster.add_source("kubernetes"), cluster.add_source("manifests"));
        Self { cluster, api, manifests, runtime: Runtime::new().expect("a runtime"), _state: state }
    }

    /// Lists the API from its start to its end, as a watch does after an outage.
    fn list(&mut self, server: &Server) {
        let Self { cluster, api, runtime, .. } = self;
        runtime.block_on(async {
            let access = Access { kubeconfig: Some(server.admin()), context: None };
            let mut source = ApiList::open(access.connect().await.expect("a client")).await.expect("the served kinds");
            while let Some(update) = source.next().await.expect("a page") {
                cluster.apply(*api, update);
            }
        });
    }

    fn replace_file(&mut self, text: &str) {
        let (objects, findings) = netverdict_manifest::read(text, "a.yaml");
        assert!(findings.is_empty(), "{findings:?}");
        let scope = Scope::File(Path::new("a.yaml").into());
        self.cluster.apply(self.manifests, Update::Changes(Change::replace(&scope, objects)));
        self.cluster.apply(self.manifests, Update::InSync);
    }

    fn state(&mut self) -> Option<ClusterState> {
        self.cluster.state(0)
    }
}

fn policy(name: &str) -> PolicyKey {
    PolicyKey { kind: "NetworkPolicy".into(), namespace: "db".into(), name: name.into() }
}

#[test]
fn a_listed_cluster_and_manifests_over_it_make_one_snapshot() {
    let Some(server) = Server::start() else { return };
    server.apply(SHOP);
    let mut sources = Sources::new();
    sources.list(&server);
    assert!(sources.state().is_none(), "the manifests are not in sync yet");
    sources.replace_file("{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: extra}}");
    let state = sources.state().expect("all sources are in sync");
    assert_eq!(state.troubles, Vec::<String>::new());
    let pods: Vec<String> = state.snapshot.pods.keys().map(ToString::to_string).collect();
    assert_eq!(pods, ["db/pg", "shop/extra", "shop/jobs", "shop/web"]);
    let listed = &state.policies[&policy("allow-web")];
    assert_eq!((listed.origin.to_string(), listed.generation), ("api".to_owned(), 1));
    assert!(!listed.resource_version.is_empty());

    // An object to be applied counts instead of the present one, until it is taken back.
    sources.replace_file(
        "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: db, name: allow-web}, spec: {podSelector: {}}}",
    );
    let state = sources.state().expect("in sync");
    assert_eq!(state.policies[&policy("allow-web")].origin.to_string(), "a.yaml#1");
    sources.replace_file("");
    let state = sources.state().expect("in sync");
    assert_eq!(state.policies[&policy("allow-web")].origin.to_string(), "api");
}

#[test]
fn what_vanished_between_two_lists_is_deleted_and_the_rest_is_not_read_again() {
    let Some(server) = Server::start() else { return };
    server.apply(SHOP);
    let mut sources = Sources::new();
    sources.replace_file("");
    sources.list(&server);
    let before = sources.state().expect("in sync").snapshot;
    assert!(before.policies.contains_key(&policy("default-deny")));
    server.delete(NETWORK_POLICY, "db", "default-deny");
    sources.list(&server);
    let after = sources.state().expect("in sync").snapshot;
    assert!(!after.policies.contains_key(&policy("default-deny")));
    let web = ObjectKey::new("shop", "web");
    assert!(std::sync::Arc::ptr_eq(&before.pods[&web], &after.pods[&web]));
}

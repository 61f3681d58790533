use std::path::Path;

use super::*;
use crate::source::{Change, Scope};

const POLICY: &str = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a, namespace: db}, spec: {podSelector: {}}}";

fn policy(name: &str) -> Update {
    let (objects, _) = netverdict_manifest::read(&POLICY.replace("name: a", &format!("name: {name}")), name);
    Update::Changes(Change::replace(&Scope::File(Path::new(name).into()), objects))
}

fn stale(since_ns: i64, reason: &str) -> Update {
    Update::Stale { since_ns, reason: reason.into() }
}

fn cluster() -> (Cluster, Layer, Layer, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(Generations::open(folder.path()).unwrap());
    let (api, files) = (cluster.add_source("kubernetes"), cluster.add_source("manifests"));
    (cluster, api, files, folder)
}

#[test]
fn nothing_is_to_be_published_before_every_source_was_in_sync_once() {
    let (mut cluster, api, files, _folder) = cluster();
    cluster.apply(files, policy("a"));
    cluster.apply(files, Update::InSync);
    assert!(cluster.state(1).is_none());
    cluster.apply(api, policy("b"));
    assert!(cluster.state(2).is_none(), "other policies may be on their way");
    cluster.apply(api, Update::InSync);
    let state = cluster.state(3).unwrap();
    assert_eq!((state.snapshot.policies.len(), state.policies.len(), state.seen_ns), (2, 2, 3));
}

#[test]
fn stale_source_is_known_since_its_first_failure_until_it_is_in_sync_again() {
    let (mut cluster, api, files, _folder) = cluster();
    [api, files].into_iter().for_each(|layer| cluster.apply(layer, Update::InSync));
    assert_eq!(cluster.state(0).unwrap().stale, []);
    cluster.apply(api, stale(5, "connection refused"));
    cluster.apply(api, stale(9, "not authorised"));
    cluster.apply(files, policy("a"));
    let state = cluster.state(10).unwrap();
    let expected = StaleSource { source: "kubernetes", since_ns: 5, reason: "not authorised".into() };
    assert_eq!((state.stale, state.troubles), (vec![expected], vec!["not authorised".to_owned()]));
    assert_eq!(state.snapshot.policies.len(), 1, "the other source goes on");
    cluster.apply(api, Update::InSync);
    let state = cluster.state(11).unwrap();
    assert_eq!((state.stale.len(), state.troubles.len(), state.errors), (0, 0, 0));
}

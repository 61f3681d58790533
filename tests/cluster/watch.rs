//! The watch of a real API server: which changes it sees, how soon, and which facts stay right when the server, the rights
//! and the objects misbehave.

use std::{
    fs,
    time::{Duration, Instant},
};

use netverdict_cluster::{
    ClusterState,
    kubernetes::{Access, NodeEvents, WatchOptions},
};
use netverdict_policy::model::{ObjectKey, PolicyKey};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    KINDS, SHOP,
    follower::{Follower, has_pod, hasty, pods, policies},
    proxy::{Mode, Proxy},
    server::{BINDING, COLLECTOR, COLLECTOR_NEXT, DEFINITION, EVENT, NETWORK_POLICY, POD, Server},
};

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {namespace: db, name: sql}
spec: {selector: {app: pg}, ports: [{port: 5432}]}
";

/// Far longer than any test here takes: a change that is seen before then is seen by the watch.
const NEVER: Duration = Duration::from_secs(3_600);
/// Of a change until it is seen; as a rule it takes some milliseconds.
const SOON: Duration = Duration::from_secs(5);

/// The account that docs/kubernetes.md makes, for the user that the API server knows by a token here.
fn rights() -> String {
    let page = include_str!("../../docs/kubernetes.md");
    let begins = page.find("```yaml\n").expect("the rights are on the page") + "```yaml\n".len();
    let text = page[begins..].split("```").next().expect("an end");
    let account = "{kind: ServiceAccount, name: netverdict-collector, namespace: netverdict}";
    assert!(text.contains(account), "the binding names another account: {text}");
    text.replace(account, "{kind: User, name: netverdict, apiGroup: rbac.authorization.k8s.io}")
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn cluster_policy(name: &str, rest: Value) -> Value {
    let mut spec = json!({"tier": "Admin", "priority": 10, "subject": {"namespaces": {}},
                          "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]});
    spec.as_object_mut().expect("a mapping").extend(rest.as_object().cloned().unwrap_or_default());
    json!({"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
           "metadata": {"name": name}, "spec": spec})
}

fn versions() -> [String; 2] {
    ["v1alpha2", "v1beta1"].map(|version| format!("policy.networking.k8s.io/{version}"))
}

#[test]
fn every_kind_is_watched_with_the_documented_rights_and_a_change_is_seen_at_once() {
    let Some(server) = Server::start() else { return };
    server.apply(SHOP);
    server.apply(SERVICE);
    server.apply(&rights());
    server.serve_kinds(KINDS, &versions());
    server.create(cluster_policy("no-one", json!({})));
    let options = WatchOptions { discover_every: NEVER, ..WatchOptions::default() };
    let mut follower = Follower::start(server.kubeconfig("collector", COLLECTOR), options);
    let state = follower.synced();
    assert_eq!((state.troubles.clone(), state.stale.len()), (Vec::<String>::new(), 0));
    assert_eq!(pods(&state), ["db/pg", "shop/jobs", "shop/web"]);
    assert_eq!(policies(&state), ["no-one", "allow-web", "default-deny"]);
    let service = &state.snapshot.services[&ObjectKey::new("db", "sql")];
    assert!(!service.addresses.is_empty(), "the API server gave it one: {service:?}");
    assert!(state.snapshot.nodes.contains_key("n1") && state.snapshot.namespaces["shop"].labels.contains_key("team"));

    let mut slowest = Duration::ZERO;
    let mut seen = |what: &str, follower: &mut Follower, is_so: &dyn Fn(&_) -> bool| {
        let changed = Instant::now();
        follower.until(what, is_so);
        assert!(changed.elapsed() < SOON, "{what}: {:?}", changed.elapsed());
        slowest = slowest.max(changed.elapsed());
    };
    server.patch(POD, "shop", "jobs", "tests", json!({"metadata": {"labels": {"app": "web"}}}));
    let jobs = ObjectKey::new("shop", "jobs");
    seen("a label", &mut follower, &|state| state.snapshot.pods[&jobs].labels["app"] == "web");
    server.patch(NETWORK_POLICY, "db", "allow-web", "argocd", json!({"spec": {"policyTypes": ["Ingress", "Egress"]}}));
    let key = PolicyKey { kind: "NetworkPolicy".into(), namespace: "db".into(), name: "allow-web".into() };
    seen("a change of a policy", &mut follower, &|state| state.policies[&key].generation == 2);
    let changed = follower.synced().policies[&key].clone();
    let change = netverdict_manifest::last_change(&changed).expect("the API server notes who it was");
    assert_eq!((change.manager, changed.origin.to_string().as_str()), ("argocd", "api"));
    assert!(!changed.resource_version.is_empty() && !changed.uid.is_empty() && !change.time.is_empty());
    assert!(netverdict_manifest::created(&changed).is_some_and(|created| created <= change.time));
    server.delete(NETWORK_POLICY, "db", "default-deny");
    seen("a policy that is deleted", &mut follower, &|state| policies(state) == ["no-one", "allow-web"]);
    server.delete(POD, "shop", "web");
    seen("a pod that is deleted", &mut follower, &|state| pods(state) == ["db/pg", "shop/jobs"]);
    server.create(cluster_policy("another", json!({})));
    seen("a policy of the admin tier", &mut follower, &|state| policies(state) == ["another", "no-one", "allow-web"]);
    println!("the slowest change was seen after {slowest:?}");
    for kind in ["Pod", "Namespace", "Node", "Service", "NetworkPolicy", "ClusterNetworkPolicy"] {
        let figures = follower.figures(kind);
        assert_eq!((figures.lists, figures.errors, figures.stale_since_ns), (1, 0, 0), "{kind}: {figures:?}");
    }
}

#[test]
fn a_kind_counts_from_when_it_is_served_until_its_definition_is_deleted() {
    let Some(server) = Server::start() else { return };
    server.apply(SHOP);
    let mut follower = Follower::start(server.admin(), hasty());
    assert_eq!(policies(&follower.synced()), ["allow-web", "default-deny"]);

    server.serve_kinds(KINDS, &versions());
    server.create(cluster_policy("no-one", json!({})));
    follower.until("its policy", |state| policies(state) == ["no-one", "allow-web", "default-deny"]);

    server.delete(DEFINITION, "", "clusternetworkpolicies.policy.networking.k8s.io");
    let gone = |state: &ClusterState| policies(state) == ["allow-web", "default-deny"];
    follower.until("its policy gone, and nothing to say", |state| gone(state) && state.troubles.is_empty());
}

#[test]
fn a_kind_that_is_defined_is_followed_at_once_and_not_only_at_the_next_look() {
    let Some(server) = Server::start() else { return };
    server.apply(SHOP);
    server.apply(&rights());
    let options = WatchOptions { discover_every: NEVER, ..WatchOptions::default() };
    let mut follower = Follower::start(server.kubeconfig("collector", COLLECTOR), options);
    assert_eq!(policies(&follower.synced()), ["allow-web", "default-deny"]);
    server.serve_kinds(KINDS, &versions());
    server.create(cluster_policy("no-one", json!({})));
    let created = Instant::now();
    follower.until("its policy", |state| policies(state) == ["no-one", "allow-web", "default-deny"]);
    println!("the first policy of a new kind counted after {:?}", created.elapsed());
    assert!(created.elapsed() < SOON, "{:?}", created.elapsed());
}

#[test]
fn an_event_about_the_node_is_written_with_the_documented_rights() {
    let Some(server) = Server::start() else { return };
    server.apply(&rights());
    let kubeconfig = Some(server.kubeconfig("collector", COLLECTOR));
    let written = Runtime::new().expect("a runtime").block_on(async {
        let events = NodeEvents::open(Access { kubeconfig, context: None }, "n1", "netverdict-collector").await?;
        events.warn("EndpointsNotJudged", &"2 interfaces belong to no pod ".repeat(100)).await
    });
    written.expect("allowed, and cut to the length that is");
    let events = server.list(EVENT, "default");
    let [event] = events.as_slice() else { panic!("one event, not {events:?}") };
    let found = ["/involvedObject/name", "/reason", "/type", "/source/component"].map(|path| event.data.pointer(path));
    let right = ["n1", "EndpointsNotJudged", "Warning", "netverdict-collector"].map(|text| json!(text));
    assert_eq!(found, right.each_ref().map(Some));
}

#[test]
fn rights_that_are_taken_away_leave_the_objects_and_are_told_until_they_are_back() {
    let Some(server) = Server::start() else { return };
    server.apply(SHOP);
    server.apply(&rights());
    let mut follower = Follower::start(server.kubeconfig("collector", COLLECTOR), hasty());
    follower.synced();

    server.delete(BINDING, "", "netverdict-collector");
    let told = |state: &ClusterState| state.troubles.iter().any(|line| line.contains("may not watch networkpolicies"));
    follower.until("the staleness with its reason", told);
    // The deletion is not visible yet: the policy stays in force.
    server.delete(NETWORK_POLICY, "db", "allow-web");
    let all = |state: &ClusterState| state.troubles.iter().any(|line| line.contains("and 2 more"));
    let state = follower.until("all five kinds", all);
    assert_eq!(policies(&state), ["allow-web", "default-deny"]);
    assert_eq!(pods(&state), ["db/pg", "shop/jobs", "shop/web"]);
    let figures = follower.figures("NetworkPolicy");
    assert!(figures.errors > 0 && figures.stale_since_ns > 0, "{figures:?}");

    let binding = rights();
    let binding = binding.split("---\n").find(|text| text.contains("ClusterRoleBinding")).expect("a binding");
    server.apply(binding);
    let state = follower.until("the change", |state| policies(state) == ["default-deny"] && state.stale.is_empty());
    assert_eq!(state.troubles, Vec::<String>::new());
}

#[test]
fn an_outage_in_which_versions_expire_ends_with_the_state_that_there_is() {
    let Some(mut server) = Server::start() else { return };
    server.apply(SHOP);
    let proxy = Proxy::start(&server, Mode::Pass);
    let token = server.file("token", "any");
    let mut follower = Follower::start(server.kubeconfig_of(proxy.url(), &token), hasty());
    follower.synced();

    // Cut off: the cluster changes meanwhile.
    proxy.set(Mode::Fail(503));
    follower.until("the staleness", |state| !state.stale.is_empty());
    server.delete(POD, "shop", "jobs");
    server.delete(NETWORK_POLICY, "db", "allow-web");
    server.apply(
        "
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: heir, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: a, image: a}]}
status: {phase: Running, podIP: 10.1.0.3, podIPs: [{ip: 10.1.0.3}]}
",
    );
    let state = follower.synced();
    assert_eq!((pods(&state), policies(&state).len()), (names(&["db/pg", "shop/jobs", "shop/web"]), 2));
    // The versions that the watches stopped at are forgotten.
    server.stop_api();
    server.compact_store();
    server.start_api_again();
    proxy.set(Mode::Pass);
    let state = follower.until("the state that there is", |state| {
        pods(state) == ["db/pg", "shop/heir", "shop/web"] && state.stale.is_empty()
    });
    assert_eq!((policies(&state), state.troubles.len()), (vec!["default-deny"], 0), "{:?}", state.troubles);
    let figures = follower.figures("Pod");
    assert!(figures.lists >= 2, "its versions had expired: {figures:?}");
}

#[test]
fn a_server_that_stops_is_named_until_it_is_back() {
    let Some(mut server) = Server::start() else { return };
    server.apply(SHOP);
    let mut follower = Follower::start(server.admin(), hasty());
    follower.synced();
    server.stop_api();
    let told = |line: &String| line.contains("cannot reach the API server") && line.contains("onnection refused");
    let state = follower.until("the server named", |state| state.troubles.iter().any(told));
    assert_eq!((pods(&state).len(), state.stale.len()), (3, 1));
    server.start_api_again();
    follower.until("the end of the outage", |state| state.stale.is_empty() && state.troubles.is_empty());
    server.delete(POD, "shop", "web");
    follower.until("a change", |state| pods(state) == ["db/pg", "shop/jobs"]);
}

#[test]
fn failures_and_lists_without_end_are_outlasted() {
    let Some(server) = Server::start() else { return };
    server.apply(SHOP);
    let proxy = Proxy::start(&server, Mode::SamePage);
    let token = server.file("token", "any");
    let mut follower = Follower::start(server.kubeconfig_of(proxy.url(), &token), hasty());
    follower.waits_for("it does not end");
    proxy.set(Mode::Fail(500));
    follower.waits_for("the proxy was told to");
    proxy.set(Mode::Pass);
    assert_eq!(pods(&follower.synced()), ["db/pg", "shop/jobs", "shop/web"]);

    // The same once it is in sync: the last state stays, and nothing that comes later is missed.
    proxy.set(Mode::Fail(500));
    follower.until("the failure", |state| state.troubles.iter().any(|line| line.contains("the proxy was told to")));
    server.delete(POD, "shop", "web");
    proxy.set(Mode::Pass);
    follower.until("the change", |state| pods(state) == ["db/pg", "shop/jobs"] && state.stale.is_empty());
}

#[test]
fn a_token_that_is_replaced_is_read_again_when_the_old_one_is_refused() {
    let Some(server) = Server::start() else { return };
    server.apply(SHOP);
    let proxy = Proxy::start(&server, Mode::Pass);
    let token = server.file("token", COLLECTOR);
    let mut follower = Follower::start(server.kubeconfig_of(proxy.url(), &token), hasty());
    follower.synced();
    proxy.set(Mode::Refuse(COLLECTOR));
    follower.until("the refusal", |state| state.troubles.iter().any(|line| line.contains("refused our credentials")));
    server.delete(POD, "shop", "web");
    fs::write(&token, COLLECTOR_NEXT).expect("written");
    follower.until("the change", |state| pods(state) == ["db/pg", "shop/jobs"] && state.stale.is_empty());
}

#[test]
fn huge_and_unreadable_objects_stall_no_other() {
    let Some(server) = Server::start() else { return };
    server.apply(SHOP);
    server.serve_kinds(KINDS, &versions());
    let mut follower = Follower::start(server.admin(), hasty());
    follower.synced();

    let huge = "x".repeat(1 << 20);
    let deep = (0..100).fold(json!("end"), |inner, _| json!({ "deeper": inner }));
    server.create(cluster_policy("huge", json!({ "ofTheFuture": huge })));
    server.create(cluster_policy("unreadable", json!({ "ofTheFuture": deep })));
    server.create(cluster_policy("good", json!({})));
    server.create(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "huge"},
        "spec": {"containers": [{"name": "a", "image": "a", "env": [{"name": "A", "value": huge}]}]}
    }));
    let all = |state: &ClusterState| {
        policies(state) == ["good", "huge", "allow-web", "default-deny"] && has_pod(state, "shop", "huge")
    };
    let state = follower.until("all that can be read", all);
    let named = |line: &String| line.contains("unreadable");
    assert!(state.troubles.iter().any(named), "it is told which one is missing: {:?}", state.troubles);
    assert_eq!(state.stale, [], "an object is no outage");

    // A follower that begins now finds the same.
    let mut late = Follower::start(server.admin(), hasty());
    let state = late.synced();
    assert!(all(&state) && state.troubles.iter().any(named), "{:?}", state.troubles);
}

//! `netverdict` reads a real Kubernetes API server: its answers about a cluster are those of the objects.
//!
//! `NETVERDICT_KUBERNETES` names a folder with `kube-apiserver` and `etcd`; `cargo xtask test cluster` builds them.

mod follower;
mod proxy;
mod server;
mod sources;
mod tunnels;
mod watch;

use serde_json::{Value, json};

use self::{
    server::{ADMIN, NOBODY, Server, netverdict},
    tunnels::Tunnels,
};

const SHOP: &str = include_str!("shop.yaml");
const KINDS: &str = include_str!("kinds.yaml");

#[test]
fn a_cluster_is_judged_as_its_objects_say() {
    let Some(server) = Server::start() else { return };
    server.apply(SHOP);
    let eval = |from: &str| server.netverdict(&["eval", "--from", from, "--to", "db/pg:5432", "--exit-status"]);

    let allowed = eval("shop/web");
    assert_eq!(allowed.code, Some(0), "{allowed:?}");
    assert!(allowed.output.contains("db/allow-web"), "{allowed:?}");

    let denied = eval("shop/jobs");
    assert_eq!(denied.code, Some(3), "{denied:?}");
    assert!(denied.output.contains("db/default-deny") && denied.output.contains("db/allow-web"), "{denied:?}");
    assert_eq!(denied.errors, "", "nothing but the answer where nobody watches");

    // A name without namespace means that of the context.
    assert_eq!(eval("jobs").output, denied.output);

    // The same as from files, to the letter: fields that the API server fills in change no answer.
    let file = server.file("shop.yaml", SHOP);
    let of_files = netverdict(&["eval", "-f", file.to_str().unwrap(), "--from", "shop/jobs", "--to", "db/pg:5432"]);
    assert_eq!(of_files.output, denied.output);
}

/// As kubectl does, by the kubeconfig's `proxy-url`.
#[test]
fn an_api_server_is_asked_through_the_proxy_of_its_kubeconfig() {
    let Some(server) = Server::start() else { return };
    server.apply(SHOP);
    let tunnels = Tunnels::start();
    let kubeconfig = std::fs::read_to_string(server.kubeconfig("tunnelled", ADMIN)).expect("a kubeconfig");
    let proxied =
        kubeconfig.replace("cluster: {server:", &format!("cluster: {{proxy-url: \"{}\", server:", tunnels.url()));
    let file = server.file("tunnelled.kubeconfig", &proxied);
    let answer = netverdict(&[
        "eval",
        "--kubeconfig",
        file.to_str().expect("UTF-8"),
        "--from",
        "shop/jobs",
        "--to",
        "db/pg:5432",
        "--exit-status",
    ]);
    assert_eq!(answer.code, Some(3), "{answer:?}");
    assert!(tunnels.made() > 0, "the server was asked through the proxy");
}

#[test]
fn other_kinds_count_once_they_are_served() {
    let Some(server) = Server::start() else { return };
    server.apply(SHOP);
    let arguments = ["eval", "--from", "shop/web", "--to", "db/pg:5432", "-o", "json"];
    let verdict = |arguments: &[&str]| -> Value {
        let answer = server.netverdict(arguments);
        assert_eq!(answer.code, Some(0), "{answer:?}");
        serde_json::from_str(&answer.output).expect("JSON")
    };
    assert_eq!(verdict(&arguments)["verdict"], "allowed");

    server.serve_kinds(
        KINDS,
        &["v1alpha2", "v1beta1", "v1beta2"].map(|version| format!("policy.networking.k8s.io/{version}")),
    );
    server.apply(
        "
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: no-shop-in-db}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: db}}}
  ingress:
    - name: from-shop
      action: Deny
      from: [{namespaces: {matchLabels: {team: front}}}]
",
    );
    let answer = verdict(&arguments);
    assert_eq!(answer["verdict"], "denied");
    let by = &answer["points"][1]["decided_by"][0];
    let expected = json!(["ClusterNetworkPolicy", "no-shop-in-db", 0, "from-shop"]);
    assert_eq!(json!([by["kind"], by["name"], by["rule_index"], by["rule_name"]]), expected);

    // Both versions of the kind are served, and each has the object; it is one.
    let lint = server.netverdict(&["lint", "-o", "json"]);
    assert_eq!((lint.code, lint.output.trim()), (Some(0), "[]"), "{lint:?}");

    // A kind that is served in a version that we do not read decides nothing, and that is reported.
    server.apply(
        "
apiVersion: policy.networking.k8s.io/v1beta2
kind: AdminNetworkPolicy
metadata: {name: of-tomorrow}
spec: {priority: 1, subject: {namespaces: {}}, ingress: [{action: Allow, from: [{namespaces: {}}]}]}
",
    );
    let lint = server.netverdict(&["lint", "-o", "json"]);
    assert_eq!(lint.code, Some(1), "{lint:?}");
    let findings: Vec<Value> = serde_json::from_str(&lint.output).expect("JSON");
    let about = |name: &str| findings.iter().find(|finding| finding["object"]["name"] == name);
    assert_eq!(about("of-tomorrow").expect("a finding")["code"], "unknown-version");
}

#[test]
fn a_manifest_is_judged_over_the_cluster_before_it_is_applied() {
    let Some(server) = Server::start() else { return };
    server.apply(SHOP);
    let candidate = server.file(
        "candidate.yaml",
        "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: db, name: allow-web}
spec:
  podSelector: {matchLabels: {app: pg}}
  ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: jobs}}}], ports: [{port: sqk}]}]
",
    );
    let candidate = candidate.to_str().unwrap();
    let eval = |extra: &[&str]| {
        let answer = server.netverdict(&[&["eval", "--exit-status", "--to", "db/pg:5432"], extra].concat());
        (answer.code, answer.output)
    };
    assert_eq!(eval(&["--from", "shop/web"]).0, Some(0));
    assert_eq!(eval(&["--from", "shop/web", "-f", candidate]).0, Some(3));
    assert_eq!(eval(&["--from", "shop/web"]).0, Some(0), "nothing was applied");

    // Judged by the pods of the cluster, with findings about the manifest only.
    let lint = server.netverdict(&["lint", "-f", candidate, "-o", "json"]);
    let findings: Vec<Value> = serde_json::from_str(&lint.output).expect("JSON");
    let codes: Vec<&str> = findings.iter().filter_map(|finding| finding["code"].as_str()).collect();
    assert_eq!(codes, ["named-port-nowhere"], "{findings:?}");
}

#[test]
fn long_lists_are_read_to_their_end() {
    let Some(server) = Server::start() else { return };
    // Two pages and a bit.
    let pod = |number: usize| {
        let address = format!("10.2.{}.{}", number / 250, number % 250);
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: default, name: pod-{number:04}}}\n\
             spec: {{nodeName: n1, containers: [{{name: a, image: a}}]}}\n\
             status: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}]}}\n"
        )
    };
    server.apply(&(0..1_100).map(pod).collect::<String>());
    let answer = server.netverdict(&["eval", "--from", "default/pod-0000", "--to", "default/pod-1099:80"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    let missing = server.netverdict(&["eval", "--from", "default/pod-0000", "--to", "default/pod-1100:80"]);
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.errors.contains("the cluster holds, among others, default/pod-"), "{missing:?}");
}

#[test]
fn what_cannot_be_read_is_told_with_the_remedy() {
    let Some(mut server) = Server::start() else { return };
    let eval = |options: &[&str]| {
        let answer = netverdict(&[&["eval", "--from", "shop/web", "--to", "db/pg:5432"], options].concat());
        assert_eq!(answer.code, Some(1), "{answer:?}");
        assert_eq!(answer.output, "");
        answer.errors
    };
    let with = |path: &std::path::Path| eval(&["--kubeconfig", path.to_str().unwrap()]);

    let errors = with(&server.kubeconfig("nobody", NOBODY));
    assert!(errors.contains("may not list namespaces") && errors.contains("ask for a role"), "{errors}");
    let errors = with(&server.kubeconfig("stranger", "no-such-token"));
    assert!(errors.contains(server.url()) && errors.contains("refused our credentials"), "{errors}");

    let admin = server.admin();
    let errors = eval(&["--kubeconfig", admin.to_str().unwrap(), "--context", "production"]);
    assert!(errors.contains("no context `production`") && errors.contains("of-admin"), "{errors}");
    let errors = eval(&["--kubeconfig", "/nonexistent/kubeconfig"]);
    assert!(errors.contains("/nonexistent/kubeconfig") && errors.contains("-f"), "{errors}");
    let errors = eval(&[]);
    assert!(errors.contains("no cluster to read") && errors.contains("--kubeconfig"), "{errors}");
    let errors = with(&server.file("broken.kubeconfig", "clusters: 7"));
    assert!(errors.contains("no cluster to read"), "{errors}");

    server.stop_api();
    let errors = with(&admin);
    assert!(errors.contains(server.url()) && errors.contains("onnection refused"), "{errors}");
}

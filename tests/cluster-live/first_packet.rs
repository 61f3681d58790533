//! From the first packet: a new pod is judged before its containers start, and whatever becomes of the collector.

use std::net::IpAddr;

use xtask::{
    cluster::{Attempt, Shape},
    demo::cluster::WORKLOADS,
    services::wait,
};

use crate::world::{PATIENCE, World};

/// The server answers `friend` alone, and nobody of `stranger` may send to it.
const POLICIES: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: default, name: from-friends}
spec:
  podSelector: {matchLabels: {app: lol-default}}
  policyTypes: [Ingress]
  ingress:
    - from:
        - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: yahoo}}
          podSelector: {matchLabels: {app: friend}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: yahoo, name: nowhere}
spec: {podSelector: {matchLabels: {side: source}}, policyTypes: [Egress]}
";
const PORT: u16 = 8080;
/// Pods whose first action is a connection that policy denies: half of them at their own end, half at the server's.
const STRANGERS: usize = 20;
const FRIENDS: usize = 5;
/// While no collector runs.
const MEANWHILE: usize = 4;

#[test]
fn first_packet_of_a_new_pod_is_judged_also_while_no_collector_runs() {
    let Some(mut world) = World::start("first", Shape::default(), WORKLOADS) else { return };
    world.cluster.apply(POLICIES).expect("applied");
    let server = world.pod("app=lol-default");
    let [v4, v6] = world.addresses("pod", &server, ".status.podIPs[*].ip");
    let client = world.pod("app=miao-yahoo");
    world.until(Attempt::TimedOut, &client, v4, PORT);

    let address = |number: usize| if number.is_multiple_of(2) { v4 } else { v6 };
    let strangers: Vec<String> = (0..STRANGERS).map(|number| format!("stranger-{number}")).collect();
    let friends: Vec<String> = (0..FRIENDS).map(|number| format!("friend-{number}")).collect();
    let mut pods = String::new();
    for (number, name) in strangers.iter().enumerate() {
        let side = if number < STRANGERS / 2 { "source" } else { "destination" };
        pods.push_str(&once(name, "stranger", side, address(number)));
    }
    for (number, name) in friends.iter().enumerate() {
        pods.push_str(&once(name, "friend", "none", address(number)));
    }
    world.apply_pods(&pods);
    for name in &friends {
        assert_eq!(world.end_of(name), "Succeeded", "{name} is allowed, and tries once");
    }
    for name in &strangers {
        assert_eq!(world.end_of(name), "Failed", "{name} is denied");
    }

    world.product.kill_collectors().expect("killed");
    let meanwhile: Vec<String> = (0..MEANWHILE).map(|number| format!("meanwhile-{number}")).collect();
    let mut pods: String = meanwhile.iter().map(|name| once(name, "friend", "none", v4)).collect();
    pods.push_str(&patient("patient", "friend", v4));
    world.apply_pods(&pods);
    for name in &meanwhile {
        assert_eq!(world.end_of(name), "Failed", "{name} is not ready: nobody can say that it is allowed");
    }
    assert_eq!(world.phase("patient"), "Running");
    world.product.restart_collectors().expect("started");
    assert_eq!(world.end_of("patient"), "Succeeded", "adopted, and judged by its policy");
}

/// A pod that opens one connection and ends as that fares.
fn once(name: &str, app: &str, side: &str, to: IpAddr) -> String {
    pod(name, app, side, &format!("[\"/agnhost\", connect, --timeout=2s, \"{}\"]", std::net::SocketAddr::new(to, PORT)))
}

/// A pod that tries until it succeeds.
fn patient(name: &str, app: &str, to: IpAddr) -> String {
    let to = std::net::SocketAddr::new(to, PORT);
    pod(name, app, "none", &format!("[sh, -c, \"until /agnhost connect --timeout=1s {to}; do true; done\"]"))
}

fn pod(name: &str, app: &str, side: &str, command: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: yahoo, labels: {{app: {app}, side: {side}}}}}\n\
         spec:\n  restartPolicy: Never\n  terminationGracePeriodSeconds: 0\n  \
         containers: [{{name: main, image: \"AGNHOST\", command: {command}}}]\n---\n"
    )
}

impl World {
    fn apply_pods(&self, pods: &str) {
        self.cluster.apply(&pods.replace("AGNHOST", &xtask::cluster::agnhost())).expect("applied");
    }

    fn phase(&self, name: &str) -> String {
        self.cluster.ask(&["-n", "yahoo", "get", "pod", name, "-o", "jsonpath={.status.phase}"]).expect("a pod")
    }

    /// The phase in which a pod ends.
    fn end_of(&self, name: &str) -> String {
        let mut phase = String::new();
        let ended = wait("the pod has ended", PATIENCE, || {
            phase = self.phase(name);
            Ok(["Succeeded", "Failed"].contains(&phase.as_str()))
        });
        ended.unwrap_or_else(|error| panic!("{name} is {phase}: {error}"));
        phase
    }
}

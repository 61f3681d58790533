//! Probes of the kubelet pass a default deny, however pods are connected.

use xtask::{
    cluster::{Attempt, Cni, Shape},
    demo::cluster::WORKLOADS,
};

use crate::world::World;

const DENY_ALL: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: default, name: deny-all}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
";
/// The startup probe has to succeed before the others begin, and the liveness probe would end the pod.
const PROBED: &str = "
apiVersion: v1
kind: Pod
metadata: {name: probed, namespace: default}
spec:
  terminationGracePeriodSeconds: 0
  containers:
    - name: web
      image: AGNHOST
      args: [netexec, --http-port=8080]
      startupProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1, failureThreshold: 20}
      readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1, failureThreshold: 1}
      livenessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1, failureThreshold: 2}
";

#[test]
fn pods_with_probes_become_and_stay_ready_under_a_default_deny() {
    for (instance, cni) in [("probes-ptp", Cni::Ptp), ("probes-bridge", Cni::Bridge)] {
        let Some(world) = World::start(instance, Shape { cni, ..Shape::default() }, WORKLOADS) else { return };
        world.cluster.apply(DENY_ALL).expect("applied");
        world.cluster.apply(&PROBED.replace("AGNHOST", &xtask::cluster::agnhost())).expect("applied");
        let ask = |arguments: &[&str]| world.cluster.ask(arguments).unwrap_or_else(|error| panic!("{cni}: {error:#}"));
        ask(&["wait", "--for=condition=Ready", "pod/probed", "--timeout=60s"]);
        // The same packet from a pod.
        let client = world.pod("app=miao-yahoo");
        for address in world.addresses("pod", "default/probed", ".status.podIPs[*].ip") {
            assert_eq!(world.connect(&client, address, 8080), Attempt::TimedOut, "{cni}");
        }
        // No longer than `kubectl wait` takes to see a pod that is not Ready any more: each probe fails within two seconds.
        let lost = world.cluster.ask(&["wait", "--for=condition=Ready=false", "pod/probed", "--timeout=4s"]);
        assert!(lost.is_err(), "{cni}: the pod has lost its readiness");
        let restarts = ask(&["get", "pod", "probed", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"]);
        assert_eq!(restarts, "0", "{cni}: the liveness probe has ended it");
    }
}

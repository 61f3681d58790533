//! Pods that are not known yet: not ready from the first packet, named in health and in the record, and judged once they
//! are known.

use std::{fs, net::UdpSocket, process::Command, time::Duration};

use xtask::services::wait;

use crate::node::{Node, PATIENCE};

/// A few at once, as after a drain of another node.
const CROWD: usize = 24;

#[test]
fn a_pod_that_the_cluster_does_not_have_is_denied_named_and_judged_once_it_is_there() {
    let mut node = Node::started("enforce");
    let late = node.topology.pod("shop/late").expect("a pod");
    node.place.announce(&late).expect("announced: the pod starts not ready");
    node.send_from_ports("shop/late", "shop/web", 8080, 28_000..28_001);
    node.wait_for(
        1,
        "select count(*) from flows where source_port = 28000 and direction = 'egress' \
         and reason = 'policy_not_ready' and disposition = 'dropped'",
    );
    let token = fs::read_to_string(node.place.state().join("collector.token")).expect("a token");
    let asked = |path: &str| {
        let url = format!("http://{}/{path}", node.admin());
        let authorization = format!("Authorization: Bearer {}", token.trim());
        let output = Command::new("curl").args(["-s", &url, "-H", &authorization]).output()?;
        anyhow::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    wait("readyz names the pod", PATIENCE, || Ok(asked("readyz")?.contains("shop/late"))).expect("named");
    assert!(
        asked("readyz").expect("an answer").contains(r#""part":"unbound","unready":false"#),
        "one pod is no outage"
    );
    assert!(asked("metrics").expect("an answer").contains("netverdict_collector_unbound_endpoints 1"));
    let gaps = "select count(*) from gaps where cause = 'unbound' and endpoint = 'shop/late'";
    wait("the record names it while it lasts", PATIENCE, || Ok(node.number(gaps) >= 1)).expect("a gap");

    // As after a node was renamed: the pod is there, on a node that this one is not.
    node.write_manifest(
        "late.yaml",
        &format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: late, namespace: shop, uid: {}}}\n\
         spec: {{nodeName: former-name, containers: [{{name: main}}]}}\nstatus: {{phase: Running, podIP: {}}}\n",
            late.uid(),
            late.v4
        ),
    );
    let renamed = || Ok(asked("readyz")?.contains("--node is another name than the API server's: shop/late"));
    wait("readyz says that the node has another name", PATIENCE, renamed).expect("told");
    fs::remove_file(node.place.manifests().join("late.yaml")).expect("removed");

    node.write_cluster();
    node.wait_until_attached();
    node.send_from_ports("shop/late", "shop/web", 8080, 28_001..28_002);
    node.wait_for(
        1,
        "select count(*) from flows where source_port = 28001 and direction = 'egress' and verdict = 'allowed'",
    );
    wait("the gap has ended", PATIENCE, || Ok(node.number(&format!("{gaps} and \"to\" > \"from\"")) >= 1))
        .expect("an end");
    wait("all is well", PATIENCE, || Ok(!asked("readyz")?.contains("shop/late"))).expect("well");
}

#[test]
fn many_pods_at_once_and_pods_that_are_gone_at_once() {
    let mut node = Node::started("enforce");
    // Gone before its pod could be known.
    let brief = node.topology.pod("shop/brief").expect("a pod");
    let deleted = Command::new("ip").args(["link", "delete", &brief.host_interface]).status();
    assert!(deleted.is_ok_and(|status| status.success()));
    let crowd: Vec<_> =
        (0..CROWD).map(|number| node.topology.pod(&format!("shop/crowd-{number}")).expect("a pod")).collect();
    node.write_cluster();
    std::thread::scope(|scope| {
        let plugins: Vec<_> = crowd.iter().map(|pod| scope.spawn(|| node.place.announce(pod))).collect();
        plugins.into_iter().for_each(|plugin| plugin.join().expect("no panic").expect("announced"));
    });
    // The plugin has waited for them: nothing is left to wait for.
    let ready = node.place.ready_endpoints().expect("a status");
    assert!(ready >= 3 + CROWD, "{ready} are ready");
    node.send_from_ports("shop/crowd-0", "db/pg", 5432, 28_100..28_101);
    node.wait_for(
        1,
        "select count(*) from flows where source_port = 28100 and direction = 'ingress' and verdict = 'denied'",
    );
}

#[test]
fn a_namespace_that_nobody_announced_is_a_pods_unless_told_otherwise() {
    for (unannounced, passes) in [("attach", false), ("ignore", true)] {
        let mut node = Node::new();
        let nobody = node.topology.pod("out/nobody").expect("a namespace");
        node.start_collector_with("enforce", unannounced, &[]);
        // By then its interface has been looked at too.
        wait("the pods have probes", PATIENCE, || Ok(node.place.ready_endpoints()? >= 3)).expect("probes");
        let [to, _] = node.topology.node_addresses();
        let receiver = UdpSocket::bind((to, 0)).expect("a socket");
        receiver.set_read_timeout(Some(Duration::from_millis(300))).expect("a time limit");
        let arrives = || {
            let to = receiver.local_addr()?;
            nobody.enter(|| UdpSocket::bind(("0.0.0.0", 0))?.send_to(b"hello", to))??;
            anyhow::Ok(receiver.recv(&mut [0; 16]).is_ok())
        };
        assert_eq!(arrives().expect("sent"), passes, "{unannounced}");
    }
}

#[test]
fn a_pod_made_while_the_collector_is_down_is_bridged_by_what_is_pinned_and_adopted() {
    let mut node = Node::started("enforce");
    let late = node.topology.pod("shop/late").expect("a pod");
    node.write_cluster();
    node.kill_collector();
    assert!(node.place.cni("CHECK", &late, "fail").is_err(), "nothing is attached yet");
    let result = node.place.cni("ADD", &late, "fail").expect("the pinned programs are attached");
    assert_eq!(result["ips"][0]["address"], format!("{}/24", late.v4), "what the plugins before made is passed on");
    node.place.cni("CHECK", &late, "fail").expect("attached");
    node.send_from_ports("shop/late", "shop/web", 8080, 28_200..28_201);

    node.start_collector("enforce", &[]);
    node.wait_until_attached();
    node.send_from_ports("shop/late", "shop/web", 8080, 28_201..28_202);
    let verdict = |port: u16, verdict: &str| {
        node.wait_for(
            1,
            &format!(
                "select count(*) from flows where source_port = {port} and direction = 'egress' \
                 and source_pod = 'late' and verdict = '{verdict}'"
            ),
        );
    };
    verdict(28_201, "allowed");
    node.wait_for(1, "select count(*) from flows where source_port = 28200 and reason = 'policy_not_ready'");
    node.place.cni("DEL", &late, "fail").expect("deleted");
    node.place.cni("DEL", &late, "fail").expect("deleted twice");
}

#[test]
fn no_pod_starts_unjudged_where_nothing_is_pinned_unless_that_is_allowed() {
    let mut node = Node::new();
    let late = node.topology.pod("shop/late").expect("a pod");
    let refused = node.place.cni("ADD", &late, "fail").expect_err("no collector has ever run").to_string();
    assert!(refused.contains("\"code\":11") && refused.contains("start the collector"), "{refused}");
    node.place.cni("ADD", &late, "allow").expect("allowed");
}

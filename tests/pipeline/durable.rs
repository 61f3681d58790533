//! Each denial is on record once, whichever process dies.

use crate::node::Node;

#[test]
fn each_denial_is_on_record_once_over_kill_and_restart() {
    let mut node = Node::started("enforce");
    node.send_from_ports("shop/jobs", "db/pg", 5432, 21_000..21_100);
    node.kill_collector();
    node.send_from_ports("shop/jobs", "db/pg", 5432, 21_100..21_200);
    node.start_collector("enforce", &[]);
    node.send_from_ports("shop/jobs", "db/pg", 5432, 21_200..21_300);
    let of_the_scene = "from flows where lane = 'denied' and source_port >= 21000 and source_port < 21300";
    node.wait_for(300, &format!("select count(distinct source_port) {of_the_scene}"));
    assert_eq!(node.number(&format!("select count(*) {of_the_scene}")), 300);
    assert_eq!(node.number(&format!("select sum(count) {of_the_scene}")), 300);
    let wrong =
        format!("select count(*) {of_the_scene} and policy_names(decided_by) <> 'db/allow-web, db/default-deny'");
    assert_eq!(node.number(&wrong), 0, "every denial names both isolating policies, also those made while it was down");
}

#[test]
fn nothing_passes_while_the_collector_is_down() {
    let mut node = Node::started("enforce");
    let listener = node
        .pod("db/pg")
        .enter(|| std::net::UdpSocket::bind(("0.0.0.0", 5432)).expect("a socket"))
        .expect("in the pod");
    listener.set_nonblocking(true).expect("non-blocking");
    node.kill_collector();
    node.send_from_ports("shop/jobs", "db/pg", 5432, 22_000..22_020);
    node.send_from_ports("shop/web", "db/pg", 5432, 22_100..22_101);
    // The allowed one is the proof that the others would have arrived before it.
    let mut buffer = [0; 32];
    let mut arrived = Vec::new();
    xtask::services::wait("the allowed datagram arrives", crate::node::PATIENCE, || {
        while let Ok((_, from)) = listener.recv_from(&mut buffer) {
            arrived.push(from.port());
        }
        Ok(!arrived.is_empty())
    })
    .expect("the allowed datagram arrives");
    assert_eq!(arrived, [22_100]);
}

#[test]
fn a_clean_stop_loses_nothing_and_counts_agree() {
    let mut node = Node::started("enforce");
    node.send_from_ports("shop/jobs", "db/pg", 5432, 23_000..23_500);
    node.send_from_ports("shop/web", "db/pg", 5432, 23_500..24_000);
    node.stop_collector();
    let denied = "select count(*) from flows where lane = 'denied' and source_port >= 23000 and source_port < 24000";
    let allowed = "select count(*) from flows where verdict = 'allowed' and direction = 'ingress' and source_port >= 23000 \
                   and source_port < 24000";
    assert_eq!(node.number(denied), 500);
    assert_eq!(node.number(allowed), 500);
    // Per boot, lane and CPU: the rows and the gaps add up to the last sequence number.
    let unaccounted = "
        select count(*) from (
            select f.lane, f.cpu, max(f.seq) as last, sum(f.count) as recorded,
                   coalesce(max(g.lost), 0) as lost
            from (select * from flows where receiver = 'ring') f
            left join (select lane, cpu, sum(lost_events) as lost from gaps where cause = 'ring_full' group by lane, cpu) g
              on g.lane = f.lane and g.cpu = f.cpu
            group by f.lane, f.cpu
        ) as account where last <> recorded + lost";
    assert_eq!(node.number(unaccounted), 0);
}

#[test]
fn attribution_is_as_of_then_after_the_policy_is_gone() {
    let node = Node::started("enforce");
    node.send_from_ports("shop/jobs", "db/pg", 5432, 24_000..24_001);
    node.wait_for(1, "select count(*) from flows where lane = 'denied' and source_port = 24000");
    node.write_manifest("policies.yaml", "# all policies are gone\n");
    node.wait_for(0, "select count(*) from policies where valid_to is null");
    let answer = node.why("shop/jobs", "db/pg:5432/UDP");
    let point = answer["points"]
        .as_array()
        .and_then(|points| points.iter().find(|point| point["point"] == "destination-ingress"))
        .unwrap_or_else(|| panic!("no ingress point in {answer}"));
    assert_eq!(point["verdict"], "denied");
    assert_eq!(point["now"], "allowed");
    let names: Vec<_> = point["decided_by"].as_array().expect("deciders").iter().map(|d| d["name"].clone()).collect();
    assert_eq!(names, ["allow-web", "default-deny"]);
    for decider in point["decided_by"].as_array().expect("deciders") {
        assert_eq!(decider["since"], "deleted");
        assert!(decider["text"].as_str().is_some_and(|text| text.contains("NetworkPolicy")), "no text in {decider}");
    }
}

//! Reports of another system stand beside our own events: recorded once over a kill, told apart, and never evaluated
//! again as ours.

use std::{process::Command, time::SystemTime};

use serde_json::{Value, json};

use crate::node::Node;

const LISTEN: [&str; 2] = ["--goldmane-listen", "127.0.0.1:0"];

#[test]
fn reports_of_calico_are_recorded_once_over_a_kill_and_count_as_no_events_of_ours() {
    let mut node = Node::new();
    node.start_collector("enforce", &LISTEN);
    node.start_query();
    node.wait_until_attached();
    node.send_from_ports("shop/jobs", "db/pg", 5432, 28_000..28_020);
    // Without a newline at the end, as the emitter joins them.
    let body = [report(1, 1), report(2, 2), "{".to_owned()].join("\n");
    assert_eq!(post(&node, &body), "200");
    node.kill_collector();
    node.start_collector("enforce", &LISTEN);
    assert_eq!(post(&node, &body), "200", "the emitter sends its window again");
    node.send_from_ports("shop/jobs", "db/pg", 5432, 28_020..28_040);
    node.wait_for(40, "select count(*) from flows where lane = 'denied' and source_port >= 28000");
    node.wait_for(2, "select count(*) from flows where receiver = 'goldmane'");
    node.stop_collector();

    assert_eq!(node.number("select count(*) from flows where receiver = 'goldmane'"), 2);
    let claims = "select count(*) from flows where receiver = 'goldmane' and method = 'reported' and lane is null \
                  and cpu is null and seq is null and cursor is not null and reported_by is not null \
                  and source_pod is null and source_workload = 'client-*' \
                  and policy_names(decided_by) = case verdict when 'allowed' then 'ns-b/only-frontend#0' else 'ns-b/only-frontend' end";
    assert_eq!(node.number(claims), 2);
    assert_eq!(node.number("select sum(lost_events) from gaps where cause = 'unreadable' and lane is null"), 1);
    // Per boot, lane and CPU: the rows and the gaps add up to the last sequence number, reports or not.
    let unaccounted = "
        select count(*) from (
            select f.lane, f.cpu, max(f.seq) as last, sum(f.count) as recorded, coalesce(max(g.lost), 0) as lost
            from flows f
            left join (select lane, cpu, sum(lost_events) as lost from gaps where cause = 'ring_full' group by lane, cpu) g
              on g.lane = f.lane and g.cpu = f.cpu
            group by f.lane, f.cpu
        ) as account where last <> recorded + lost";
    assert_eq!(node.number(unaccounted), 0);

    // Output for people has them too, and does not fail on their missing fields.
    let text = node.place.netverdict(node.query(), &["flows", "--since", "1h", "-o", "json"]).expect("flows");
    assert!(text.contains("only-frontend"), "no report among the flows: {text}");
    // The question for our own pods is answered from our own events.
    let answer = node.why("shop/jobs", "db/pg:5432/UDP");
    assert!(!answer.to_string().contains("only-frontend"), "a report was taken for an event of ours: {answer}");
}

fn post(node: &Node, body: &str) -> String {
    let collector = node.collector.as_ref().expect("a collector");
    let url = format!("{}/v1/goldmane", collector.url("goldmane").expect("an address"));
    let output = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "content-type: application/x-ndjson"])
        .args(["--data-binary", body, &url])
        .output()
        .expect("curl runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A flow of the window that ended last: action 1 allows, 2 denies.
fn report(port: u16, action: u8) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let start = now / 300 * 300 - 300;
    let enforced: Value = match action {
        1 => json!({"kind": 6, "namespace": "ns-b", "name": "only-frontend", "tier": "default", "action": 1}),
        _ => json!({
            "kind": 10, "tier": "default", "action": 2, "rule_index": -1,
            "trigger": {"kind": 6, "namespace": "ns-b", "name": "only-frontend", "tier": "default"}
        }),
    };
    json!({
        "Key": {
            "source_name": "client-*", "source_namespace": "ns-a", "source_type": 1,
            "dest_name": "server-*", "dest_namespace": "ns-b", "dest_type": 1, "dest_port": port,
            "proto": "tcp", "reporter": 2, "action": action, "policies": {"enforced_policies": [enforced]}
        },
        "start_time": start, "end_time": start + 300,
        "packets_in": 3, "bytes_in": 180, "num_connections_started": 1
    })
    .to_string()
}

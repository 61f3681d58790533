//! Every row once: in files, fresh, and while it moves from one to the other; and around files that cannot be read.

use std::fs;

use netverdict_flowlog::row::{FlowRow, Method, Receiver, Row};
use serde_json::json;

use crate::world::{Served, World, ago, gap};

async fn count(served: &Served) -> i64 {
    served.value("select count(*) from flows").await.as_i64().expect("a number")
}

/// Lets the service forget its cached rows of the collector for half a second.
async fn forgotten(world: &World, served: &Served) {
    let asked = world.collector.requests();
    while world.collector.requests() == asked {
        count(served).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_is_seen_once_while_it_moves_into_a_file() {
    let mut world = World::new().await;
    let (first, second) =
        (world.attempt("shop/web", "db/pg", 5432, ago(60)), world.attempt("shop/api", "db/pg", 5432, ago(30)));
    let all = i64::try_from(first.len() + second.len()).expect("few");
    world.collector.hold(first);
    let served = world.serve().await;
    assert_eq!(count(&served).await, 2);
    world.collector.hold(second);
    forgotten(&world, &served).await;
    assert_eq!(count(&served).await, all);
    // In both places: a file of the boundary's own segment is left out.
    world.collector.write();
    assert_eq!(count(&served).await, all);
    forgotten(&world, &served).await;
    assert_eq!(count(&served).await, all);
    // Only in files, while the service may still hold the rows of a moment ago.
    world.collector.next_segment();
    assert_eq!(count(&served).await, all);
    forgotten(&world, &served).await;
    assert_eq!(count(&served).await, all);
    let places = served
        .value("select count(*) from flows where cluster = 'demo' and length(date) = 10 and length(hour) = 2")
        .await;
    assert_eq!(places, json!(all));
}

/// Reports of another system went through no ring: their rows are told apart by their cursor alone.
#[tokio::test(flavor = "multi_thread")]
async fn rows_of_another_system_have_a_cursor_and_no_lane() {
    let mut world = World::new().await;
    let mut rows = world.attempt("shop/web", "db/pg", 5432, ago(60));
    let reported = rows.clone().into_iter().map(|row| match row {
        Row::Flow(row) => Row::from(FlowRow {
            receiver: Receiver::Goldmane,
            lane: None,
            cpu: None,
            cursor: row.seq.map(|seq| format!("300/{seq}").into()),
            seq: None,
            method: Method::Reported,
            ..*row
        }),
        row => row,
    });
    let reported: Vec<Row> = reported.collect();
    rows.extend(reported);
    world.write(2, &rows);
    world.collector.next_segment();
    let served = world.serve().await;
    let (status, body) = served
        .sql("select receiver, lane, cpu, seq, cursor, method from flows where receiver <> 'ring' order by cursor")
        .await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        body["rows"],
        json!([
            ["goldmane", null, null, null, "300/1", "reported"],
            ["goldmane", null, null, null, "300/2", "reported"]
        ])
    );
    // Sums per lane know nothing of them.
    let per_lane = served.value("select sum(count) from flows where lane is not null").await;
    assert_eq!(per_lane, json!(2));
    // A follower is shown each of them.
    let (status, body) = served.get("/v1/flows?since=5m").await;
    assert_eq!((status, body["flows"].as_array().map(Vec::len)), (200, Some(4)), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_any_collector_are_enough() {
    let mut world = World::new().await;
    let rows = world.attempt("shop/web", "db/pg", 5432, ago(7_300));
    world.write(2, &rows);
    world.collector.next_segment();
    let served = world.serve_with(&["--collector", "http://127.0.0.1:1"]).await;
    let (status, body) = served.sql("select count(*) from flows where time > now() - interval '1 day'").await;
    assert_eq!((status, &body["rows"][0][0]), (200, &json!(2)));
    let stale = body["stale"][0].as_str().expect("a reason");
    assert!(stale.contains("collector http://127.0.0.1:1/ does not answer"), "{stale}");
    // Rows that a time condition leaves out are not read.
    assert_eq!(served.value("select count(*) from flows where time > now() - interval '1 hour'").await, json!(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_files_are_left_out_and_told() {
    let mut world = World::new().await;
    let rows = world.attempt("shop/web", "db/pg", 5432, ago(60));
    let good = world.write(2, &rows).remove(0);
    let bytes = fs::read(&good).expect("read");
    let beside = |segment: u64| {
        let name =
            good.file_name().expect("a name").to_str().expect("UTF-8").replace("0000000002", &format!("{segment:010}"));
        good.with_file_name(name)
    };
    fs::write(beside(3), &bytes[..bytes.len() / 2]).expect("written");
    fs::write(beside(4), b"").expect("written");
    fs::write(beside(5), vec![0x5a; 4_096]).expect("written");
    // A whole footer over damaged pages: found when it is read.
    let mut damaged = bytes.clone();
    damaged[4..bytes.len() / 2].fill(0xff);
    fs::write(beside(6), damaged).expect("written");
    fs::write(good.with_file_name("notes.parquet"), b"not ours").expect("written");
    world.collector.at_segment(7);
    let served = world.serve().await;
    let (status, body) = served.sql("select count(*), sum(count), max(policy_names(decided_by)) from flows").await;
    assert_eq!((status, &body["rows"][0]), (200, &json!([2, 2, "db/allow-api, db/default-deny"])), "{body}");
    let (_, body) = served.sql("select count(*), sum(count) from flows").await;
    let stale = body["stale"].to_string();
    for segment in 3..=6 {
        assert!(
            stale.contains(&format!("-{segment:010}.parquet cannot be read and is left out")),
            "{segment}: {stale}"
        );
    }
    let (_, status) = served.get("/v1/status").await;
    assert_eq!(status["skipped_files"].as_array().map(Vec::len), Some(4));
    let metrics = served.raw(served.client().get(format!("{}/metrics", served.http))).await.text().await.expect("text");
    assert!(metrics.contains("netverdict_query_skipped_files_total 4"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn change_logs_have_a_beginning_and_an_end() {
    let mut world = World::new().await;
    let manifests = crate::world::MANIFESTS
        .split("---")
        .filter(|text| !text.contains("default-deny"))
        .collect::<Vec<_>>()
        .join("---");
    let rows = world.apply(&manifests, ago(600));
    world.collector.hold(rows);
    let served = world.serve().await;
    let (_, body) = served.sql("select name, valid_to is null from policies order by name").await;
    assert_eq!(body["rows"], json!([["allow-api", true], ["default-deny", false]]));
    assert_eq!(served.value("select count(*) from policies_log where change = 'delete'").await, json!(1));
    let pods = "select count(*) from endpoints where kind = 'pod' and valid_to is null";
    assert_eq!(served.value(pods).await, json!(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_that_touch_the_time_are_told() {
    let mut world = World::new().await;
    let mut rows: Vec<Row> = world.attempt("shop/web", "db/pg", 5432, ago(60));
    rows.push(gap(ago(120), ago(100)));
    rows.push(gap(ago(5_000), ago(4_000)));
    world.write(2, &rows[..]);
    world.collector.next_segment();
    let served = world.serve().await;
    let (_, body) = served.sql("select count(*) from flows where time > now() - interval '10 minutes'").await;
    assert_eq!(body["gaps"].as_array().map(Vec::len), Some(1), "{body}");
    assert_eq!(body["gaps"][0]["cause"], "ring_full");
    let (_, body) = served.sql("select count(*) from flows").await;
    assert_eq!(body["gaps"].as_array().map(Vec::len), Some(2));
    let (_, body) = served.sql("select 1").await;
    assert_eq!(body["gaps"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_reach_the_files_also_beside_fresh_rows() {
    let mut world = World::new().await;
    let old = world.attempt("shop/web", "db/pg", 5432, ago(7_300));
    let new = world.attempt("shop/api", "db/pg", 5432, ago(60));
    world.write(2, &old);
    world.write(3, &new);
    world.collector.at_segment(4);
    world.seen("shop/web", "db/pg", 80, ago(5));
    let served = world.serve().await;
    let condition = "where time > now() - interval '30 minutes' and source_pod = 'api'";
    let (_, body) = served.sql(&format!("explain select * from flows {condition}")).await;
    let plan = body["rows"].to_string();
    assert!(
        plan.contains("UnionExec") && plan.contains("pruning_predicate=") && plan.contains("0000000003.parquet"),
        "{plan}"
    );
    // Its hour is outside the time asked about.
    assert!(!plan.contains("0000000002.parquet"), "{plan}");
    let (_, body) = served
        .sql(&format!("select source_pod, destination_port, count(*) from flows {condition} group by 1, 2"))
        .await;
    assert_eq!(body["rows"], json!([["api", 5432, 2]]));
}

//! Statements that want too much end, and leave their thread to others.

use serde_json::json;

use crate::{
    postgres::{connect, text},
    world::{SECRET, Served, World, ago},
};

/// So many pairs that no machine is through with them in the time that a test takes.
const LARGE: [&str; 6] = [
    "select count(*) from generate_series(1, 200000) a join generate_series(1, 200000) b on a.value % 2 = b.value % 2",
    // All pairs are dropped: nothing comes out of the join.
    "select count(*) from generate_series(1, 200000) a join generate_series(1, 200000) b
       on a.value % 2 = b.value % 2 and a.value + b.value < 0",
    "select count(*) from generate_series(1, 200000) a
       where exists (select 1 from generate_series(1, 200000) b where b.value % 2 = a.value % 2 and a.value + b.value < 0)",
    "select a.value from generate_series(1, 200000) a left join generate_series(1, 200000) b
       on a.value % 2 = b.value % 2 and a.value * b.value < 0 order by 1",
    "with recursive t as (select 1 as n union all select n + 1 from t) select count(*) from t",
    "select count(*) from (select unnest(range(1, 100)) from generate_series(1, 100000000))",
];

/// The thread is free again: at once, or when the batch at hand is done.
async fn answers(served: &Served, after: &str) {
    let mut last = served.sql("select 1").await;
    for _ in 0..10 {
        if last.0 != 503 {
            break;
        }
        last = served.sql("select 1").await;
    }
    assert_eq!((last.0, &last.1["rows"]), (200, &json!([[1]])), "after {after}: {}", last.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_does_not_yield_ends_at_its_deadline() {
    let world = World::new().await;
    let options = ["--statement-timeout", "700ms", "--query-threads", "1", "--max-join-pairs", "1000000000000"];
    let served = world.serve_with(&options).await;
    for statement in LARGE {
        let (status, body) = served.sql(statement).await;
        assert_eq!((status, body["code"].as_str()), (504, Some("timeout")), "{statement}: {body}");
        answers(&served, statement).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_joined_with_themselves_end_too() {
    let mut world = World::new().await;
    let one = world.attempt("shop/api", "db/pg", 5432, ago(60));
    let rows: Vec<_> = one.iter().cycle().take(40_000).cloned().collect();
    world.write(2, &rows);
    world.collector.next_segment();
    let join = "select count(*) from flows a join flows b on a.verdict = b.verdict and a.node = b.node";
    let served = world
        .serve_with(&["--statement-timeout", "20s", "--query-threads", "2", "--max-join-pairs", "1000000000000"])
        .await;
    let client = connect(&served, "netverdict", SECRET, "netverdict").await.expect("a login");
    let other = connect(&served, "netverdict", SECRET, "netverdict").await.expect("a login");
    text(&client, "set statement_timeout = 1500").await.expect("set");
    text(&other, "set statement_timeout = 1500").await.expect("set");
    let (one, two) = tokio::join!(text(&client, join), text(&other, join));
    for state in [one, two] {
        let state = state.expect_err("a deadline");
        assert!(state.starts_with("57014"), "{state}");
    }
    text(&client, "set statement_timeout = 0").await.expect("set");
    assert_eq!(text(&client, "select 1").await, Ok(vec!["1".into()]));
    answers(&served, join).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_with_an_equality_are_bounded_by_what_they_compare() {
    let world = World::new().await;
    let served = world.serve_with(&["--max-join-pairs", "1000000"]).await;
    for statement in &LARGE[..4] {
        let (status, body) = served.sql(statement).await;
        assert_eq!((status, body["code"].as_str()), (403, Some("refused-sql")), "{statement}: {body}");
        let message = body["message"].as_str().unwrap_or_default();
        assert!(message.contains("compared more than 1000000 pairs of rows"), "{message}");
    }
    // Fewer are no matter, and come out as they should.
    let small =
        "select count(*) from generate_series(1, 1000) a join generate_series(1, 1000) b on a.value % 2 = b.value % 2";
    assert_eq!(served.value(small).await, json!(500_000));
    let (a, b) = ("generate_series(1, 10) a", "generate_series(6, 20) b");
    for (statement, rows) in [
        (format!("select count(*), count(b.value) from {a} left join {b} on a.value = b.value"), json!([[10, 5]])),
        (format!("select count(*), count(a.value) from {a} full join {b} on a.value = b.value"), json!([[20, 10]])),
        (format!("select count(*) from {a} left join {b} on a.value = b.value and b.value > 8"), json!([[10]])),
        (format!("select count(*) from {a} where value in (select value from {b})"), json!([[5]])),
        (format!("select count(*) from {a} where value not in (select value from {b})"), json!([[5]])),
        (format!("select count(*) from {a} where value not in (select nullif(value, 7) from {b})"), json!([[0]])),
        (format!("select count(*) from {a} where value < 3 or value in (select value from {b})"), json!([[7]])),
        (
            format!("select count(*) from {a} where not exists (select 1 from {b} where b.value = a.value)"),
            json!([[5]]),
        ),
    ] {
        let (_, body) = served.sql(&statement).await;
        assert_eq!(body["rows"], rows, "{statement}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_thread_is_told_so() {
    let world = World::new().await;
    let options = ["--statement-timeout", "6s", "--query-threads", "1", "--max-join-pairs", "1000000000000"];
    let served = world.serve_with(&options).await;
    let client = connect(&served, "netverdict", SECRET, "netverdict").await.expect("a login");
    let impatient = connect(&served, "netverdict", SECRET, "netverdict").await.expect("a login");
    text(&impatient, "set statement_timeout = '200ms'").await.expect("set");
    let busy = async {
        let mut last = Ok(Vec::new());
        while last.is_ok() {
            last = text(&impatient, "select 1").await;
        }
        last.expect_err("no thread")
    };
    let (long, state) = tokio::join!(text(&client, LARGE[1]), busy);
    assert!(state.starts_with("53300") && state.contains("no thread for statements was free within 200ms"), "{state}");
    assert!(long.expect_err("a deadline").starts_with("57014"));
    let metrics = served.raw(served.client().get(format!("{}/metrics", served.http))).await.text().await.expect("text");
    assert!(metrics.contains("netverdict_query_statements_total{outcome=\"busy\"} 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_shorten_its_time_and_not_lengthen_it() {
    let world = World::new().await;
    let served = world.serve_with(&["--statement-timeout", "20s"]).await;
    let client = connect(&served, "netverdict", SECRET, "netverdict").await.expect("a login");
    for (set, shown) in [
        ("set statement_timeout = 1500", "1500ms"),
        ("set statement_timeout to '2 s'", "2s"),
        ("set session statement_timeout = '1h'", "20s"),
        ("set statement_timeout = '500ms'", "500ms"),
        ("set statement_timeout = default", "20s"),
        ("set statement_timeout = 0", "20s"),
    ] {
        text(&client, set).await.expect(set);
        assert_eq!(text(&client, "show statement_timeout").await, Ok(vec![shown.into()]), "{set}");
    }
    let refused = text(&client, "set statement_timeout = 'soon'").await.expect_err("no time");
    assert!(refused.starts_with("22023"), "{refused}");
}

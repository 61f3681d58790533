//! The PostgreSQL protocol, as a driver speaks it.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage};

use crate::world::{SECRET, Served, World, ago, gap};

pub(crate) async fn connect(
    served: &Served,
    user: &str,
    password: &str,
    database: &str,
) -> Result<Client, tokio_postgres::Error> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(served.postgres.port()).user(user).password(password).dbname(database);
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The rows of a statement in the simple protocol, `|` between columns.
pub(crate) async fn text(client: &Client, statement: &str) -> Result<Vec<String>, String> {
    let messages = client.simple_query(statement).await.map_err(|error| {
        error
            .as_db_error()
            .map_or_else(|| error.to_string(), |error| format!("{}: {}", error.code().code(), error.message()))
    })?;
    let mut rows = Vec::new();
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            let mut line = String::new();
            for column in 0..row.len() {
                let _ = write!(line, "{}{}", if column > 0 { "|" } else { "" }, row.get(column).unwrap_or("∅"));
            }
            rows.push(line);
        }
    }
    Ok(rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_denying_policies_are_named() {
    let mut world = World::new().await;
    world.seen("shop/web", "db/pg", 5432, ago(60));
    let served = world.serve().await;
    let client = connect(&served, "netverdict", SECRET, "netverdict").await.expect("a login");
    let rows = text(&client, "select source, destination, port, policies from denials").await;
    assert_eq!(rows, Ok(vec!["shop/web|db/pg|5432|db/allow-api, db/default-deny".into()]));
    // The extended protocol: parameters, binary results.
    let statement = "select policies, port, count, time from denials where source = $1 and port = $2 and time > $3";
    let since: std::time::SystemTime = ago(3_600).into();
    let rows = client.query(statement, &[&"shop/web", &5432_i32, &since]).await.expect("rows");
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, &str>(0), "db/allow-api, db/default-deny");
    assert_eq!((rows[0].get::<_, i32>(1), rows[0].get::<_, i64>(2)), (5432, 1));
    assert!(rows[0].get::<_, std::time::SystemTime>(3) > since);
    // Nested columns come as JSON text.
    let all = client.query("select * from flows where verdict = 'denied'", &[]).await.expect("rows");
    let decided_by: &str = all[0].get("decided_by");
    assert!(decided_by.contains("\"name\":\"default-deny\""), "{decided_by}");
    assert_eq!(all[0].get::<_, &str>("source_labels"), r#"{"app":"web"}"#);
    let twice = text(&client, "select * from flows a join flows b on a.flow_id = b.flow_id").await;
    assert_eq!(twice.map(|rows| rows.len()), Ok(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboards_and_psql_find_what_they_ask_for() {
    let mut world = World::new().await;
    world.seen("shop/web", "db/pg", 5432, ago(60));
    let served = world.serve().await;
    let client = connect(&served, "netverdict", SECRET, "netverdict").await.expect("a login");
    let (from, to) = (ago(3_600).to_rfc3339(), ago(-60).to_rfc3339());
    let between = format!("time BETWEEN '{from}' AND '{to}'");
    let answered = [
        format!("select floor(extract(epoch from time)/60)*60 AS \"time\", verdict as metric, sum(count) as v from flows where {between} group by 1,2 order by 1"),
        format!("select time_bucket('60.000s',time) AS \"time\", count(*) from flows where {between} group by 1 order by 1"),
        "select date_bin(interval '5 minutes', time) as time, count(*) from flows group by 1 order by 1".into(),
        "select count(*) from flows where extract(epoch from time) >= 1795000000".into(),
        "select current_setting('server_version_num')::int/100 as version".into(),
        "select version()".into(),
        "select source_ip from flows where cidr_contains(source_ip, '10.1.0.0/16')".into(),
        "show server_version".into(),
        "select table_name from information_schema.tables where table_schema = 'public' and table_name = 'denials'".into(),
        "select c.relname from pg_catalog.pg_class c left join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = 'public' and c.relname = 'flows'".into(),
        "explain select * from denials".into(),
    ];
    for statement in answered {
        let rows = text(&client, &statement).await;
        assert!(rows.as_ref().is_ok_and(|rows| !rows.is_empty()), "{statement}: {rows:?}");
    }
    for statement in [
        "SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'",
        "SET TIME ZONE 'UTC'",
        "BEGIN",
        "COMMIT",
        ";",
        "set application_name = 'x'",
    ] {
        let rows = text(&client, statement).await;
        assert_eq!(rows, Ok(Vec::new()), "{statement}");
    }
    let other = text(&client, "select count(*) from flows where cidr_contains(source_ip, '10.9.0.0/16')").await;
    assert_eq!(other, Ok(vec!["0".into()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_more_than_read_is_refused() {
    let world = World::new().await;
    let served = world.serve().await;
    let client = connect(&served, "netverdict", SECRET, "netverdict").await.expect("a login");
    let evil = world.path("evil.parquet");
    let refused = [
        format!("copy flows to '{}'", evil.display()),
        format!("copy (select 1) to '{}'", evil.display()),
        "create table x as select 1".into(),
        "create view v as select 1".into(),
        "drop table flows".into(),
        "drop view denials".into(),
        "insert into gaps select * from gaps".into(),
        "set datafusion.runtime.memory_limit = '1G'".into(),
        "set datafusion.execution.batch_size = 1".into(),
        "set session authorization postgres".into(),
        "explain analyze insert into gaps select * from gaps".into(),
        "declare c cursor for select 1".into(),
        "select * from '/etc/passwd'".into(),
    ];
    for statement in &refused {
        let rows = text(&client, statement).await;
        assert!(rows.is_err(), "simple {statement}: {rows:?}");
        let rows = client.query(statement.as_str(), &[]).await;
        assert!(rows.is_err(), "extended {statement}");
    }
    assert!(!evil.exists());
    assert_eq!(text(&client, "select 1").await, Ok(vec!["1".into()]));
    let state = text(&client, "create table x as select 1").await.expect_err("refused");
    assert!(state.starts_with("42501"), "{state}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_holds_while_rows_flow() {
    let world = World::new().await;
    let served = world.serve().await;
    let client = connect(&served, "netverdict", SECRET, "netverdict").await.expect("a login");
    text(&client, "set statement_timeout = '500ms'").await.expect("set");
    for long in [
        "select count(*) from generate_series(1, 100000000000) where value % 7 = 3",
        "select value from generate_series(1, 100000000000) where value % 1000000 = 3",
    ] {
        let begun = Instant::now();
        let state = text(&client, long).await.expect_err("a deadline");
        assert!(state.starts_with("57014"), "{state}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }
    assert_eq!(text(&client, "select 1").await, Ok(vec!["1".into()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_needs_the_password() {
    let world = World::new().await;
    let served = world.serve().await;
    for (user, password, database) in [
        ("netverdict", "wrong", "netverdict"),
        ("netverdict", "", "netverdict"),
        ("postgres", SECRET, "netverdict"),
        ("postgres", "", "postgres"),
        ("netverdict", SECRET, "other"),
    ] {
        assert!(connect(&served, user, password, database).await.is_err(), "{user} {database}");
    }
    assert!(connect(&served, "netverdict", SECRET, "netverdict").await.is_ok());
}

/// Notices of the service beside the rows.
async fn warnings(served: &Served, statement: &str) -> Vec<String> {
    let mut config = Config::new();
    config.host("127.0.0.1").port(served.postgres.port()).user("netverdict").password(SECRET).dbname("netverdict");
    let (client, mut connection) = config.connect(NoTls).await.expect("a login");
    let told = tokio::spawn(async move {
        let mut told = Vec::new();
        while let Some(message) = std::future::poll_fn(|context| connection.poll_message(context)).await {
            if let Ok(AsyncMessage::Notice(notice)) = message {
                told.push(format!("{} {}: {}", notice.severity(), notice.code().code(), notice.message()));
            }
        }
        told
    });
    assert!(text(&client, statement).await.is_ok());
    client.query(statement, &[]).await.expect("the extended protocol");
    drop(client);
    told.await.expect("told")
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_and_what_is_out_of_date_are_warnings() {
    let mut world = World::new().await;
    let mut rows = world.attempt("shop/web", "db/pg", 5432, ago(60));
    rows.push(gap(ago(120), ago(100)));
    rows.push(gap(ago(5_000), ago(4_000)));
    world.write(2, &rows);
    world.collector.next_segment();
    let served = world.serve_with(&["--collector", "http://127.0.0.1:1"]).await;
    let told = warnings(&served, "select count(*) from flows where time > now() - interval '10 minutes'").await;
    // In the simple protocol and in the extended one.
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(
        told[0].starts_with("WARNING 01000: the answer may be out of date: collector http://127.0.0.1:1/"),
        "{told:?}"
    );
    assert!(
        told[1].starts_with("WARNING 01000: known to be missing: ring full on node demo-node, 7 events"),
        "{told:?}"
    );
    assert_eq!(warnings(&served, "select 1").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_that_fail_before_they_run_are_counted() {
    let world = World::new().await;
    let served = world.serve().await;
    let client = connect(&served, "netverdict", SECRET, "netverdict").await.expect("a login");
    for statement in
        ["selec 1", "select nothing from flows", "drop table flows", "set datafusion.execution.batch_size = 1"]
    {
        assert!(text(&client, statement).await.is_err(), "{statement}");
    }
    for statement in ["selec 1", "select * from nothing", "drop table flows"] {
        assert_ne!(served.sql(statement).await.0, 200, "{statement}");
    }
    let metrics = served.raw(served.client().get(format!("{}/metrics", served.http))).await.text().await.expect("text");
    for (outcome, count) in [("bad-sql", 4), ("refused-sql", 3)] {
        let line = format!("netverdict_query_statements_total{{outcome=\"{outcome}\"}} {count}");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_connection_sets_does_not_reach_others() {
    let world = World::new().await;
    let served = world.serve().await;
    let client = connect(&served, "netverdict", SECRET, "netverdict").await.expect("a login");
    let other = connect(&served, "netverdict", SECRET, "netverdict").await.expect("a login");
    let hour = "select extract(hour from timestamptz '2026-01-01T00:00:00Z')";
    let before = text(&other, hour).await;
    for set in [
        "set timezone = 'Asia/Tokyo'",
        "set timezone to 'Asia/Tokyo'",
        "set session timezone = 'Asia/Tokyo'",
        "set time zone 'Asia/Tokyo'",
        "set local time zone 'Asia/Tokyo'",
        "set local timezone = 'Asia/Tokyo'",
        "set search_path to public, pg_catalog",
    ] {
        assert_eq!(text(&client, set).await, Ok(Vec::new()), "{set}");
        assert_eq!(text(&other, hour).await, before, "after {set}");
        assert_eq!(text(&other, "show time zone").await, Ok(vec!["UTC".into()]), "after {set}");
        assert_eq!(served.sql(hour).await.0, 200);
    }
    let refused = text(&client, "set application_name = 1 + 1").await.expect_err("an expression");
    assert!(refused.starts_with("22023"), "{refused}");
    let refused = text(&client, "set session authorization postgres").await.expect_err("a refusal");
    assert!(refused.starts_with("42501"), "{refused}");
    let two = client.prepare("select 1; select 2").await.expect_err("a refusal");
    assert_eq!(two.code().map(|code| code.code().to_owned()).as_deref(), Some("42501"), "{two}");
}

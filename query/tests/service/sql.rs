//! Statements over HTTP: answered and refused ones.

use arrow::ipc::reader::StreamReader;
use serde_json::{Value, json};

use crate::world::{World, ago};

#[tokio::test(flavor = "multi_thread")]
async fn rows_come_as_json_csv_and_arrow() {
    let mut world = World::new().await;
    world.seen("shop/web", "db/pg", 5432, ago(60));
    let served = world.serve().await;
    let query = "select source, destination, port, protocol, policies, nearest from denials";
    let (_, body) = served.sql(query).await;
    let nearest = body["rows"][0][5].as_str().expect("text");
    assert!(nearest.contains("db/allow-api#0: ") && nearest.contains("app=web"), "{nearest}");
    let expected = json!(["shop/web", "db/pg", 5432, "TCP", "db/allow-api, db/default-deny"]);
    assert_eq!(body["rows"][0].as_array().map(|row| json!(row[..5])), Some(expected));
    let types: Vec<&str> =
        body["columns"].as_array().expect("columns").iter().filter_map(|c| c["type"].as_str()).collect();
    assert_eq!(types, ["text", "text", "int4", "text", "text", "text"]);
    assert_eq!(body["truncated"], json!(false));

    let (_, nested) = served.sql("select decided_by, source_labels, time from flows where verdict = 'denied'").await;
    assert_eq!(nested["rows"][0][0][1]["name"], "default-deny");
    assert_eq!(nested["rows"][0][1], json!({ "app": "web" }));
    assert_eq!(nested["columns"][0]["type"], "json");
    assert_eq!(nested["columns"][2]["type"], "timestamptz");

    let response = served.post("select port, decided_by from (select destination_port as port, decided_by from flows where verdict = 'denied')", "csv").await;
    assert_eq!(response.headers()["netverdict-truncated"], "false");
    let text = response.text().await.expect("text");
    assert!(text.starts_with("port,decided_by\n5432,\"[{"), "{text}");

    let response = served.post("select * from flows", "arrow").await;
    assert_eq!(response.headers()["content-type"], "application/vnd.apache.arrow.stream");
    let bytes = response.bytes().await.expect("bytes");
    let batches =
        StreamReader::try_new(&bytes[..], None).expect("a stream").collect::<Result<Vec<_>, _>>().expect("batches");
    assert_eq!(batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_more_than_read_is_refused() {
    let world = World::new().await;
    let served = world.serve_with(&["--statement-timeout", "5s"]).await;
    let refused = [
        "create table x as select 1",
        "create external table e stored as csv location '/etc/passwd'",
        "drop table flows",
        "drop view denials",
        "insert into gaps select * from gaps",
        "set datafusion.execution.batch_size = 1",
        "explain analyze insert into gaps select * from gaps",
        "select 1; select 2",
        "copy (select 1) to '/tmp/netverdict-evil.csv' stored as csv",
        "prepare p as select 1",
    ];
    for query in refused {
        let (status, body) = served.sql(query).await;
        assert!(matches!(body["code"].as_str(), Some("refused-sql" | "bad-sql")), "{query}: {status} {body}");
        assert!(matches!(status, 400 | 403), "{query}: {status} {body}");
    }
    assert!(!std::path::Path::new("/tmp/netverdict-evil.csv").exists());
    for query in ["", "select", "select * from nothing", "select nothing from flows", "select * from '/etc/passwd'"] {
        let (status, body) = served.sql(query).await;
        assert_eq!((status, body["code"].as_str()), (400, Some("bad-sql")), "{query}: {body}");
    }
    let pairs =
        "select count(*) from generate_series(1, 100000) a, generate_series(1, 100000) b where a.value < b.value";
    let (status, body) = served.sql(pairs).await;
    assert_eq!((status, body["code"].as_str()), (403, Some("refused-sql")), "{body}");
    assert!(body["message"].as_str().is_some_and(|message| message.contains("join without an equality")), "{body}");
    let (status, body) = served.sql("select 1 as one union all select 2 order by one").await;
    assert_eq!((status, &body["rows"]), (200, &json!([[1], [2]])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_ends_at_its_deadline_and_answers_at_its_limit() {
    let world = World::new().await;
    let served = world.serve_with(&["--statement-timeout", "1s", "--max-rows", "10"]).await;
    let long = "select count(*) from generate_series(1, 100000000000) where value % 7 = 3";
    let (status, body) = served.sql(long).await;
    assert_eq!((status, body["code"].as_str()), (504, Some("timeout")), "{body}");
    let (status, body) = served.sql("select * from generate_series(1, 1000)").await;
    assert_eq!((status, &body["truncated"]), (200, &json!(true)));
    assert_eq!(body["rows"].as_array().map(Vec::len), Some(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_are_filtered_and_followed() {
    let mut world = World::new().await;
    let mut rows = world.attempt("shop/web", "db/pg", 5432, ago(90));
    rows.extend(world.attempt("shop/api", "db/pg", 5432, ago(80)));
    world.collector.hold(rows);
    let served = world.serve().await;
    let lines = |body: &Value| -> Vec<String> {
        let flows = body["flows"].as_array().cloned().unwrap_or_default();
        flows
            .iter()
            .map(|line| {
                format!(
                    "{} {} {}",
                    line["source"].as_str().unwrap_or(""),
                    line["direction"].as_str().unwrap_or(""),
                    line["verdict"].as_str().unwrap_or("")
                )
            })
            .collect()
    };
    let (_, body) = served.get("/v1/flows").await;
    assert_eq!(
        lines(&body),
        ["shop/web egress allowed", "shop/web ingress denied", "shop/api egress allowed", "shop/api ingress allowed"]
    );
    let denied = ["shop/web ingress denied"];
    for filter in [
        "verdict=denied",
        "policy=default-deny",
        "policy=db/default-deny",
        "verdict=denied&namespace=db",
        "source=shop/web&policy=db/allow-api&port=5432&protocol=tcp",
        "verdict=denied&pod=shop/web&destination=10.1.0.4&since=1h&limit=5",
    ] {
        let (status, body) = served.get(&format!("/v1/flows?{filter}")).await;
        assert_eq!(lines(&body), denied, "{filter}: {status} {body}");
    }
    let (_, body) = served.get("/v1/flows?policy=allow-api&verdict=allowed").await;
    assert_eq!(lines(&body), ["shop/api ingress allowed"]);
    assert_eq!(body["flows"][0]["decided_by"], json!(["db/allow-api#0"]));
    for bad in ["verdict=no", "port=x", "source=web", "colour=red", "after=x", "policy=a'b", "since=yesterday"] {
        let (status, body) = served.get(&format!("/v1/flows?{bad}")).await;
        assert_eq!((status, body["code"].as_str()), (400, Some("bad-request")), "{bad}: {body}");
    }

    let (_, body) = served.get("/v1/flows?limit=4").await;
    assert_eq!((lines(&body).len(), &body["truncated"]), (4, &json!(false)));
    let (_, body) = served.get("/v1/flows?limit=1").await;
    assert_eq!((lines(&body), &body["truncated"]), (vec!["shop/api ingress allowed".into()], &json!(true)));
    let mut cursor = body["cursor"].as_str().expect("a cursor").to_owned();
    world.seen("shop/web", "db/pg", 5432, ago(0));
    let mut told = Vec::new();
    while told.len() < 2 {
        let (_, body) = served.get(&format!("/v1/flows?after={cursor}")).await;
        told.extend(lines(&body));
        cursor = body["cursor"].as_str().expect("a cursor").to_owned();
    }
    assert_eq!(told, ["shop/web egress allowed", "shop/web ingress denied"]);
    let (_, body) = served.get(&format!("/v1/flows?after={cursor}")).await;
    assert_eq!(lines(&body), [""; 0]);
}

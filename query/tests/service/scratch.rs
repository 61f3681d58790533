//! scratch
use std::{fs, os::unix::fs::PermissionsExt, sync::Arc, time::Instant};

use chrono::{TimeDelta, Utc};
use clap::Parser;
use netverdict_flowlog::row::{
    ChangeHead, ChangeKind, EndpointChangeRow, EndpointKind, NamespaceRow, PolicyRow, Row, SnapshotRow,
};
use netverdict_query::{Options, serve::Service};
use tokio_util::sync::CancellationToken;

use crate::world::{BOOT, NODE, SECRET, write};

fn pod(head: ChangeHead, index: u64, version: u64) -> Row {
    let i = u32::try_from(index).unwrap();
    Row::Endpoint(Box::new(EndpointChangeRow {
        head,
        kind: EndpointKind::Pod,
        namespace: format!("ns-{}", index % 100),
        name: format!("app-{}-{index:x}-v{}", index % 500, version % 7),
        uid: format!("uid-{index}-{version}"),
        owner_id: 1,
        labels: [("app".to_owned(), format!("app-{}", index % 500)), ("v".to_owned(), version.to_string())].into(),
        addresses: vec![std::net::IpAddr::from((0x0a00_0000 + i).to_be_bytes())],
        node_name: NODE.into(),
        host_network: false,
        container_ports: "[]".into(),
        service_account: "default".into(),
        workload_kind: "Deployment".into(),
        workload: format!("app-{}", index % 500),
        phase: "running".into(),
        terminating: false,
        pod_ranges: vec![],
    }))
}

fn generate(data: &std::path::Path) {
    let start = Utc::now() - TimeDelta::hours(49);
    let node: Arc<str> = NODE.into();
    let boot: Arc<str> = BOOT.into();
    let head =
        |change, time, revision| ChangeHead { change, time, revision, node: node.clone(), boot_id: boot.clone() };
    let mut rows = Vec::new();
    let put = head(ChangeKind::Put, start, 1);
    let mut version = vec![0u64; 10_000];
    for index in 0..10_000 {
        rows.push(pod(put.clone(), index, 0));
    }
    for index in 0..100 {
        rows.push(Row::Namespace(Box::new(NamespaceRow {
            head: put.clone(),
            name: format!("ns-{index}"),
            uid: format!("u-{index}"),
            labels: [("team".to_owned(), format!("t{}", index % 10))].into(),
            audit: false,
        })));
    }
    for index in 0..2000 {
        let (ns, name) = (format!("ns-{}", index % 100), format!("policy-{index}"));
        let text = format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: {name}\n  namespace: {ns}\nspec:\n  podSelector:\n    matchLabels:\n      app: app-{}\n  policyTypes: [Ingress]\n  ingress:\n  - from:\n    - namespaceSelector:\n        matchLabels:\n          team: t{}\n    ports:\n    - port: {}\n      protocol: TCP\n",
            index % 500,
            index % 10,
            1000 + index
        );
        rows.push(Row::Policy(Box::new(PolicyRow {
            head: put.clone(),
            api_version: "networking.k8s.io/v1".into(),
            kind: "NetworkPolicy".into(),
            namespace: ns,
            name,
            uid: format!("uid-p-{index}"),
            generation: 1,
            resource_version: String::new(),
            content_hash: format!("hash-{index}"),
            text,
            author: String::new(),
            origin: "x".into(),
        })));
    }
    let snapshot = |time, number| {
        Row::Snapshot(Box::new(SnapshotRow {
            time,
            node: node.clone(),
            boot_id: boot.clone(),
            snapshot: number,
            revision: number,
            policies: 2000,
            pods: 10_000,
            namespaces: 100,
            audit_all: false,
            errors: 0,
        }))
    };
    rows.push(snapshot(start, 1));
    write(data, 1, &rows);
    let (mut number, mut seed) = (1u64, 12345u64);
    let minutes = 48 * 60i64;
    let per = 100_000 / minutes;
    for minute in 0..minutes {
        let mut rows = Vec::new();
        for change in 0..per {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let index = (seed >> 33) % 10_000;
            number += 1;
            let time = start + TimeDelta::minutes(minute + 1) + TimeDelta::milliseconds(change * 60_000 / per);
            let slot = &mut version[index as usize];
            let mut gone = pod(head(ChangeKind::Delete, time, number), index, *slot);
            if let Row::Endpoint(row) = &mut gone {
                row.head.change = ChangeKind::Delete;
            }
            rows.push(gone);
            *slot += 1;
            rows.push(pod(head(ChangeKind::Put, time, number), index, *slot));
            rows.push(snapshot(time, number));
        }
        write(data, 2 + minute as u64, &rows);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scratch() {
    let Ok(folder) = std::env::var("SCRATCH") else { return };
    let folder = std::path::Path::new(&folder);
    let data = folder.join("data");
    if !data.exists() {
        let began = Instant::now();
        fs::create_dir_all(folder).unwrap();
        generate(&data);
        println!("generated in {:?}", began.elapsed());
    }
    let secret = folder.join("secret");
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let options = Options::try_parse_from([
        "q",
        "--http",
        "127.0.0.1:0",
        "--postgres",
        "127.0.0.1:0",
        "--data-dir",
        data.to_str().unwrap(),
        "--secret-file",
        secret.to_str().unwrap(),
        "--statement-timeout",
        "10m",
    ])
    .unwrap();
    let service = Service::start(&options, CancellationToken::new()).await.unwrap();
    let http = format!("http://{}", service.http);
    tokio::spawn(service.run());
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = async |what: &str, path: String| {
        let began = Instant::now();
        let body = client.get(format!("{http}{path}")).bearer_auth(SECRET).send().await.unwrap().text().await.unwrap();
        let took = began.elapsed();
        println!("{what}: {took:?} {}", body.chars().take(300).collect::<String>());
        body
    };
    let sql = async |text: &str| {
        let began = Instant::now();
        let body = client
            .post(format!("{http}/v1/sql"))
            .bearer_auth(SECRET)
            .json(&serde_json::json!({"query": text, "format": "json"}))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        println!("{:?} {text} {}", began.elapsed(), body.chars().take(200).collect::<String>());
    };
    sql("select count(*) from record.policies").await;
    sql("select count(*) from record.policies").await;
    let path = "/v1/why?source=10.0.0.9&destination=10.0.0.7&port=1001&protocol=tcp";
    for i in 0..3 {
        ask(&format!("newest {i}"), path.into()).await;
    }
    for i in 0..2 {
        ask(&format!("gone {i}"), "/v1/why?source=ns-1/app-1-1-v0&destination=10.0.0.7&port=1001".into()).await;
    }
    let at = (Utc::now() - TimeDelta::hours(24)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    for i in 0..2 {
        ask(&format!("day ago {i}"), format!("{path}&at={at}")).await;
    }
    let at = (Utc::now() - TimeDelta::hours(23)).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    for i in 0..2 {
        ask(&format!("23 hours ago {i}"), format!("{path}&at={at}")).await;
    }
}

//! DuckDB and pyarrow read our files, with no help from us: counts, partitions, lists, maps, times.
//!
//! `NETVERDICT_PYTHON` names a Python that has both; `cargo xtask test readers` sets it.

use std::{collections::BTreeMap, path::Path, process::Command, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use netverdict_flowlog::{
    columns, file,
    path::{Hour, SegmentPath},
    row::{
        AttributionValue, DispositionName, EndpointKind, EndpointRow, FlowRow, GapCause, GapRow, LaneName, Method,
        ModeName, RecordType, Reporter, Row,
    },
    schema::Table,
};
use netverdict_policy::{
    AttributionId, Confidence, Decision, Direction, FailedDimension, NearMiss, Reason, Reference, Role, Verdict,
    model::{PolicyKey, Tier},
};

const BOOT: &str = "5a0f6a0e-6f5e-4f1c-9d53-0a4f4a3d2b10";
const FLOWS: u64 = 1_000;

#[test]
fn duckdb_and_pyarrow_read_the_files() {
    let Some(python) = std::env::var_os("NETVERDICT_PYTHON") else {
        println!("SKIPPED readers: NETVERDICT_PYTHON is not set; run `cargo xtask test readers`");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let started = DateTime::from_timestamp(1_795_000_000, 123_456_000).expect("a time");
    let flows: Vec<Row> = (0..FLOWS).map(|number| Row::Flow(Box::new(flow(started, number)))).collect();
    write(folder.path(), Table::Flows, started, &flows);
    write(folder.path(), Table::Gaps, started, &[Row::Gap(Box::new(gap(started)))]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("readers/read.py");
    let output = Command::new(python).arg(script).arg(folder.path()).output().expect("python starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let expected = format!(
        "duckdb flows {FLOWS}\n\
         duckdb first time {}\n\
         duckdb partitions demo {} {}\n\
         duckdb deciders db/allow-api isolating 0, db/default-deny isolating None\n\
         duckdb near miss db/allow-api peer\n\
         duckdb label app=web\n\
         duckdb gaps ring_full 7\n\
         pyarrow flows {FLOWS}\n\
         pyarrow destination db/pg 10.0.0.7\n\
         pyarrow deciders 2\n",
        started.format("%Y-%m-%d %H:%M:%S%.6f"),
        Hour::of(started).date(),
        Hour::of(started).hour(),
    );
    assert_eq!(said, expected);
}

fn write(folder: &Path, table: Table, time: DateTime<Utc>, rows: &[Row]) {
    let batch = columns::batch(table, rows).expect("a batch");
    let path = SegmentPath::new(table, "demo", Hour::of(time), "node-1", BOOT, 1).expect("a path");
    file::write(folder, &path, &[batch], &[]).expect("a file");
}

fn flow(started: DateTime<Utc>, number: u64) -> FlowRow {
    let time = started + TimeDelta::microseconds(i64::try_from(number).expect("small"));
    FlowRow {
        record_type: RecordType::Verdict,
        node: "node-1".into(),
        boot_id: BOOT.into(),
        lane: Some(LaneName::Denied),
        cpu: Some(0),
        seq: Some(number + 1),
        time,
        ingest_time: time,
        direction: Direction::Ingress,
        reporter: Reporter::Destination,
        family: 4,
        source_ip: [10, 0, 0, 1].into(),
        destination_ip: [10, 0, 0, 7].into(),
        source_port: 40_000,
        destination_port: 5432,
        protocol: 6,
        tcp_flags: 2,
        verdict: Verdict::Denied,
        verdict_if_enforced: None,
        disposition: DispositionName::Dropped,
        mode: ModeName::Enforce,
        reason: Reason::IsolatedNoMatch,
        method: Method::Enforced,
        confidence: Confidence::Exact,
        attribution: Some(Arc::new(AttributionValue { id: AttributionId(42), decision: decision() })),
        attribution_id: AttributionId(42),
        near_misses: vec![NearMiss {
            policy: policy("allow-api"),
            rule_index: Some(0),
            failed: FailedDimension::Peer,
            detail: "pod label app=web is not app=api".into(),
        }]
        .into(),
        snapshot: 3,
        source: endpoint("shop", "web"),
        destination: endpoint("db", "pg"),
        packets: 1,
        bytes: 74,
        count: 1,
        first_time: time,
        last_time: time,
        ..FlowRow::default()
    }
}

fn gap(time: DateTime<Utc>) -> GapRow {
    GapRow {
        lane: Some(LaneName::Flow),
        cpu: Some(1),
        first_seq: Some(10),
        last_seq: Some(16),
        lost_events: 7,
        ..GapRow::of(GapCause::RingFull, &"node-1".into(), &BOOT.into(), time, time, "the ring was full")
    }
}

fn decision() -> Decision {
    let reference = |name: &str, rule_index| Reference {
        role: Role::Isolating,
        policy: policy(name),
        uid: "a-uid".into(),
        generation: 1,
        content_hash: "00".into(),
        tier: Tier::NetworkPolicy,
        rule_index,
        rule_name: String::new(),
        action: None,
    };
    Decision {
        verdict: Verdict::Denied,
        verdict_if_enforced: None,
        reason: Reason::IsolatedNoMatch,
        tier: Some(Tier::NetworkPolicy),
        confidence: Confidence::Exact,
        references: vec![reference("allow-api", Some(0)), reference("default-deny", None)],
    }
}

fn policy(name: &str) -> PolicyKey {
    PolicyKey { kind: "NetworkPolicy".into(), namespace: "db".into(), name: name.into() }
}

fn endpoint(namespace: &str, pod: &str) -> Arc<EndpointRow> {
    Arc::new(EndpointRow {
        kind: EndpointKind::Pod,
        namespace: namespace.into(),
        pod: pod.into(),
        pod_uid: format!("uid-of-{pod}"),
        service_account: pod.into(),
        node: "node-1".into(),
        labels: BTreeMap::from([("app".to_owned(), pod.to_owned())]),
        identity: 17,
        ..EndpointRow::default()
    })
}

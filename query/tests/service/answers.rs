//! Facts that an answer of `why` must not mix up: ends, protocols, families, verdicts, the past and the present.

use netverdict_flowlog::{
    answer::{WhyAnswer, WhyPoint},
    row::{EndpointKind, FlowRow, Row},
};
use netverdict_policy::{Verdict, model::Protocol};

use crate::world::{MANIFESTS, World, ago};

const NO_EGRESS: &str = "\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: shop, name: no-egress, uid: uid-no-egress}\nspec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}\n";

fn without(name: &str) -> String {
    MANIFESTS.split("---").filter(|text| !text.contains(&format!("name: {name},"))).collect::<Vec<_>>().join("---")
}

fn ingress(answer: &WhyAnswer) -> &WhyPoint {
    answer.points.iter().find(|point| point.point == "destination-ingress").expect("an ingress")
}

fn flows(rows: Vec<Row>, change: impl Fn(&mut FlowRow)) -> Vec<Row> {
    let change = |mut row: Row| {
        if let Row::Flow(row) = &mut row {
            change(row);
        }
        row
    };
    rows.into_iter().map(change).collect()
}

fn over_ipv6(rows: Vec<Row>) -> Vec<Row> {
    flows(rows, |row| {
        row.family = 6;
        row.source_ip = "2001:db8::2".parse().expect("an address");
        row.destination_ip = "2001:db8::4".parse().expect("an address");
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_now_is_the_verdict_of_both_ends() {
    let mut world = World::new().await;
    let mut rows = world.apply(&format!("{MANIFESTS}{NO_EGRESS}"), ago(600));
    rows.extend(world.attempt("shop/web", "db/pg", 5432, ago(60)));
    rows.extend(world.apply(MANIFESTS, ago(30)));
    world.collector.hold(rows);
    let served = world.serve().await;
    let answer = served.why("source=shop/web&destination=db/pg&port=5432&protocol=tcp").await;
    assert_eq!(
        (answer.verdict, answer.now, answer.points[0].now),
        (Verdict::Denied, Some(Verdict::Denied), Some(Verdict::Allowed))
    );
    assert!(
        answer.sentence.contains(
            "shop/no-egress was deleted since; source egress would allow it now, but destination ingress would deny it, by \
             db/allow-api, db/default-deny"
        ) && !answer.sentence.contains("it would be allowed now"),
        "{}",
        answer.sentence
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_are_of_one_verdict_and_family() {
    let mut world = World::new().await;
    let mut rows: Vec<Row> =
        [90, 80].into_iter().flat_map(|at| world.attempt("shop/web", "db/pg", 5432, ago(at))).collect();
    rows.extend(
        world.apply(&without("default-deny").replace("app: api}}\n    ports", "app: web}}\n    ports"), ago(50)),
    );
    rows.extend(world.attempt("shop/web", "db/pg", 5432, ago(40)));
    let six = world.attempt("shop/web", "db/pg", 5432, ago(45));
    rows.extend(over_ipv6(six));
    let opened = ago(41);
    world.collector.hold(rows);
    let served = world.serve().await;
    let answer = served.why("source=shop/web&destination=db/pg&port=5432&protocol=tcp").await;
    let point = ingress(&answer);
    assert_eq!((answer.verdict, point.count), (Verdict::Allowed, 1), "{point:?}");
    assert!(point.first_seen > Some(opened), "{point:?}");
    assert!(answer.sentence.contains("before that, 2 events were denied"), "{}", answer.sentence);
    // Before it was opened.
    let at = ago(60).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let answer = served.why(&format!("source=shop/web&destination=db/pg&port=5432&at={at}")).await;
    assert_eq!((answer.verdict, ingress(&answer).count), (Verdict::Denied, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_is_meant_where_no_protocol_is_named() {
    let mut world = World::new().await;
    let mut rows = world.attempt("shop/api", "db/pg", 5432, ago(90));
    rows.extend(world.attempt_over(Protocol::UDP, "shop/api", "db/pg", 5432, ago(30)));
    world.collector.hold(rows);
    let served = world.serve().await;
    let answer = served.why("source=shop/api&destination=db/pg&port=5432").await;
    assert_eq!((answer.verdict, answer.protocol.as_str()), (Verdict::Allowed, "TCP"));
    assert!(answer.sentence.contains("; over UDP it was denied: 1 event, the last 3"), "{}", answer.sentence);
    assert_eq!((answer.otherwise.len(), answer.otherwise[0].protocol.as_str()), (1, "UDP"));
    // Named, it is that; and where there is no other, the only one there is.
    let answer = served.why("source=shop/api&destination=db/pg&port=5432&protocol=udp").await;
    assert_eq!((answer.verdict, answer.protocol.as_str(), answer.otherwise.len()), (Verdict::Denied, "UDP", 0));
    let rows = world.attempt_over(Protocol::UDP, "shop/web", "db/pg", 53, ago(20));
    world.collector.hold(rows);
    let served = world.serve().await;
    let answer = served.why("source=shop/web&destination=db/pg").await;
    assert_eq!((answer.protocol.as_str(), answer.port), ("UDP", Some(53)));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_family_with_another_verdict_is_told() {
    let mut world = World::new().await;
    let allowed = world.attempt("shop/api", "db/pg", 5432, ago(60));
    let denied = world.attempt("shop/web", "db/pg", 5432, ago(50));
    // As if the same pod were let in over one family only.
    let as_api = |row: &mut FlowRow| {
        row.source = match &allowed[0] {
            Row::Flow(row) => row.source.clone(),
            other => panic!("{other:?}"),
        }
    };
    let mut rows = over_ipv6(flows(denied, as_api));
    rows.extend(allowed.clone());
    world.collector.hold(rows);
    let served = world.serve().await;
    let answer = served.why("source=shop/api&destination=db/pg&port=5432&protocol=tcp").await;
    let point = ingress(&answer);
    assert_eq!((answer.verdict, point.count, point.disposition.as_str()), (Verdict::Denied, 1, "dropped"));
    assert!(answer.sentence.contains("; over IPv4 it was allowed: 1 event, the last "), "{}", answer.sentence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_was_deleted_is_said_to_be() {
    let mut world = World::new().await;
    let gone = ago(100);
    let mut rows = world.attempt("shop/web", "db/pg", 5432, ago(200));
    rows.extend(world.apply(&without("web"), gone));
    world.collector.hold(rows);
    let served = world.serve().await;
    let told = format!("shop/web was deleted at {} UTC", gone.format("%Y-%m-%d %H:%M:%S"));
    // With a packet on record, and without.
    let answer = served.why("source=shop/web&destination=db/pg&port=5432").await;
    assert!(answer.sentence.contains(&told) && !answer.sentence.contains("in force before"), "{}", answer.sentence);
    assert_eq!(answer.source.deleted.map(|time| time.timestamp()), Some(gone.timestamp()));
    let answer = served.why("source=db/pg&destination=shop/web&port=8080").await;
    assert!(answer.sentence.contains(&told), "{}", answer.sentence);
    assert!(answer.sentence.contains("this is what was in force before that"), "{}", answer.sentence);
    assert!(answer.source.deleted.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn times_beyond_the_record_are_told_as_what_they_are() {
    let mut world = World::new().await;
    let rows = world.apply(&MANIFESTS.replace("name: api, uid", "name: late, uid"), ago(60));
    world.collector.hold(rows);
    let served = world.serve().await;
    let at = |seconds: i64| ago(seconds).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    for (question, status, words) in [
        (format!("source=shop/web&destination=db/pg&at={}", at(-86_400)), 400, "has not come yet"),
        (format!("source=shop/web&destination=db/pg&at={}", at(7_200)), 400, "the record begins at "),
        (format!("source=shop/late&destination=db/pg&at={}", at(600)), 404, "pod shop/late is on record from "),
    ] {
        let (found, body) = served.get(&format!("/v1/why?{question}")).await;
        let message = body["message"].as_str().unwrap_or_default();
        assert!(found == status && message.contains(words), "{question}: {found} {body}");
        assert!(!body["remedy"].as_str().unwrap_or_default().contains("did you mean"), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_from_one_socket_does_not_load_it_all() {
    let mut world = World::new().await;
    let one = world.attempt("shop/web", "db/pg", 5432, ago(60));
    let mut rows = Vec::new();
    for port in 1..1_000_u16 {
        rows.extend(flows(one.clone(), |row| {
            row.destination_port = port;
            row.seq = row.seq.map(|seq| seq + 2 * u64::from(port));
        }));
    }
    world.write(2, &rows);
    world.collector.next_segment();
    let served = world.serve().await;
    let before = rows_told(&served).await;
    let answer = served.why("source=shop/web&destination=db/pg&port=22&protocol=tcp").await;
    assert_eq!((answer.verdict, answer.points.len(), ingress(&answer).count), (Verdict::Denied, 2, 1));
    let read = rows_told(&served).await - before;
    assert!(read < 100, "{read} rows left the executor for one question");
}

async fn rows_told(served: &crate::world::Served) -> u64 {
    let metrics = served.raw(served.client().get(format!("{}/metrics", served.http))).await.text().await.expect("text");
    let line = metrics.lines().find_map(|line| line.strip_prefix("netverdict_query_rows_total "));
    line.expect("the metric").parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_s_address_is_joined_with_the_pod_behind_it() {
    let mut world = World::new().await;
    let rows = world.attempt("shop/web", "db/pg", 5432, ago(60));
    let to_service = |row: &mut FlowRow| {
        if row.verdict == Verdict::Allowed {
            row.destination_ip = "10.96.0.9".parse().expect("an address");
            let mut end = (*row.destination).clone();
            end.kind = EndpointKind::Service;
            row.destination = end.into();
        }
    };
    world.collector.hold(flows(rows, to_service));
    let served = world.serve().await;
    let answer = served.why("source=shop/web&destination=10.1.0.4&port=5432&protocol=tcp").await;
    let methods: Vec<&str> = answer.points.iter().map(|point| point.method.as_str()).collect();
    assert_eq!(methods, ["enforced", "enforced"], "{answer:?}");
}

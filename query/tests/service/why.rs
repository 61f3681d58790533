//! Why: over observed, unobserved, changed and unknown connections.

use netverdict_flowlog::{
    answer::{Decider, Since, WhyAnswer},
    row::{EndpointRow, Row},
};
use netverdict_policy::{Direction, Verdict};

use crate::world::{MANIFESTS, World, ago, gap};

fn without(name: &str) -> String {
    MANIFESTS.split("---").filter(|text| !text.contains(&format!("name: {name},"))).collect::<Vec<_>>().join("---")
}

fn point<'a>(answer: &'a WhyAnswer, name: &str) -> &'a netverdict_flowlog::answer::WhyPoint {
    answer.points.iter().find(|point| point.point == name).unwrap_or_else(|| panic!("no {name}: {answer:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_attempt_names_who_decided_and_what_came_nearest() {
    let mut world = World::new().await;
    world.seen("shop/web", "db/pg", 5432, ago(60));
    let served = world.serve().await;
    let answer = served.why("source=shop/web&destination=db/pg&port=5432&protocol=tcp").await;
    assert_eq!(answer.verdict, Verdict::Denied);
    assert!(
        answer.sentence.starts_with(
            "denied at destination ingress by db/allow-api, db/default-deny (isolate db/pg; no rule matched); nearest: \
             db/allow-api rule 0 — "
        ) && answer.sentence.contains("app=web"),
        "{}",
        answer.sentence
    );
    let (egress, ingress) = (point(&answer, "source-egress"), point(&answer, "destination-ingress"));
    assert_eq!((egress.verdict, egress.method.as_str(), egress.count), (Verdict::Allowed, "enforced", 1));
    assert_eq!(
        (ingress.verdict, ingress.method.as_str(), ingress.disposition.as_str()),
        (Verdict::Denied, "enforced", "dropped")
    );
    assert_eq!((ingress.now, ingress.now_decided_by.len()), (Some(Verdict::Denied), 0));
    assert!(ingress.decided_by.iter().all(|decider| decider.since == Since::Unchanged), "{ingress:?}");
    let revision = ingress.decided_by[0].revision.as_ref().expect("the state that decided");
    assert_eq!(
        (revision.author.as_str(), revision.origin.as_str(), &revision.node),
        ("kubectl", "test.yaml", &ingress.node)
    );
    assert!(revision.changed.expect("a time") < revision.in_force && revision.in_force < ago(60), "{revision:?}");
    let text = &ingress.decided_by[1].text;
    assert!(text.contains("default-deny") && text.contains("podSelector"), "{text}");
    assert_eq!((answer.source.name.as_str(), answer.destination.addresses[0].as_str()), ("shop/web", "10.1.0.4"));
    assert!(answer.stale.is_empty() && answer.gaps.is_empty(), "{answer:?}");
    // By address, and without a port.
    for question in ["source=10.1.0.2&destination=10.1.0.4", "source=shop/web&destination=10.1.0.4&port=5432"] {
        let same = served.why(question).await.sentence;
        let (words, _) = answer.sentence.rsplit_once("; ").expect("when");
        assert!(same.starts_with(words), "{question}: {same}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_then_is_told_after_policies_and_pods_are_gone() {
    let mut world = World::new().await;
    let mut rows = world.attempt("shop/web", "db/pg", 5432, ago(300));
    let changed = without("default-deny").replace("app: api}}\n    ports", "app: web}}\n    ports");
    rows.extend(world.apply(&changed, ago(120)));
    world.write(2, &rows);
    world.collector.next_segment();
    let served = world.serve().await;
    let answer = served.why("source=shop/web&destination=db/pg&port=5432").await;
    let ingress = point(&answer, "destination-ingress");
    let since: Vec<Since> = ingress.decided_by.iter().map(|decider| decider.since).collect();
    assert_eq!(since, [Since::Changed, Since::Deleted], "{answer:?}");
    assert!(ingress.decided_by[0].text.contains("app: api"), "{}", ingress.decided_by[0].text);
    // Of the state that decided, and not of the present one.
    let in_force = |decider: &Decider| decider.revision.as_ref().map(|revision| revision.in_force);
    assert!(in_force(&ingress.decided_by[0]).is_some_and(|time| time < ago(300)), "{ingress:?}");
    assert!(in_force(&ingress.now_decided_by[0]).is_some_and(|time| time > ago(300)), "{ingress:?}");
    assert_eq!(ingress.now, Some(Verdict::Allowed));
    for part in [
        "db/default-deny was deleted since",
        "db/allow-api was changed since",
        "it would be allowed now, by db/allow-api rule 0",
    ] {
        assert!(answer.sentence.contains(part), "{part}: {}", answer.sentence);
    }
    // The pod goes; its verdicts are still told.
    let rows = world.apply(&without("web"), ago(10));
    world.collector.hold(rows);
    let before = ago(60).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let answer = served.why(&format!("source=shop/web&destination=db/pg&port=5432&since=10m&at={before}")).await;
    assert_eq!(answer.verdict, Verdict::Denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_was_taken_for_another_pod_is_told_by_its_own_node() {
    let mut world = World::new().await;
    let rows = world.attempt("shop/web", "db/pg", 5432, ago(60)).into_iter().map(|row| match row {
        // The destination's node did not know yet that the address had changed hands.
        Row::Flow(mut row) if row.direction == Direction::Ingress => {
            let old = EndpointRow { pod: "old".into(), pod_uid: "uid-old".into(), ..(*row.source).clone() };
            row.source = old.into();
            Row::Flow(row)
        }
        row => row,
    });
    world.collector.hold(rows.collect());
    let served = world.serve().await;
    let answer = served.why("source=shop/web&destination=db/pg&port=5432").await;
    assert_eq!((answer.source.name.as_str(), point(&answer, "source-egress").mistaken_for.clone()), ("shop/web", None));
    assert_eq!(point(&answer, "destination-ingress").mistaken_for.as_deref(), Some("shop/old"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_named_with_the_pods_on_its_network() {
    let mut world = World::new().await;
    let agent = "\n---\n{apiVersion: v1, kind: Pod, metadata: {namespace: agents, name: exporter}, \
                 spec: {nodeName: other, hostNetwork: true}, status: {phase: Running, podIP: 10.9.0.1}}\n---\n\
                 {apiVersion: v1, kind: Node, metadata: {name: other}, status: {addresses: [{type: InternalIP, address: 10.9.0.1}]}}\n";
    let rows = world.apply(&format!("{MANIFESTS}{agent}"), ago(30));
    world.collector.hold(rows);
    let served = world.serve().await;
    let answer = served.why("source=10.9.0.1&destination=db/pg&port=5432").await;
    assert_eq!((answer.source.name.as_str(), answer.source.kind.as_str()), ("node/other", "node"));
    assert_eq!(answer.source.candidates, ["agents/exporter"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_policy_allowed_is_not_policy() {
    let mut world = World::new().await;
    let mut rows = world.attempt("shop/web", "db/pg", 5432, ago(200));
    rows.extend(world.attempt("shop/api", "db/pg", 5432, ago(60)));
    world.collector.hold(rows);
    let served = world.serve().await;
    let answer = served.why("source=shop/api&destination=db/pg").await;
    assert_eq!(answer.verdict, Verdict::Allowed);
    let expected =
        "not policy: allowed by db/allow-api rule 0; policy does not stop it: look at the application, DNS or routing";
    assert!(answer.sentence.starts_with(expected), "{}", answer.sentence);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_packet_the_stored_state_is_judged_and_says_so() {
    let world = World::new().await;
    let served = world.serve().await;
    let answer = served.why("source=shop/web&destination=db/pg&since=5m").await;
    assert_eq!(answer.verdict, Verdict::Denied);
    let ingress = point(&answer, "destination-ingress");
    assert_eq!((ingress.method.as_str(), ingress.last_seen, ingress.count), ("evaluated", None, 0));
    assert!(
        answer
            .sentence
            .starts_with("no packet from shop/web to db/pg is on record in the last 5 min; by the stored policies")
            && answer.sentence.contains("for port 5432/TCP, the only one that it declares")
            && answer.sentence.contains("it would be denied at destination ingress by db/allow-api, db/default-deny"),
        "{}",
        answer.sentence
    );
    let answer = served.why("source=shop/api&destination=db/pg&port=5432").await;
    assert!(answer.sentence.contains("it is not policy: allowed by db/allow-api rule 0"), "{}", answer.sentence);
    let answer = served.why("source=203.0.113.9&destination=db/pg&port=5432").await;
    assert_eq!((answer.verdict, answer.source.kind.as_str(), answer.points.len()), (Verdict::Denied, "external", 1));
    let answer = served.why("source=shop/web&destination=203.0.113.9&port=443").await;
    assert!(answer.sentence.contains("no policy isolates them"), "{}", answer.sentence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_gone_is_judged_by_the_last_state_that_had_it() {
    let mut world = World::new().await;
    let rows = world.apply(&without("web"), ago(100));
    world.collector.hold(rows);
    let served = world.serve().await;
    let answer = served.why("source=shop/web&destination=db/pg&port=5432").await;
    assert_eq!(answer.verdict, Verdict::Denied);
    assert_eq!(point(&answer, "destination-ingress").now, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_pod_gets_near_names() {
    let world = World::new().await;
    let served = world.serve().await;
    let (status, body) = served.get("/v1/why?source=shop/wbe&destination=db/pg").await;
    assert_eq!((status, body["code"].as_str()), (404, Some("unknown-pod")), "{body}");
    assert!(body["remedy"].as_str().is_some_and(|remedy| remedy.starts_with("did you mean shop/web")), "{body}");
    for bad in [
        "",
        "source=shop/web",
        "source=x&destination=db/pg",
        "source=shop/web&destination=db/pg&port=99999",
        "source=shop/web&destination=db/pg&port=1&protocol=icmp",
    ] {
        let (status, body) = served.get(&format!("/v1/why?{bad}")).await;
        assert_eq!((status, body["code"].as_str()), (400, Some("bad-request")), "{bad}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_and_missing_data_is_told() {
    let mut world = World::new().await;
    let mut rows = world.attempt("shop/web", "db/pg", 5432, ago(60));
    rows.push(gap(ago(90), ago(80)));
    world.write(2, &rows);
    world.collector.next_segment();
    world.collector.source_error("manifests/broken.yaml: line 3 is no YAML");
    let served = world.serve_with(&["--collector", "http://127.0.0.1:1"]).await;
    let answer = served.why("source=shop/web&destination=db/pg").await;
    assert_eq!(answer.gaps.len(), 1);
    assert_eq!(answer.stale.len(), 2, "{:?}", answer.stale);
    for part in ["a gap in the record touches this time", "may be out of date: ", "(and 1 more)"] {
        assert!(answer.sentence.contains(part), "{part}: {}", answer.sentence);
    }
    assert!(answer.stale.iter().any(|reason| reason.contains("broken.yaml")));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_source_was_stopped_the_other_end_is_hypothetical() {
    let mut world = World::new().await;
    let egress = "\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {namespace: shop, name: no-egress, uid: uid-no-egress}\nspec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress]}\n";
    let mut rows = world.apply(&format!("{MANIFESTS}{egress}"), ago(600));
    rows.extend(world.attempt("shop/web", "db/pg", 5432, ago(60)));
    world.collector.hold(rows);
    let served = world.serve().await;
    let answer = served.why("source=shop/web&destination=db/pg").await;
    assert!(
        answer.sentence.starts_with("denied at source egress by shop/no-egress (isolates shop/web; no rule matched)"),
        "{}",
        answer.sentence
    );
    let ingress = point(&answer, "destination-ingress");
    assert_eq!((ingress.hypothetical, ingress.method.as_str(), ingress.verdict), (true, "evaluated", Verdict::Denied));
    assert!(
        answer.sentence.contains("destination ingress would deny it too, by db/allow-api, db/default-deny"),
        "{}",
        answer.sentence
    );
}

use std::sync::Arc;

use netverdict_abi::{Direction as AbiDirection, KernelReason, VerdictEvent, address::v4_mapped, event::flag};
use netverdict_flowlog::row::{DropReason, EndpointKind, RecordType};
use netverdict_policy::{
    AttributionId, FailedDimension, ObjectKey, Reason, Snapshot, Verdict,
    build::{PodBuilder, pod},
    model::Phase,
};

use super::*;
use crate::{
    sequence::KernelCount,
    simulated_node::{SECOND, SimulatedNode, batch, session},
};

fn pipeline(node: &SimulatedNode) -> Pipeline {
    let mut pipeline = Pipeline::new(10 * SECOND, Checkpoint::default());
    for input in [Input::Session(session("b", true)), node.meanings(), node.snapshot()] {
        let rows = take(&mut pipeline, input);
        assert!(rows.is_empty());
    }
    pipeline
}

fn take(pipeline: &mut Pipeline, input: Input) -> Vec<Row> {
    let mut rows = Vec::new();
    pipeline.take(input, &mut rows);
    rows
}

fn flows(rows: Vec<Row>) -> Vec<FlowRow> {
    rows.into_iter().map(|row| if let Row::Flow(row) = row { *row } else { panic!("no flow: {row:?}") }).collect()
}

fn only(rows: Vec<Row>) -> FlowRow {
    let mut rows = flows(rows);
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

fn gaps(rows: &[Row]) -> Vec<(GapCause, Option<u64>, Option<u64>, u64)> {
    let gap = |row: &Row| {
        if let Row::Gap(gap) = row { Some((gap.cause, gap.first_seq, gap.last_seq, gap.lost_events)) } else { None }
    };
    rows.iter().filter_map(gap).collect()
}

fn tick(pipeline: &mut Pipeline, boot_time: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    pipeline.tick(boot_time, &mut rows);
    rows
}

fn flush(pipeline: &mut Pipeline) -> Vec<Row> {
    let mut rows = Vec::new();
    pipeline.flush(&mut rows);
    rows
}

#[test]
fn denial_names_policy_near_miss_and_both_ends_as_they_stood() {
    let mut node = SimulatedNode::new();
    let row = only(take(&mut pipeline(&node), batch(&[node.denied()])));
    assert_eq!((row.verdict, row.reason, row.snapshot, row.count), (Verdict::Denied, Reason::IsolatedNoMatch, 1, 1));
    assert_eq!(row.time, clock::at(2_000_001_000));
    let decided: Vec<_> =
        row.attribution.as_ref().unwrap().decision.decided_by().map(|r| r.policy.to_string()).collect();
    assert_eq!(decided, ["NetworkPolicy db/api"]);
    assert_eq!(row.near_misses[0].failed, FailedDimension::Peer);
    let (source, destination) = (&row.source, &row.destination);
    assert_eq!((source.kind, source.pod.as_str(), source.zone.as_str()), (EndpointKind::Pod, "web", "z"));
    assert_eq!(destination.labels.get("app").map(String::as_str), Some("pg"));
    assert!(!row.identity_window_open && !row.spoof);
}

#[test]
fn event_is_told_by_the_snapshot_that_judged_not_by_the_newest() {
    let mut node = SimulatedNode::new();
    let mut pipeline = pipeline(&node);
    let mut later = (*node.state.snapshot()).clone();
    let pod = later.pods.get_mut(&ObjectKey::new("shop", "web")).unwrap();
    Arc::make_mut(pod).labels.insert("app".into(), "api".into());
    let mut newer = SimulatedNode::of(later, 2, 11);
    newer.state.seen_ns = i64::MAX;
    take(&mut pipeline, newer.snapshot());
    let row = only(take(&mut pipeline, batch(&[node.denied()])));
    assert_eq!((row.snapshot, row.source.labels["app"].as_str()), (1, "web"));
}

#[test]
fn address_that_changed_hands_opens_the_identity_window() {
    let mut node = SimulatedNode::new();
    let mut pipeline = pipeline(&node);
    let mut later = (*node.state.snapshot()).clone();
    later.pods.remove(&ObjectKey::new("shop", "web"));
    take(&mut pipeline, SimulatedNode::of(later, 2, 11).snapshot());
    let row = only(take(&mut pipeline, batch(&[node.denied()])));
    assert!(row.identity_window_open, "the source had said before that web is gone");
    assert_eq!(row.source.pod, "web", "told as the kernel believed");
}

#[test]
fn lost_meanings_are_said_to_be_lost() {
    let mut node = SimulatedNode::new();
    let mut event = node.denied();
    (event.attribution, event.source_owner, event.revision) = (12_345, 999, 99);
    let row = only(take(&mut pipeline(&node), batch(&[event])));
    assert_eq!((row.verdict, row.reason), (Verdict::Denied, Reason::AttributionUnknown));
    assert_eq!((row.attribution_id, row.snapshot), (AttributionId(12_345), 0));
    assert_eq!(row.source.kind, EndpointKind::UnknownOwner);
    assert!(row.near_misses.is_empty() && row.identity_window_open);
}

#[test]
fn kernels_own_reasons_blame_no_policy() {
    let mut node = SimulatedNode::new();
    let mut pipeline = pipeline(&node);
    let mut spoofed = node.denied();
    (spoofed.direction, spoofed.reason, spoofed.attribution) =
        (AbiDirection::Egress as u8, KernelReason::SpoofedSource as u8, 0);
    // pg sends with web's address.
    (spoofed.destination, spoofed.destination_owner) = (v4_mapped([192, 0, 2, 1]), 0);
    let row = only(take(&mut pipeline, batch(&[spoofed])));
    assert_eq!((row.reason, row.spoof, row.attribution.is_none()), (Reason::SpoofedSource, true, true));
    assert_eq!((row.source.pod.as_str(), row.source_ip), ("pg", "10.0.0.1".parse().unwrap()));
    assert_eq!(row.destination.kind, EndpointKind::External);

    let mut malformed = node.denied();
    (malformed.reason, malformed.attribution) = (KernelReason::Malformed as u8, 0);
    let row = only(take(&mut pipeline, batch(&[malformed])));
    assert_eq!((row.reason, row.drop_reason), (Reason::OtherDrop, Some(DropReason::Malformed)));
}

#[test]
fn address_of_a_pod_range_without_owner_is_an_unknown_pod() {
    let mut node = SimulatedNode::new();
    let mut event = node.denied();
    (event.source, event.source_owner, event.flags) = (v4_mapped([10, 0, 0, 99]), 0, flag::UNKNOWN_POD);
    let mut pipeline = pipeline(&node);
    // Held for a moment, because the pod may become known; then recorded as the kernel had it.
    assert!(
        take(&mut pipeline, batch(&[event])).is_empty() && tick(&mut pipeline, event.boot_time + SECOND).is_empty()
    );
    let row = only(tick(&mut pipeline, event.boot_time + 3 * SECOND));
    assert_eq!((row.source.kind, row.seq), (EndpointKind::UnknownPod, Some(event.seq)));
    assert!(row.identity_window_open);
    // Held events are not missing in a commit.
    let another = VerdictEvent { seq: 2, source_port: 40_001, ..event };
    assert!(take(&mut pipeline, batch(&[another])).is_empty());
    assert_eq!(only(flush(&mut pipeline)).seq, Some(2));
}

/// A state that was seen at this second, in which a pod has changed or was added.
fn seen(node: &SimulatedNode, second: i64, change: impl FnOnce(&mut Snapshot)) -> SimulatedNode {
    let mut snapshot = (*node.state.snapshot()).clone();
    change(&mut snapshot);
    let mut next = SimulatedNode::of(snapshot, node.state.number + 1, node.state.revision + 1);
    next.state.seen_ns = second * 1_000_000_000;
    next
}

fn add(snapshot: &mut Snapshot, pod: PodBuilder) {
    let pod = pod.finish();
    snapshot.pods.insert(pod.key(), Arc::new(pod));
}

#[test]
fn a_job_that_was_over_before_the_api_server_told_its_address_is_named() {
    let mut node = SimulatedNode::new();
    let mut pipeline = pipeline(&node);
    let mut event = node.denied();
    (event.source, event.source_owner, event.flags) = (v4_mapped([10, 0, 0, 99]), 0, flag::UNKNOWN_POD);
    // Its events are at 2.000001 s.
    assert!(take(&mut pipeline, batch(&[event])).is_empty());
    let job = pod("shop/job").labels(&[("app", "job")]).at(&["10.0.0.99"]).on("n").phase(Phase::Succeeded);
    let later = seen(&node, 4, |snapshot| add(snapshot, job.lived(2, Some(2))));
    let row = only(take(&mut pipeline, later.snapshot()));
    let source = &row.source;
    assert_eq!((source.kind, source.pod.as_str(), source.pod_uid.as_str()), (EndpointKind::Pod, "job", "uid-shop-job"));
    assert_eq!((source.labels["app"].as_str(), source.zone.as_str()), ("job", "z"));
    // The verdict was taken without knowing it.
    assert_eq!((row.snapshot, row.identity_window_open, row.verdict), (1, true, Verdict::Denied));
    // It is gone, and remembered: late events are named at once.
    take(
        &mut pipeline,
        seen(&later, 5, |snapshot| _ = snapshot.pods.remove(&ObjectKey::new("shop", "job"))).snapshot(),
    );
    let late = VerdictEvent { seq: 2, source_port: 40_001, ..event };
    assert_eq!(only(take(&mut pipeline, batch(&[late]))).source.pod, "job");
}

#[test]
fn address_that_had_changed_hands_before_anybody_saw_it_opens_the_identity_window() {
    let mut node = SimulatedNode::new();
    let mut pipeline = pipeline(&node);
    let event = node.denied();
    // The successor says itself that it had begun before the event at 2.000001 s; it is seen at 4 s.
    let later = seen(&node, 4, |snapshot| {
        snapshot.pods.remove(&ObjectKey::new("shop", "web"));
        add(snapshot, pod("shop/heir").at(&["10.0.0.1"]).on("n").lived(1, None));
    });
    take(&mut pipeline, later.snapshot());
    let row = only(take(&mut pipeline, batch(&[event])));
    assert_eq!((row.source.pod.as_str(), row.identity_window_open), ("web", true), "told as the kernel believed");
}

#[test]
fn each_end_of_pods_that_take_turns_on_an_address_is_the_one_that_the_kernel_had() {
    let base = SimulatedNode::new();
    let mut node = seen(&base, 1, |snapshot| _ = snapshot.pods.remove(&ObjectKey::new("shop", "web")));
    let mut pipeline = pipeline(&base);
    let mut turns = Vec::new();
    for turn in 0..50_u64 {
        let (name, begun) = (format!("job-{turn}"), 2 + turn.cast_signed());
        node = seen(&node, begun, |snapshot| {
            snapshot.pods.retain(|key, _| key.namespace == "db");
            add(snapshot, pod(&format!("shop/{name}")).at(&["10.0.0.1"]).on("n").lived(begun, None));
        });
        take(&mut pipeline, node.meanings());
        take(&mut pipeline, node.snapshot());
        let source_owner = node.owner("shop", &name);
        let boot_time = (1 + turn) * SECOND + SECOND / 2;
        turns.push(VerdictEvent { source_owner, boot_time, seq: turn + 1, ..node.denied() });
    }
    // All are read when the last of the pods is there.
    let rows = flows(take(&mut pipeline, batch(&turns)));
    let named: Vec<String> = rows.iter().map(|row| row.source.pod.clone()).collect();
    assert_eq!(named, (0..50).map(|turn| format!("job-{turn}")).collect::<Vec<_>>());
    assert_eq!(rows.iter().filter(|row| row.identity_window_open).count(), 0);
}

#[test]
fn pod_that_is_terminating_is_told_from_its_successor_by_its_interface() {
    let base = SimulatedNode::new();
    let mut node = seen(&base, 1, |snapshot| {
        let old = snapshot.pods.get_mut(&ObjectKey::new("db", "pg")).unwrap();
        Arc::make_mut(old).terminating = true;
        add(snapshot, pod("db/heir").at(&["10.0.0.2"]).on("n"));
    });
    let mut pipeline = pipeline(&base);
    take(&mut pipeline, node.meanings());
    take(&mut pipeline, node.snapshot());
    let (old, heir) = (base.owner("db", "pg"), node.owner("db", "heir"));
    assert_ne!(old, heir);
    let mut event = node.denied();
    (event.endpoint_owner, event.destination_owner) = (old, heir);
    let row = only(take(&mut pipeline, batch(&[event])));
    assert_eq!((row.destination.pod.as_str(), row.identity_window_open), ("pg", true));
}

#[test]
fn repeats_of_a_denial_become_one_row_a_cpu_with_the_exact_count() {
    let mut node = SimulatedNode::new();
    let mut pipeline = pipeline(&node);
    let mut events: Vec<_> = std::iter::repeat_with(|| node.denied()).take(5).collect();
    events.push(VerdictEvent { cpu: 1, seq: 1, ..events[4] });
    let first = only(take(&mut pipeline, batch(&events)));
    assert_eq!((first.record_type, first.seq, first.count), (RecordType::Verdict, Some(1), 1));
    let mut repeats = flows(flush(&mut pipeline));
    repeats.sort_by_key(|row| row.cpu);
    let said: Vec<_> = repeats.iter().map(|row| (row.record_type, row.cpu, row.seq, row.count, row.bytes)).collect();
    assert_eq!(
        said,
        [(RecordType::Update, Some(0), Some(5), 4, 4 * 74), (RecordType::Update, Some(1), Some(1), 1, 74)]
    );
    assert!(repeats[0].first_time < repeats[0].last_time);

    node.now += 11 * SECOND;
    let again = only(take(&mut pipeline, batch(&[node.denied()])));
    assert_eq!(again.record_type, RecordType::Verdict, "the window is over");
}

#[test]
fn restart_records_each_event_once() {
    let mut node = SimulatedNode::new();
    let events: Vec<_> = std::iter::repeat_with(|| node.denied()).take(6).collect();
    let mut first = pipeline(&node);
    let mut rows = take(&mut first, batch(&events[..3]));
    rows.extend(flush(&mut first));
    let checkpoint = serde_json::to_string(&first.checkpoint()).unwrap();
    // Dies after the log took the next batch, and before the ring's position moved and the rows were committed.
    take(&mut first, batch(&events[3..5]));

    let mut second = Pipeline::new(10 * SECOND, serde_json::from_str(&checkpoint).unwrap());
    for input in [node.meanings(), node.snapshot(), batch(&events[3..5]), Input::Session(session("b", false))] {
        rows.extend(take(&mut second, input));
    }
    rows.extend(take(&mut second, batch(&events[3..])));
    rows.extend(flush(&mut second));
    let rows = flows(rows);
    assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), 6);
    assert_eq!(rows.iter().filter_map(|row| row.seq).max(), Some(6));
    assert_eq!(second.take_tally().repeated, 2);
}

#[test]
fn another_boot_counts_anew_and_says_what_may_have_been_lost() {
    let mut node = SimulatedNode::new();
    let mut pipeline = pipeline(&node);
    take(&mut pipeline, batch(&[node.denied()]));
    let rows = take(&mut pipeline, Input::Session(session("c", true)));
    assert_eq!(gaps(&rows), [(GapCause::UncleanStop, None, None, 0)]);
    for input in [node.meanings(), node.snapshot()] {
        take(&mut pipeline, input);
    }
    node.seq = 0;
    let row = only(take(&mut pipeline, batch(&[node.denied()])));
    assert_eq!((row.seq, &*row.boot_id), (Some(1), "c"));
}

#[test]
fn what_cannot_be_read_is_counted_and_a_gap() {
    let mut node = SimulatedNode::new();
    let mut pipeline = pipeline(&node);
    let good = [node.denied(), node.denied(), node.denied(), node.denied()];
    let unknown_kind = VerdictEvent { kind: 77, ..good[1] };
    let bad_code = VerdictEvent { verdict: 9, ..good[3] };
    let mut rows = take(&mut pipeline, batch(&[good[0], unknown_kind, good[2], bad_code]));
    rows.extend(flush(&mut pipeline));
    assert_eq!(gaps(&rows), [(GapCause::Unreadable, Some(2), Some(4), 2)]);
    let tally = pipeline.take_tally();
    assert_eq!((tally.unreadable["kind"], tally.unreadable["code"], tally.events["denied"]), (1, 1, 2));
    assert_eq!(tally.refusals.len(), 2);
}

#[test]
fn batch_that_is_cut_off_costs_only_what_is_missing() {
    let mut node = SimulatedNode::new();
    let mut pipeline = pipeline(&node);
    let Input::Ring(mut cut) = batch(&[node.denied(), node.denied()]) else { unreachable!("a batch") };
    cut.bytes.truncate(150);
    take(&mut pipeline, Input::Ring(cut));
    take(&mut pipeline, batch(&[node.denied()]));
    assert_eq!(gaps(&flush(&mut pipeline)), [(GapCause::Unreadable, Some(2), Some(2), 1)]);
}

#[test]
fn losses_are_put_down_to_their_cause() {
    let mut node = SimulatedNode::new();
    let mut pipeline = pipeline(&node);
    take(&mut pipeline, batch(&[node.denied()]));
    take(&mut pipeline, Input::GapCause(GapCause::DiskFull));
    node.seq = 4;
    take(&mut pipeline, batch(&[node.denied()]));
    take(&mut pipeline, Input::GapCause(GapCause::RingFull));
    take(&mut pipeline, Input::Counted(vec![KernelCount { lane: LaneName::Denied, cpu: 0, seq: 7 }]));
    let found = gaps(&flush(&mut pipeline));
    assert_eq!(found, [(GapCause::RingFull, Some(6), Some(7), 2), (GapCause::DiskFull, Some(2), Some(4), 3)]);
}

#[test]
fn snapshots_are_forgotten_once_the_rings_were_seen_empty_behind_them() {
    let node = SimulatedNode::new();
    let mut pipeline = pipeline(&node);
    assert_eq!(pipeline.low_watermark(), 0);
    let mut announced = node.state.clone();
    (announced.number, announced.revision) = (2, 0);
    take(&mut pipeline, Input::Snapshot(Arc::new(announced)));
    take(&mut pipeline, Input::Published { number: 2, revision: 11 });
    assert_eq!(pipeline.forget_snapshots_before(pipeline.low_watermark()), None);
    take(&mut pipeline, Input::Counted(Vec::new()));
    assert_eq!(pipeline.forget_snapshots_before(pipeline.low_watermark()), Some(1));
}

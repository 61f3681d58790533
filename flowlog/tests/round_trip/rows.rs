//! Rows for tests: any that the types allow, and some that look like a cluster's.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use chrono::{DateTime, TimeDelta, Utc};
use netverdict_flowlog::{
    Table,
    row::{
        AttributionRow, AttributionValue, ChangeHead, ChangeKind, CollectorRow, CollectorState, DispositionName,
        DropReason, EndpointChangeRow, EndpointKind, EndpointRow, FlowRow, GapCause, GapRow, LaneName, Method,
        ModeName, NamespaceRow, PolicyRow, Receiver, RecordType, Reporter, Row, ServiceRow, SettingRow, SnapshotRow,
    },
};
use netverdict_policy::{
    AttributionId, Confidence, Decision, Direction, FailedDimension, NearMiss, Reason, Reference, Role, Verdict,
    model::{Action, PolicyKey, Tier},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z]{1,8}", "\\PC{0,12}"]
}

fn shared() -> impl Strategy<Value = Arc<str>> {
    "[a-z]{1,8}".prop_map(Arc::from)
}

fn map() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map(text(), text(), 0..4)
}

fn time() -> impl Strategy<Value = DateTime<Utc>> {
    (-60_000_000_000_000_000_i64..200_000_000_000_000_000)
        .prop_map(|micros| DateTime::from_timestamp_micros(micros).unwrap())
}

/// As large as a column holds.
fn count() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 0..100u64, Just(i64::MAX.cast_unsigned())]
}

fn index() -> impl Strategy<Value = u32> {
    prop_oneof![0..100u32, Just(i32::MAX.cast_unsigned())]
}

fn port() -> impl Strategy<Value = u16> {
    any::<u16>()
}

fn address() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>()
}

fn word<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    select(all)
}

fn policy_key() -> impl Strategy<Value = PolicyKey> {
    (text(), text(), text()).prop_map(|(kind, namespace, name)| PolicyKey { kind, namespace, name })
}

fn tier() -> impl Strategy<Value = Tier> {
    select(vec![Tier::Admin, Tier::NetworkPolicy, Tier::Baseline])
}

fn reference() -> impl Strategy<Value = Reference> {
    let action = option::of(select(vec![Action::Accept, Action::Deny, Action::Pass]));
    (word(Role::ALL), policy_key(), text(), any::<i64>(), text(), tier(), option::of(index()), text(), action).prop_map(
        |(role, policy, uid, generation, content_hash, tier, rule_index, rule_name, action)| Reference {
            role,
            policy,
            uid,
            generation,
            content_hash,
            tier,
            rule_index,
            rule_name,
            action,
        },
    )
}

fn near_miss() -> impl Strategy<Value = NearMiss> {
    (policy_key(), option::of(index()), word(FailedDimension::ALL), text())
        .prop_map(|(policy, rule_index, failed, detail)| NearMiss { policy, rule_index, failed, detail })
}

fn decision() -> impl Strategy<Value = Decision> {
    let enforced = option::of(word(Verdict::ALL));
    (word(Verdict::ALL), enforced, word(Reason::ALL), option::of(tier()), word(Confidence::ALL), vec(reference(), 0..3))
        .prop_map(|(verdict, verdict_if_enforced, reason, tier, confidence, references)| Decision {
            verdict,
            verdict_if_enforced,
            reason,
            tier,
            confidence,
            references,
        })
}

fn attribution() -> impl Strategy<Value = Arc<AttributionValue>> {
    (1..=i64::MAX.cast_unsigned(), decision())
        .prop_map(|(id, decision)| Arc::new(AttributionValue { id: AttributionId(id), decision }))
}

fn endpoint() -> impl Strategy<Value = Arc<EndpointRow>> {
    (word(EndpointKind::ALL), proptest::array::uniform12(text()), map(), any::<u32>()).prop_map(
        |(kind, texts, labels, identity)| {
            let [
                namespace,
                pod,
                pod_uid,
                workload_kind,
                workload,
                service_account,
                node,
                zone,
                service,
                service_port,
                hostname,
                hostname_source,
            ] = texts;
            Arc::new(EndpointRow {
                kind,
                namespace,
                pod,
                pod_uid,
                workload_kind,
                workload,
                service_account,
                node,
                zone,
                service,
                service_port,
                labels,
                identity,
                hostname,
                hostname_source,
            })
        },
    )
}

/// Any row whose attribution agrees with the other columns.
pub(crate) fn flow() -> impl Strategy<Value = Row> {
    let ring = option::of((word(LaneName::ALL), index(), count()));
    let record =
        (word(RecordType::ALL), shared(), shared(), ring, option::of(shared()), time(), time(), word(Receiver::ALL));
    let ends = (address(), address(), port(), port(), option::of((address(), port())), option::of((address(), port())));
    let numbers = any::<[u8; 5]>();
    let decided = (
        decision(),
        option::of(1..=i64::MAX.cast_unsigned()),
        word(DispositionName::ALL),
        word(ModeName::ALL),
        option::of(word(DropReason::ALL)),
        word(Method::ALL),
        vec(near_miss(), 0..3),
        option::of(shared()),
    );
    let rest = (
        endpoint(),
        endpoint(),
        (count(), count(), count(), count(), count()),
        (time(), time()),
        any::<[bool; 3]>(),
        select(vec![Direction::Egress, Direction::Ingress]),
        word(Reporter::ALL),
        count(),
    );
    (record, ends, numbers, decided, rest).prop_map(|(record, ends, numbers, decided, rest)| {
        let (record_type, node, boot_id, ring, cursor, time, ingest_time, receiver) = record;
        let (lane, (cpu, seq)) = (ring.map(|ring| ring.0), ring.map(|ring| (ring.1, ring.2)).unzip());
        let (source_ip, destination_ip, source_port, destination_port, original_destination, translated_source) = ends;
        let [family, protocol, tcp_flags, icmp_type, icmp_code] = numbers;
        let (decision, id, disposition, mode, drop_reason, method, near_misses, reported_by) = decided;
        let (source, destination, volume, (first_time, last_time), trust, direction, reporter, snapshot) = rest;
        let (packets, bytes, reply_packets, reply_bytes, count) = volume;
        let attribution_id = AttributionId(id.unwrap_or(0));
        let row = FlowRow {
            record_type,
            node,
            boot_id,
            lane,
            cpu,
            seq,
            cursor,
            time,
            ingest_time,
            receiver,
            direction,
            reporter,
            family,
            source_ip,
            destination_ip,
            source_port,
            destination_port,
            protocol,
            tcp_flags,
            icmp_type,
            icmp_code,
            original_destination_ip: original_destination.map(|(address, _)| address),
            original_destination_port: original_destination.map(|(_, port)| port),
            translated_source_ip: translated_source.map(|(address, _)| address),
            translated_source_port: translated_source.map(|(_, port)| port),
            verdict: decision.verdict,
            verdict_if_enforced: decision.verdict_if_enforced,
            disposition,
            mode,
            reason: decision.reason,
            drop_reason,
            method,
            confidence: decision.confidence,
            attribution: id.map(|_| Arc::new(AttributionValue { id: attribution_id, decision })),
            attribution_id,
            near_misses: near_misses.into(),
            snapshot,
            reported_by,
            source,
            destination,
            packets,
            bytes,
            reply_packets,
            reply_bytes,
            count,
            first_time,
            last_time,
            identity_window_open: trust[0],
            spoof: trust[1],
            ..FlowRow::default()
        };
        Row::Flow(Box::new(FlowRow { divergence: trust[2], ..row }))
    })
}

fn head() -> impl Strategy<Value = ChangeHead> {
    (word(ChangeKind::ALL), time(), count(), shared(), shared())
        .prop_map(|(change, time, snapshot, node, boot_id)| ChangeHead { change, time, snapshot, node, boot_id })
}

pub(crate) fn policy() -> impl Strategy<Value = Row> {
    let times = proptest::array::uniform2(option::of(time()));
    (head(), proptest::array::uniform10(text()), any::<i64>(), times).prop_map(|(head, texts, generation, times)| {
        let [api_version, kind, namespace, name, uid, resource_version, content_hash, text, author, origin] = texts;
        let [changed_time, created_time] = times;
        Row::Policy(Box::new(PolicyRow {
            head,
            api_version,
            kind,
            namespace,
            name,
            uid,
            generation,
            resource_version,
            content_hash,
            text,
            author,
            changed_time,
            created_time,
            origin,
        }))
    })
}

pub(crate) fn endpoint_change() -> impl Strategy<Value = Row> {
    let lists = (map(), vec(address(), 0..3), vec(text(), 0..3));
    let lived = (any::<[bool; 2]>(), proptest::array::uniform2(option::of(time())));
    (head(), word(EndpointKind::ALL), proptest::array::uniform9(text()), any::<u32>(), lists, lived).prop_map(
        |(head, kind, texts, owner_id, (labels, addresses, pod_ranges), lived)| {
            let ([host_network, terminating], [started_time, ended_time]) = lived;
            let [namespace, name, uid, node_name, container_ports, service_account, workload_kind, workload, phase] =
                texts;
            Row::Endpoint(Box::new(EndpointChangeRow {
                head,
                kind,
                namespace,
                name,
                uid,
                owner_id,
                labels,
                addresses,
                node_name,
                host_network,
                container_ports,
                service_account,
                workload_kind,
                workload,
                phase,
                terminating,
                started_time,
                ended_time,
                pod_ranges,
            }))
        },
    )
}

pub(crate) fn namespace() -> impl Strategy<Value = Row> {
    (head(), text(), text(), map(), any::<bool>()).prop_map(|(head, name, uid, labels, audit)| {
        Row::Namespace(Box::new(NamespaceRow { head, name, uid, labels, audit }))
    })
}

pub(crate) fn service() -> impl Strategy<Value = Row> {
    (head(), proptest::array::uniform4(text()), vec(address(), 0..3), map()).prop_map(
        |(head, [namespace, name, uid, ports], addresses, selector)| {
            Row::Service(Box::new(ServiceRow { head, namespace, name, uid, addresses, ports, selector }))
        },
    )
}

pub(crate) fn attribution_row() -> impl Strategy<Value = Row> {
    (time(), shared(), attribution())
        .prop_map(|(time, node, attribution)| Row::Attribution(Box::new(AttributionRow { time, node, attribution })))
}

pub(crate) fn snapshot() -> impl Strategy<Value = Row> {
    (time(), shared(), shared(), proptest::array::uniform6(count()), any::<bool>()).prop_map(
        |(time, node, boot_id, [snapshot, revision, policies, pods, namespaces, errors], audit_all)| {
            Row::Snapshot(Box::new(SnapshotRow {
                time,
                node,
                boot_id,
                snapshot,
                revision,
                policies,
                pods,
                namespaces,
                audit_all,
                errors,
            }))
        },
    )
}

pub(crate) fn gap() -> impl Strategy<Value = Row> {
    let place = (shared(), shared(), option::of(word(LaneName::ALL)), option::of(index()), text());
    let what = (word(GapCause::ALL), option::of(count()), option::of(count()), count(), option::of(count()));
    (place, what, time(), time(), text()).prop_map(|(place, what, from, to, detail)| {
        let (node, boot_id, lane, cpu, endpoint) = place;
        let (cause, first_seq, last_seq, lost_events, lost_packets) = what;
        Row::Gap(Box::new(GapRow {
            node,
            boot_id,
            lane,
            cpu,
            endpoint,
            cause,
            first_seq,
            last_seq,
            lost_events,
            lost_packets,
            from,
            to,
            detail,
        }))
    })
}

pub(crate) fn collector() -> impl Strategy<Value = Row> {
    let last_seq = proptest::collection::btree_map("(denied|flow)/[0-9]", any::<i64>(), 0..4);
    let state = word(CollectorState::ALL);
    (time(), shared(), shared(), state, text(), word(ModeName::ALL), last_seq, count(), count()).prop_map(
        |(time, node, boot_id, state, version, mode, last_seq, lost_events, endpoints)| {
            Row::Collector(Box::new(CollectorRow {
                time,
                node,
                boot_id,
                state,
                version,
                mode,
                last_seq,
                lost_events,
                endpoints,
            }))
        },
    )
}

pub(crate) fn setting() -> impl Strategy<Value = Row> {
    (time(), shared(), text(), text())
        .prop_map(|(time, node, name, value)| Row::Setting(Box::new(SettingRow { time, node, name, value })))
}

/// A cluster of 200 pods that talk to each other in a minute, under 50 decisions.
pub(crate) fn many_flows(count: u64) -> Vec<Row> {
    let begin: DateTime<Utc> = "2026-11-19T08:30:00Z".parse().unwrap();
    let (node, boot_id): (Arc<str>, Arc<str>) = ("node-1".into(), "3f2b8c1e-5a77-4d09-9b1c-0123456789ab".into());
    let pods: Vec<_> = (0..200).map(|number| Arc::new(pod(number))).collect();
    let attributions: Vec<_> = (0..50).map(|number| Arc::new(default_deny(number))).collect();
    let near: Vec<Arc<[NearMiss]>> = (0..50).map(|number| vec![missed(number)].into()).collect();
    let mut random = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |bound: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    let mut pick = |bound: usize| usize::try_from(next(bound as u64)).unwrap();
    let row = |seq| {
        let (from, to, why) = (pick(200), pick(200), pick(50));
        let time = begin + TimeDelta::microseconds(i64::try_from(seq).unwrap() * 300);
        let attribution = attributions[why].clone();
        Row::Flow(Box::new(FlowRow {
            record_type: if seq % 5 < 2 { RecordType::Close } else { RecordType::Verdict },
            node: node.clone(),
            boot_id: boot_id.clone(),
            lane: Some(LaneName::Denied),
            cpu: Some(u32::try_from(seq % 4).unwrap()),
            seq: Some(seq / 4),
            cursor: None,
            time,
            ingest_time: begin,
            receiver: Receiver::Ring,
            direction: Direction::Ingress,
            reporter: Reporter::Destination,
            family: 4,
            source_ip: ip(from),
            destination_ip: ip(to),
            source_port: u16::try_from(32_768 + pick(28_000)).unwrap(),
            destination_port: [80, 443, 5432, 8080][pick(4)],
            protocol: 6,
            tcp_flags: 2,
            icmp_type: 0,
            icmp_code: 0,
            verdict: Verdict::Denied,
            verdict_if_enforced: None,
            disposition: DispositionName::Dropped,
            mode: ModeName::Enforce,
            reason: Reason::IsolatedNoMatch,
            drop_reason: None,
            method: Method::Enforced,
            confidence: Confidence::Exact,
            attribution_id: attribution.id,
            attribution: Some(attribution),
            near_misses: near[why].clone(),
            snapshot: 12,
            reported_by: None,
            source: pods[from].clone(),
            destination: pods[to].clone(),
            packets: 1 + pick(40) as u64,
            bytes: 60 + pick(60_000) as u64,
            reply_packets: 0,
            reply_bytes: 0,
            count: 1,
            first_time: time,
            last_time: time,
            ..FlowRow::default()
        }))
    };
    (0..count).map(row).collect()
}

fn ip(pod: usize) -> IpAddr {
    [10, 0, u8::try_from(pod / 100).unwrap(), u8::try_from(pod % 100 + 1).unwrap()].into()
}

fn pod(number: usize) -> EndpointRow {
    let app = format!("app-{}", number % 20);
    EndpointRow {
        kind: EndpointKind::Pod,
        namespace: format!("team-{}", number % 7),
        pod: format!("{app}-{number:05}"),
        pod_uid: format!("5f0c2a9e-0000-4000-8000-{number:012}"),
        workload_kind: "Deployment".into(),
        workload: app.clone(),
        service_account: "default".into(),
        node: "node-1".into(),
        zone: "zone-a".into(),
        service: String::new(),
        service_port: String::new(),
        labels: BTreeMap::from([("app".into(), app), ("tier".into(), "backend".into())]),
        identity: u32::try_from(number % 20).unwrap(),
        hostname: String::new(),
        hostname_source: String::new(),
    }
}

fn default_deny(number: u64) -> AttributionValue {
    AttributionValue {
        id: AttributionId(number * 0x0123_4567_89AB_CDEF % i64::MAX.cast_unsigned() + 1),
        decision: Decision {
            verdict: Verdict::Denied,
            verdict_if_enforced: None,
            reason: Reason::IsolatedNoMatch,
            tier: Some(Tier::NetworkPolicy),
            confidence: Confidence::Exact,
            references: vec![Reference {
                role: Role::Isolating,
                policy: key(number),
                uid: format!("7b1c2a9e-0000-4000-8000-{number:012}"),
                generation: 1,
                content_hash: format!("{number:064x}"),
                tier: Tier::NetworkPolicy,
                rule_index: None,
                rule_name: String::new(),
                action: None,
            }],
        },
    }
}

fn missed(number: u64) -> NearMiss {
    let detail = format!("pod label app=app-{number} is not app=api");
    NearMiss { policy: key(number), rule_index: Some(0), failed: FailedDimension::Peer, detail }
}

fn key(number: u64) -> PolicyKey {
    let (kind, name) = ("NetworkPolicy".to_owned(), format!("default-deny-{number}"));
    PolicyKey { kind, namespace: format!("team-{}", number % 7), name }
}

/// Some rows of every table: all but flows any that the types allow, the same ones each time.
pub(crate) fn samples() -> Vec<(Table, Vec<Row>)> {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    fn take(runner: &mut TestRunner, row: impl Strategy<Value = Row>) -> Vec<Row> {
        (0..20).map(|_| row.new_tree(runner).unwrap().current()).collect()
    }
    let runner = &mut TestRunner::deterministic();
    vec![
        (Table::Flows, many_flows(1_000)),
        (Table::Policies, take(runner, policy())),
        (Table::Endpoints, take(runner, endpoint_change())),
        (Table::Namespaces, take(runner, namespace())),
        (Table::Services, take(runner, service())),
        (Table::Attributions, take(runner, attribution_row())),
        (Table::Snapshots, take(runner, snapshot())),
        (Table::Gaps, take(runner, gap())),
        (Table::Collectors, take(runner, collector())),
        (Table::Settings, take(runner, setting())),
    ]
}

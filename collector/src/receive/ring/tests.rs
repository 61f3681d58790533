use netverdict_abi::{Verdict as AbiVerdict, address::v4_mapped};
use zerocopy::IntoBytes;

use super::*;

fn denied() -> VerdictEvent {
    VerdictEvent {
        kind: EventKind::Verdict as u8,
        abi_version: ABI_VERSION,
        lane: Lane::Denied as u8,
        direction: AbiDirection::Ingress as u8,
        cpu: 3,
        seq: 7,
        source: v4_mapped([10, 0, 0, 1]),
        destination: v4_mapped([10, 0, 0, 2]),
        family: 4,
        protocol: 6,
        destination_port: 80,
        verdict: AbiVerdict::Denied as u8,
        disposition: Disposition::Dropped as u8,
        mode: Mode::Enforce as u8,
        ..VerdictEvent::default()
    }
}

fn reason_of(decider: &Decider) -> ReasonSource {
    match decider {
        Decider::Tables { reason, .. } => *reason,
        Decider::Reported(report) => panic!("reported by another system: {report:?}"),
    }
}

fn read(change: impl FnOnce(&mut VerdictEvent)) -> Result<Observation, Unreadable> {
    let mut written = denied();
    change(&mut written);
    observation(LaneName::Denied, 0, written.as_bytes())
}

#[test]
fn event_says_in_our_words_what_the_kernel_wrote() {
    let Observation { origin, flow, outcome, decider, .. } = read(|_| {}).unwrap();
    let event = EventId { lane: LaneName::Denied, cpu: 3, seq: 7 };
    assert_eq!(origin, Origin::Probe { event, boot_time: 0 });
    assert_eq!((flow.source, flow.destination), ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()));
    assert_eq!((outcome.verdict, outcome.disposition), (Verdict::Denied, DispositionName::Dropped));
    assert_eq!(outcome.mode, ModeName::Enforce);
    assert_eq!(reason_of(&decider), ReasonSource::Attribution);
}

#[test]
fn unknown_kinds_and_versions_are_refused_without_a_guess() {
    assert_eq!(read(|event| event.kind = 9), Err(Unreadable::Kind { found: 9 }));
    let other = ABI_VERSION + 1;
    assert_eq!(read(|event| event.abi_version = other), Err(Unreadable::Version { found: other }));
    assert_eq!(observation(LaneName::Denied, 0, &[1]), Err(Unreadable::Headless { found: 1 }));
    assert_eq!(observation(LaneName::Denied, 0, &denied().as_bytes()[..100]), Err(Unreadable::Length { found: 100 }));
}

#[test]
fn value_outside_its_list_is_refused_by_field_and_number() {
    let event = EventId { lane: LaneName::Denied, cpu: 3, seq: 7 };
    let refused = |field, found| Err(Unreadable::Code { field, found, event });
    assert_eq!(read(|event| event.verdict = 0), refused("verdict", 0));
    assert_eq!(read(|event| event.direction = 2), refused("direction", 2));
    assert_eq!(read(|event| event.disposition = 9), refused("disposition", 9));
    assert_eq!(read(|event| event.reason = 200), refused("reason", 200));
    assert_eq!(read(|event| event.mode = 3), refused("mode", 3));
    assert_eq!(read(|event| event.family = 5), refused("family", 5));
    let other = read(|event| event.lane = Lane::Flow as u8).unwrap_err();
    assert_eq!(other.event(), Some(event));
}

#[test]
fn every_kernel_reason_has_a_word() {
    for reason in KernelReason::ALL {
        let read = read(|event| event.reason = *reason as u8).unwrap();
        assert_eq!(
            reason_of(&read.decider) == ReasonSource::Attribution,
            *reason == KernelReason::ByPolicy,
            "{reason:?}"
        );
    }
}

#[test]
fn arbitrary_bytes_never_panic() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for length in 0..400 {
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed.to_be_bytes()[0]
        })
        .take(length)
        .collect();
        let _ = observation(LaneName::Flow, 0, &bytes);
        let batch = RingBatch { lane: LaneName::Flow, ingest_ns: 0, offset_ns: 0, bytes };
        assert!(observations(&batch).count() <= length + 1);
    }
}

//! Records of the probe's rings → observations. The only place in the collector that knows the layout of an event.
//!
//! A record that cannot be read is refused with a reason, never guessed at; where its head could be read, the refusal
//! says which event it was, so that the gap can be exact.

use std::net::{IpAddr, Ipv6Addr};

use netverdict_abi::{
    ABI_VERSION, Direction as AbiDirection, Disposition, EventKind, KernelReason, Lane, Mode, Verdict as AbiVerdict,
    VerdictEvent, event::flag,
};
use netverdict_flowlog::row::{DispositionName, DropReason, LaneName, ModeName, RecordType};
use netverdict_policy::{AttributionId, Direction, Reason, Verdict, tables::OwnerId};
use netverdict_probe::Batch;
use thiserror::Error;
use zerocopy::FromBytes;

use crate::{
    batch::RingBatch,
    clock, codes,
    observation::{Decider, Ends, EventId, FlowTuple, Observation, Origin, Outcome, OwnerEnds, ReasonSource, Volume},
};

/// Why a record was not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unreadable {
    #[error("record of {found} bytes is too short to have a kind and a version")]
    Headless { found: usize },
    #[error("event is of ABI version {found}, expected {ABI_VERSION}: start a collector of the probe's version")]
    Version { found: u8 },
    #[error("event kind {found} is not known")]
    Kind { found: u8 },
    #[error("event has {found} bytes, expected {}", size_of::<VerdictEvent>())]
    Length { found: usize },
    #[error("event field {field} holds {found}, which is not in its list")]
    Code { field: &'static str, found: u8, event: EventId },
    #[error("event says lane {found:?} in the ring of lane {expected:?}")]
    Lane { expected: LaneName, found: LaneName, event: EventId },
    #[error("batch ends inside a record at byte {offset}")]
    Truncated { offset: usize },
}

impl Unreadable {
    /// Which event it was, if that could be read.
    pub fn event(&self) -> Option<EventId> {
        match self {
            Self::Code { event, .. } | Self::Lane { event, .. } => Some(*event),
            Self::Headless { .. }
            | Self::Version { .. }
            | Self::Kind { .. }
            | Self::Length { .. }
            | Self::Truncated { .. } => None,
        }
    }

    /// Label of the metric: a closed list.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Headless { .. } | Self::Length { .. } => "length",
            Self::Version { .. } => "version",
            Self::Kind { .. } => "kind",
            Self::Code { .. } => "code",
            Self::Lane { .. } => "lane",
            Self::Truncated { .. } => "truncated",
        }
    }
}

/// Reads the records of a batch. After [`Unreadable::Truncated`] nothing follows.
pub fn observations(batch: &RingBatch) -> impl Iterator<Item = Result<Observation, Unreadable>> + '_ {
    Batch::records_of(&batch.bytes).map(move |record| match record {
        Ok(record) => observation(batch.lane, batch.offset_ns, record),
        Err(cut) => Err(Unreadable::Truncated { offset: cut.offset }),
    })
}

/// Reads one record of a ring. `offset_ns`: difference between a time since 1970 and a time since boot.
fn observation(lane: LaneName, offset_ns: i64, record: &[u8]) -> Result<Observation, Unreadable> {
    let [kind, version, ..] = *record else { return Err(Unreadable::Headless { found: record.len() }) };
    if version != ABI_VERSION {
        return Err(Unreadable::Version { found: version });
    }
    match EventKind::try_from(kind) {
        Ok(EventKind::Verdict) => {}
        Err(found) => return Err(Unreadable::Kind { found }),
    }
    let event = VerdictEvent::read_from_bytes(record).map_err(|_| Unreadable::Length { found: record.len() })?;
    verdict(lane, offset_ns, &event)
}

fn verdict(lane: LaneName, offset_ns: i64, event: &VerdictEvent) -> Result<Observation, Unreadable> {
    let id = EventId { lane, cpu: event.cpu, seq: event.seq };
    let code = |field| move |found| Unreadable::Code { field, found, event: id };
    let found = codes::lane_name(Lane::try_from(event.lane).map_err(code("lane"))?);
    if found != lane {
        return Err(Unreadable::Lane { expected: lane, found, event: id });
    }
    let (source, destination) = (address(event.source), address(event.destination));
    let time_ns = clock::event_ns(event.boot_time, offset_ns);
    Ok(Observation {
        origin: Origin::Probe { event: id, boot_time: event.boot_time },
        record_type: RecordType::Verdict,
        first_ns: time_ns,
        last_ns: time_ns,
        flow: FlowTuple {
            direction: match AbiDirection::try_from(event.direction).map_err(code("direction"))? {
                AbiDirection::Egress => Direction::Egress,
                AbiDirection::Ingress => Direction::Ingress,
            },
            source,
            destination,
            source_port: event.source_port,
            destination_port: event.destination_port,
            protocol: event.protocol,
            family: match event.family {
                family @ (4 | 6) => family,
                // The packet's header could not be read: its addresses are unspecified ones of IPv6.
                0 if source.is_ipv4() => 4,
                0 => 6,
                found => return Err(code("family")(found)),
            },
            original_destination: translated(event.original_destination, event.original_destination_port),
            translated_source: translated(event.translated_source, event.translated_source_port),
            tcp_flags: event.tcp_flags,
            icmp_type: event.icmp_type,
            icmp_code: event.icmp_code,
            fragment: event.flags & flag::FRAGMENT != 0,
        },
        outcome: Outcome {
            verdict: match AbiVerdict::try_from(event.verdict).map_err(code("verdict"))? {
                AbiVerdict::Allowed => Verdict::Allowed,
                AbiVerdict::Denied => Verdict::Denied,
                AbiVerdict::Unknown => Verdict::Unknown,
            },
            disposition: match Disposition::try_from(event.disposition).map_err(code("disposition"))? {
                Disposition::Forwarded => DispositionName::Forwarded,
                Disposition::Dropped => DispositionName::Dropped,
            },
            mode: match Mode::try_from(event.mode).map_err(code("mode"))? {
                Mode::Observe => ModeName::Observe,
                Mode::Audit => ModeName::Audit,
                Mode::Enforce => ModeName::Enforce,
            },
        },
        volume: Volume { packets: 1, bytes: u64::from(event.length), reply_packets: 0, reply_bytes: 0, count: 1 },
        ends: Ends::Owners(OwnerEnds {
            source: OwnerId(event.source_owner),
            destination: OwnerId(event.destination_owner),
            endpoint: OwnerId(event.endpoint_owner),
            interface: event.ifindex,
            unknown_pod: event.flags & flag::UNKNOWN_POD != 0,
        }),
        decider: Decider::Tables {
            attribution: AttributionId(event.attribution),
            revision: event.revision,
            reason: reason(KernelReason::try_from(event.reason).map_err(code("reason"))?),
        },
    })
}

const fn reason(reason: KernelReason) -> ReasonSource {
    match reason {
        KernelReason::ByPolicy => ReasonSource::Attribution,
        KernelReason::SpoofedSource => ReasonSource::Kernel { reason: Reason::SpoofedSource, drop: None },
        KernelReason::PolicyNotReady => ReasonSource::Kernel { reason: Reason::PolicyNotReady, drop: None },
        KernelReason::ServiceNotResolved => ReasonSource::Kernel { reason: Reason::ServiceNotResolved, drop: None },
        KernelReason::SelfTraffic => ReasonSource::Kernel { reason: Reason::SelfTraffic, drop: None },
        KernelReason::EstablishedStale => ReasonSource::Kernel { reason: Reason::EstablishedStale, drop: None },
        KernelReason::Midstream => ReasonSource::Kernel { reason: Reason::Midstream, drop: None },
        KernelReason::Malformed => {
            ReasonSource::Kernel { reason: Reason::OtherDrop, drop: Some(DropReason::Malformed) }
        }
        KernelReason::ShortFragment => {
            ReasonSource::Kernel { reason: Reason::OtherDrop, drop: Some(DropReason::ShortFragment) }
        }
    }
}

/// An end before or behind its translation; `None` where there was none.
fn translated(bytes: netverdict_abi::address::Address, port: u16) -> Option<(IpAddr, u16)> {
    (bytes != netverdict_abi::address::UNSPECIFIED).then(|| (address(bytes), port))
}

fn address(bytes: netverdict_abi::address::Address) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

#[cfg(test)]
mod tests;

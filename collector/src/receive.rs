//! Ring bytes → the engine's words. The only place in the collector that knows how an event is laid out.
//!
//! A record that cannot be read is refused with a reason, never guessed at; where its head could be read, the refusal
//! says which event it was, so that the gap can be exact. It does not know policies, pods or files.

use std::net::{IpAddr, Ipv6Addr};

use netverdict_abi::{
    ABI_VERSION, Direction as AbiDirection, Disposition, EventKind, KernelReason, Lane, Mode, Verdict as AbiVerdict,
    VerdictEvent, event::flag,
};
use netverdict_flowlog::row::{DispositionName, DropReason, LaneName, ModeName};
use netverdict_policy::{AttributionId, Direction, Reason, Verdict, tables::OwnerId};
use netverdict_probe::Batch;
use thiserror::Error;
use zerocopy::FromBytes;

/// One judged packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub place: Place,
    /// Nanoseconds since boot, suspended time included.
    pub boot_time: u64,
    /// The kernel's revision when it judged.
    pub revision: u64,
    /// 0 where `cause` alone says why.
    pub attribution: AttributionId,
    pub direction: Direction,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub source_owner: OwnerId,
    pub destination_owner: OwnerId,
    /// The pod whose interface judged; nobody while its tables were not complete.
    pub endpoint_owner: OwnerId,
    pub interface: u32,
    /// 0 where the protocol has none, or in a fragment whose ports are not known.
    pub source_port: u16,
    pub destination_port: u16,
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    pub tcp_flags: u8,
    pub icmp_type: u8,
    pub icmp_code: u8,
    pub verdict: Verdict,
    pub disposition: DispositionName,
    pub cause: Cause,
    pub mode: ModeName,
    /// A fragment other than the first.
    pub fragment: bool,
    /// The peer's address lies in a pod range and no pod was known to own it.
    pub unknown_pod: bool,
    /// Bytes of the packet, link layer included.
    pub length: u32,
}

/// Which event it is within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub lane: LaneName,
    pub cpu: u32,
    /// As the kernel counts: from 1 since its counters were made.
    pub seq: u64,
}

/// Where the reason comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The attribution's decision holds the reason.
    Policy,
    /// Only the kernel can know it. `drop` where it is no matter of policy.
    Kernel { reason: Reason, drop: Option<DropReason> },
}

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
    Code { field: &'static str, found: u8, place: Place },
    #[error("event says lane {found:?} in the ring of lane {expected:?}")]
    Lane { expected: LaneName, found: LaneName, place: Place },
    #[error("batch ends inside a record at byte {offset}")]
    Truncated { offset: usize },
}

impl Unreadable {
    /// Which event it was, if that could be read.
    pub fn place(&self) -> Option<Place> {
        match self {
            Self::Code { place, .. } | Self::Lane { place, .. } => Some(*place),
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

/// Walks the records of a batch. After [`Unreadable::Truncated`] nothing follows.
pub fn events(lane: LaneName, bytes: &[u8]) -> impl Iterator<Item = Result<Judged, Unreadable>> + '_ {
    Batch::records_of(bytes).map(move |record| match record {
        Ok(record) => event(lane, record),
        Err(cut) => Err(Unreadable::Truncated { offset: cut.offset }),
    })
}

/// Reads one record of a ring.
pub fn event(lane: LaneName, record: &[u8]) -> Result<Judged, Unreadable> {
    let [kind, version, ..] = *record else { return Err(Unreadable::Headless { found: record.len() }) };
    if version != ABI_VERSION {
        return Err(Unreadable::Version { found: version });
    }
    match EventKind::try_from(kind) {
        Ok(EventKind::Verdict) => {}
        Err(found) => return Err(Unreadable::Kind { found }),
    }
    let event = VerdictEvent::read_from_bytes(record).map_err(|_| Unreadable::Length { found: record.len() })?;
    verdict(lane, &event)
}

fn verdict(lane: LaneName, event: &VerdictEvent) -> Result<Judged, Unreadable> {
    let place = Place { lane, cpu: event.cpu, seq: event.seq };
    let code = |field| move |found| Unreadable::Code { field, found, place };
    let found = lane_name(Lane::try_from(event.lane).map_err(code("lane"))?);
    if found != lane {
        return Err(Unreadable::Lane { expected: lane, found, place });
    }
    if !matches!(event.family, 0 | 4 | 6) {
        return Err(code("family")(event.family));
    }
    Ok(Judged {
        place,
        boot_time: event.boot_time,
        revision: event.revision,
        attribution: AttributionId(event.attribution),
        direction: match AbiDirection::try_from(event.direction).map_err(code("direction"))? {
            AbiDirection::Egress => Direction::Egress,
            AbiDirection::Ingress => Direction::Ingress,
        },
        source: address(event.source),
        destination: address(event.destination),
        source_owner: OwnerId(event.source_owner),
        destination_owner: OwnerId(event.destination_owner),
        endpoint_owner: OwnerId(event.endpoint_owner),
        interface: event.ifindex,
        source_port: event.source_port,
        destination_port: event.destination_port,
        protocol: event.protocol,
        family: event.family,
        tcp_flags: event.tcp_flags,
        icmp_type: event.icmp_type,
        icmp_code: event.icmp_code,
        verdict: match AbiVerdict::try_from(event.verdict).map_err(code("verdict"))? {
            AbiVerdict::Allowed => Verdict::Allowed,
            AbiVerdict::Denied => Verdict::Denied,
            AbiVerdict::Unknown => Verdict::Unknown,
        },
        disposition: match Disposition::try_from(event.disposition).map_err(code("disposition"))? {
            Disposition::Forwarded => DispositionName::Forwarded,
            Disposition::Dropped => DispositionName::Dropped,
        },
        cause: cause(KernelReason::try_from(event.reason).map_err(code("reason"))?),
        mode: match Mode::try_from(event.mode).map_err(code("mode"))? {
            Mode::Observe => ModeName::Observe,
            Mode::Audit => ModeName::Audit,
            Mode::Enforce => ModeName::Enforce,
        },
        fragment: event.flags & flag::FRAGMENT != 0,
        unknown_pod: event.flags & flag::UNKNOWN_POD != 0,
        length: event.length,
    })
}

/// A lane as the record spells it.
pub const fn lane_name(lane: Lane) -> LaneName {
    match lane {
        Lane::Denied => LaneName::Denied,
        Lane::Flow => LaneName::Flow,
    }
}

const fn cause(reason: KernelReason) -> Cause {
    match reason {
        KernelReason::ByPolicy => Cause::Policy,
        KernelReason::SpoofedSource => Cause::Kernel { reason: Reason::SpoofedSource, drop: None },
        KernelReason::PolicyNotReady => Cause::Kernel { reason: Reason::PolicyNotReady, drop: None },
        KernelReason::ServiceNotResolved => Cause::Kernel { reason: Reason::ServiceNotResolved, drop: None },
        KernelReason::EstablishedStale => Cause::Kernel { reason: Reason::EstablishedStale, drop: None },
        KernelReason::Midstream => Cause::Kernel { reason: Reason::Midstream, drop: None },
        KernelReason::Malformed => Cause::Kernel { reason: Reason::OtherDrop, drop: Some(DropReason::Malformed) },
        KernelReason::ShortFragment => {
            Cause::Kernel { reason: Reason::OtherDrop, drop: Some(DropReason::ShortFragment) }
        }
    }
}

fn address(bytes: netverdict_abi::address::Address) -> IpAddr {
    Ipv6Addr::from(bytes).to_canonical()
}

#[cfg(test)]
mod tests;

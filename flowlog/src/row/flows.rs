//! Table `flows`: one verdict a row.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, LazyLock},
};

use chrono::{DateTime, Utc};
use netverdict_policy::{AttributionId, Confidence, Direction, NearMiss, Reason, Verdict};

use super::{
    decision::{AttributionValue, DecidedBy},
    words::{DispositionName, DropReason, EndpointKind, LaneName, Method, ModeName, Receiver, RecordType, Reporter},
};
use crate::layout::{Address, Flag, Map, Name, NearMisses, Number, Port, Shared, Small, Text, Time, Word, columns};

const NOWHERE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// An end of which nothing is known. One for all rows: most rows are made from the default and then get their ends.
fn nobody() -> Arc<EndpointRow> {
    static NOBODY: LazyLock<Arc<EndpointRow>> = LazyLock::new(Arc::default);
    NOBODY.clone()
}

columns! {
    /// The endpoint at one end of a flow, as it was then. Text is empty where it does not apply or is not known (null in the
    /// file).
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub struct EndpointRow {
        /// pod, node, service, external, or why nothing is known
        kind: EndpointKind as Word = EndpointKind::Unknown,
        /// of the pod
        namespace: String as Text [statistics],
        /// name of the pod
        pod: String as Text [statistics, filter],
        /// uid of the pod
        pod_uid: String as Text [statistics, filter],
        /// kind of the controller that owns the pod
        workload_kind: String as Text,
        /// name of the controller that owns the pod
        workload: String as Text,
        /// of the pod
        service_account: String as Text,
        /// node of the pod, or the node itself
        node: String as Text,
        /// topology.kubernetes.io/zone of the node
        zone: String as Text,
        /// Service that was addressed, as namespace/name; files of format 1 have the name alone
        service: String as Text,
        /// port of the Service, by name or number
        service_port: String as Text,
        /// of the pod, as they stood then
        labels: BTreeMap<String, String> as Map,
        /// the compiler's class of peers; 0 for the world
        identity: u32 as Number,
        /// a name that the address is known to have
        hostname: String as Text,
        /// how the name became known
        hostname_source: String as Text,
    }
}

columns! {
    /// Table `flows`: one verdict. Rows are sorted by attribution, destination and source before they are written.
    #[derive(Clone, Debug)]
    pub struct FlowRow {
        // --- record
        /// why the row exists: verdict, update, close
        record_type: RecordType as Word = RecordType::Verdict,
        /// node that recorded it
        node: Arc<str> as Name,
        /// boot of the node, as the kernel names it
        boot_id: Arc<str> as Name,
        /// denied or flow: the ring it came through; null from another system
        lane: Option<LaneName> as Word,
        /// CPU that recorded it; null from another system
        cpu: Option<u32> as Small,
        /// sequence number of its last event, per boot, lane and CPU, from 1; null from another system
        seq: Option<u64> as Number [statistics, delta],
        /// position in the sequence of another system: with receiver it identifies the record there, so that what is sent
        /// twice is recorded once; null for our own probe
        cursor: Option<Arc<str>> as Name [since 2],
        /// when the verdict was taken
        time: DateTime<Utc> as Time [statistics, delta],
        /// when the collector read it; one per drained batch
        ingest_time: DateTime<Utc> as Time [delta],
        /// who saw it: ring is our own probe, goldmane Calico's flow log
        receiver: Receiver as Word = Receiver::Ring,
        // --- flow
        /// ingress or egress, of the selected endpoint
        direction: Direction as Word = Direction::Egress,
        /// the end that saw it: source or destination
        reporter: Reporter as Word = Reporter::Source,
        /// 4 or 6
        family: u8 as Small = 6,
        /// canonical text
        source_ip: IpAddr as Address [statistics, filter] = NOWHERE,
        /// canonical text; after DNAT
        destination_ip: IpAddr as Address [statistics, filter] = NOWHERE,
        /// null without ports
        source_port: u16 as Port [delta],
        /// null without ports; after DNAT
        destination_port: u16 as Port [statistics, delta],
        /// IP protocol number: 6 is TCP, 17 UDP
        protocol: u8 as Small,
        /// bits as in the TCP header
        tcp_flags: u8 as Small,
        /// 0 for other protocols
        icmp_type: u8 as Small,
        /// 0 for other protocols
        icmp_code: u8 as Small,
        /// before DNAT; null where there was none
        original_destination_ip: Option<IpAddr> as Address,
        /// before DNAT; null where there was none
        original_destination_port: Option<u16> as Small,
        /// after SNAT; null where there was none
        translated_source_ip: Option<IpAddr> as Address,
        /// after SNAT; null where there was none
        translated_source_port: Option<u16> as Small,
        // --- decision
        /// what policy says: allowed, denied, unknown
        verdict: Verdict as Word [statistics] = Verdict::Unknown,
        /// the verdict with audited policies enforced; null unless one takes part
        verdict_if_enforced: Option<Verdict> as Word,
        /// what became of the packet: forwarded, dropped
        disposition: DispositionName as Word = DispositionName::Forwarded,
        /// enforce, audit, observe
        mode: ModeName as Word = ModeName::Observe,
        /// why the verdict is what it is
        reason: Reason as Word [statistics] = Reason::AttributionUnknown,
        /// dropped, but not by policy; null otherwise
        drop_reason: Option<DropReason> as Word,
        /// enforced, reported, evaluated, inferred
        method: Method as Word = Method::Enforced,
        /// exact, ambiguous, partial
        confidence: Confidence as Word = Confidence::Exact,
        // --- attribution
        /// `None`: the kernel's own reason, or an id whose meaning is lost (`reason` tells)
        attribution: Option<Arc<AttributionValue>> as DecidedBy,
        /// of each policy that isolates: its rule that came nearest, and where that failed
        near_misses: Arc<[NearMiss]> as NearMisses [named "near_miss"],
        /// what decided, as in table attributions, as the kernel gave it even where its meaning is lost; 0 is none
        attribution_id: AttributionId as Number [statistics, filter] = AttributionId::NONE,
        /// number of the policy snapshot that decided; 0 where not known
        snapshot: u64 as Number,
        /// verbatim, when another system named a policy
        reported_by: Option<Arc<str>> as Name,
        // --- endpoints
        /// who sent it
        source: Arc<EndpointRow> as Shared = nobody(),
        /// whom it was sent to
        destination: Arc<EndpointRow> as Shared = nobody(),
        // --- volume
        /// in the direction of the flow
        packets: u64 as Number,
        /// in the direction of the flow
        bytes: u64 as Number,
        /// in the other direction
        reply_packets: u64 as Number,
        /// in the other direction
        reply_bytes: u64 as Number,
        /// kernel events in this row, at least 1
        count: u64 as Number [statistics] = 1,
        /// of the first packet in this row
        first_time: DateTime<Utc> as Time [delta],
        /// of the last packet in this row
        last_time: DateTime<Utc> as Time [delta],
        // --- trust
        /// who an end is may have been changing just then: the owner that the kernel believed and the owner by the snapshot
        /// differ, or an owner is not known yet
        identity_window_open: bool as Flag,
        /// the source address is not the sender's
        spoof: bool as Flag,
        /// the verdict is not what the snapshot gives
        divergence: bool as Flag,
    }
}

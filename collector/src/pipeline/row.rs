//! An observation with its ends and its attribution → a row of `flows`.

use std::{net::IpAddr, sync::Arc};

use netverdict_flowlog::row::{FlowRow, Method, Receiver, Reporter};
use netverdict_policy::{Direction, Reason};

use crate::{
    attribute::Attributed,
    clock,
    enrich::EndRows,
    input::Session,
    observation::{Observation, Origin},
};

/// The columns that all rows of a session share; they are cloned by reference count, so that a row costs no allocation.
#[derive(Clone, Debug)]
pub(super) struct RowTemplate {
    node: Arc<str>,
    boot_id: Arc<str>,
}

impl RowTemplate {
    pub(super) fn new(session: &Session) -> Self {
        let Session { node, boot_id, .. } = session;
        Self { node: node.clone(), boot_id: boot_id.clone() }
    }

    /// `seq`: the number within the boot, of our own probe.
    pub(super) fn row(
        &self,
        ingest_ns: i64,
        seq: Option<u64>,
        observation: &Observation,
        ends: EndRows,
        attributed: Attributed,
    ) -> FlowRow {
        let Observation { origin, record_type, first_ns, last_ns, flow, outcome, volume, ends: _, decider: _ } =
            observation;
        let Attributed {
            attribution,
            id,
            snapshot,
            reason,
            drop_reason,
            confidence,
            verdict_if_enforced,
            near_misses,
            reported_by,
        } = attributed;
        let (receiver, lane, cpu, cursor, method) = match origin {
            Origin::Probe { event, .. } => (Receiver::Ring, Some(event.lane), Some(event.cpu), None, Method::Enforced),
            Origin::Foreign { receiver, cursor } => {
                (*receiver, None, None, Some(Arc::from(cursor.to_string())), Method::Reported)
            }
        };
        FlowRow {
            record_type: *record_type,
            node: self.node.clone(),
            boot_id: self.boot_id.clone(),
            lane,
            cpu,
            seq,
            cursor,
            time: clock::at(*last_ns),
            ingest_time: clock::at(ingest_ns),
            receiver,
            direction: flow.direction,
            reporter: match flow.direction {
                Direction::Egress => Reporter::Source,
                Direction::Ingress => Reporter::Destination,
            },
            family: flow.family,
            source_ip: flow.source,
            destination_ip: flow.destination,
            source_port: flow.source_port,
            destination_port: flow.destination_port,
            protocol: flow.protocol,
            tcp_flags: flow.tcp_flags,
            icmp_type: flow.icmp_type,
            icmp_code: flow.icmp_code,
            original_destination_ip: flow.original_destination.map(|(address, _)| address),
            original_destination_port: port(flow.original_destination),
            translated_source_ip: flow.translated_source.map(|(address, _)| address),
            translated_source_port: port(flow.translated_source),
            verdict: outcome.verdict,
            verdict_if_enforced,
            disposition: outcome.disposition,
            mode: outcome.mode,
            reason,
            drop_reason,
            method,
            confidence,
            attribution,
            attribution_id: id,
            near_misses,
            snapshot,
            reported_by,
            source: ends.source,
            destination: ends.destination,
            packets: volume.packets,
            bytes: volume.bytes,
            reply_packets: volume.reply_packets,
            reply_bytes: volume.reply_bytes,
            count: volume.count,
            first_time: clock::at(*first_ns),
            last_time: clock::at(*last_ns),
            identity_window_open: ends.identity_window_open,
            spoof: reason == Reason::SpoofedSource,
            divergence: false,
        }
    }
}

/// `None` for protocols without ports.
fn port(end: Option<(IpAddr, u16)>) -> Option<u16> {
    end.map(|(_, port)| port).filter(|port| *port != 0)
}

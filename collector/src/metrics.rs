//! The collector's metrics, for Prometheus. Labels come from closed lists: never an address, a pod or the text of an
//! error.

mod figures;
mod watch;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use netverdict_cluster::kubernetes::WatchStatus;
use netverdict_flowlog::{
    Table,
    row::{GapCause, LaneName, Row},
};
use netverdict_probe::MapOccupancy;
use netverdict_service::{http_server::HttpServerMetrics, queue::QueueMetrics};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use self::watch::WatchMetrics;
use crate::{
    health::Part,
    pipeline::tally::{Reports, Tally},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LaneLabel {
    lane: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TableLabel {
    table: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CauseLabel {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct VerdictLabel {
    verdict: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MapLabel {
    map: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PartLabel {
    part: &'static str,
}

/// All metrics of the collector. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    events: Family<LaneLabel, Counter>,
    batches: Family<LaneLabel, Counter>,
    bytes: Family<LaneLabel, Counter>,
    repeated: Counter,
    unreadable: Family<CauseLabel, Counter>,
    reports: Family<OutcomeLabel, Counter>,
    deliveries: Family<OutcomeLabel, Counter>,
    rows: Family<TableLabel, Counter>,
    verdicts: Family<VerdictLabel, Counter>,
    lost: Family<CauseLabel, Counter>,
    lost_at: Family<CauseLabel, Gauge>,
    flooded: Counter,
    failures: Family<PartLabel, Counter>,
    troubles: Family<PartLabel, Gauge>,
    ring_used: Family<LaneLabel, Gauge>,
    ring_size: Family<LaneLabel, Gauge>,
    map_used: Family<MapLabel, Gauge>,
    map_limit: Family<MapLabel, Gauge>,
    pub endpoints: Gauge,
    pub unbound: Gauge,
    pub uncovered: Gauge,
    pub snapshot: Gauge,
    in_force_at: Gauge,
    stale_since: Gauge,
    pub revision: Gauge,
    pub policies: Gauge,
    pub pods: Gauge,
    pub publications: Counter,
    /// From reading a change in the cluster source to its being in force.
    pub publish_seconds: Histogram,
    pub log_bytes: Gauge,
    pub flushes: Counter,
    flushed_at: Gauge,
    pub flush_seconds: Histogram,
    pub queues: QueueMetrics,
    pub http: HttpServerMetrics,
    clock_offset: Gauge<f64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Metrics {
    /// `watch`: of the Kubernetes API, where it is watched.
    pub fn new(watch: Option<WatchStatus>) -> Self {
        let seconds = || Histogram::new([0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]);
        let mut metrics = Self {
            registry: Arc::default(),
            events: Family::default(),
            batches: Family::default(),
            bytes: Family::default(),
            repeated: Counter::default(),
            unreadable: Family::default(),
            reports: Family::default(),
            deliveries: Family::default(),
            rows: Family::default(),
            verdicts: Family::default(),
            lost: Family::default(),
            lost_at: Family::default(),
            flooded: Counter::default(),
            failures: Family::default(),
            troubles: Family::default(),
            ring_used: Family::default(),
            ring_size: Family::default(),
            map_used: Family::default(),
            map_limit: Family::default(),
            endpoints: Gauge::default(),
            unbound: Gauge::default(),
            uncovered: Gauge::default(),
            snapshot: Gauge::default(),
            in_force_at: Gauge::default(),
            stale_since: Gauge::default(),
            revision: Gauge::default(),
            policies: Gauge::default(),
            pods: Gauge::default(),
            publications: Counter::default(),
            publish_seconds: seconds(),
            log_bytes: Gauge::default(),
            flushes: Counter::default(),
            flushed_at: Gauge::default(),
            flush_seconds: seconds(),
            queues: QueueMetrics::default(),
            http: HttpServerMetrics::default(),
            clock_offset: Gauge::default(),
        };
        metrics.register(watch);
        metrics
    }

    fn register(&mut self, watch: Option<WatchStatus>) {
        let mut registry = Registry::with_prefix("netverdict");
        let r = registry.sub_registry_with_prefix("collector");
        r.register("events", "Events read from the rings", self.events.clone());
        r.register("batches", "Batches read from the rings", self.batches.clone());
        r.register_with_unit("batch", "Bytes read from the rings", Unit::Bytes, self.bytes.clone());
        r.register("repeated_events", "Events that were already on record", self.repeated.clone());
        r.register("unreadable_events", "Events that could not be read, by cause", self.unreadable.clone());
        r.register(
            "foreign_reports",
            "Reports of other systems: recorded, repeated (on record already), or empty (without traffic, so without row)",
            self.reports.clone(),
        );
        r.register(
            "foreign_deliveries",
            "Bodies that other systems sent, by what became of them",
            self.deliveries.clone(),
        );
        r.register("rows", "Rows made, by table", self.rows.clone());
        r.register("verdict_events", "Events on record, by verdict and reason", self.verdicts.clone());
        r.register("lost_events", "Events known to be lost, by cause", self.lost.clone());
        r.register_with_unit(
            "last_loss_timestamp",
            "When the last of the lost events was lost, by cause",
            Unit::Seconds,
            self.lost_at.clone(),
        );
        r.register(
            "flooded_drops",
            "Dropped frames that were not addressed to the pod, such as flooded unicast: not its flows, so no rows",
            self.flooded.clone(),
        );
        r.register("failures", "Failed attempts, by part", self.failures.clone());
        r.register("troubles", "Present problems, by part; /readyz names them", self.troubles.clone());
        r.register_with_unit("ring_used", "Bytes waiting in a ring", Unit::Bytes, self.ring_used.clone());
        r.register_with_unit("ring_size", "Size of a ring", Unit::Bytes, self.ring_size.clone());
        r.register("endpoints", "Interfaces with programs attached that are bound to a pod", self.endpoints.clone());
        r.register(
            "unbound_endpoints",
            "Interfaces with programs attached that are not ready for longer than a start takes: of no known pod, or \
             without tables",
            self.unbound.clone(),
        );
        r.register(
            "uncovered_interfaces",
            "Interfaces of pods that no program covers, such as macvlan and devices of the host",
            self.uncovered.clone(),
        );
        r.register("snapshot_number", "Number of the policy snapshot in force", self.snapshot.clone());
        r.register_with_unit(
            "snapshot_timestamp",
            "When the policy snapshot came into force; 0: none has since the start",
            Unit::Seconds,
            self.in_force_at.clone(),
        );
        r.register_with_unit(
            "source_stale_timestamp",
            "Since when a cluster source cannot see changes; 0: all can",
            Unit::Seconds,
            self.stale_since.clone(),
        );
        r.register("policies", "Policies in the snapshot in force", self.policies.clone());
        r.register("pods", "Pods in the snapshot in force", self.pods.clone());
        r.register("publications", "Policy snapshots that came into force", self.publications.clone());
        r.register_with_unit(
            "publish_delay",
            "Time from reading a change to its being in force",
            Unit::Seconds,
            self.publish_seconds.clone(),
        );
        r.register_with_unit("log", "Bytes in the write-ahead log", Unit::Bytes, self.log_bytes.clone());
        r.register("flushes", "Flushes of rows to files", self.flushes.clone());
        r.register_with_unit("flush", "Time that a flush took", Unit::Seconds, self.flush_seconds.clone());
        r.register_with_unit(
            "last_flush_timestamp",
            "When rows were last flushed to files; 0: not since the start",
            Unit::Seconds,
            self.flushed_at.clone(),
        );
        self.queues.register(r);
        self.http.register(r);
        r.register_with_unit(
            "clock_offset",
            "Distance of the wall clock from the time since boot",
            Unit::Seconds,
            self.clock_offset.clone(),
        );
        if let Some(watch) = watch {
            r.register_collector(Box::new(WatchMetrics(watch)));
        }
        let r = registry.sub_registry_with_prefix("probe");
        r.register("map_entries", "Entries in a map, or bytes in a ring", self.map_used.clone());
        r.register("map_limit_entries", "Entries that fit into a map, or bytes into a ring", self.map_limit.clone());
        r.register("revision", "Revision of the tables in the kernel", self.revision.clone());
        self.registry = Arc::new(registry);
        for part in Part::ALL {
            self.troubles.get_or_create(&PartLabel { part: part.as_str() }).set(0);
        }
    }

    /// In the text format of OpenMetrics.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }

    pub fn drained(&self, lane: LaneName, bytes: usize) {
        let label = LaneLabel { lane: lane.as_str() };
        self.batches.get_or_create(&label).inc();
        self.bytes.get_or_create(&label).inc_by(bytes as u64);
    }

    pub fn ring(&self, lane: LaneName, used: u64, size: u64) {
        let label = LaneLabel { lane: lane.as_str() };
        self.ring_used.get_or_create(&label).set(signed(used));
        self.ring_size.get_or_create(&label).set(signed(size));
    }

    pub fn tally(&self, tally: &Tally) {
        let Tally { events, unreadable, repeated, reports, refusals: _ } = tally;
        let Reports { recorded, repeated: sent_again, empty } = reports;
        for (outcome, count) in [("recorded", recorded), ("repeated", sent_again), ("empty", empty)] {
            if *count > 0 {
                self.reports.get_or_create(&OutcomeLabel { outcome }).inc_by(*count);
            }
        }
        for (lane, count) in events {
            self.events.get_or_create(&LaneLabel { lane }).inc_by(*count);
        }
        for (cause, count) in unreadable {
            self.unreadable.get_or_create(&CauseLabel { cause }).inc_by(*count);
        }
        self.repeated.inc_by(*repeated);
    }

    pub fn rows(&self, rows: &[Row]) {
        for row in rows {
            self.rows.get_or_create(&TableLabel { table: Table::of(row).name() }).inc();
            match row {
                Row::Flow(row) => {
                    let label = VerdictLabel { verdict: row.verdict.as_str(), reason: row.reason.as_str() };
                    self.verdicts.get_or_create(&label).inc_by(row.count);
                }
                Row::Gap(row) => self.lost(row.cause, row.lost_events, row.to.timestamp()),
                Row::Policy(_)
                | Row::Endpoint(_)
                | Row::Namespace(_)
                | Row::Service(_)
                | Row::Attribution(_)
                | Row::Snapshot(_)
                | Row::Collector(_)
                | Row::Setting(_) => {}
            }
        }
    }

    /// A body that another system sent. `outcome`: of a closed list.
    pub fn delivery(&self, outcome: &'static str) {
        self.deliveries.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// The kernel's total. It may restart at 0, so the counter keeps the highest.
    pub fn flooded(&self, total: u64) {
        self.flooded.inner().fetch_max(total, Ordering::Relaxed);
    }

    /// `last`: in seconds since 1970.
    fn lost(&self, cause: GapCause, events: u64, last: i64) {
        let label = CauseLabel { cause: cause.as_str() };
        self.lost.get_or_create(&label).inc_by(events);
        if events > 0 {
            self.lost_at.get_or_create(&label).inner().fetch_max(last, Ordering::Relaxed);
        }
    }

    pub fn failed(&self, part: Part) {
        self.failures.get_or_create(&PartLabel { part: part.as_str() }).inc();
    }

    pub fn troubles(&self, part: Part, count: usize) {
        self.troubles.get_or_create(&PartLabel { part: part.as_str() }).set(signed(count as u64));
    }

    pub fn occupancy(&self, maps: &[MapOccupancy]) {
        for map in maps {
            let label = MapLabel { map: map.map };
            self.map_limit.get_or_create(&label).set(signed(map.limit));
            if let Some(used) = map.used {
                self.map_used.get_or_create(&label).set(signed(used));
            }
        }
    }

    pub fn clock_offset(&self, ns: i64) {
        #[expect(clippy::cast_precision_loss, reason = "a figure to look at: microseconds are enough")]
        self.clock_offset.set(ns as f64 / 1e9);
    }
}

/// As gauges have it; more than 2⁶³ is cut off.
pub fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counted_things_have_our_name_and_closed_labels() {
        let metrics = Metrics::default();
        metrics.drained(LaneName::Denied, 112);
        metrics.failed(Part::Publish);
        let text = metrics.text();
        assert!(text.contains("netverdict_collector_batches_total{lane=\"denied\"} 1"), "{text}");
        assert!(text.contains("netverdict_collector_failures_total{part=\"publish\"} 1"), "{text}");
        assert!(text.contains("netverdict_collector_troubles{part=\"log\"} 0"), "{text}");
    }
}

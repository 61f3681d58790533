//! Numbers of the watch of the Kubernetes API, read when they are asked for.

use std::{collections::BTreeMap, fmt};

use netverdict_cluster::kubernetes::{KindFigures, WatchStatus};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use crate::clock;

/// Kinds that a server has and that we do not read: their names are the server's, so labels do not hold them.
const OTHER: &str = "other";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Debug)]
pub(super) struct WatchMetrics(pub(super) WatchStatus);

impl Collector for WatchMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut by_label: BTreeMap<KindLabel, KindFigures> = BTreeMap::new();
        for (kind, figures) in self.0.figures() {
            let known = netverdict_manifest::kinds_read().find(|(_, known)| **known == *kind);
            let label = KindLabel { kind: known.map_or(OTHER, |(_, known)| known) };
            by_label.entry(label).and_modify(|sum| *sum = together(*sum, figures)).or_insert(figures);
        }
        let now_ns = clock::now_ns();
        let mut family = |name, help, unit: Option<Unit>, of: fn(&KindFigures, i64) -> Figure| {
            let metric_type =
                if unit.is_none() && name != "watch_objects" { MetricType::Counter } else { MetricType::Gauge };
            let mut encoder = encoder.encode_descriptor(name, help, unit.as_ref(), metric_type)?;
            by_label.iter().try_for_each(|(label, figures)| {
                let encoder = encoder.encode_family(label)?;
                of(figures, now_ns).encode(encoder)
            })
        };
        family("watch_objects", "Objects that the API server has, by kind", None, |of, _| {
            Figure::Count(of.objects, false)
        })?;
        family("watch_events", "Objects put or deleted, by kind", None, |of, _| Figure::Count(of.events, true))?;
        family("watch_lists", "Lists of all objects of a kind: one at the start, and each relist", None, |of, _| {
            Figure::Count(of.lists, true)
        })?;
        family("watch_errors", "Failed requests and unreadable objects, by kind", None, |of, _| {
            Figure::Count(of.errors, true)
        })?;
        family("watch_last_event_timestamp", "When the last event or bookmark came", Some(Unit::Seconds), |of, _| {
            Figure::Seconds(of.last_event_ns)
        })?;
        family(
            "watch_stale",
            "For how long changes of a kind have not been seen; 0: they are",
            Some(Unit::Seconds),
            |of, now| Figure::Seconds(if of.stale_since_ns == 0 { 0 } else { (now - of.stale_since_ns).max(0) }),
        )
    }
}

enum Figure {
    /// Whether it only ever grows.
    Count(u64, bool),
    /// In nanoseconds.
    Seconds(i64),
}

impl Figure {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        match self {
            Self::Count(count, true) => ConstCounter::new(*count).encode(encoder),
            Self::Count(count, false) => ConstGauge::new(i64::try_from(*count).unwrap_or(i64::MAX)).encode(encoder),
            #[expect(clippy::cast_precision_loss, reason = "a figure to look at: microseconds are enough")]
            Self::Seconds(ns) => ConstGauge::new(*ns as f64 / 1e9).encode(encoder),
        }
    }
}

/// Of two kinds that have one label: sums, and the worse of both times.
fn together(a: KindFigures, b: KindFigures) -> KindFigures {
    let stale = [a.stale_since_ns, b.stale_since_ns].into_iter().filter(|since| *since > 0).min();
    KindFigures {
        objects: a.objects + b.objects,
        events: a.events + b.events,
        lists: a.lists + b.lists,
        errors: a.errors + b.errors,
        last_event_ns: a.last_event_ns.min(b.last_event_ns),
        stale_since_ns: stale.unwrap_or(0),
    }
}

//! The columns of the tables about the system itself: attributions, snapshots, gaps, collectors, settings.

use std::sync::LazyLock;

use arrow::datatypes::DataType;

use super::{Column, nested, number_from, small_from};
use crate::row::{AttributionRow, CollectorRow, GapRow, SettingRow, SnapshotRow};

pub(super) static ATTRIBUTIONS: LazyLock<Vec<Column<AttributionRow>>> = LazyLock::new(|| {
    type C = Column<AttributionRow>;
    vec![
        C::time("time", "when a node first used it", |r| r.time),
        C::word("node", "node that recorded it", |r| &r.node),
        C::number("attribution_id", "63 bits of the hash of this row; the same on every node", |r| {
            r.attribution.id.0.cast_signed()
        }),
        C::word("verdict", "allowed, denied, unknown", |r| r.attribution.decision.verdict.as_str()),
        C::optional_word(
            "verdict_if_enforced",
            "the verdict with audited policies enforced; null unless one takes part",
            |r| r.attribution.decision.verdict_if_enforced.map(|verdict| verdict.as_str()),
        ),
        C::word("reason", "why the verdict is what it is", |r| r.attribution.decision.reason.as_str()),
        C::optional_word("tier", "tier that decided; null where none did", |r| {
            r.attribution.decision.tier.map(|tier| tier.as_str())
        }),
        C::word("confidence", "exact, ambiguous, partial", |r| r.attribution.decision.confidence.as_str()),
        C::new(
            "decided_by",
            "policies that took part, in order of evaluation; empty: none did",
            nested::deciders(),
            false,
            Box::new(|rows| nested::fill_deciders(rows.iter().map(|r| &*r.attribution.decision.references))),
        )
        .weighing(|r| nested::deciders_weight(&r.attribution.decision.references)),
    ]
});

pub(super) static SNAPSHOTS: LazyLock<Vec<Column<SnapshotRow>>> = LazyLock::new(|| {
    type C = Column<SnapshotRow>;
    vec![
        C::time("time", "when it came into force on this node", |r| r.time),
        C::word("node", "node on which it came into force", |r| &r.node),
        C::word("boot_id", "boot of the node, as the kernel names it", |r| &r.boot_id),
        C::number("snapshot", "counts up over restarts and boots", |r| number_from(r.snapshot)),
        C::number("revision", "the kernel's revision that it became; 0 if it could not be published", |r| {
            number_from(r.revision)
        }),
        C::number("policies", "policies in it", |r| number_from(r.policies)),
        C::number("pods", "pods in it", |r| number_from(r.pods)),
        C::number("namespaces", "namespaces in it", |r| number_from(r.namespaces)),
        C::flag("audit_all", "the whole node is in audit mode", |r| r.audit_all),
        C::number("errors", "objects that could not be read whole: what may be missing in it", |r| {
            number_from(r.errors)
        }),
    ]
});

pub(super) static GAPS: LazyLock<Vec<Column<GapRow>>> = LazyLock::new(|| {
    type C = Column<GapRow>;
    vec![
        C::word("node", "node that recorded it", |r| &r.node),
        C::word("boot_id", "boot of the node, as the kernel names it", |r| &r.boot_id),
        C::optional_word("lane", "denied or flow; null for both", |r| r.lane.map(|lane| lane.as_str())),
        C::optional_small("cpu", "null for all", |r| r.cpu.map(small_from)),
        C::text("endpoint", "namespace/pod or interface; null for the whole node", |r| &r.endpoint),
        C::word("cause", "why events are missing", |r| r.cause.as_str()),
        C::optional_number("first_seq", "first sequence number that is missing", |r| r.first_seq.map(number_from)),
        C::optional_number("last_seq", "last sequence number that is missing", |r| r.last_seq.map(number_from)),
        C::number("lost_events", "kernel events that are missing", |r| number_from(r.lost_events)),
        C::optional_number("lost_packets", "null where it cannot be known", |r| r.lost_packets.map(number_from)),
        C::time("from", "from when on something is missing", |r| r.from),
        C::time("to", "until when; equal to from for a moment", |r| r.to),
        C::text("detail", "for people", |r| &r.detail),
    ]
});

pub(super) static COLLECTORS: LazyLock<Vec<Column<CollectorRow>>> = LazyLock::new(|| {
    type C = Column<CollectorRow>;
    vec![
        C::time("time", "when the state was so", |r| r.time),
        C::word("node", "node of the collector", |r| &r.node),
        C::word("boot_id", "boot of the node, as the kernel names it", |r| &r.boot_id),
        C::word("state", "started, running, stopped", |r| r.state),
        C::text("version", "of the collector", |r| &r.version),
        C::word("mode", "enforce, audit, observe", |r| r.mode.as_str()),
        C::new(
            "last_seq",
            "per lane and CPU, as denied/0: the kernel's last sequence number",
            nested::map(DataType::Int64),
            false,
            Box::new(|rows| nested::fill_number_map(rows.iter().map(|r| &r.last_seq))),
        ),
        C::number("lost_events", "since the collector started", |r| number_from(r.lost_events)),
        C::number("endpoints", "interfaces with policy in force", |r| number_from(r.endpoints)),
    ]
});

pub(super) static SETTINGS: LazyLock<Vec<Column<SettingRow>>> = LazyLock::new(|| {
    type C = Column<SettingRow>;
    vec![
        C::time("time", "when the collector started", |r| r.time),
        C::word("node", "node of the collector", |r| &r.node),
        C::text("name", "of the setting", |r| &r.name),
        C::text("value", "as text; secrets are hidden", |r| &r.value),
    ]
});

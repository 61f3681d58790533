//! The tables about the system itself: attributions, snapshots, gaps, collectors, settings.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    decision::{AttributionValue, Whole},
    words::{CollectorState, GapCause, LaneName, ModeName},
};
use crate::layout::{Flag, Map, Name, Number, Small, Text, Time, Word, columns};

columns! {
    /// Table `attributions`: the decision behind an id.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    pub struct AttributionRow {
        /// when a node first used it
        time: DateTime<Utc> as Time,
        /// node that recorded it
        node: Arc<str> as Name,
        /// what it stands for
        attribution: Arc<AttributionValue> as Whole,
    }
}

columns! {
    /// Table `snapshots`: a state of the whole policy, and when it came into force on a node.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default)]
    pub struct SnapshotRow {
        /// when it came into force on this node
        time: DateTime<Utc> as Time,
        /// node on which it came into force
        node: Arc<str> as Name,
        /// boot of the node, as the kernel names it
        boot_id: Arc<str> as Name,
        /// counts up over restarts and boots
        snapshot: u64 as Number,
        /// the kernel's revision (its commit number) that it became; 0 if it could not be published
        revision: u64 as Number,
        /// policies in it
        policies: u64 as Number,
        /// pods in it
        pods: u64 as Number,
        /// namespaces in it
        namespaces: u64 as Number,
        /// the whole node is in audit mode
        audit_all: bool as Flag,
        /// objects that could not be read whole: what may be missing in it
        errors: u64 as Number,
    }
}

columns! {
    /// Table `gaps`: known losses of the record.
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(default)]
    pub struct GapRow {
        /// node that recorded it
        node: Arc<str> as Name,
        /// boot of the node, as the kernel names it
        boot_id: Arc<str> as Name,
        /// denied or flow; null for both
        lane: Option<LaneName> as Word,
        /// null for all
        cpu: Option<u32> as Small,
        /// namespace/pod or interface; null for the whole node
        endpoint: String as Text,
        /// why events are missing
        cause: GapCause as Word = GapCause::Unreadable,
        /// first sequence number that is missing
        first_seq: Option<u64> as Number,
        /// last sequence number that is missing
        last_seq: Option<u64> as Number,
        /// kernel events that are missing
        lost_events: u64 as Number,
        /// null where it cannot be known
        lost_packets: Option<u64> as Number,
        /// from when on something is missing
        from: DateTime<Utc> as Time,
        /// until when; equal to from for a moment
        to: DateTime<Utc> as Time,
        /// for people: what is missing, and what to do about it
        detail: String as Text,
    }
}

impl GapRow {
    /// A gap of a whole node and both lanes, of which no event is counted. Narrower values go on top:
    /// `GapRow { lane: Some(lane), ..GapRow::of(…) }`.
    pub fn of(
        cause: GapCause,
        node: &Arc<str>,
        boot_id: &Arc<str>,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        detail: impl Into<String>,
    ) -> Self {
        let (node, boot_id) = (node.clone(), boot_id.clone());
        Self { cause, node, boot_id, from, to, detail: detail.into(), ..Self::default() }
    }
}

columns! {
    /// Table `collectors`: a collector's state when it started, every minute, and when it stopped.
    #[derive(Clone, Debug)]
    pub struct CollectorRow {
        /// when the state was so
        time: DateTime<Utc> as Time,
        /// node of the collector
        node: Arc<str> as Name,
        /// boot of the node, as the kernel names it
        boot_id: Arc<str> as Name,
        /// started, running, stopped
        state: CollectorState as Word = CollectorState::Running,
        /// of the collector
        version: String as Text,
        /// enforce, audit, observe
        mode: ModeName as Word = ModeName::Observe,
        /// per lane and CPU, as denied/0: the kernel's last sequence number
        last_seq: BTreeMap<String, i64> as Map,
        /// since the collector started
        lost_events: u64 as Number,
        /// interfaces with policy in force
        endpoints: u64 as Number,
    }
}

columns! {
    /// Table `settings`: the effective configuration, a row a setting, when a collector starts.
    #[derive(Clone, Debug)]
    pub struct SettingRow {
        /// when the collector started
        time: DateTime<Utc> as Time,
        /// node of the collector
        node: Arc<str> as Name,
        /// of the setting
        name: String as Text,
        /// as text; secrets are hidden
        value: String as Text,
    }
}

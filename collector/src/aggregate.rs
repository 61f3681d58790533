//! Dedup window of denials: the first of a flow key is a row at once, the others inside the window become one `update`
//! row per CPU, with the exact count.
//!
//! It loses nothing: every open window is flushed before a commit. It reads no clock.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use netverdict_flowlog::row::{FlowRow, RecordType};
use netverdict_policy::{AttributionId, Direction, tables::OwnerId};

use crate::observation::{Decider, Ends, FlowTuple, Observation, Origin, OwnerEnds, ReasonSource};

/// Flow keys that are remembered; beyond it the oldest windows close early. About 1 KiB each with their row.
const MOST_KEYS: usize = 65_536;

/// Fields that two denials share when the second is a repeat of the first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct FlowKey {
    direction: Direction,
    interface: u32,
    endpoint: OwnerId,
    source: IpAddr,
    destination: IpAddr,
    source_port: u16,
    destination_port: u16,
    original_destination: Option<(IpAddr, u16)>,
    protocol: u8,
    icmp: (u8, u8),
    attribution: AttributionId,
    reason_source: std::mem::Discriminant<ReasonSource>,
    reason: netverdict_policy::Reason,
    /// A row names one snapshot.
    revision: u64,
}

struct Window {
    /// Nanoseconds since boot.
    ends: u64,
    /// One per CPU that saw repeats.
    repeats: Vec<FlowRow>,
}

/// Windows of denials under way.
pub struct Aggregate {
    /// Nanoseconds; 0: nothing is a repeat.
    window: u64,
    open: HashMap<FlowKey, Window>,
    /// In the order in which they were opened.
    order: VecDeque<(u64, FlowKey)>,
}

impl Aggregate {
    pub fn new(window_ns: u64) -> Self {
        Self { window: window_ns, open: HashMap::new(), order: VecDeque::new() }
    }

    /// Takes the row of one denial of our probe: it comes back in `rows` at once if it is the first of its key, else it
    /// is counted. Reports of other systems are aggregated already, and pass.
    pub fn take(&mut self, observation: &Observation, row: FlowRow, rows: &mut Vec<FlowRow>) {
        let Some((key, boot_time)) = key_of(observation, &row).filter(|_| self.window > 0) else {
            rows.push(row);
            return;
        };
        if let Some(window) = self.open.get_mut(&key)
            && boot_time < window.ends
        {
            window.add(row);
            return;
        }
        if let Some(window) = self.open.remove(&key) {
            rows.extend(window.repeats);
        }
        while self.open.len() >= MOST_KEYS {
            let Some((ends, oldest)) = self.order.pop_front() else { break };
            self.close(ends, &oldest, rows);
        }
        let ends = boot_time.saturating_add(self.window);
        self.order.push_back((ends, key.clone()));
        self.open.insert(key, Window { ends, repeats: Vec::new() });
        rows.push(row);
    }

    /// Closes the windows that have ended by `boot_time`.
    pub fn expire(&mut self, boot_time: u64, rows: &mut Vec<FlowRow>) {
        while let Some((ends, key)) = self.order.pop_front_if(|(ends, _)| *ends <= boot_time) {
            self.close(ends, &key, rows);
        }
    }

    /// Returns all repeats counted so far. The windows stay open: later denials are still repeats.
    pub fn flush(&mut self, rows: &mut Vec<FlowRow>) {
        self.open.values_mut().for_each(|window| rows.append(&mut window.repeats));
    }

    /// Closes every window.
    pub fn close_all(&mut self, rows: &mut Vec<FlowRow>) {
        self.order.clear();
        self.open.drain().for_each(|(_, window)| rows.extend(window.repeats));
    }

    fn close(&mut self, ends: u64, key: &FlowKey, rows: &mut Vec<FlowRow>) {
        // A key that was opened anew since has a later end, and another place in the order.
        if self.open.get(key).is_some_and(|window| window.ends == ends)
            && let Some(window) = self.open.remove(key)
        {
            rows.extend(window.repeats);
        }
    }
}

/// The key, and when it was seen in nanoseconds since boot; `None` for an observation that is not our probe's.
fn key_of(observation: &Observation, row: &FlowRow) -> Option<(FlowKey, u64)> {
    let (
        Origin::Probe { boot_time, .. },
        Ends::Owners(OwnerEnds { endpoint, interface, .. }),
        Decider::Tables { attribution, revision, reason: source },
    ) = (&observation.origin, &observation.ends, &observation.decider)
    else {
        return None;
    };
    let FlowTuple {
        direction,
        source_port,
        destination_port,
        original_destination,
        protocol,
        icmp_type,
        icmp_code,
        ..
    } = observation.flow;
    let key = FlowKey {
        direction,
        interface: *interface,
        endpoint: *endpoint,
        source: observation.flow.source,
        destination: observation.flow.destination,
        source_port,
        destination_port,
        original_destination,
        protocol,
        icmp: (icmp_type, icmp_code),
        attribution: *attribution,
        reason_source: std::mem::discriminant(source),
        reason: row.reason,
        revision: *revision,
    };
    Some((key, *boot_time))
}

impl Window {
    fn add(&mut self, row: FlowRow) {
        match self.repeats.iter_mut().find(|repeat| repeat.cpu == row.cpu) {
            Some(repeat) => {
                repeat.count += row.count;
                repeat.packets += row.packets;
                repeat.bytes += row.bytes;
                repeat.tcp_flags |= row.tcp_flags;
                repeat.seq = row.seq;
                repeat.time = row.time;
                repeat.last_time = row.last_time;
                repeat.ingest_time = row.ingest_time;
                repeat.identity_window_open |= row.identity_window_open;
            }
            None => self.repeats.push(FlowRow { record_type: RecordType::Update, ..row }),
        }
    }
}

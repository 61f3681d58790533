//! Gaps that the control thread knows of: time without programs, a stale source, losses of single endpoints.

use std::time::{Duration, Instant, SystemTime};

use netverdict_flowlog::row::{GapCause, GapRow};
use netverdict_probe::{Discovered, Loss};

use super::state::State;
use crate::{clock, codes, health::Part, input::Fact, sequence};

/// Between gaps about the losses of single endpoints.
const LOSSES: Duration = Duration::from_secs(10);
/// Between gaps about a source that stays stale.
const STALE: Duration = Duration::from_secs(60);
/// In this time after the start a source is read whole, where nothing is wrong.
const FIRST_READING: Duration = Duration::from_secs(15);

impl State {
    /// Records the time from the birth of an interface to its attachment, once.
    pub(super) fn record_guarded(&mut self, found: &Discovered, endpoint: String) {
        let Some(guarded) = self.attachments.guarded.get_mut(&found.ifindex) else { return };
        if !std::mem::replace(&mut guarded.told, true) {
            let at = guarded.at;
            self.record_unattached(found, at, endpoint);
        }
    }

    /// From the birth of the interface until `now` its packets were not evaluated.
    pub(super) fn record_unattached(&mut self, found: &Discovered, now: SystemTime, endpoint: String) {
        let detail = match found.born {
            Some(_) => sequence::detail(GapCause::Unattached),
            None => "the interface was there before the collector first saw it; nobody knows for how long",
        };
        self.append_gap(GapCause::Unattached, endpoint, found.born.unwrap_or(now).min(now), now, detail.to_owned());
    }

    /// An incomplete source is on record as long as it is incomplete: from the moment at which that began, which may be
    /// before it was noticed.
    pub(super) fn record_staleness(&mut self, last: bool) {
        let now = SystemTime::now();
        let (troubles, since) = match &self.publication.wanted {
            Some(cluster) => (cluster.troubles.clone(), cluster.stale.iter().map(|source| source.since_ns).min()),
            // Not everything has been read since the start; the tables that an earlier run pinned decide meanwhile.
            None if self.begun.elapsed() >= FIRST_READING => (self.parts.health.of(Part::Source), None),
            None => return,
        };
        let (from, ends) = match self.stale {
            None if troubles.is_empty() => return,
            None => {
                let since = since.map_or(now, |ns| clock::time_of(ns).min(now));
                (if self.publication.wanted.is_none() { self.begun_at } else { since }, false)
            }
            Some((since, told)) if troubles.is_empty() || last || since.elapsed() >= STALE => {
                (told, troubles.is_empty())
            }
            Some(_) => return,
        };
        let most = troubles.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        let detail = if most.is_empty() { sequence::detail(GapCause::SourceStale).to_owned() } else { most };
        self.append_gap(GapCause::SourceStale, String::new(), from, now, detail);
        self.stale = (!ends).then(|| (Instant::now(), now));
    }

    pub(super) fn append_gap(
        &mut self,
        cause: GapCause,
        endpoint: String,
        from: SystemTime,
        to: SystemTime,
        detail: String,
    ) {
        let gap = self.gap(cause, endpoint, from, to, detail);
        self.append(vec![Fact::Gap(Box::new(gap))]);
    }

    fn gap(&self, cause: GapCause, endpoint: String, from: SystemTime, to: SystemTime, detail: String) -> GapRow {
        let (node, boot_id) = (&self.parts.session.node, &self.parts.session.boot_id);
        GapRow { endpoint, ..GapRow::of(cause, node, boot_id, clock::of(from), clock::of(to), detail) }
    }

    /// The endpoints that lost events are recorded beside the gaps per CPU. Only the latter hold the numbers: a lane's
    /// losses would be counted twice otherwise.
    pub(super) fn record_losses(&mut self, losses: &[Loss]) {
        let now = SystemTime::now();
        let Some(recorded_at) = self.losses.recorded_at else {
            // Losses before this start cannot be distinguished from losses that an earlier collector recorded.
            self.losses.recorded =
                losses.iter().map(|loss| ((loss.ifindex, codes::lane_name(loss.lane)), loss.lost)).collect();
            self.losses.recorded_at = Some(now);
            return;
        };
        if now.duration_since(recorded_at).unwrap_or_default() < LOSSES {
            return;
        }
        self.losses.recorded_at = Some(now);
        for loss in losses {
            let lane = codes::lane_name(loss.lane);
            let recorded = self.losses.recorded.insert((loss.ifindex, lane), loss.lost).unwrap_or(0);
            let lost = loss.lost.saturating_sub(recorded);
            if lost == 0 {
                continue;
            }
            let pod = self.attachments.attached.get(&loss.ifindex).map(|bound| bound.pod.to_string());
            let endpoint = pod.unwrap_or_else(|| format!("interface {}", loss.ifindex));
            tracing::warn!(endpoint.name = endpoint, ring.lane = lane.as_str(), events.lost = lost, "ring had no room");
            let detail = format!("{lost} events of this endpoint, counted in the gaps of their CPUs");
            let gap = GapRow {
                lane: Some(lane),
                lost_packets: Some(lost),
                ..self.gap(GapCause::RingFull, endpoint, recorded_at, now, detail)
            };
            self.append(vec![Fact::Gap(Box::new(gap))]);
        }
    }
}

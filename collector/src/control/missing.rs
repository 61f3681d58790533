//! What the control thread knows to be missing: time without programs, a stale source, losses of single endpoints.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use netverdict_flowlog::row::{GapCause, GapRow, LaneName};
use netverdict_probe::{Discovered, Loss};

use super::State;
use crate::{clock, codes, input::Fact, sequence};

/// Losses of single endpoints are told so often.
const LOSSES: Duration = Duration::from_secs(10);
/// A source that stays stale is told again so often.
const STALE: Duration = Duration::from_secs(60);

/// Events lost by interface and lane, as the kernel counts them: those told, and since when there are others.
#[derive(Default)]
pub(super) struct Losses {
    told: BTreeMap<(u32, LaneName), u64>,
    told_at: Option<SystemTime>,
}

impl State {
    /// From the birth of the interface until now nobody judged its packets.
    pub(super) fn tell_unattached(&mut self, found: &Discovered, endpoint: String) {
        let now = SystemTime::now();
        let detail = match found.born {
            Some(_) => sequence::detail(GapCause::Unattached),
            None => "the interface was there before the collector first saw it; nobody knows for how long",
        };
        self.tell_gap(GapCause::Unattached, endpoint, found.born.unwrap_or(now), now, detail.to_owned());
    }

    /// A source that cannot be read whole is on record as long as that lasts.
    pub(super) fn tell_staleness(&mut self, last: bool) {
        let troubles = self.wanted.as_ref().map(|cluster| cluster.troubles.clone()).unwrap_or_default();
        let now = SystemTime::now();
        let (from, ends) = match self.stale {
            None if troubles.is_empty() => return,
            None => (now, false),
            Some((since, told)) if troubles.is_empty() || last || since.elapsed() >= STALE => {
                (told, troubles.is_empty())
            }
            Some(_) => return,
        };
        let most = troubles.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
        let detail = if most.is_empty() { sequence::detail(GapCause::SourceStale).to_owned() } else { most };
        self.tell_gap(GapCause::SourceStale, String::new(), from, now, detail);
        self.stale = (!ends).then(|| (Instant::now(), now));
    }

    fn tell_gap(&mut self, cause: GapCause, endpoint: String, from: SystemTime, to: SystemTime, detail: String) {
        let gap = self.gap(cause, endpoint, from, to, detail);
        self.tell(vec![Fact::Gap(Box::new(gap))]);
    }

    fn gap(&self, cause: GapCause, endpoint: String, from: SystemTime, to: SystemTime, detail: String) -> GapRow {
        let (node, boot_id) = (&self.session.node, &self.session.boot_id);
        GapRow { endpoint, ..GapRow::of(cause, node, boot_id, clock::of(from), clock::of(to), detail) }
    }

    /// Which endpoints lost events is told beside the gaps per CPU, which hold the numbers: those of a lane would be
    /// counted twice otherwise.
    pub(super) fn tell_losses(&mut self, losses: &[Loss]) {
        let now = SystemTime::now();
        let Some(told_at) = self.losses.told_at else {
            // What was lost before this start cannot be told from what was told before it.
            self.losses.told =
                losses.iter().map(|loss| ((loss.ifindex, codes::lane_name(loss.lane)), loss.lost)).collect();
            self.losses.told_at = Some(now);
            return;
        };
        if now.duration_since(told_at).unwrap_or_default() < LOSSES {
            return;
        }
        self.losses.told_at = Some(now);
        for loss in losses {
            let lane = codes::lane_name(loss.lane);
            let told = self.losses.told.insert((loss.ifindex, lane), loss.lost).unwrap_or(0);
            let lost = loss.lost.saturating_sub(told);
            if lost == 0 {
                continue;
            }
            let pod = self.attached.get(&loss.ifindex).map(|bound| bound.pod.to_string());
            let endpoint = pod.unwrap_or_else(|| format!("interface {}", loss.ifindex));
            tracing::warn!(endpoint.name = endpoint, ring.lane = lane.as_str(), events.lost = lost, "ring had no room");
            let detail = format!("{lost} events of this endpoint, counted in the gaps of their CPUs");
            let gap = GapRow {
                lane: Some(lane),
                lost_packets: Some(lost),
                ..self.gap(GapCause::RingFull, endpoint, told_at, now, detail)
            };
            self.tell(vec![Fact::Gap(Box::new(gap))]);
        }
    }
}

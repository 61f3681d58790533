//! Which pod had an address, and when: names an end that the kernel could not name, and contradicts it where it was late.
//!
//! A pod has its addresses from the start that its kubelet reports, or else from when it was first seen with them, until
//! its containers have ended, or it was seen without them, or gone. Where several may have had an address, none is named.
//! It reads no clock: times are those of the pods and of the states that are learnt.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use netverdict_policy::Pod;

use crate::meaning::SnapshotState;

const SECOND_NS: i64 = 1_000_000_000;
/// How long a pod is remembered after it had an address: events are read within seconds, after a restart within minutes.
const KEPT_NS: i64 = 300 * SECOND_NS;
/// Interval between sweeps that remove expired tenures.
const SWEEP_NS: i64 = 30 * SECOND_NS;
/// Pods that are remembered of one address; beyond it the oldest is forgotten.
const MOST_TENURES: usize = 64;

#[derive(Debug, Default)]
pub struct AddressHistory {
    tenures: HashMap<IpAddr, Vec<Tenure>>,
    newest: Option<Arc<SnapshotState>>,
    swept_ns: i64,
}

/// A pod's time with an address, in nanoseconds since 1970.
#[derive(Debug)]
struct Tenure {
    pod: Arc<Pod>,
    from_ns: i64,
    /// Excluded; `i64::MAX` while it has the address.
    to_ns: i64,
}

impl Tenure {
    fn covers(&self, ns: i64) -> bool {
        self.from_ns <= ns && ns < self.to_ns
    }
}

impl AddressHistory {
    /// Learns the changes since the state before.
    pub fn learn(&mut self, state: &Arc<SnapshotState>) {
        let before = self.newest.replace(state.clone());
        let before = before.unwrap_or_else(|| Arc::new(SnapshotState::nothing()));
        for (key, pod) in state.pods_since(&before) {
            if let Some(former) = before.pod(&key) {
                let keeps =
                    |address| pod.as_ref().is_some_and(|pod| pod.uid == former.uid && pod.addresses.contains(address));
                former.addresses.iter().filter(|address| !keeps(address)).for_each(|address| {
                    self.end(*address, &former.uid, state.seen_ns);
                });
            }
            pod.iter().for_each(|pod| self.note(pod, state.seen_ns));
        }
        if state.seen_ns - self.swept_ns > SWEEP_NS {
            self.swept_ns = state.seen_ns;
            self.tenures.retain(|_, tenures| {
                tenures.retain(|tenure| tenure.to_ns.saturating_add(KEPT_NS) >= state.seen_ns);
                !tenures.is_empty()
            });
        }
    }

    /// The pod that had the address. `None` where none is known to have had it, or several may have.
    pub fn owner(&self, address: IpAddr, ns: i64) -> Option<&Arc<Pod>> {
        let mut owners = self.of(address).filter(|tenure| tenure.covers(ns));
        let owner = owners.next()?;
        owners.next().is_none().then_some(&owner.pod)
    }

    /// Whether the address was another pod's at that time, or no longer that of the pod with this uid.
    pub fn contradicts(&self, address: IpAddr, ns: i64, uid: &str) -> bool {
        self.of(address).any(|tenure| if tenure.pod.uid == uid { tenure.to_ns <= ns } else { tenure.covers(ns) })
    }

    fn of(&self, address: IpAddr) -> impl Iterator<Item = &Tenure> {
        self.tenures.get(&address.to_canonical()).into_iter().flatten()
    }

    fn note(&mut self, pod: &Arc<Pod>, seen_ns: i64) {
        if pod.host_network {
            return;
        }
        // Nothing can have happened after it was seen: a kubelet's clock may be wrong. It reports whole seconds.
        let at = |seconds: i64| seconds.saturating_mul(SECOND_NS).min(seen_ns);
        let from_ns = pod.started.map_or(seen_ns, at);
        let to_ns = match (pod.finished(), pod.ended) {
            (false, _) => i64::MAX,
            (true, None) => seen_ns,
            (true, Some(ended)) => at(ended.saturating_add(1)),
        };
        for address in &pod.addresses {
            let tenures = self.tenures.entry(address.to_canonical()).or_default();
            if let Some(known) = tenures.iter_mut().find(|tenure| tenure.pod.uid == pod.uid) {
                *known =
                    Tenure { pod: pod.clone(), from_ns: known.from_ns.min(from_ns), to_ns: known.to_ns.min(to_ns) };
                continue;
            }
            if tenures.len() >= MOST_TENURES {
                tenures.remove(0);
            }
            tenures.push(Tenure { pod: pod.clone(), from_ns, to_ns });
        }
    }

    fn end(&mut self, address: IpAddr, uid: &str, seen_ns: i64) {
        let tenures = self.tenures.get_mut(&address.to_canonical()).into_iter().flatten();
        tenures.filter(|tenure| tenure.pod.uid == uid).for_each(|tenure| tenure.to_ns = tenure.to_ns.min(seen_ns));
    }
}

#[cfg(test)]
mod tests {
    use netverdict_policy::{
        build::{PodBuilder, cluster, pod},
        model::Phase,
    };

    use super::*;
    use crate::simulated_node::SimulatedNode;

    const ADDRESS: &str = "10.0.0.9";

    fn state(seen: i64, pods: &[PodBuilder]) -> Arc<SnapshotState> {
        let snapshot = pods.iter().cloned().fold(cluster(), netverdict_policy::build::Cluster::pod).snapshot();
        let mut state = SimulatedNode::of(snapshot, 1, 1).state;
        state.seen_ns = seen * SECOND_NS;
        Arc::new(state)
    }

    fn owner(history: &AddressHistory, tenths: i64) -> Option<String> {
        let pod = history.owner(ADDRESS.parse().unwrap(), tenths * SECOND_NS / 10)?;
        Some(pod.name.clone())
    }

    fn contradicts(history: &AddressHistory, tenths: i64, uid: &str) -> bool {
        history.contradicts(ADDRESS.parse().unwrap(), tenths * SECOND_NS / 10, uid)
    }

    #[test]
    fn each_of_fifty_pods_in_turn_had_the_address_in_its_own_time() {
        let mut history = AddressHistory::default();
        // Each lives for two seconds, and is seen a second after it began.
        for turn in 0..50 {
            let pod = pod(&format!("jobs/job-{turn}")).at(&[ADDRESS]).lived(1_000 + 2 * turn, None);
            history.learn(&state(1_001 + 2 * turn, &[pod]));
        }
        for turn in 0..50 {
            let (name, uid) = (format!("job-{turn}"), format!("uid-jobs-job-{turn}"));
            let begin = 10_000 + 20 * turn;
            // The one before was last seen to be there until a second after this one began.
            assert_eq!(owner(&history, begin + 15).as_deref(), Some(name.as_str()));
            assert_eq!(owner(&history, begin + 5), (turn == 0).then(|| name.clone()), "either may have had it");
            assert!(!contradicts(&history, begin + 15, &uid));
            assert!(contradicts(&history, begin + 15, &format!("uid-jobs-job-{}", turn + 1)));
            assert_eq!(contradicts(&history, begin + 35, &uid), turn < 49, "the last one still has it");
        }
    }

    #[test]
    fn a_job_that_was_first_seen_when_it_was_over_had_its_address_while_it_ran() {
        let mut history = AddressHistory::default();
        history.learn(&state(1_000, &[]));
        let done = pod("jobs/short").at(&[ADDRESS]).phase(Phase::Succeeded).lived(1_010, Some(1_010));
        history.learn(&state(1_012, &[done]));
        history.learn(&state(1_013, &[]));
        assert_eq!(
            (owner(&history, 10_099), owner(&history, 10_103), owner(&history, 10_110)),
            (None, Some("short".into()), None)
        );
        // Its successor is not taken for it, nor it for its successor.
        let next = pod("jobs/next").at(&[ADDRESS]).lived(1_011, None);
        history.learn(&state(1_014, &[next]));
        assert_eq!((owner(&history, 10_103), owner(&history, 10_140)), (Some("short".into()), Some("next".into())));
    }

    #[test]
    fn what_is_long_over_is_forgotten_and_a_wrong_clock_names_nobody_from_the_future() {
        let mut history = AddressHistory::default();
        history.learn(&state(1_000, &[pod("a/ahead").at(&[ADDRESS]).lived(9_999, None)]));
        assert_eq!((owner(&history, 9_990), owner(&history, 10_000)), (None, Some("ahead".into())));
        history.learn(&state(1_100, &[]));
        history.learn(&state(1_390, &[]));
        assert_eq!(owner(&history, 10_500).as_deref(), Some("ahead"));
        history.learn(&state(1_500, &[]));
        assert!(history.tenures.is_empty());
    }

    #[test]
    fn the_network_of_a_node_is_no_pods() {
        let mut history = AddressHistory::default();
        history.learn(&state(1_000, &[pod("a/agent").at(&[ADDRESS]).host_network()]));
        assert_eq!((owner(&history, 10_000), contradicts(&history, 10_000, "other")), (None, false));
    }
}

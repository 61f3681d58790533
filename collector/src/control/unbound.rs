//! Endpoints that are not judged by policy: bound to no pod, or without tables, or reachable past the programs. They
//! show in health and metrics, and in the record as long as it lasts.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use netverdict_flowlog::row::GapCause;
use netverdict_probe::{Discovered, Uncovered};

use super::state::{Guarded, OpenGap, State};
use crate::{
    health::{Part, Trouble},
    metrics::signed,
    sequence,
};

/// A pod is bound within this time where all is well.
const EXPECTED_WITHIN: Duration = Duration::from_secs(5);
/// Between rows about a gap that is still open.
const STILL_OPEN: Duration = Duration::from_secs(60);
/// Open gaps with rows of their own. Beyond that, health and metrics count them.
const MOST_GAPS: usize = 256;

/// Gaps that are open now, with their details for the record.
type Open = BTreeMap<(GapCause, String), (SystemTime, String)>;

/// Endpoints that are not judged, by name.
#[derive(Default)]
struct Unjudged {
    /// With programs and without a pod; since when.
    unbound: Vec<(String, SystemTime)>,
    /// Bound to a pod without tables.
    incomplete: Vec<String>,
    /// Pods, and their interfaces that no program covers.
    uncovered: Vec<(String, String)>,
}

impl State {
    /// Reports the endpoints that are not judged. `last`: the collector ends, and open gaps are recorded until now.
    pub(super) fn tell_unbound(&mut self, last: bool) {
        let unjudged = self.unjudged();
        let Unjudged { unbound, incomplete, uncovered } = &unjudged;
        self.parts.metrics.unbound.set(signed((unbound.len() + incomplete.len()) as u64));
        self.parts.metrics.uncovered.set(signed(uncovered.len() as u64));
        let troubles = unjudged.troubles(&self.parts.session.node);
        self.parts.metrics.troubles(Part::Unbound, troubles.len());
        if self.parts.health.set_named(Part::Unbound, troubles.clone()) && !troubles.is_empty() {
            let troubles: Vec<String> = troubles.iter().map(ToString::to_string).collect();
            tracing::warn!(unbound.troubles = ?troubles, "endpoints are not judged by policy");
        }
        self.record_open(unjudged.gaps(), last);
    }

    fn unjudged(&self) -> Unjudged {
        let mut unjudged = Unjudged {
            uncovered: self.attachments.uncovered.iter().map(|uncovered| self.uncovered(uncovered)).collect(),
            ..Unjudged::default()
        };
        let expected = |guarded: &Guarded| guarded.since.elapsed() >= EXPECTED_WITHIN;
        for (ifindex, guarded) in self.attachments.guarded.iter().filter(|(_, guarded)| expected(guarded)) {
            let Some(found) = self.attachments.sighted.get(ifindex) else { continue };
            match self.attachments.attached.get(ifindex) {
                None => unjudged.unbound.push((self.name_of(found), guarded.at)),
                Some(bound) if !self.parts.probe.is_ready(*ifindex).unwrap_or(false) => {
                    unjudged.incomplete.push(bound.pod.to_string());
                }
                Some(_) => {}
            }
        }
        unjudged
    }

    /// The pod's name or uid as far as either is known, or else the interface.
    fn name_of(&self, found: &Discovered) -> String {
        match (self.attachments.claims.of(found.netns_cookie), &found.pod_uid) {
            (Some(claim), _) => claim.pod.to_string(),
            (None, Some(uid)) => format!("interface {} (pod uid {uid})", found.name),
            (None, None) => format!("interface {}", found.name),
        }
    }

    fn uncovered(&self, uncovered: &Uncovered) -> (String, String) {
        let Uncovered { netns_cookie: _, pod_uid, interface, kind } = uncovered;
        let pods = self.publication.wanted.iter().flat_map(|cluster| cluster.snapshot.pods.values());
        let pod =
            pods.into_iter().find(|pod| pod.uid == *pod_uid || (pod.cgroup_uid == *pod_uid && !pod_uid.is_empty()));
        let name = pod.map_or_else(|| format!("pod uid {pod_uid}"), |pod| pod.key().to_string());
        (
            name,
            format!("interface {interface} is a {kind}, which no program covers: nothing that passes there is judged"),
        )
    }

    /// Rows for gaps that begin, that have been open for a while, and that end.
    fn record_open(&mut self, mut open: Open, last: bool) {
        let now = SystemTime::now();
        let mut rows = Vec::new();
        let mut still_open = BTreeMap::new();
        for (key, known) in std::mem::take(&mut self.attachments.open_gaps) {
            let ends = open.remove(&key).is_none();
            if ends || last || known.at.elapsed() >= STILL_OPEN {
                rows.push((key.clone(), known.recorded, known.detail.clone()));
                if !ends {
                    still_open.insert(key, OpenGap { recorded: now, at: Instant::now(), ..known });
                }
            } else {
                still_open.insert(key, known);
            }
        }
        for (key, (from, detail)) in open {
            if still_open.len() >= MOST_GAPS {
                break;
            }
            rows.push((key.clone(), from, detail.clone()));
            still_open.insert(key, OpenGap { recorded: now, at: Instant::now(), detail });
        }
        self.attachments.open_gaps = still_open;
        for ((cause, endpoint), from, detail) in rows {
            self.append_gap(cause, endpoint, from, now, detail);
        }
    }
}

impl Unjudged {
    /// For health.
    fn troubles(&self, node: &str) -> Vec<Trouble> {
        let Self { unbound, incomplete, uncovered } = self;
        let unbound = unbound.iter().map(|(name, _)| name.clone()).collect();
        let uncovered = uncovered.iter().map(|(pod, detail)| format!("{pod}: {detail}")).collect();
        let troubles = [
            trouble(
                unbound,
                ["interface belongs", "interfaces belong"],
                "to no pod that the cluster source has",
                "compare it with the pods of this node, or give --unannounced ignore if they are not pods'",
            ),
            trouble(
                incomplete.clone(),
                ["pod is", "pods are"],
                &format!("not in the tables of node {node}"),
                "they have ended, or --node is another name than the API server's",
            ),
            trouble(
                uncovered,
                ["interface is", "interfaces are"],
                "not covered",
                "give these pods an interface of a veth pair",
            ),
        ];
        troubles.into_iter().flatten().collect()
    }

    /// For the record. Bound endpoints are in it already: each packet says that its endpoint was not ready.
    fn gaps(self) -> Open {
        let Self { unbound, incomplete: _, uncovered } = self;
        let detail = sequence::detail(GapCause::Unbound);
        let unbound = unbound.into_iter().map(|(name, since)| ((GapCause::Unbound, name), (since, detail.to_owned())));
        let now = SystemTime::now();
        let uncovered = uncovered.into_iter().map(|(pod, detail)| ((GapCause::Unattached, pod), (now, detail)));
        unbound.chain(uncovered).collect()
    }
}

/// `words`: for one, and for several.
fn trouble(names: Vec<String>, words: [&str; 2], condition: &str, remedy: &str) -> Option<Trouble> {
    let number = names.len();
    let words = words[usize::from(number != 1)];
    (number > 0).then(|| Trouble { text: format!("{number} {words} {condition}"), remedy: remedy.to_owned(), names })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_unjudged_endpoint_has_its_names_and_its_remedy() {
        let unjudged = Unjudged {
            unbound: vec![("shop/late".to_owned(), SystemTime::UNIX_EPOCH)],
            incomplete: vec!["shop/web".to_owned(), "shop/api".to_owned()],
            uncovered: vec![("db/pg".to_owned(), "interface eth1 is a macvlan".to_owned())],
        };
        let told: Vec<String> = unjudged.troubles("n1").iter().map(ToString::to_string).collect();
        let begin = |text: &String| text.split("; ").next().unwrap_or_default().to_owned();
        assert_eq!(
            told.iter().map(begin).collect::<Vec<_>>(),
            [
                "1 interface belongs to no pod that the cluster source has",
                "2 pods are not in the tables of node n1",
                "1 interface is not covered"
            ]
        );
        assert!(told[0].ends_with(": shop/late") && told[1].ends_with(": shop/web, shop/api"), "{told:?}");
        assert!(told[2].ends_with(": db/pg: interface eth1 is a macvlan"), "{told:?}");
        assert_eq!(Unjudged::default().troubles("n1"), []);
    }
}

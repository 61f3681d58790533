//! Interfaces that come and go: bound to the pods of the newest snapshot, attached, and forgotten.

use std::{sync::Arc, time::Instant};

use netverdict_probe::{Discovered, ProbeError, Sighting, bind};
use netverdict_service::error_chain::chain;

use super::{RETRY, State};
use crate::{cluster::ClusterState, health::Part, input::Input, metrics::signed};

impl State {
    pub(super) fn sight(&mut self, sighting: Sighting) {
        match sighting {
            Sighting::Found(found) => {
                self.sighted.insert(found.ifindex, found);
                self.bind_again = true;
            }
            Sighting::Gone { ifindex } => {
                let sighted = self.sighted.remove(&ifindex);
                if self.attached.remove(&ifindex).is_some() {
                    if let Err(error) = self.probe.detach(ifindex) {
                        tracing::warn!(endpoint.interface = ifindex, error = %chain(&error), "interface not detached");
                    }
                    self.metrics.endpoints.set(signed(self.attached.len() as u64));
                    tracing::info!(endpoint.interface = ifindex, "endpoint is gone");
                } else if let Some(found) = sighted
                    && self.is_a_pods(&found)
                {
                    self.tell_unattached(&found, format!("interface {}", found.name));
                }
            }
        }
    }

    /// Binds what can be bound and attaches it, or brings it up to date.
    pub(super) fn attach_all(&mut self) {
        let Some(cluster) = self.wanted.clone() else { return };
        let mut troubles = Vec::new();
        let sighted: Vec<Discovered> = self.sighted.values().cloned().collect();
        for found in sighted {
            let Some(bound) = bind(&found, &cluster.snapshot) else { continue };
            let known = self.attached.get(&found.ifindex).filter(|known| known.netns_cookie == bound.netns_cookie);
            // A binding holds until the interface is deleted; its pod's addresses may still change.
            if known.is_some_and(|known| *known == bound || known.pod_uid != bound.pod_uid) {
                continue;
            }
            let is_new = known.is_none();
            if is_new {
                let (interface, pod, uid) = (bound.ifindex, bound.pod.clone(), bound.pod_uid.clone());
                self.send(Input::Bound { interface, pod, uid });
            }
            match self.probe.attach(&bound) {
                Ok(()) => {
                    if is_new {
                        tracing::info!(endpoint.interface = bound.ifindex, endpoint.pod = %bound.pod, "endpoint attached");
                        self.tell_unattached(&found, bound.pod.to_string());
                    }
                    self.attached.insert(bound.ifindex, bound);
                }
                Err(ProbeError::NoInterface { .. }) => {}
                Err(error) => {
                    self.metrics.failed(Part::Attach);
                    troubles.push(format!("{}: {}", bound.pod, chain(&error)));
                    self.attach_at = Some(Instant::now() + RETRY);
                }
            }
        }
        self.metrics.endpoints.set(signed(self.attached.len() as u64));
        self.metrics.troubles(Part::Attach, troubles.len());
        let told = troubles.clone();
        if self.health.set(Part::Attach, troubles) && !told.is_empty() {
            tracing::error!(attach.troubles = ?told, "endpoints not attached");
        }
    }

    /// Whether an interface nobody could bind must have been a pod's.
    fn is_a_pods(&self, found: &Discovered) -> bool {
        let in_range = |cluster: &Arc<ClusterState>| {
            let ranges = &cluster.snapshot.pod_ranges;
            found.addresses.iter().any(|address| ranges.iter().any(|range| range.contains(address)))
        };
        found.pod_uid.is_some() || self.wanted.as_ref().is_some_and(in_range)
    }
}

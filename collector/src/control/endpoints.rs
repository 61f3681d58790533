//! Interfaces that come and go: bound to the pods of the newest snapshot, attached, and forgotten.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use netverdict_probe::{Discovered, ProbeError, Sighting, bind};
use netverdict_service::error_chain::chain;

use super::state::State;
use crate::{cluster::ClusterState, health::Part, input::Input, metrics::signed};

/// Between attempts to attach.
const RETRY: Duration = Duration::from_secs(1);

impl State {
    pub(super) fn sight(&mut self, sighting: Sighting) {
        match sighting {
            Sighting::Found(found) => {
                self.attachments.sighted.insert(found.ifindex, found);
                self.attachments.bind_again = true;
            }
            Sighting::Uplinks(uplinks) => {
                self.attachments.uplinks = uplinks;
                self.attachments.bind_again = true;
            }
            Sighting::OwnAddresses(addresses) => self.use_own_addresses(addresses),
            Sighting::Gone { ifindex } => {
                let sighted = self.attachments.sighted.remove(&ifindex);
                if self.attachments.attached.remove(&ifindex).is_some() {
                    if let Err(error) = self.parts.probe.detach(ifindex) {
                        tracing::warn!(endpoint.interface = ifindex, error = %chain(&error), "interface not detached");
                    }
                    self.parts.metrics.endpoints.set(signed(self.attachments.attached.len() as u64));
                    tracing::info!(endpoint.interface = ifindex, "endpoint is gone");
                } else if let Some(found) = sighted
                    && self.is_a_pods(&found)
                {
                    self.record_unattached(&found, format!("interface {}", found.name));
                }
            }
        }
    }

    /// Binds what can be bound and attaches it, or brings it up to date.
    pub(super) fn attach_all(&mut self) {
        let Some(cluster) = self.publication.wanted.clone() else { return };
        let mut troubles = Vec::new();
        let sighted: Vec<Discovered> = self.attachments.sighted.values().cloned().collect();
        for found in sighted {
            let Some(bound) = bind(&found, &cluster.snapshot) else { continue };
            let known =
                self.attachments.attached.get(&found.ifindex).filter(|known| known.netns_cookie == bound.netns_cookie);
            // A binding holds until the interface is deleted; its pod's addresses may still change.
            if known.is_some_and(|known| *known == bound || known.pod_uid != bound.pod_uid) {
                continue;
            }
            let is_new = known.is_none();
            if is_new {
                let (interface, pod, uid) = (bound.ifindex, bound.pod.clone(), bound.pod_uid.clone());
                self.send(Input::Bound { interface, pod, uid });
            }
            match self.parts.probe.attach(&bound) {
                Ok(()) => {
                    if is_new {
                        tracing::info!(endpoint.interface = bound.ifindex, endpoint.pod = %bound.pod, "endpoint attached");
                        self.record_unattached(&found, bound.pod.to_string());
                    }
                    self.attachments.attached.insert(bound.ifindex, bound);
                }
                Err(ProbeError::NoInterface { .. }) => {}
                Err(error) => {
                    self.parts.metrics.failed(Part::Attach);
                    troubles.push(format!("{}: {}", bound.pod, chain(&error)));
                    self.attachments.attach_at = Some(Instant::now() + RETRY);
                }
            }
        }
        self.parts.metrics.endpoints.set(signed(self.attachments.attached.len() as u64));
        self.parts.metrics.troubles(Part::Attach, troubles.len());
        let told = troubles.clone();
        if self.parts.health.set(Part::Attach, troubles) && !told.is_empty() {
            tracing::error!(attach.troubles = ?told, "endpoints not attached");
        }
    }

    /// Has what leaves the node judged at every interface that is no pod's.
    pub(super) fn follow_uplinks(&mut self) {
        let mut troubles: Vec<String> =
            self.parts.probe.conntrack_trouble().map(ToOwned::to_owned).into_iter().collect();
        match self.parts.probe.follow_uplinks(&self.attachments.uplinks) {
            Ok(unjudged) => troubles.extend(unjudged),
            Err(error) => {
                self.parts.metrics.failed(Part::Services);
                troubles.push(chain(&error));
                self.attachments.attach_at = Some(Instant::now() + RETRY);
            }
        }
        self.parts.metrics.troubles(Part::Services, troubles.len());
        let told = troubles.clone();
        if self.parts.health.set(Part::Services, troubles) && !told.is_empty() {
            tracing::warn!(services.troubles = ?told, "backends of Services are not all known");
        }
    }

    /// Whether an interface nobody could bind must have been a pod's.
    fn is_a_pods(&self, found: &Discovered) -> bool {
        let in_range = |cluster: &Arc<ClusterState>| {
            let ranges = &cluster.snapshot.pod_ranges;
            found.addresses.iter().any(|address| ranges.iter().any(|range| range.contains(address)))
        };
        found.pod_uid.is_some() || self.publication.wanted.as_ref().is_some_and(in_range)
    }
}

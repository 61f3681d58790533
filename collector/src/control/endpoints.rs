//! Interfaces that come and go: programs are attached as soon as one is sighted, and bound to its pod once it is known.
//!
//! Until then the endpoint is not ready: enforce mode denies it. The pod of an interface is known from the CNI plugin, or
//! else from the cgroup of the processes behind it; never from an address.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

use netverdict_probe::{BoundEndpoint, Discovered, ProbeError, Sighting, bind};
use netverdict_service::error_chain::chain;

use super::state::{Guarded, State};
use crate::{health::Part, input::Input, metrics::signed, options::Unannounced};

/// Between attempts to attach.
const RETRY: Duration = Duration::from_secs(1);
/// A namespace in which only processes of no pod have been seen for this long is not a pod's. A CNI plugin may start a
/// program in a pod's before the pod has a process of its own.
const NOT_A_PODS_AFTER: Duration = Duration::from_secs(5);

impl State {
    pub(super) fn sight(&mut self, sighting: Sighting) {
        match sighting {
            Sighting::Found(found) => {
                self.guard(&found);
                self.attachments.sighted.insert(found.ifindex, found);
                self.attachments.bind_again = true;
            }
            Sighting::Uplinks(uplinks) => {
                self.attachments.uplinks = uplinks;
                self.attachments.bind_again = true;
            }
            Sighting::OwnAddresses(addresses) => self.use_own_addresses(addresses),
            Sighting::Uncovered(uncovered) => self.attachments.uncovered = uncovered,
            Sighting::Gone { ifindex } => self.forget(ifindex),
        }
    }

    /// Attaches the programs if the interface belongs to a pod, as far as is known. Comes before any other step for it.
    pub(super) fn guard(&mut self, found: &Discovered) {
        let &Discovered { ifindex, netns_cookie, .. } = found;
        let is_a_pods = self.is_a_pods(found);
        let guarded = self.attachments.guarded.get_mut(&ifindex).filter(|known| known.netns_cookie == netns_cookie);
        if let Some(guarded) = guarded {
            guarded.not_a_pods_since = (!is_a_pods).then(|| guarded.not_a_pods_since.unwrap_or_else(Instant::now));
            return;
        }
        if !is_a_pods {
            return;
        }
        match self.parts.probe.guard(ifindex, netns_cookie) {
            Ok(()) => {
                self.attachments.failed.remove(&ifindex);
                let (at, since) = (SystemTime::now(), Instant::now());
                // Nothing runs in a pod that the plugin waits for.
                let told = self.attachments.waiting.iter().any(|waiting| waiting.interfaces.contains(&ifindex));
                let guarded = Guarded { netns_cookie, at, since, not_a_pods_since: None, told };
                self.attachments.guarded.insert(ifindex, guarded);
                tracing::info!(endpoint.interface = ifindex, "programs attached");
            }
            Err(ProbeError::NoInterface { .. }) => {}
            Err(error) => self.attachment_failed(found, format!("interface {}: {}", found.name, chain(&error))),
        }
    }

    /// Binds the interfaces of known pods, or brings them up to date, and tries failed attachments again.
    pub(super) fn attach_all(&mut self) {
        self.attachments.failed.clear();
        let sighted: Vec<Discovered> = self.attachments.sighted.values().cloned().collect();
        for found in &sighted {
            self.guard(found);
        }
        if let Some(cluster) = self.publication.wanted.clone() {
            for found in &sighted {
                if self.attachments.guarded.contains_key(&found.ifindex)
                    && let Some(uid) = self.uid_behind(found)
                    && let Some(bound) = bind(found, uid, &cluster.snapshot)
                {
                    self.attach(found, bound);
                }
            }
        }
        self.parts.metrics.endpoints.set(signed(self.attachments.attached.len() as u64));
        let mut troubles: Vec<String> = self.attachments.failed.values().cloned().collect();
        if let Err(error) = self.parts.probe.save() {
            self.parts.metrics.failed(Part::Attach);
            troubles.push(chain(&error));
            self.attachments.attach_at = Some(Instant::now() + RETRY);
        }
        self.parts.metrics.troubles(Part::Attach, troubles.len());
        if self.parts.health.set(Part::Attach, troubles.clone()) && !troubles.is_empty() {
            tracing::error!(attach.troubles = ?troubles, "endpoints not attached");
        }
    }

    /// Has packets that leave the node judged at every interface that is no pod's.
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

    fn attach(&mut self, found: &Discovered, bound: BoundEndpoint) {
        let ifindex = bound.ifindex;
        let known = self.attachments.attached.get(&ifindex).filter(|known| known.netns_cookie == bound.netns_cookie);
        // The kernel's record may have been lost: to a plugin that took this collector for dead.
        if known == Some(&bound) && self.parts.probe.is_ready(ifindex).unwrap_or(false) {
            return;
        }
        let is_new = known.is_none_or(|known| known.pod_uid != bound.pod_uid);
        if is_new {
            let (interface, pod, uid) = (ifindex, bound.pod.clone(), bound.pod_uid.clone());
            self.send(Input::Bound { interface, pod, uid });
        }
        match self.parts.probe.bind(&bound) {
            Ok(()) => {
                if is_new {
                    tracing::info!(endpoint.interface = ifindex, endpoint.pod = %bound.pod, "endpoint bound");
                    self.record_guarded(found, bound.pod.to_string());
                }
                self.attachments.attached.insert(ifindex, bound);
            }
            Err(ProbeError::NoInterface { .. }) => {}
            Err(error) => self.attachment_failed(found, format!("{}: {}", bound.pod, chain(&error))),
        }
    }

    fn attachment_failed(&mut self, found: &Discovered, trouble: String) {
        self.parts.metrics.failed(Part::Attach);
        self.attachments.failed.insert(found.ifindex, trouble);
        self.attachments.attach_at = Some(Instant::now() + RETRY);
    }

    fn forget(&mut self, ifindex: u32) {
        let sighted = self.attachments.sighted.remove(&ifindex);
        self.attachments.failed.remove(&ifindex);
        let is_guarded = self.attachments.guarded.contains_key(&ifindex);
        let is_bound = self.attachments.attached.remove(&ifindex).is_some();
        if is_guarded {
            if let Err(error) = self.parts.probe.detach(ifindex) {
                tracing::warn!(endpoint.interface = ifindex, error = %chain(&error), "interface not detached");
            }
            tracing::info!(endpoint.interface = ifindex, "endpoint is gone");
        }
        if let Some(found) = sighted {
            if is_guarded && !is_bound {
                self.record_guarded(&found, format!("interface {}", found.name));
            } else if !is_guarded && self.is_a_pods(&found) {
                self.record_unattached(&found, SystemTime::now(), format!("interface {}", found.name));
            }
            let is_alone = |other: &Discovered| other.netns_cookie != found.netns_cookie;
            if self.attachments.sighted.values().all(is_alone) {
                self.attachments.claims.forget(found.netns_cookie);
            }
        }
        self.attachments.guarded.remove(&ifindex);
        self.parts.metrics.endpoints.set(signed(self.attachments.attached.len() as u64));
    }

    /// Detaches interfaces that turned out not to be a pod's: a container's of another engine, or the node's own software's.
    pub(super) fn release_others(&mut self) {
        let is_over = |guarded: &Guarded| guarded.not_a_pods_since.is_some_and(|at| at.elapsed() >= NOT_A_PODS_AFTER);
        let over: Vec<u32> = self
            .attachments
            .guarded
            .iter()
            .filter(|(_, guarded)| is_over(guarded))
            .map(|(ifindex, _)| *ifindex)
            .collect();
        for ifindex in over {
            if self.attachments.attached.contains_key(&ifindex) {
                continue;
            }
            match self.parts.probe.detach(ifindex) {
                Ok(()) => {
                    self.attachments.guarded.remove(&ifindex);
                    tracing::info!(endpoint.interface = ifindex, "interface is not a pod's and was detached");
                }
                Err(error) => {
                    tracing::warn!(endpoint.interface = ifindex, error = %chain(&error), "interface not detached");
                }
            }
        }
    }

    /// The uid of the pod behind an interface. The CNI plugin's claim takes precedence over the processes inside.
    pub(super) fn uid_behind<'a>(&'a self, found: &'a Discovered) -> Option<&'a str> {
        let claimed = self.attachments.claims.of(found.netns_cookie).map(|claim| claim.pod_uid.as_str());
        claimed.filter(|uid| !uid.is_empty()).or(found.pod_uid.as_deref())
    }

    /// Whether an interface must be taken for a pod's.
    fn is_a_pods(&self, found: &Discovered) -> bool {
        self.uid_behind(found).is_some()
            || self.attachments.claims.of(found.netns_cookie).is_some()
            || (self.parts.unannounced == Unannounced::Attach && !found.has_processes)
    }

    /// Addresses assigned to the present pods, by uid: the API server learns them later.
    pub(super) fn assigned_addresses(&self) -> BTreeMap<String, Vec<IpAddr>> {
        let mut assigned = BTreeMap::<String, Vec<IpAddr>>::new();
        for found in self.attachments.sighted.values() {
            let Some(uid) = self.uid_behind(found) else { continue };
            for address in self.attachments.claims.addresses(found.netns_cookie) {
                let addresses = assigned.entry(uid.to_owned()).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        assigned
    }
}

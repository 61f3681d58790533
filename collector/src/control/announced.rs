//! Announcements of the CNI plugin: a pod's interface is attached at once, and the plugin is answered when the pod is judged,
//! or when its time is over.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use netverdict_probe::{Announcement, Answer, ClaimFolder, Sighting};
use netverdict_service::error_chain::chain;
use tokio::sync::oneshot;

use super::state::{State, Waiting};
use crate::{cluster::ClusterState, health::Part};

/// An announcement, and where its answer goes.
#[derive(Debug)]
pub struct Announced {
    pub announcement: Announcement,
    pub answer: oneshot::Sender<Answer>,
}

impl State {
    /// The claims that were written while no collector ran, or while this one did not answer.
    pub(super) fn read_claims(&mut self, folder: &ClaimFolder) {
        match folder.read() {
            Ok(claims) => claims.into_iter().for_each(|claim| self.attachments.claims.add(claim)),
            Err(error) => tracing::warn!(error = %chain(&error), "claims of the CNI plugin cannot be read"),
        }
    }

    pub(super) fn hear(&mut self, announced: Vec<Announced>) {
        if announced.is_empty() {
            return;
        }
        for Announced { announcement, answer } in announced {
            let Announcement { claim, found, wait_ms } = announcement;
            let (pod, interfaces) = (claim.pod.to_string(), found.iter().map(|found| found.ifindex).collect());
            self.attachments.claims.add(claim);
            let until = Instant::now() + Duration::from_millis(wait_ms);
            self.attachments.waiting.push(Waiting { interfaces, pod, until, answer });
            // The watch reports when an interface appeared. It may have been first.
            for mut found in found {
                if let Some(guarded) = self.attachments.guarded.get_mut(&found.ifindex) {
                    guarded.told = true;
                }
                if let Some(known) = self.attachments.sighted.get(&found.ifindex)
                    && known.netns_cookie == found.netns_cookie
                {
                    found = known.clone();
                } else {
                    found.born = Some(SystemTime::now());
                }
                self.sight(Sighting::Found(found));
            }
        }
        // With the addresses that were assigned.
        self.complete_and_publish();
    }

    /// Answers announcements whose pod is judged, or whose time is over.
    pub(super) fn answer_waiting(&mut self) {
        for waiting in std::mem::take(&mut self.attachments.waiting) {
            let is_ready = |ifindex: &u32| {
                self.attachments.attached.contains_key(ifindex) && self.parts.probe.is_ready(*ifindex).unwrap_or(false)
            };
            let is_over = Instant::now() >= waiting.until;
            if !waiting.interfaces.iter().all(is_ready) && !is_over {
                self.attachments.waiting.push(waiting);
                continue;
            }
            let answer = self.answer_to(&waiting, waiting.interfaces.iter().all(is_ready));
            // The plugin may have given up.
            let _ = waiting.answer.send(answer);
        }
    }

    fn answer_to(&self, waiting: &Waiting, is_judged: bool) -> Answer {
        let mode = self.parts.session.mode.as_str().to_owned();
        let is_guarded = |ifindex: &u32| self.attachments.guarded.contains_key(ifindex);
        if !waiting.interfaces.iter().all(is_guarded) {
            let failed = waiting.interfaces.iter().find_map(|ifindex| self.attachments.failed.get(ifindex));
            let reason = failed.cloned().unwrap_or_else(|| "its interface is gone".to_owned());
            return Answer::NotAttached { mode, reason };
        }
        if is_judged {
            return Answer::Judged;
        }
        let known = |cluster: &Arc<ClusterState>| {
            cluster.snapshot.pods.values().any(|pod| pod.key().to_string() == waiting.pod)
        };
        let reason = match (&self.publication.wanted, self.parts.health.of(Part::Publish).first()) {
            (_, Some(trouble)) => trouble.clone(),
            (None, _) => "the cluster's objects have not been read yet".to_owned(),
            (Some(cluster), _) if !known(cluster) => "the cluster source does not have the pod yet".to_owned(),
            (Some(_), _) => format!("the pod is not one of node {}", self.parts.session.node),
        };
        Answer::NotReady { mode, reason }
    }
}

//! One address: its claims, and its owner.

use std::{collections::BTreeSet, net::IpAddr};

use super::{identity::Signature, profiles::ProfileId};
use crate::{
    address,
    model::{ObjectKey, Pod},
    tables::{IdentityId, OwnerId, PeerEntry},
};

/// An address that a pod, a node or a Service has.
#[derive(Debug, Default)]
pub(super) struct AddressRecord {
    /// In order of the claimants.
    claims: Vec<Claim>,
    pub(super) services: BTreeSet<ObjectKey>,
    /// The owner's id, once it was looked up.
    pub(super) owner: Option<OwnerId>,
}

#[derive(Debug)]
pub(super) struct Claim {
    pub(super) claimant: Claimant,
    /// Of a pod.
    pub(super) profile: Option<ProfileId>,
    /// The pod is being deleted.
    leaving: bool,
    /// How often: a node's address may also be that of several pods on its network.
    count: usize,
}

impl Claim {
    /// By a pod that stays.
    fn is_lasting(&self) -> bool {
        matches!(self.claimant, Claimant::Pod(_)) && !self.leaving
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claimant {
    Pod(ObjectKey),
    Node(String),
}

/// The owner of an address.
#[derive(Debug)]
pub(super) enum Holder {
    Pod(ObjectKey),
    Node(String),
    Service(ObjectKey),
    /// Several claim the address, or none does.
    Nobody,
}

/// An address or a block as it is now: its identity, and the rest of its entry in the tables.
#[derive(Debug)]
pub(super) struct AddressState {
    pub(super) signature: Signature,
    pub(super) details: EntryDetails,
}

/// The parts of a [`PeerEntry`] besides the identity.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryDetails {
    /// `None` where it is to be looked up.
    pub(super) owner: Option<OwnerId>,
    /// Only a Service has the address.
    pub(super) service: bool,
    pub(super) unknown_pod: bool,
    /// The node whose pods are the subjects has the address.
    pub(super) own_node: bool,
}

impl EntryDetails {
    pub(super) fn entry(self, identity: IdentityId, owner: OwnerId) -> PeerEntry {
        let Self { owner: _, service, unknown_pod, own_node } = self;
        PeerEntry { identity, owner, service, unknown_pod, own_node }
    }
}

impl AddressRecord {
    /// `leaving`: of a pod that is being deleted.
    pub(super) fn add_claim(&mut self, claimant: &Claimant, profile: Option<ProfileId>, leaving: bool) {
        self.owner = None;
        match self.position(claimant) {
            Ok(position) => self.claims[position].count += 1,
            Err(position) => {
                self.claims.insert(position, Claim { claimant: claimant.clone(), profile, leaving, count: 1 });
            }
        }
    }

    /// Removes a claim once. Returns whether the claimant has no other claim to the address.
    pub(super) fn remove_claim(&mut self, claimant: &Claimant) -> bool {
        self.owner = None;
        let Ok(position) = self.position(claimant) else { return false };
        self.claims[position].count -= 1;
        let is_last = self.claims[position].count == 0;
        if is_last {
            self.claims.remove(position);
        }
        is_last
    }

    /// The claims that count. A pod that is being deleted has released an address that another pod has (E-14).
    pub(super) fn counting(&self) -> impl Iterator<Item = &Claim> {
        let is_taken = self.claims.iter().any(Claim::is_lasting);
        self.claims.iter().filter(move |claim| !(is_taken && claim.leaving))
    }

    pub(super) fn is_unused(&self) -> bool {
        self.claims.is_empty() && self.services.is_empty()
    }

    /// Only a Service has it.
    pub(super) fn is_service(&self) -> bool {
        self.claims.is_empty() && !self.services.is_empty()
    }

    pub(super) fn holder(&self) -> Holder {
        let mut claims = self.counting();
        match (claims.next(), claims.next(), self.services.first()) {
            (None, _, Some(service)) => Holder::Service(service.clone()),
            (Some(only), None, _) => match &only.claimant {
                Claimant::Pod(key) => Holder::Pod(key.clone()),
                Claimant::Node(name) => Holder::Node(name.clone()),
            },
            _ => Holder::Nobody,
        }
    }

    fn position(&self, claimant: &Claimant) -> Result<usize, usize> {
        self.claims.binary_search_by(|claim| claim.claimant.cmp(claimant))
    }
}

/// As which claimant a pod has its addresses, if as any.
pub(super) fn claims_of(pod: &Pod) -> (Option<Claimant>, Vec<IpAddr>) {
    let claimant = if pod.takes_part() {
        Some(Claimant::Pod(pod.key()))
    } else if pod.host_network && !pod.finished() {
        Some(Claimant::Node(pod.node.clone()))
    } else {
        None
    };
    (claimant, distinct(&pod.addresses))
}

/// In order and in canonical form.
pub(super) fn distinct(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let distinct: BTreeSet<IpAddr> = addresses.iter().map(|address| address::canonical(*address)).collect();
    distinct.into_iter().collect()
}

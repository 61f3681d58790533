//! What makes an identity: everything that live rules can read of an address.

use super::{
    hashing::{QuickMap, QuickSet},
    sharing::{Id, Shared},
    terms::{TermChange, TermId},
};
use crate::{model::ContainerPort, tables::IdentityId};

/// What became of identities.
#[derive(Debug, Default)]
pub(super) struct IdentityChange {
    /// Those from here on are new.
    pub(super) first: IdentityId,
    pub(super) removed: QuickSet<IdentityId>,
    /// New ones that look to all older classes as another did, by that other.
    pub(super) heirs: QuickMap<IdentityId, Vec<IdentityId>>,
    /// New ones of which that is not known; sorted.
    pub(super) strangers: Vec<IdentityId>,
}

impl IdentityChange {
    pub(super) fn heirs_of(&self, identity: IdentityId) -> &[IdentityId] {
        self.heirs.get(&identity).map(Vec::as_slice).unwrap_or_default()
    }
}

pub(super) type Identities = Shared<Signature, IdentityId>;
pub(super) type Grounds = Shared<Ground, GroundId>;
pub(super) type Readings = Shared<Reading, ReadingId>;

/// Peers with equal signatures have one identity. The world is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Signature {
    pub(super) ground: GroundId,
    /// Of the first that claims the address; `None` for nobody.
    pub(super) claim: Option<ReadingId>,
    /// Of the others, who are rare.
    pub(super) rivals: Vec<ReadingId>,
    pub(super) unknown_pod: bool,
}

impl Signature {
    pub(super) fn claims(&self) -> impl Iterator<Item = ReadingId> {
        self.claim.iter().chain(&self.rivals).copied()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroundId(u32);

impl GroundId {
    /// No term holds.
    pub(super) const BARE: Self = Self(0);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ReadingId(u32);

/// The terms that hold for an address, whoever owns it; sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Ground(pub(super) Vec<TermId>);

/// What rules can read of one who claims an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reading {
    /// Terms for pods or nodes that hold; sorted.
    pub(super) terms: Vec<TermId>,
    /// Container ports whose names egress rules use; sorted.
    pub(super) ports: Vec<ContainerPort>,
    /// The node on which the subjects are.
    pub(super) own_node: bool,
}

impl Ground {
    /// Apart from terms that only now are read, or not any more.
    pub(super) fn means(&self, other: &Self, change: &TermChange) -> bool {
        self == other || alike(&self.0, &other.0, change)
    }
}

impl Reading {
    /// Apart from terms and port names that only now are read, or not any more: nothing that older classes hold of the
    /// one is wrong for the other.
    pub(super) fn means(&self, other: &Self, change: &TermChange) -> bool {
        let settled = |port: &&ContainerPort| !change.names.contains(&port.name);
        self.own_node == other.own_node
            && alike(&self.terms, &other.terms, change)
            && self.ports.iter().filter(settled).eq(other.ports.iter().filter(settled))
    }
}

fn alike(a: &[TermId], b: &[TermId], change: &TermChange) -> bool {
    let settled = |term: &&TermId| !change.touches(**term);
    a.iter().filter(settled).eq(b.iter().filter(settled))
}

impl Id for IdentityId {
    fn from_number(number: u32) -> Self {
        Self(number)
    }
}

impl Id for GroundId {
    fn from_number(number: u32) -> Self {
        Self(number)
    }
}

impl Id for ReadingId {
    fn from_number(number: u32) -> Self {
        Self(number)
    }
}

//! The key of an identity: all attributes of an address that the rules in force can read.

use super::{
    hashing::{QuickMap, QuickSet},
    interning::{InternId, Interner},
    terms::{TermChange, TermId},
};
use crate::{model::ContainerPort, tables::IdentityId};

/// Which identities are new, and which are removed.
#[derive(Debug, Default)]
pub(super) struct IdentityChange {
    /// Identities from this one on are new.
    pub(super) first_new: IdentityId,
    pub(super) removed: QuickSet<IdentityId>,
    /// New identities that no older class can tell from an older identity, by that older one.
    pub(super) derived: QuickMap<IdentityId, Vec<IdentityId>>,
    /// The other new identities, which every class has to evaluate; sorted.
    pub(super) unmatched: Vec<IdentityId>,
}

impl IdentityChange {
    pub(super) fn derived_from(&self, identity: IdentityId) -> &[IdentityId] {
        self.derived.get(&identity).map(Vec::as_slice).unwrap_or_default()
    }
}

pub(super) type Identities = Interner<Signature, IdentityId>;
pub(super) type CidrFactsTable = Interner<CidrFacts, CidrFactsId>;
pub(super) type AttributesTable = Interner<PeerAttributes, AttributesId>;

/// Peers with equal signatures have one identity. The default is that of the world: addresses outside the cluster that
/// no rule names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Signature {
    pub(super) cidr_facts: CidrFactsId,
    /// Of the first owner of the address; `None` where there is none.
    pub(super) claim: Option<AttributesId>,
    /// Of its other owners, which are rare.
    pub(super) rivals: Vec<AttributesId>,
    pub(super) unknown_pod: bool,
}

impl Signature {
    pub(super) fn claims(&self) -> impl Iterator<Item = AttributesId> {
        self.claim.iter().chain(&self.rivals).copied()
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CidrFactsId(u32);

impl CidrFactsId {
    /// No term is fulfilled.
    pub(super) const NONE: Self = Self(0);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AttributesId(u32);

/// The terms that an address fulfils independently of its owner: CIDR blocks, and names that it has; sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct CidrFacts(pub(super) Vec<TermId>);

/// Attributes of an owner of an address that rules can read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct PeerAttributes {
    /// Terms for pods or nodes that it fulfils; sorted.
    pub(super) terms: Vec<TermId>,
    /// Container ports whose names egress rules use; sorted.
    pub(super) ports: Vec<ContainerPort>,
    /// It is the node on which the subjects are.
    pub(super) own_node: bool,
}

impl CidrFacts {
    /// Whether both are equal, apart from terms that are only now used, or no longer.
    pub(super) fn equals_before(&self, other: &Self, change: &TermChange) -> bool {
        self == other || equal_before(&self.0, &other.0, change)
    }
}

impl PeerAttributes {
    /// Whether both are equal, apart from terms and port names that are only now used, or no longer: every outcome of an
    /// older class for the one holds for the other.
    pub(super) fn equals_before(&self, other: &Self, change: &TermChange) -> bool {
        let unchanged = |port: &&ContainerPort| !change.names.contains(&port.name);
        self.own_node == other.own_node
            && equal_before(&self.terms, &other.terms, change)
            && self.ports.iter().filter(unchanged).eq(other.ports.iter().filter(unchanged))
    }
}

fn equal_before(a: &[TermId], b: &[TermId], change: &TermChange) -> bool {
    let unchanged = |term: &&TermId| !change.touches(**term);
    a.iter().filter(unchanged).eq(b.iter().filter(unchanged))
}

impl InternId for IdentityId {
    fn from_number(number: u32) -> Self {
        Self(number)
    }
}

impl InternId for CidrFactsId {
    fn from_number(number: u32) -> Self {
        Self(number)
    }
}

impl InternId for AttributesId {
    fn from_number(number: u32) -> Self {
        Self(number)
    }
}

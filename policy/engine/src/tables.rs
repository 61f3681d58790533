//! Decision tables, which the kernel looks up. Their shape follows the cost of lookups; see `ARCHITECTURE.md`.
//!
//! Ids are given out by the compiler, are immutable, and are never used again within a boot. `probe/loader` is the only
//! place that turns these types into map bytes.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    decision::{AttributionId, Decision, Verdict},
    model::{ObjectKey, Protocol},
};

macro_rules! id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);
    };
}

id! {
    /// Equivalence class of peers that no rule of any policy tells apart. 0 is the world outside every block that a
    /// policy names; the compiler gives out the others from [`IdentityId::FIRST`].
    IdentityId
}
id! {
    /// Equivalence class of local pods that every rule treats alike in one direction; egress and ingress classes
    /// never share a number. 0 is never given out.
    ClassId
}
id! {
    /// A division of the port space. 0 is never given out.
    ColumnId
}
id! {
    /// The owner of an address: an entry of the owner catalogue. 0 is no owner.
    OwnerId
}

impl IdentityId {
    pub const WORLD: Self = Self(0);
    pub const FIRST: u32 = 16;
}

impl OwnerId {
    pub const NOBODY: Self = Self(0);
}

/// Meaning of an owner id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    Pod { key: ObjectKey, uid: String },
    Node { name: String },
    Service { key: ObjectKey },
}

/// The kernel's record of an address or a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerEntry {
    pub identity: IdentityId,
    pub owner: OwnerId,
    /// A Service's address: `unknown` at the source's egress, unless nothing translates it.
    pub service: bool,
    /// In a pod range, but no pod is known to own it.
    pub unknown_pod: bool,
    /// An address of the node whose pods are the subjects.
    pub own_node: bool,
}

/// The answer to a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Final {
        verdict: Verdict,
        attribution: AttributionId,
    },
    /// It depends on the protocol or the port.
    Column(ColumnId),
}

/// One protocol's part of a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortSpace {
    /// For ports in neither `ports` nor `prefixes`. Always `Final`, as all outcomes in a column.
    pub default: Outcome,
    /// Single ports.
    pub ports: BTreeMap<u16, Outcome>,
    /// (first port, length 0 to 16): aligned blocks that do not overlap each other.
    pub prefixes: BTreeMap<(u16, u8), Outcome>,
    /// For fragments whose ports are not known: allowed only if all ports are.
    pub fragment: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Column {
    pub tcp: PortSpace,
    pub udp: PortSpace,
    pub sctp: PortSpace,
    /// Protocols without ports that rules may name, ICMP included.
    pub other: Outcome,
}

impl Column {
    /// All outcomes in it; some more than once.
    pub fn outcomes(&self) -> impl Iterator<Item = Outcome> {
        let of_space = |space: &'_ PortSpace| {
            let ports = space.ports.values().chain(space.prefixes.values()).copied();
            ports.chain([space.default, space.fragment]).collect::<Vec<_>>()
        };
        [&self.tcp, &self.udp, &self.sctp].into_iter().flat_map(of_space).chain([self.other])
    }

    /// The part for a protocol with ports; `None` for the others.
    pub fn port_space(&self, protocol: Protocol) -> Option<&PortSpace> {
        match protocol {
            Protocol::TCP => Some(&self.tcp),
            Protocol::UDP => Some(&self.udp),
            Protocol::SCTP => Some(&self.sctp),
            _ => None,
        }
    }
}

/// The kernel's record of a local pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectEntry {
    pub owner: OwnerId,
    pub egress_class: ClassId,
    pub ingress_class: ClassId,
    /// For peers without a pair.
    pub egress_default: Outcome,
    pub ingress_default: Outcome,
}

/// Everything that the kernel is to hold for a snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Exact addresses: pods, nodes, Services.
    pub addresses: BTreeMap<IpAddr, PeerEntry>,
    /// Blocks that policies name and pod ranges; the longest prefix wins.
    pub blocks: BTreeMap<IpNet, PeerEntry>,
    /// Local pods that take part.
    pub subjects: BTreeMap<ObjectKey, SubjectEntry>,
    /// Only pairs that differ from the class's default.
    pub pairs: BTreeMap<(ClassId, IdentityId), Outcome>,
    pub columns: BTreeMap<ColumnId, Column>,
}

/// Changes to make in the kernel, and the meanings of new ids. `put` holds new and changed entries, `delete` keys that
/// no longer exist.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// `put` is everything there is: all other entries of the kernel are to be deleted. The first change of a compiler
    /// is complete.
    pub complete: bool,
    pub put: Tables,
    pub delete: Deleted,
    /// Decisions that were not in the catalogue before, or had been forgotten.
    pub attributions: Vec<(AttributionId, Decision)>,
    /// Owners that were not in the catalogue before; a forgotten owner gets another id.
    pub owners: Vec<(OwnerId, Owner)>,
}

impl Change {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        !self.complete && self.put == Tables::default() && self.delete == Deleted::default()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    pub addresses: Vec<IpAddr>,
    pub blocks: Vec<IpNet>,
    pub subjects: Vec<ObjectKey>,
    pub pairs: Vec<(ClassId, IdentityId)>,
    pub columns: Vec<ColumnId>,
}

/// The lowest ids that a compiler may give out: above all that were used since the node booted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdFloor {
    pub identity: u32,
    pub class: u32,
    pub column: u32,
    pub owner: u32,
}

impl Default for IdFloor {
    fn default() -> Self {
        Self { identity: IdentityId::FIRST, class: 1, column: 1, owner: 1 }
    }
}

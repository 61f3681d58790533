//! From snapshots to decision tables.

use std::{net::IpAddr, sync::Arc};

use crate::{
    decision::{AttributionId, Decision, Verdict},
    model::{Direction, ObjectKey, Protocol, Snapshot},
    tables::{Change, IdFloor, Owner, OwnerId, Tables},
};

/// Compiles one snapshot after another for one node.
#[derive(Debug)]
pub struct Compiler {
    node: String,
    floor: IdFloor,
    tables: Tables,
}

impl Compiler {
    pub fn new(node: impl Into<String>, floor: IdFloor) -> Self {
        Self { node: node.into(), floor, tables: Tables::default() }
    }

    pub fn compile(&mut self, snapshot: &Arc<Snapshot>) -> Change {
        let _ = (&self.node, snapshot);
        Change { complete: true, ..Change::default() }
    }

    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    pub fn decision(&self, _id: AttributionId) -> Option<&Arc<Decision>> {
        None
    }

    pub fn owner(&self, _id: OwnerId) -> Option<&Owner> {
        None
    }

    pub fn owner_id(&self, _owner: &Owner) -> Option<OwnerId> {
        None
    }

    pub fn floor(&self) -> IdFloor {
        self.floor
    }

    pub fn lookup(
        &self,
        _subject: &ObjectKey,
        _direction: Direction,
        _peer: IpAddr,
        _protocol: Protocol,
        _port: Option<u16>,
    ) -> Option<(Verdict, AttributionId)> {
        None
    }
}

impl AttributionId {
    pub fn of(_decision: &Decision, _salt: u32) -> Self {
        Self::NONE
    }
}

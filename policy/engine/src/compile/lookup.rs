//! What the kernel does with the tables, step by step.

use std::net::IpAddr;

use super::Compiler;
use crate::{
    address,
    decision::{AttributionId, Verdict},
    model::{Direction, ObjectKey, Protocol},
    tables::{Outcome, OwnerId, PeerEntry, PortSpace},
};

impl Compiler {
    /// The verdict that the kernel would come to by the tables; `None` where the subject is not a local pod that takes
    /// part. A Service's address is `Unknown` at egress, without an attribution.
    ///
    /// A pod's own address never reaches the hooks: it is answered for here without the tables.
    pub fn lookup(
        &self,
        subject: &ObjectKey,
        direction: Direction,
        peer: IpAddr,
        protocol: Protocol,
        port: Option<u16>,
    ) -> Option<(Verdict, AttributionId)> {
        let index = self.books.ledger.index();
        let subject = index.subjects.get(subject)?;
        let peer = self.peer(peer);
        if peer.owner != OwnerId::NOBODY && peer.owner == subject.owner {
            return Some((Verdict::Allowed, self.self_traffic));
        }
        if peer.service && direction == Direction::Egress {
            return Some((Verdict::Unknown, AttributionId::NONE));
        }
        let (class, default) = match direction {
            Direction::Egress => (subject.egress_class, subject.egress_default),
            Direction::Ingress => (subject.ingress_class, subject.ingress_default),
        };
        let outcome = index.pairs.get(&(class, peer.identity)).copied().unwrap_or(default);
        let outcome = match outcome {
            Outcome::Final { .. } => outcome,
            Outcome::Column(column) => {
                let column = self.tables().columns.get(&column)?;
                column.port_space(protocol).map_or(column.other, |space| in_space(space, port))
            }
        };
        match outcome {
            Outcome::Final { verdict, attribution } => Some((verdict, attribution)),
            Outcome::Column(_) => None,
        }
    }

    /// Exact addresses first, then the longest block, else the world.
    fn peer(&self, peer: IpAddr) -> PeerEntry {
        let address = address::canonical(peer);
        let exact = self.books.ledger.index().addresses.get(&address);
        let block = || self.tables().blocks.get(&self.world.longest_block(address)?);
        exact.or_else(block).copied().unwrap_or_default()
    }
}

fn in_space(space: &PortSpace, port: Option<u16>) -> Outcome {
    let Some(port) = port else { return space.fragment };
    if let Some(outcome) = space.ports.get(&port) {
        return *outcome;
    }
    // Blocks do not overlap: only the last that begins at or below the port can hold it.
    let last = space.prefixes.range(..=(port, u8::MAX)).next_back();
    match last {
        Some(((first, length), outcome)) if u32::from(port - first) < 1 << (16 - length) => *outcome,
        _ => space.default,
    }
}

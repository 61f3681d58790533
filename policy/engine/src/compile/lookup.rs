//! The kernel's look-up in the tables, in user space. Pairs are looked up in the classes from which they were written.

use std::net::IpAddr;

use super::Compiler;
use crate::{
    address,
    decision::{AttributionId, Verdict},
    evaluate::is_tunnel,
    model::{Direction, ObjectKey, Protocol},
    tables::{Outcome, OwnerId, PeerEntry, PortSpace},
};

impl Compiler {
    /// The verdict that the kernel reaches by the tables; `None` where the subject is not a local pod that takes part. A
    /// Service's address is `Unknown` at egress, without an attribution.
    ///
    /// Packets of a pod to its own address never reach the hooks, so they are decided here without the tables.
    pub fn lookup(
        &self,
        subject: &ObjectKey,
        direction: Direction,
        peer: IpAddr,
        protocol: Protocol,
        port: Option<u16>,
    ) -> Option<(Verdict, AttributionId)> {
        let (owner, class) = self.subjects.find(subject, direction)?;
        let address = address::canonical(peer);
        let peer = self.peer(address);
        if peer.owner != OwnerId::NOBODY && peer.owner == owner {
            return Some((Verdict::Allowed, self.self_traffic));
        }
        if peer.service && direction == Direction::Egress {
            return Some((Verdict::Unknown, AttributionId::NONE));
        }
        let found = self.verdict(class.outcome_for(peer.identity), protocol, port)?;
        if found.0 != Verdict::Denied
            && direction == Direction::Egress
            && peer.own_node
            && is_tunnel(protocol, port.filter(|_| protocol.has_ports()))
        {
            let anybody = self.block(address).unwrap_or_default();
            let stricter = self.verdict(class.outcome_for(anybody.identity), protocol, port)?;
            if stricter.0 == Verdict::Denied {
                return Some(stricter);
            }
        }
        Some(found)
    }

    fn verdict(&self, outcome: Outcome, protocol: Protocol, port: Option<u16>) -> Option<(Verdict, AttributionId)> {
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
    fn peer(&self, address: IpAddr) -> PeerEntry {
        self.output.tracked.address(address).or_else(|| self.block(address)).unwrap_or_default()
    }

    fn block(&self, address: IpAddr) -> Option<PeerEntry> {
        self.tables().blocks.get(&self.records.longest_block(address)?).copied()
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

//! The ports of one protocol that a rule lists, sorted: it may list thousands.

use crate::{
    evaluate::{
        ports::{NamedOn, resolve},
        tiers::Match,
    },
    model::{PortMatch, Protocol},
};

#[derive(Debug)]
pub(super) struct PortSet {
    /// First and last of each range; in order, with at least one port between them.
    ranges: Vec<(u16, u16)>,
    /// The match of all other ports: `Possible` where an unknown pod may have a port of a listed name.
    others: Match,
}

impl PortSet {
    pub(super) fn new(terms: &[PortMatch], on: NamedOn<'_>, protocol: Protocol) -> Self {
        let mut others = Match::No;
        let mut ranges = Vec::new();
        for term in terms {
            match term {
                PortMatch::Protocol(own) if *own == protocol => ranges.push((0, u16::MAX)),
                PortMatch::Range { protocol: own, first, last } if *own == protocol => ranges.push((*first, *last)),
                PortMatch::Named { protocol: own, name } if own.is_none_or(|own| own == protocol) => match on {
                    NamedOn::Pod(ports) => {
                        let found = resolve(ports, name, *own).filter(|(found, _)| *found == protocol);
                        ranges.extend(found.map(|(_, port)| (port, port)));
                    }
                    NamedOn::UnknownPod => others = Match::Possible,
                    NamedOn::NoPod => {}
                },
                PortMatch::Protocol(_) | PortMatch::Range { .. } | PortMatch::Named { .. } => {}
            }
        }
        ranges.retain(|(first, last)| first <= last);
        ranges.sort_unstable();
        ranges.dedup_by(|next, held| {
            let meet = held.1.checked_add(1).is_none_or(|after| next.0 <= after);
            if meet {
                held.1 = held.1.max(next.1);
            }
            meet
        });
        Self { ranges, others }
    }

    pub(super) fn holds(&self, port: u16) -> Match {
        let after = self.ranges.partition_point(|(first, _)| *first <= port);
        match after.checked_sub(1).map(|last| self.ranges[last]) {
            Some((_, last)) if port <= last => Match::Certain,
            _ => self.others,
        }
    }

    /// The first port of each range of ports with the same match.
    pub(super) fn starts(&self) -> impl Iterator<Item = u16> {
        self.ranges.iter().flat_map(|(first, last)| [Some(*first), last.checked_add(1)]).flatten()
    }
}

//! The cells of a truth table: one attempt of a pod to reach another.

use std::fmt;

use netverdict_policy::model::Protocol;
use netverdict_tests::topology::PodNetwork;

/// Ports that every pod serves with TCP and UDP.
pub(crate) const PORTS: [u16; 3] = [80, 81, 8085];
pub(crate) const FAMILIES: [u8; 2] = [4, 6];
pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::TCP, Protocol::UDP];

/// One attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Cell {
    /// Index in the list of pods.
    pub(crate) source: usize,
    pub(crate) destination: usize,
    pub(crate) protocol: Protocol,
    /// 4 or 6.
    pub(crate) family: u8,
    pub(crate) port: u16,
}

/// The cells of every ordered pair, including each pod with itself.
pub(crate) fn all(pods: usize) -> Vec<Cell> {
    let mut cells = Vec::new();
    for source in 0..pods {
        for destination in 0..pods {
            for protocol in PROTOCOLS {
                for family in FAMILIES {
                    cells.extend(PORTS.map(|port| Cell { source, destination, protocol, family, port }));
                }
            }
        }
    }
    cells
}

impl Cell {
    /// The cell with the names of its pods.
    pub(crate) fn shown<'a>(&'a self, pods: &'a [PodNetwork]) -> impl fmt::Display + 'a {
        let Self { source, destination, protocol, family, port } = self;
        format!("{} -> {}:{port}/{protocol} over IPv{family}", pods[*source].pod, pods[*destination].pod)
    }
}

/// The cells that a pod tries repeatedly under edits.
pub(crate) fn cells_from(source: usize, pods: usize) -> Vec<Cell> {
    let mut cells = Vec::new();
    for destination in (0..pods).filter(|destination| *destination != source) {
        for protocol in PROTOCOLS {
            for family in FAMILIES {
                cells.extend(PORTS[..2].iter().map(|&port| Cell { source, destination, protocol, family, port }));
            }
        }
    }
    cells
}

//! Cells of a truth table: every way in which one pod may try to reach another.

use std::fmt;

use netverdict_policy::model::Protocol;
use netverdict_tests::topology::PodNetwork;

/// Ports that every pod serves, in TCP and in UDP.
pub(crate) const PORTS: [u16; 3] = [80, 81, 8085];
pub(crate) const FAMILIES: [u8; 2] = [4, 6];
pub(crate) const PROTOCOLS: [Protocol; 2] = [Protocol::TCP, Protocol::UDP];

/// One attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Cell {
    /// Place in the list of pods.
    pub(crate) source: usize,
    pub(crate) destination: usize,
    pub(crate) protocol: Protocol,
    /// 4 or 6.
    pub(crate) family: u8,
    pub(crate) port: u16,
}

/// Every ordered pair, a pod and itself included.
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
    /// As people write it.
    pub(crate) fn shown<'a>(&'a self, pods: &'a [PodNetwork]) -> impl fmt::Display + 'a {
        let Self { source, destination, protocol, family, port } = self;
        format!("{} -> {}:{port}/{protocol} over IPv{family}", pods[*source].pod, pods[*destination].pod)
    }
}

//! The CIDR blocks that policies name, and the pod ranges, with the terms that each fulfils. The longest block that
//! holds an address counts for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;

use super::{
    hashing::QuickMap,
    identity::{CidrFacts, CidrFactsId, CidrFactsTable},
    interning::Move,
    terms::{TermChange, TermId},
};
use crate::{
    address,
    model::{Peer, Snapshot},
};

#[derive(Debug, Default)]
pub(super) struct Blocks {
    blocks: QuickMap<IpNet, Block>,
    terms: BTreeMap<TermId, Vec<IpNet>>,
    ranges: BTreeSet<IpNet>,
    /// How many blocks have a prefix of this length, by family.
    lengths: [BTreeMap<u8, usize>; 2],
}

#[derive(Debug, Default)]
pub(super) struct Block {
    uses: usize,
    /// Sorted.
    terms: Vec<TermId>,
    /// `None` only while it is new.
    cidr_facts: Option<CidrFactsId>,
    pub(super) pod_range: bool,
}

impl Block {
    pub(super) fn cidr_facts(&self) -> CidrFactsId {
        self.cidr_facts.unwrap_or(CidrFactsId::NONE)
    }

    pub(super) fn terms(&self) -> &[TermId] {
        &self.terms
    }
}

impl Blocks {
    pub(super) fn get(&self, block: &IpNet) -> Option<&Block> {
        self.blocks.get(block)
    }

    /// The longest block that holds the address.
    pub(super) fn find(&self, address: IpAddr) -> Option<(IpNet, &Block)> {
        self.lengths[family(address)].keys().rev().find_map(|length| {
            let block = IpNet::new(address, *length).ok()?.trunc();
            self.blocks.get(&block).map(|found| (block, found))
        })
    }

    /// The longest block that holds each of the addresses, which are in order.
    pub(super) fn find_all(&self, addresses: &[IpAddr]) -> Vec<Option<&Block>> {
        if addresses.len() < self.blocks.len() {
            return addresses.iter().map(|address| self.find(*address).map(|(_, block)| block)).collect();
        }
        let mut blocks: Vec<(&IpNet, &Block)> = self.blocks.iter().collect();
        blocks.sort_unstable_by_key(|(block, _)| **block);
        let mut next = blocks.into_iter().peekable();
        // Blocks that hold the last address, each inside the one before.
        let mut around: Vec<(&IpNet, &Block)> = Vec::new();
        let find = |address: &IpAddr| {
            while let Some(block) = next.next_if(|(block, _)| block.network() <= *address) {
                around.retain(|(outer, _)| outer.contains(block.0));
                around.push(block);
            }
            while around.last().is_some_and(|(block, _)| !block.contains(address)) {
                around.pop();
            }
            around.last().map(|(_, block)| *block)
        };
        addresses.iter().map(find).collect()
    }

    /// Follows changes of terms and of the snapshot's pod ranges. Returns the blocks that are new, removed, or may have
    /// another identity.
    pub(super) fn update(
        &mut self,
        snapshot: &Snapshot,
        change: &TermChange,
        ranges: bool,
        facts_table: &mut CidrFactsTable,
    ) -> BTreeSet<IpNet> {
        let mut fresh = BTreeSet::new();
        let added: Vec<TermId> =
            change.added.iter().filter_map(|(id, peer)| self.add_term(*id, peer, &mut fresh)).collect();
        let removed: Vec<TermId> = change.removed.keys().copied().filter(|id| self.remove_term(*id)).collect();
        let ranges = ranges && self.set_ranges(snapshot, &mut fresh);
        if added.is_empty() && removed.is_empty() && !ranges {
            return fresh;
        }
        let mut changed = self.remove_unused(facts_table);
        let mut touched = Vec::new();
        for (block, state) in &mut self.blocks {
            let is_fresh = fresh.contains(block);
            let before = state.terms.len();
            state.terms.retain(|term| !removed.contains(term));
            let mut differs = is_fresh || state.terms.len() != before;
            let mut add = |term: &TermId, cidrs: &Vec<IpNet>| {
                if holds(cidrs, block)
                    && let Err(position) = state.terms.binary_search(term)
                {
                    state.terms.insert(position, *term);
                    differs = true;
                }
            };
            if is_fresh {
                self.terms.iter().for_each(|(term, cidrs)| add(term, cidrs));
            } else {
                added.iter().for_each(|term| add(term, &self.terms[term]));
            }
            if is_fresh || ranges {
                let pod_range = self.ranges.iter().any(|range| range.contains(block));
                if pod_range != state.pod_range {
                    changed.insert(*block);
                }
                state.pod_range = pod_range;
            }
            if differs {
                touched.push(*block);
            }
        }
        touched.sort_unstable();
        let moves = touched.iter().map(|block| {
            let state = &self.blocks[block];
            Move { from: state.cidr_facts, to: Some(CidrFacts(state.terms.clone())), members: 1 }
        });
        let assigned = facts_table.assign(moves.collect(), |old, new| old.equals_before(new, change));
        for (block, cidr_facts) in touched.into_iter().zip(assigned) {
            if let Some(state) = self.blocks.get_mut(&block)
                && state.cidr_facts != cidr_facts
            {
                state.cidr_facts = cidr_facts;
                changed.insert(block);
            }
        }
        changed
    }

    /// Removes blocks that nothing uses, and returns them.
    fn remove_unused(&mut self, facts_table: &mut CidrFactsTable) -> BTreeSet<IpNet> {
        let mut gone = BTreeSet::new();
        for (block, state) in self.blocks.extract_if(|_, block| block.uses == 0) {
            if let Some(cidr_facts) = state.cidr_facts {
                facts_table.remove_member(cidr_facts);
            }
            gone.insert(block);
        }
        for block in &gone {
            self.forget_length(*block);
        }
        gone
    }

    fn add_term(&mut self, id: TermId, peer: &Peer, fresh: &mut BTreeSet<IpNet>) -> Option<TermId> {
        let Peer::Block { cidr, except } = peer else { return None };
        let mut blocks = vec![*cidr];
        blocks.extend(except);
        for block in &blocks {
            self.retain(*block, fresh);
        }
        self.terms.insert(id, blocks);
        Some(id)
    }

    fn remove_term(&mut self, id: TermId) -> bool {
        let Some(blocks) = self.terms.remove(&id) else { return false };
        for block in blocks {
            self.release(block);
        }
        true
    }

    /// Whether they changed.
    fn set_ranges(&mut self, snapshot: &Snapshot, fresh: &mut BTreeSet<IpNet>) -> bool {
        let of_nodes = snapshot.nodes.values().flat_map(|node| &node.pod_ranges);
        let ranges: BTreeSet<IpNet> =
            snapshot.pod_ranges.iter().chain(of_nodes).map(|range| address::canonical_block(*range)).collect();
        if ranges == self.ranges {
            return false;
        }
        let old = std::mem::replace(&mut self.ranges, ranges.clone());
        for range in ranges.difference(&old) {
            self.retain(*range, fresh);
        }
        for range in old.difference(&ranges) {
            self.release(*range);
        }
        true
    }

    fn retain(&mut self, block: IpNet, fresh: &mut BTreeSet<IpNet>) {
        let state = self.blocks.entry(block).or_insert_with(|| {
            fresh.insert(block);
            *self.lengths[family(block.addr())].entry(block.prefix_len()).or_default() += 1;
            Block::default()
        });
        state.uses += 1;
        if covers_mapped(block) {
            self.retain(address::all_v4(), fresh);
        }
    }

    fn release(&mut self, block: IpNet) {
        if let Some(state) = self.blocks.get_mut(&block) {
            state.uses -= 1;
        }
        if covers_mapped(block) {
            self.release(address::all_v4());
        }
    }

    fn forget_length(&mut self, block: IpNet) {
        let lengths = &mut self.lengths[family(block.addr())];
        if let Some(count) = lengths.get_mut(&block.prefix_len()) {
            *count -= 1;
            if *count == 0 {
                lengths.remove(&block.prefix_len());
            }
        }
    }
}

/// Whether all addresses of `inner` that no longer block holds fulfil a term: a block followed by its exceptions.
fn holds(term: &[IpNet], inner: &IpNet) -> bool {
    let Some((block, except)) = term.split_first() else { return false };
    block.contains(inner) && !except.iter().any(|except| except.contains(inner))
}

/// Whether an IPv6 block holds the part of IPv6 in which the kernel's trie keeps IPv4. Then the trie needs an entry for
/// all of IPv4, or IPv4 addresses would match the IPv6 block.
fn covers_mapped(block: IpNet) -> bool {
    match block {
        IpNet::V4(_) => false,
        IpNet::V6(block) => block.contains(&Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()),
    }
}

fn family(address: IpAddr) -> usize {
    usize::from(address.is_ipv6())
}

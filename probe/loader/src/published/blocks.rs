//! `BLOCKS`: CIDR blocks that policies name, and pod ranges → their peers, before and after a revision.
//!
//! A trie answers with the longest prefix, so a block that exists in one of two revisions only would hide a shorter
//! block from packets of the other. While packets of both revisions may look it up, its record therefore repeats, for
//! the revision in which it does not exist, the content of the next shorter block there.

use std::collections::{BTreeSet, HashMap, HashSet};

use ipnet::IpNet;
use netverdict_abi::{
    AddressKey, Peer, PeerVersions,
    address::{v4_mapped, v4_prefix_length},
    map::name,
};
use netverdict_policy::tables::{Change, IdFloor};

use super::{
    encode::{self, WORLD},
    floor::raise_for_peers,
    map::{Plan, PlanError, PublishedMap, Update},
};
use crate::{
    maps::table::{Prefix, Table, Trie},
    options::ProbeOptions,
};

type Block = Prefix<AddressKey>;

/// All of IPv4. It is always in the trie; otherwise an IPv6 block such as `::/0` would match IPv4-mapped addresses.
const ALL_V4: Block = Prefix { length: v4_prefix_length(0), data: AddressKey { address: v4_mapped([0; 4]) } };

#[derive(Default)]
pub(crate) struct Blocks {
    in_force: BlockSet,
    /// Of the publication under way.
    planned: Option<BlockSet>,
}

impl PublishedMap for Blocks {
    type Store = Trie<AddressKey, PeerVersions>;

    const NAME: &'static str = name::BLOCKS;

    fn limit(options: &ProbeOptions) -> u32 {
        options.max_blocks
    }

    fn raise_floor(floor: &mut IdFloor, _block: &Block, versions: &PeerVersions) {
        raise_for_peers(floor, [versions.before, versions.after]);
    }

    fn adopt(&mut self, block: Block, versions: PeerVersions, in_force: u64) {
        self.in_force.insert(block, *versions.as_of(in_force));
    }

    fn plan(&mut self, table: &Table<Self::Store>, update: &Update<'_>) -> Result<Plan<Self::Store>, PlanError> {
        let change = update.change;
        let mut next = if change.complete { BlockSet::default() } else { self.in_force.clone() };
        for block in &change.delete.blocks {
            next.remove(&encode_block(block));
        }
        for (block, entry) in &change.put.blocks {
            next.insert(encode_block(block), encode::peer(entry));
        }
        let held = table.keys()?.into_iter().collect();
        let BlockWrites { puts, superfluous } = self.in_force.writes_to(&next, &held, update.revision);
        let mut plan = Plan::default();
        for (block, versions) in puts {
            plan.replace(block, table.get(&block)?, versions);
        }
        plan.superfluous = superfluous;
        self.planned = Some(next);
        Ok(plan)
    }

    fn commit(&mut self, _change: &Change) {
        if let Some(planned) = self.planned.take() {
            self.in_force = planned;
        }
    }
}

/// A block, host bits cleared.
fn encode_block(block: &IpNet) -> Block {
    let block = block.trunc();
    let length = match block {
        IpNet::V4(block) => v4_prefix_length(block.prefix_len()),
        IpNet::V6(block) => u32::from(block.prefix_len()),
    };
    Prefix { length, data: encode::address(block.network()) }
}

/// The blocks of one revision. All of IPv4 is always among them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BlockSet {
    peers: HashMap<Block, Peer>,
}

impl Default for BlockSet {
    fn default() -> Self {
        Self { peers: HashMap::from([(ALL_V4, WORLD)]) }
    }
}

/// Writes for a change of blocks.
#[derive(Debug, Default, PartialEq, Eq)]
struct BlockWrites {
    puts: Vec<(Block, PeerVersions)>,
    /// To delete after the commit.
    superfluous: Vec<Block>,
}

impl BlockSet {
    fn insert(&mut self, block: Block, peer: Peer) {
        self.peers.insert(block, peer);
    }

    fn remove(&mut self, block: &Block) {
        if *block == ALL_V4 {
            self.peers.insert(ALL_V4, WORLD);
        } else {
            self.peers.remove(block);
        }
    }

    /// The writes that lead from these blocks to `next`, which is in force from revision `since`. `held` are the blocks
    /// in the trie.
    fn writes_to(&self, next: &Self, held: &HashSet<Block>, since: u64) -> BlockWrites {
        let mut writes = BlockWrites::default();
        let (now, then) = (self.lengths(), next.lengths());
        for (block, &after) in &next.peers {
            let known = self.peers.get(block);
            if known != Some(&after) || !held.contains(block) {
                let before = known.copied().unwrap_or_else(|| self.cover(block, &now));
                writes.puts.push((*block, PeerVersions { since, before, after }));
            }
        }
        for (block, &before) in self.peers.iter().filter(|(block, _)| !next.peers.contains_key(block)) {
            writes.puts.push((*block, PeerVersions { since, before, after: next.cover(block, &then) }));
            writes.superfluous.push(*block);
        }
        // In the trie, but of neither revision: left by a publication that was never finished.
        writes
            .superfluous
            .extend(held.iter().filter(|block| !self.peers.contains_key(block) && !next.peers.contains_key(block)));
        writes
    }

    fn lengths(&self) -> BTreeSet<u32> {
        self.peers.keys().map(|block| block.length).collect()
    }

    /// The content of the next shorter block.
    fn cover(&self, block: &Block, lengths: &BTreeSet<u32>) -> Peer {
        lengths
            .range(..block.length)
            .rev()
            .find_map(|&length| self.peers.get(&shortened(block, length)).copied())
            .unwrap_or(WORLD)
    }
}

fn shortened(block: &Block, length: u32) -> Block {
    let bits = u128::from_be_bytes(block.data.address);
    let mask = u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0);
    Prefix { length, data: AddressKey { address: (bits & mask).to_be_bytes() } }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> Block {
        encode_block(&text.parse().unwrap())
    }

    fn peer(identity: u32) -> Peer {
        Peer { identity, ..WORLD }
    }

    fn blocks(blocks: &[(&str, u32)]) -> BlockSet {
        let mut all = BlockSet::default();
        for (text, identity) in blocks {
            all.insert(block(text), peer(*identity));
        }
        all
    }

    fn held(blocks: &BlockSet) -> HashSet<Block> {
        blocks.peers.keys().copied().collect()
    }

    fn check(now: &[(&str, u32)], next: &[(&str, u32)], text: &str, expected: Option<(u32, u32)>) {
        let (now, next) = (blocks(now), blocks(next));
        let writes = now.writes_to(&next, &held(&now), 5);
        let found = writes.puts.iter().find(|(key, _)| *key == block(text));
        let found = found.map(|(_, versions)| (versions.before.identity, versions.after.identity));
        assert_eq!(found, expected);
    }

    #[test]
    fn v4_blocks_lie_below_all_of_v4_and_host_bits_are_cleared() {
        let prefix = block("10.1.2.3/8");
        assert_eq!(prefix.length, 104);
        assert_eq!(prefix.data, encode::address("10.0.0.0".parse().unwrap()));
        assert_eq!(block("0.0.0.0/0"), ALL_V4);
        assert_eq!(block("fd00::/8").length, 8);
    }

    #[test]
    fn new_block_says_for_the_old_revision_what_covered_it() {
        let wide = ("10.0.0.0/8", 20);
        check(&[wide], &[wide, ("10.1.0.0/16", 21)], "10.1.0.0/16", Some((20, 21)));
        check(&[], &[("10.1.0.0/16", 21)], "10.1.0.0/16", Some((0, 21)));
    }

    #[test]
    fn removed_block_says_for_the_new_revision_what_will_cover_it() {
        check(&[("10.0.0.0/8", 20), ("10.1.0.0/16", 21)], &[("10.0.0.0/8", 22)], "10.1.0.0/16", Some((21, 22)));
    }

    #[test]
    fn block_that_stays_the_same_is_not_written() {
        check(&[("10.0.0.0/8", 20)], &[("10.0.0.0/8", 20)], "10.0.0.0/8", None);
    }

    #[test]
    fn everything_of_ipv6_does_not_cover_ipv4() {
        check(&[("::/0", 30)], &[("::/0", 30), ("10.0.0.0/8", 20)], "10.0.0.0/8", Some((0, 20)));
    }

    #[test]
    fn all_of_ipv4_stays_in_the_trie_when_no_policy_names_it() {
        let mut now = blocks(&[("0.0.0.0/0", 20)]);
        let trie = held(&now);
        let before = now.clone();
        now.remove(&ALL_V4);
        let writes = before.writes_to(&now, &trie, 5);
        assert!(writes.superfluous.is_empty());
        assert_eq!(writes.puts.len(), 1);
        assert_eq!(writes.puts[0].1.after, WORLD);
        assert_eq!(
            BlockSet::default().writes_to(&now, &HashSet::new(), 1).puts.len(),
            1,
            "written even if never named"
        );
    }

    #[test]
    fn leftover_of_an_unfinished_publication_is_superfluous() {
        let now = BlockSet::default();
        let mut trie = held(&now);
        trie.insert(block("192.0.2.0/24"));
        assert_eq!(now.writes_to(&now, &trie, 5).superfluous, [block("192.0.2.0/24")]);
    }
}

//! CIDR blocks between two revisions. Pure.
//!
//! A trie answers with the longest prefix, so a block that only one of two revisions has would hide a shorter one from
//! the other. While both may be asked, it therefore says for the other what the shorter one says there.

use std::collections::{BTreeSet, HashMap, HashSet};

use netverdict_abi::{AddressKey, Peer, PeerVersions};

use super::encode::{ALL_V4, WORLD};
use crate::maps::Prefix;

/// The blocks of one revision. All of IPv4 is always among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocks {
    peers: HashMap<Prefix<AddressKey>, Peer>,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { peers: HashMap::from([(ALL_V4, WORLD)]) }
    }
}

/// What has to be written for a change of blocks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct BlockWrites {
    pub(super) puts: Vec<(Prefix<AddressKey>, PeerVersions)>,
    /// Afterwards, when no packet can be using them.
    pub(super) garbage: Vec<Prefix<AddressKey>>,
}

impl Blocks {
    pub(super) fn insert(&mut self, block: Prefix<AddressKey>, peer: Peer) {
        self.peers.insert(block, peer);
    }

    pub(super) fn remove(&mut self, block: &Prefix<AddressKey>) {
        if *block == ALL_V4 {
            self.peers.insert(ALL_V4, WORLD);
        } else {
            self.peers.remove(block);
        }
    }

    /// What leads from here to `next`, in force from revision `since`. `held` are the blocks that the trie has.
    pub(super) fn writes_to(&self, next: &Self, held: &HashSet<Prefix<AddressKey>>, since: u64) -> BlockWrites {
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
            writes.garbage.push(*block);
        }
        // Held, but of no revision: left behind by a publication that was never finished.
        writes
            .garbage
            .extend(held.iter().filter(|block| !self.peers.contains_key(block) && !next.peers.contains_key(block)));
        writes
    }

    fn lengths(&self) -> BTreeSet<u32> {
        self.peers.keys().map(|block| block.length).collect()
    }

    /// What the next shorter block says.
    fn cover(&self, block: &Prefix<AddressKey>, lengths: &BTreeSet<u32>) -> Peer {
        lengths
            .range(..block.length)
            .rev()
            .find_map(|&length| self.peers.get(&shortened(block, length)).copied())
            .unwrap_or(WORLD)
    }
}

fn shortened(block: &Prefix<AddressKey>, length: u32) -> Prefix<AddressKey> {
    let bits = u128::from_be_bytes(block.data.address);
    let mask = u128::MAX.checked_shl(128 - length.min(128)).unwrap_or(0);
    Prefix { length, data: AddressKey { address: (bits & mask).to_be_bytes() } }
}

#[cfg(test)]
mod tests {
    use super::{super::encode, *};

    fn block(text: &str) -> Prefix<AddressKey> {
        encode::block(&text.parse().unwrap())
    }

    fn peer(identity: u32) -> Peer {
        Peer { identity, ..WORLD }
    }

    fn blocks(blocks: &[(&str, u32)]) -> Blocks {
        let mut all = Blocks::default();
        for (text, identity) in blocks {
            all.insert(block(text), peer(*identity));
        }
        all
    }

    fn held(blocks: &Blocks) -> HashSet<Prefix<AddressKey>> {
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
        assert!(writes.garbage.is_empty());
        assert_eq!(writes.puts.len(), 1);
        assert_eq!(writes.puts[0].1.after, WORLD);
        assert_eq!(Blocks::default().writes_to(&now, &HashSet::new(), 1).puts.len(), 1, "written even if never named");
    }

    #[test]
    fn leftover_of_an_unfinished_publication_is_garbage() {
        let now = Blocks::default();
        let mut trie = held(&now);
        trie.insert(block("192.0.2.0/24"));
        assert_eq!(now.writes_to(&now, &trie, 5).garbage, [block("192.0.2.0/24")]);
    }
}

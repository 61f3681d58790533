//! The outcome for one packet: its answer, and other fields of the record.

use netverdict_abi::{KernelReason, Peer, Verdict};

use crate::decide::{Answer, WORLD};

pub struct Ruling {
    pub answer: Answer,
    /// Whether to write an event.
    pub record: bool,
    /// The flow that was judged runs against this packet, because the packet is a reply.
    pub reversed: bool,
    /// Later fragments of the same packet follow this ruling.
    pub for_fragments: bool,
    /// The other end, where it was looked up.
    pub peer: Peer,
    /// Owner id of the endpoint, or of the address that it claims falsely; 0 where it was not looked up.
    pub owner: u32,
}

impl Ruling {
    /// The packet passes without a record: its flow is known already, or of no interest.
    pub const PASS: Self = Self {
        answer: Answer { verdict: Verdict::Allowed, reason: KernelReason::ByPolicy, attribution: 0 },
        record: false,
        reversed: false,
        for_fragments: false,
        peer: WORLD,
        owner: 0,
    };

    #[inline(always)]
    pub fn deny(&mut self, reason: KernelReason) {
        self.answer = Answer { verdict: Verdict::Denied, reason, attribution: 0 };
        self.record = true;
    }
}

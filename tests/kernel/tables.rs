//! Decision tables written by hand. Ids follow from a pod's position in the list and a generation number, like those of
//! a compiler that gives out new ids for everything that changed.

use std::collections::{BTreeMap, BTreeSet};

use netverdict_policy::{
    AttributionId, Change, Confidence, Decision, Reason, Verdict,
    tables::{
        ClassId, Column, ColumnId, IdentityId, Outcome, Owner, OwnerId, PeerEntry, PortSpace, SubjectEntry, Tables,
    },
};
use netverdict_tests::topology::PodNetwork;

use crate::node::{key, uid};

/// Attribution of a verdict without a policy.
pub(crate) const NO_POLICY: u64 = 1_000;
/// Attribution of a packet that an isolated pod does not accept.
pub(crate) const ISOLATED: u64 = 1_001;
/// Attribution of a packet that a rule accepts.
pub(crate) const RULE: u64 = 1_002;

/// Allows everything, except packets that enter an isolated pod and are not accepted.
pub(crate) struct Plan {
    pods: Vec<PodNetwork>,
    generation: u32,
    isolated: BTreeSet<String>,
    accepted: BTreeMap<(String, String), Accept>,
    blocks: BTreeMap<ipnet::IpNet, Outcome>,
}

#[derive(Clone)]
enum Accept {
    Everything,
    /// Single TCP ports, and blocks of them by first port and length.
    Tcp {
        ports: Vec<u16>,
        prefixes: Vec<(u16, u8)>,
    },
}

impl Plan {
    /// `generation` 1 and up: plans of different generations share no id.
    pub(crate) fn new(generation: u32, pods: &[PodNetwork]) -> Self {
        Self {
            pods: pods.to_vec(),
            generation,
            isolated: BTreeSet::new(),
            accepted: BTreeMap::new(),
            blocks: BTreeMap::new(),
        }
    }

    /// Denies everything that enters the pod.
    pub(crate) fn isolate(mut self, pod: &str) -> Self {
        self.isolated.insert(pod.to_owned());
        self
    }

    pub(crate) fn accept(mut self, from: &str, to: &str) -> Self {
        self.accepted.insert((from.to_owned(), to.to_owned()), Accept::Everything);
        self
    }

    pub(crate) fn accept_tcp(mut self, from: &str, to: &str, ports: &[u16], prefixes: &[(u16, u8)]) -> Self {
        let accept = Accept::Tcp { ports: ports.to_vec(), prefixes: prefixes.to_vec() };
        self.accepted.insert((from.to_owned(), to.to_owned()), accept);
        self
    }

    /// The outcome at isolated pods for addresses of a block that belong to no pod.
    pub(crate) fn block(mut self, block: &str, outcome: Outcome) -> Self {
        self.blocks.insert(block.parse().unwrap(), outcome);
        self
    }

    /// Removes a pod; its addresses become unknown ones.
    pub(crate) fn without(mut self, pod: &str) -> Self {
        self.pods.retain(|known| known.pod != pod);
        self
    }

    /// The complete change.
    pub(crate) fn complete(&self) -> Change {
        let mut put = Tables::default();
        let mut owners = Vec::new();
        for (number, pod) in (1_u32..).zip(&self.pods) {
            let owner = OwnerId(self.id(number));
            owners.push((owner, Owner::Pod { key: key(pod), uid: uid(pod) }));
            let entry = PeerEntry { identity: self.identity(number), owner, ..PeerEntry::default() };
            put.addresses.insert(pod.v4.into(), entry);
            put.addresses.insert(pod.v6.into(), entry);
            let isolated = self.isolated.contains(&pod.pod);
            let subject = SubjectEntry {
                owner,
                egress_class: ClassId(self.id(number) * 2),
                ingress_class: self.ingress_class(number),
                egress_default: allowed(NO_POLICY),
                ingress_default: if isolated { denied(ISOLATED) } else { allowed(NO_POLICY) },
            };
            put.subjects.insert(key(pod), subject);
        }
        for (number, ((from, to), accept)) in (1_u32..).zip(&self.accepted) {
            let pair = (self.ingress_class(self.number(to)), self.identity(self.number(from)));
            let outcome = match accept {
                Accept::Everything => allowed(RULE),
                Accept::Tcp { ports, prefixes } => {
                    let id = ColumnId(self.id(number));
                    put.columns.insert(id, column(ports, prefixes));
                    Outcome::Column(id)
                }
            };
            put.pairs.insert(pair, outcome);
        }
        for (number, (block, outcome)) in (100_u32..).zip(&self.blocks) {
            let entry = PeerEntry { identity: self.identity(number), ..PeerEntry::default() };
            put.blocks.insert(*block, entry);
            for pod in self.pods.iter().filter(|pod| self.isolated.contains(&pod.pod)) {
                let class = self.ingress_class(self.number(&pod.pod));
                put.pairs.insert((class, self.identity(number)), *outcome);
            }
        }
        let attributions = [
            (NO_POLICY, Verdict::Allowed, Reason::NoPolicy),
            (ISOLATED, Verdict::Denied, Reason::IsolatedNoMatch),
            (RULE, Verdict::Allowed, Reason::RuleMatch),
        ];
        Change {
            complete: true,
            put,
            attributions: attributions
                .map(|(id, verdict, reason)| (AttributionId(id), decision(verdict, reason)))
                .into(),
            owners,
            ..Change::default()
        }
    }

    /// The owner id of a pod in this generation.
    pub(crate) fn owner(&self, pod: &str) -> u32 {
        self.id(self.number(pod))
    }

    fn number(&self, pod: &str) -> u32 {
        let place = self.pods.iter().position(|known| known.pod == pod).unwrap_or_else(|| panic!("no pod {pod}"));
        u32::try_from(place).unwrap() + 1
    }

    fn id(&self, number: u32) -> u32 {
        self.generation * 10_000 + number
    }

    fn identity(&self, number: u32) -> IdentityId {
        IdentityId(self.id(number))
    }

    fn ingress_class(&self, number: u32) -> ClassId {
        ClassId(self.id(number) * 2 + 1)
    }
}

pub(crate) fn allowed(attribution: u64) -> Outcome {
    Outcome::Final { verdict: Verdict::Allowed, attribution: AttributionId(attribution) }
}

pub(crate) fn denied(attribution: u64) -> Outcome {
    Outcome::Final { verdict: Verdict::Denied, attribution: AttributionId(attribution) }
}

fn column(ports: &[u16], prefixes: &[(u16, u8)]) -> Column {
    let nothing = PortSpace {
        default: denied(ISOLATED),
        ports: BTreeMap::new(),
        prefixes: BTreeMap::new(),
        fragment: denied(ISOLATED),
    };
    let tcp = PortSpace {
        ports: ports.iter().map(|port| (*port, allowed(RULE))).collect(),
        prefixes: prefixes.iter().map(|prefix| (*prefix, allowed(RULE))).collect(),
        ..nothing.clone()
    };
    Column { tcp, udp: nothing.clone(), sctp: nothing, other: denied(ISOLATED) }
}

fn decision(verdict: Verdict, reason: Reason) -> Decision {
    Decision {
        verdict,
        verdict_if_enforced: None,
        reason,
        tier: None,
        confidence: Confidence::Exact,
        references: Vec::new(),
    }
}

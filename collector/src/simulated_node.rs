//! For tests: a node whose kernel judges by the compiled tables, and its events.

use std::sync::Arc;

use netverdict_abi::{
    ABI_VERSION, Direction as AbiDirection, Disposition, EventKind, Lane, Mode, Verdict as AbiVerdict, VerdictEvent,
    address::v4_mapped,
};
use netverdict_flowlog::row::{LaneName, ModeName};
use netverdict_policy::{
    AttributionId, ObjectKey, Snapshot, Verdict,
    tables::{IdFloor, Owner},
};
use zerocopy::IntoBytes;

use crate::{
    batch::RingBatch,
    input::{Input, Session},
    meaning::{Meanings, SnapshotState, WholeState},
};

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const WEB: [u8; 4] = [10, 0, 0, 1];
pub(crate) const PG: [u8; 4] = [10, 0, 0, 2];

const CLUSTER: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: db}}
---
{apiVersion: v1, kind: Node, metadata: {name: 'n', labels: {topology.kubernetes.io/zone: z}}, spec: {podCIDRs: [10.0.0.0/24]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, uid: u-web, labels: {app: web}}, spec: {nodeName: 'n'}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: pg, namespace: db, uid: u-pg, labels: {app: pg}}, spec: {nodeName: 'n'}, status: {phase: Running, podIPs: [{ip: 10.0.0.2}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: api, namespace: db}, spec: {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: api}}}]}]}}
"#;

/// A node whose kernel judges as the compiled tables say.
pub(crate) struct SimulatedNode {
    pub(crate) state: SnapshotState,
    pub(crate) meanings: Meanings,
    pub(crate) seq: u64,
    pub(crate) now: u64,
}

impl SimulatedNode {
    pub(crate) fn new() -> Self {
        let (objects, findings) = netverdict_manifest::read(CLUSTER, "cluster.yaml");
        assert!(findings.is_empty(), "{findings:?}");
        Self::of(netverdict_manifest::snapshot(&objects).snapshot, 1, 10)
    }

    pub(crate) fn of(snapshot: Snapshot, number: u64, revision: u64) -> Self {
        let snapshot = Arc::new(snapshot);
        // As of one compiler: no owner's id is another's in another state.
        let floor = IdFloor { owner: 1_000 * u32::try_from(number).unwrap(), ..IdFloor::default() };
        let mut compiler = netverdict_policy::Compiler::new("n", floor);
        let change = compiler.compile(&snapshot);
        let state = SnapshotState::from(WholeState {
            number,
            boot_id: "b".into(),
            revision,
            seen_ns: 0,
            snapshot,
            addresses: change.put.addresses.clone(),
            blocks: change.put.blocks.clone(),
            owners: change.owners.iter().map(|(id, owner)| (*id, Arc::new(owner.clone()))).collect(),
        });
        let meanings = Meanings { attributions: change.attributions, owners: change.owners };
        Self { state, meanings, seq: 0, now: SECOND }
    }

    pub(crate) fn owner(&self, namespace: &str, name: &str) -> u32 {
        let is = |owner: &Owner| matches!(owner, Owner::Pod { key, .. } if *key == ObjectKey::new(namespace, name));
        self.meanings.owners.iter().find(|(_, owner)| is(owner)).map_or(0, |(id, _)| id.0)
    }

    /// The attribution of the denial that the only policy gives.
    pub(crate) fn denial(&self) -> AttributionId {
        let denied = self.meanings.attributions.iter().find(|(_, decision)| decision.verdict == Verdict::Denied);
        denied.expect("the policy denies").0
    }

    /// The kernel's event when `shop/web` tries `db/pg` on port 5432.
    pub(crate) fn denied(&mut self) -> VerdictEvent {
        self.seq += 1;
        self.now += 1_000;
        VerdictEvent {
            kind: EventKind::Verdict as u8,
            abi_version: ABI_VERSION,
            lane: Lane::Denied as u8,
            direction: AbiDirection::Ingress as u8,
            cpu: 0,
            seq: self.seq,
            boot_time: self.now,
            revision: self.state.revision,
            attribution: self.denial().0,
            source: v4_mapped(WEB),
            destination: v4_mapped(PG),
            source_owner: self.owner("shop", "web"),
            destination_owner: self.owner("db", "pg"),
            endpoint_owner: self.owner("db", "pg"),
            ifindex: 7,
            source_port: 40_000,
            destination_port: 5432,
            protocol: 6,
            family: 4,
            tcp_flags: 2,
            verdict: AbiVerdict::Denied as u8,
            disposition: Disposition::Dropped as u8,
            mode: Mode::Enforce as u8,
            length: 74,
            ..VerdictEvent::default()
        }
    }

    pub(crate) fn meanings(&self) -> Input {
        Input::Meanings(self.meanings.clone())
    }

    pub(crate) fn snapshot(&self) -> Input {
        Input::Snapshot(Arc::new(self.state.clone()))
    }
}

/// A session of node `n`.
pub(crate) fn session(boot: &str, fresh: bool) -> Session {
    Session { node: "n".into(), boot_id: boot.into(), mode: ModeName::Enforce, fresh, time_ns: 5_000_000_000 }
}

/// A batch of the ring of denials.
pub(crate) fn batch(events: &[VerdictEvent]) -> Input {
    batch_of(events.iter().map(|event| event.as_bytes().to_vec()))
}

pub(crate) fn batch_of(records: impl IntoIterator<Item = Vec<u8>>) -> Input {
    let mut bytes = Vec::new();
    for record in records {
        bytes.extend_from_slice(&u32::try_from(record.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(&record);
    }
    Input::Ring(RingBatch { lane: LaneName::Denied, ingest_ns: 9_000_000_000, offset_ns: 1_000_000_000, bytes })
}

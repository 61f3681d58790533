//! skeleton
use std::collections::BTreeMap;
use netverdict_abi::{Lane, Mode};
use netverdict_policy::{tables::{Change, IdFloor, Owner, OwnerId}, AttributionId, Decision};
use crate::{endpoint::BoundEndpoint, error::{ProbeError, PublishError}, options::ProbeOptions, ring::RingReader, status::MapOccupancy};
/// What was found at the start.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    pub revision: u64,
    pub floor: IdFloor,
    pub attributions: BTreeMap<AttributionId, Decision>,
    pub owners: BTreeMap<OwnerId, Owner>,
    pub bindings: Vec<BoundEndpoint>,
    pub taken_over: bool,
    pub snapshots: Vec<(u64, u64)>,
}
/// What the programs counted since they were loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub lanes: Vec<LaneCount>,
    pub losses: Vec<Loss>,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneCount { pub cpu: u32, pub lane: Lane, pub seq: u64, pub lost: u64 }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss { pub ifindex: u32, pub lane: Lane, pub lost: u64 }
pub struct Probe;
impl Probe {
    pub fn start(_options: ProbeOptions) -> Result<(Self, Restored), ProbeError> { unimplemented!() }
    pub fn publish(&mut self, _snapshot_number: u64, _change: &Change) -> Result<u64, PublishError> { unimplemented!() }
    pub fn collect_garbage(&mut self) -> Result<bool, ProbeError> { unimplemented!() }
    pub fn revision(&self) -> u64 { unimplemented!() }
    pub fn floor(&self) -> IdFloor { unimplemented!() }
    pub fn attach(&mut self, _endpoint: &BoundEndpoint) -> Result<(), ProbeError> { unimplemented!() }
    pub fn detach(&mut self, _ifindex: u32) -> Result<(), ProbeError> { unimplemented!() }
    pub fn set_mode(&mut self, _mode: Mode) -> Result<(), ProbeError> { unimplemented!() }
    pub fn rings(&mut self) -> Result<[RingReader; 2], ProbeError> { unimplemented!() }
    pub fn counters(&self) -> Result<Counters, ProbeError> { unimplemented!() }
    pub fn occupancy(&self) -> Vec<MapOccupancy> { unimplemented!() }
    pub fn shutdown(self) { unimplemented!() }
}

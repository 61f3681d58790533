//! skeleton
use std::path::Path;
use crate::ProbeError;
use serde::Serialize;
/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapOccupancy {
    pub map: &'static str,
    /// Entries, or bytes of a ring; `None` where counting would mean reading the whole map.
    pub used: Option<u64>,
    /// Entries, or bytes of a ring, that fit.
    pub limit: u64,
}
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub abi_version: u8,
    pub mode: String,
    pub revision: u64,
    pub programs: Vec<ProgramStatus>,
    pub maps: Vec<MapOccupancy>,
    pub endpoints: Vec<EndpointStatus>,
}
#[derive(Clone, Debug, Serialize)]
pub struct ProgramStatus { pub name: String, pub id: u32, pub tag: String }
#[derive(Clone, Debug, Serialize)]
pub struct EndpointStatus { pub ifindex: u32, pub interface: Option<String>, pub ready: bool, pub owner: u32, pub from_pod: bool, pub to_pod: bool }
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Removed { pub links: u32, pub programs: u32, pub maps: u32 }
pub fn status(_pin_root: &Path) -> Result<Status, ProbeError> { unimplemented!() }
pub fn detach_all(_pin_root: &Path) -> Result<Removed, ProbeError> { unimplemented!() }

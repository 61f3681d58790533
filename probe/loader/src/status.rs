//! Reports the pinned programs and maps and the fill of the maps, and removes all pins. Works without a running probe,
//! and does not disturb one.

use std::{collections::BTreeMap, path::Path, time::Duration};

use netverdict_abi::{ABI_VERSION, Lane, Mode, map::name};
use serde::Serialize;

use crate::{
    endpoint::BoundEndpoint,
    error::ProbeError,
    links::{self, Hook},
    maps::{Maps, occupancy::MapOccupancy, pinned},
    pins::{self, Lock, Pins},
    programs,
    published::{PublishedMaps, endpoint_records::EndpointTable},
    ring::{self, Fill},
    state,
};

/// How long to wait for the lock of a probe that has just ended. A child process that it forked holds a copy of the
/// lock's descriptor until its `exec`.
const LINGER: Duration = Duration::from_millis(500);

/// The pins of this build's ABI version under a root folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    pub abi_version: u8,
    /// Folders of other ABI versions, which are still attached or were left behind.
    pub other_versions: Vec<String>,
    /// `observe`, `audit` or `enforce`; `unknown` for a value that this build does not know.
    pub mode: &'static str,
    /// The revision in force; 0 before the first publication.
    pub revision: u64,
    /// Whether a probe holds the lock.
    pub running: bool,
    pub programs: Vec<ProgramStatus>,
    pub maps: Vec<MapOccupancy>,
    pub endpoints: Vec<EndpointStatus>,
    /// Names of the interfaces at which packets that leave the node are judged.
    pub uplinks: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramStatus {
    pub name: String,
    /// The kernel's id of the program.
    pub id: u32,
    /// Digest of its instructions, in hexadecimal.
    pub tag: String,
}

/// An interface with a record or a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointStatus {
    pub ifindex: u32,
    /// Name of the interface; `None` if it was deleted or is in another network namespace.
    pub interface: Option<String>,
    /// `namespace/name`; `None` if the state file does not contain the interface.
    pub pod: Option<String>,
    /// Whether the endpoint's tables are complete.
    pub ready: bool,
    /// Owner id of its pod; 0 before it is ready.
    pub owner: u32,
    /// Whether the link of the program for packets from the pod is pinned.
    pub from_pod: bool,
    /// Whether the link of the program for packets to the pod is pinned.
    pub to_pod: bool,
}

/// How many pins [`detach_all`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    pub links: u32,
    pub programs: u32,
    pub maps: u32,
}

/// Reads the pins, and the pods of the interfaces from the probe's state file if there is one. Works while a probe
/// runs; a change that happens meanwhile may be reported in part.
///
/// # Errors
/// [`ProbeError::NothingPinned`], or a map or the state file cannot be read.
pub fn status(pin_root: &Path, state_dir: &Path) -> Result<Status, ProbeError> {
    let pins = Pins::of(pin_root);
    if !programs::are_complete(&pins) {
        return Err(ProbeError::NothingPinned { path: pins.version_folder().to_owned() });
    }
    let maps = Maps::open(&pins.maps())?;
    let published = PublishedMaps::open(&pins.maps())?;
    let mut occupied = occupancy(&maps, &published);
    for name in [name::CONNECTIONS, name::FRAGMENTS] {
        occupied.push(least_recently_used(&pins, name)?);
    }
    for &lane in Lane::ALL {
        let Fill { used, size } = ring::fill(lane, &pins.maps())?;
        occupied.push(MapOccupancy { map: ring::ring_name(lane), used: Some(used), limit: size });
    }
    let others = Pins::every(pin_root)?.into_iter().filter(|other| *other != pins);
    Ok(Status {
        abi_version: ABI_VERSION,
        other_versions: others.map(|other| other.version_folder().display().to_string()).collect(),
        mode: mode_name(maps.settings()?.mode),
        revision: maps.revision()?,
        running: Lock::is_held(pin_root)?,
        programs: program_status(&pins)?,
        maps: occupied,
        uplinks: uplinks(&pins)?,
        endpoints: endpoint_status(&pins, &published.endpoints.table, &state::bindings(state_dir)?)?,
    })
}

/// Removes all links, programs and maps of every ABI version. Afterwards packets are neither judged nor dropped.
///
/// # Errors
/// [`ProbeError::Locked`] while a probe runs, because it would attach again.
pub fn detach_all(pin_root: &Path) -> Result<Removed, ProbeError> {
    let mut removed = Removed::default();
    if !pin_root.exists() {
        return Ok(removed);
    }
    let _lock = Lock::take(pin_root, LINGER)?;
    for version in Pins::every(pin_root)? {
        removed.links += links::remove_all(&version)?;
        let counts = version.remove()?;
        removed.programs += counts.programs;
        removed.maps += counts.maps;
    }
    pins::remove_folder(pin_root)?;
    Ok(removed)
}

/// The occupancy of the maps that user space fills.
pub(crate) fn occupancy(maps: &Maps, published: &PublishedMaps) -> Vec<MapOccupancy> {
    let mut occupancy = published.occupancy();
    occupancy.push(maps.own_addresses.occupancy());
    occupancy.push(maps.local_pods.occupancy());
    occupancy
}

/// The kernel evicts entries from these maps, so they are never full; counting their entries would mean walking the map.
fn least_recently_used(pins: &Pins, name: &'static str) -> Result<MapOccupancy, ProbeError> {
    let data = pinned::open(&pins.maps(), name)?;
    let limit = data.info().map_err(|error| pinned::failed(name, "inspect", error))?.max_entries();
    Ok(MapOccupancy { map: name, used: None, limit: limit.into() })
}

fn program_status(pins: &Pins) -> Result<Vec<ProgramStatus>, ProbeError> {
    programs::NAMES
        .iter()
        .map(|name| {
            let info = programs::pinned_info(pins, name)?;
            Ok(ProgramStatus { name: (*name).to_owned(), id: info.id(), tag: format!("{:016x}", info.tag().to_be()) })
        })
        .collect()
}

fn endpoint_status(
    pins: &Pins,
    records: &EndpointTable,
    bindings: &BTreeMap<u32, BoundEndpoint>,
) -> Result<Vec<EndpointStatus>, ProbeError> {
    let pinned = links::pinned(pins)?;
    let mut indices = records.keys()?;
    indices.extend(pinned.iter().map(|pin| pin.ifindex));
    indices.sort_unstable();
    indices.dedup();
    let has = |ifindex, hook| pinned.iter().any(|pin| pin.ifindex == ifindex && pin.hook == hook);
    indices
        .into_iter()
        .map(|ifindex| {
            let record = records.get(&ifindex)?.unwrap_or_default();
            Ok(EndpointStatus {
                ifindex,
                interface: links::interface_name(ifindex),
                pod: bindings.get(&ifindex).map(|endpoint| endpoint.pod.to_string()),
                ready: record.ready != 0,
                owner: record.owner,
                from_pod: has(ifindex, Hook::FromPod),
                to_pod: has(ifindex, Hook::ToPod),
            })
        })
        .collect()
}

fn uplinks(pins: &Pins) -> Result<Vec<String>, ProbeError> {
    let pinned = links::pinned_uplinks(pins)?;
    Ok(pinned.into_iter().filter_map(|pin| links::interface_name(pin.ifindex)).collect())
}

pub(crate) fn mode_name(mode: u8) -> &'static str {
    match Mode::try_from(mode) {
        Ok(Mode::Observe) => "observe",
        Ok(Mode::Audit) => "audit",
        Ok(Mode::Enforce) => "enforce",
        Err(_) => "unknown",
    }
}

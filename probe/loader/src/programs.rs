//! Loads the BPF object, pins its programs and maps, and replaces pinned programs with newer ones over the same maps.

use std::{error::Error, fs, io};

use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramError, ProgramInfo, SchedClassifier},
};
use netverdict_abi::map::{constant, name};

use crate::{
    btf::Conntrack,
    error::ProbeError,
    options::ProbeOptions,
    pins::{self, Pins},
    published::PublishedMaps,
};

/// The programs, in the order in which they are pinned. Benches use the empty one as their baseline.
pub(crate) const NAMES: [&str; 5] = [name::FROM_POD, name::TO_POD, name::LEAVING, name::LEAVING_BARE, name::EMPTY];

/// Suffix of a program's pin until it replaces the old pin. (The kernel refuses dots in the name.)
const NEXT: &str = "_next";

/// Whether every program and every map is pinned.
pub(crate) fn are_complete(pins: &Pins) -> bool {
    NAMES.iter().all(|program| pins.program(program).exists())
        && name::ALL.iter().all(|map| pins.maps().join(map).exists())
}

/// Creates the maps, loads the programs and pins both. No pin may exist.
pub(crate) fn load_fresh(
    object: &[u8],
    pins: &Pins,
    options: &ProbeOptions,
    conntrack: Conntrack,
) -> Result<(), ProbeError> {
    pins.create()?;
    let mut ebpf = parse(object, pins, options, conntrack)?;
    for program in NAMES {
        load(&mut ebpf, program)?.pin(pins.program(program)).map_err(|error| refused(&error))?;
    }
    match name::ALL.iter().find(|map| !pins.maps().join(map).exists()) {
        Some(missing) => Err(ProbeError::Incomplete { what: "map", name: (*missing).to_owned() }),
        None => Ok(()),
    }
}

/// Replaces the pinned programs whose instructions differ from the object's, over the pinned maps. Returns whether
/// there were any. Links keep running the old programs until the caller updates them.
pub(crate) fn replace(
    object: &[u8],
    pins: &Pins,
    options: &ProbeOptions,
    conntrack: Conntrack,
) -> Result<bool, ProbeError> {
    let mut ebpf = parse(object, pins, options, conntrack)?;
    let mut replaced = false;
    for name in NAMES {
        let program = load(&mut ebpf, name)?;
        let tag = program.info().map_err(|error| refused(&error))?.tag();
        let pin = pins.program(name);
        if pinned_info(pins, name)?.tag() == tag {
            continue;
        }
        let next = pins.program(&format!("{name}{NEXT}"));
        pins::remove(&next)?;
        program.pin(&next).map_err(|error| refused(&error))?;
        fs::rename(&next, &pin).map_err(|source| pins::failed(&pin, "replace", source))?;
        replaced = true;
    }
    Ok(replaced)
}

/// How often to try to load a program while signals interrupt the verifier. As many as libbpf.
const LOAD_ATTEMPTS: u32 = 5;

/// Opens a pinned program.
pub(crate) fn open(pins: &Pins, name: &str) -> Result<SchedClassifier, ProbeError> {
    SchedClassifier::from_pin(pins.program(name)).map_err(|_| ProbeError::NoProgram { name: name.to_owned() })
}

/// The kernel's information about a pinned program.
pub(crate) fn pinned_info(pins: &Pins, name: &str) -> Result<ProgramInfo, ProbeError> {
    ProgramInfo::from_pin(pins.program(name)).map_err(|_| ProbeError::NoProgram { name: name.to_owned() })
}

/// Parses the object, and opens its pinned maps or creates and pins them.
fn parse(object: &[u8], pins: &Pins, options: &ProbeOptions, conntrack: Conntrack) -> Result<Ebpf, ProbeError> {
    let folder = pins.maps();
    let paths: Vec<_> = name::ALL.iter().map(|map| (*map, folder.join(map))).collect();
    let mut loader = EbpfLoader::new();
    for (map, path) in &paths {
        loader.map_pin_path(map, path.as_path());
    }
    for (map, entries) in sizes(options) {
        loader.map_max_entries(map, entries);
    }
    loader.override_global(constant::CONNTRACK_IN_PACKET, &conntrack.in_packet, true);
    loader.override_global(constant::TUPLES_IN_CONNTRACK, &conntrack.tuples, true);
    loader.load(object).map_err(|error| refused(&error))
}

fn load<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, ProbeError> {
    let missing = || ProbeError::Incomplete { what: "program", name: name.to_owned() };
    let program: &mut SchedClassifier =
        ebpf.program_mut(name).ok_or_else(missing)?.try_into().map_err(|error| refused(&error))?;
    let mut attempts = 1;
    loop {
        match program.load() {
            Ok(()) => return Ok(program),
            Err(error) if is_interrupted(&error) && attempts < LOAD_ATTEMPTS => attempts += 1,
            Err(error) => return Err(refused(&error)),
        }
    }
}

/// Whether the verifier gave up with `EAGAIN` because a signal is pending.
fn is_interrupted(error: &ProgramError) -> bool {
    let error = match error {
        ProgramError::LoadError { io_error, .. } => io_error,
        ProgramError::SyscallError(error) => &error.io_error,
        _ => return false,
    };
    error.kind() == io::ErrorKind::WouldBlock
}

/// Entries, or bytes of a ring, of each map whose size is an option.
fn sizes(options: &ProbeOptions) -> Vec<(&'static str, u32)> {
    let mut sizes = vec![
        (name::RING_DENIED, options.ring_bytes.denied),
        (name::RING_FLOW, options.ring_bytes.flow),
        (name::CONNECTIONS, options.max_connections),
        (name::FRAGMENTS, options.max_fragments),
        // Two address families, their link-local addresses, and room for pods with several interfaces.
        (name::OWN_ADDRESSES, options.max_endpoints.saturating_mul(16)),
        // The same without link-local addresses.
        (name::LOCAL_PODS, options.max_endpoints.saturating_mul(16)),
        // One entry for each loss class of an interface, and room for deleted interfaces.
        (name::LOSSES, options.max_endpoints.saturating_mul(4)),
    ];
    sizes.extend(PublishedMaps::limits(options));
    sizes
}

fn refused(error: &dyn Error) -> ProbeError {
    ProbeError::Load { reason: with_causes(error) }
}

/// An error with its chain of causes. The verifier's message comes last.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // A transparent error has the same text as its source.
        if !reason.ends_with(&text) {
            reason.push_str(": ");
            reason.push_str(&text);
        }
        cause = error.source();
    }
    reason
}

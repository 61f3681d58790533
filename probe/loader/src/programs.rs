//! Loads the object, pins what comes of it, and replaces pinned programs by newer ones over the same maps.

use std::{error::Error, fs, io};

use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramError, ProgramInfo, SchedClassifier},
};
use netverdict_abi::map::name;

use crate::{
    error::ProbeError,
    options::ProbeOptions,
    pins::{self, Pins},
    published::PublishedMaps,
};

/// The programs, in the order in which they are pinned. The empty one is only there to be compared with.
pub(crate) const NAMES: [&str; 3] = [name::FROM_POD, name::TO_POD, name::EMPTY];

/// Ends the name of a program that is about to replace another. (The kernel refuses dots.)
const NEXT: &str = "_next";

/// Whether everything is pinned that a start leaves behind.
pub(crate) fn are_complete(pins: &Pins) -> bool {
    NAMES.iter().all(|program| pins.program(program).exists())
        && name::ALL.iter().all(|map| pins.maps().join(map).exists())
}

/// Creates the maps, loads the programs and pins both. `pins` must be empty.
pub(crate) fn load_fresh(object: &[u8], pins: &Pins, options: &ProbeOptions) -> Result<(), ProbeError> {
    pins.create()?;
    let mut ebpf = parse(object, pins, options)?;
    for program in NAMES {
        load(&mut ebpf, program)?.pin(pins.program(program)).map_err(|error| refused(&error))?;
    }
    match name::ALL.iter().find(|map| !pins.maps().join(map).exists()) {
        Some(missing) => Err(ProbeError::Incomplete { what: "map", name: (*missing).to_owned() }),
        None => Ok(()),
    }
}

/// Pins the object's programs instead of the pinned ones, over the pinned maps, where their instructions differ.
/// `true` if any did. Attached programs stay what they are: the caller updates the links.
pub(crate) fn replace(object: &[u8], pins: &Pins, options: &ProbeOptions) -> Result<bool, ProbeError> {
    let mut ebpf = parse(object, pins, options)?;
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

/// How often to load a program when signals interrupt the verifier, as libbpf does.
const LOAD_ATTEMPTS: u32 = 5;

/// Opens a pinned program.
pub(crate) fn open(pins: &Pins, name: &str) -> Result<SchedClassifier, ProbeError> {
    SchedClassifier::from_pin(pins.program(name)).map_err(|_| ProbeError::NoProgram { name: name.to_owned() })
}

/// What the kernel knows of a pinned program.
pub(crate) fn pinned_info(pins: &Pins, name: &str) -> Result<ProgramInfo, ProbeError> {
    ProgramInfo::from_pin(pins.program(name)).map_err(|_| ProbeError::NoProgram { name: name.to_owned() })
}

/// Parses the object and opens or creates its maps where they are (to be) pinned.
fn parse(object: &[u8], pins: &Pins, options: &ProbeOptions) -> Result<Ebpf, ProbeError> {
    let folder = pins.maps();
    let paths: Vec<_> = name::ALL.iter().map(|map| (*map, folder.join(map))).collect();
    let mut loader = EbpfLoader::new();
    for (map, path) in &paths {
        loader.map_pin_path(map, path.as_path());
    }
    for (map, entries) in sizes(options) {
        loader.map_max_entries(map, entries);
    }
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

/// The verifier gives up with `EAGAIN` when a signal is waiting.
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
        // One entry for each loss class of an interface, and room for deleted interfaces.
        (name::LOSSES, options.max_endpoints.saturating_mul(4)),
    ];
    sizes.extend(PublishedMaps::limits(options));
    sizes
}

fn refused(error: &dyn Error) -> ProbeError {
    ProbeError::Load { reason: with_causes(error) }
}

/// An error with all its causes: the verifier's reason comes last.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Transparent errors say the same as their source.
        if !reason.ends_with(&text) {
            reason.push_str(": ");
            reason.push_str(&text);
        }
        cause = error.source();
    }
    reason
}

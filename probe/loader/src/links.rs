//! The programs on interfaces: tcx links, pinned as `links/<ifindex>-<from|to>`, so that they outlive the process.

mod end;

use std::path::PathBuf;

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, LinkError, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
};
use netverdict_abi::map::name;
use nix::errno::Errno;
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use crate::{
    error::ProbeError,
    pins::{self, Pins},
    programs,
};

/// One of the two hooks on the host side of a pod's veth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    FromPod,
    ToPod,
}

impl Hook {
    pub(crate) const BOTH: [Self; 2] = [Self::FromPod, Self::ToPod];

    const fn suffix(self) -> &'static str {
        match self {
            Self::FromPod => "from",
            Self::ToPod => "to",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::FromPod => name::FROM_POD,
            Self::ToPod => name::TO_POD,
        }
    }

    /// What leaves the pod enters the host, and the other way about.
    const fn side(self) -> TcAttachType {
        match self {
            Self::FromPod => TcAttachType::Ingress,
            Self::ToPod => TcAttachType::Egress,
        }
    }
}

/// A pinned link found at the start, or by a look from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkPin {
    pub(crate) ifindex: u32,
    pub(crate) hook: Hook,
}

impl LinkPin {
    pub(crate) fn path(self, pins: &Pins) -> PathBuf {
        pins.links().join(format!("{}-{}", self.ifindex, self.hook.suffix()))
    }

    fn parse(file_name: &str) -> Option<Self> {
        let (ifindex, suffix) = file_name.split_once('-')?;
        let hook = Hook::BOTH.into_iter().find(|hook| hook.suffix() == suffix)?;
        Some(Self { ifindex: ifindex.parse().ok()?, hook })
    }
}

/// Every link that is pinned, of interfaces that are no more too.
pub(crate) fn pinned(pins: &Pins) -> Result<Vec<LinkPin>, ProbeError> {
    let mut found: Vec<_> =
        pins::entries(&pins.links())?.iter().filter_map(|path| LinkPin::parse(path.file_name()?.to_str()?)).collect();
    found.sort_unstable();
    Ok(found)
}

/// Ends an interface's links, at once, and removes their pins. Returns how many there were.
pub(crate) fn remove(pins: &Pins, ifindex: u32) -> Result<u32, ProbeError> {
    let mut removed = 0;
    for hook in Hook::BOTH {
        let path = LinkPin { ifindex, hook }.path(pins);
        end::end(&path).map_err(|source| pins::failed(&path, "end", source))?;
        removed += u32::from(pins::remove(&path)?);
    }
    Ok(removed)
}

/// [`remove`] for every interface.
pub(crate) fn remove_all(pins: &Pins) -> Result<u32, ProbeError> {
    let mut interfaces: Vec<_> = pinned(pins)?.into_iter().map(|pin| pin.ifindex).collect();
    interfaces.dedup();
    interfaces.into_iter().try_fold(0, |removed, ifindex| Ok(removed + remove(pins, ifindex)?))
}

/// Name of an interface of this network namespace; `None` if there is none with this index.
pub(crate) fn interface_name(ifindex: u32) -> Option<String> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    netdevice::index_to_name(socket, ifindex).ok()
}

/// The two programs, ready to be attached.
pub(crate) struct Links {
    from_pod: SchedClassifier,
    to_pod: SchedClassifier,
    pins: Pins,
}

impl Links {
    pub(crate) fn open(pins: &Pins) -> Result<Self, ProbeError> {
        Ok(Self {
            from_pod: programs::open(pins, Hook::FromPod.program())?,
            to_pod: programs::open(pins, Hook::ToPod.program())?,
            pins: pins.clone(),
        })
    }

    /// Makes a pinned link run the program as it is pinned now, without a packet in between. `false`, and the pin is
    /// gone, if its interface is.
    pub(crate) fn adopt(&mut self, pin: LinkPin) -> Result<bool, ProbeError> {
        let path = pin.path(&self.pins);
        let failed = |reason: String| ProbeError::Attach { ifindex: pin.ifindex, action: "taking over a link", reason };
        let link = match PinnedLink::from_pin(&path) {
            Ok(link) => SchedClassifierLink::try_from(FdLink::from(link)).map_err(|error| failed(error.to_string()))?,
            Err(LinkError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(false);
            }
            Err(error) => return Err(failed(error.to_string())),
        };
        let program = self.program(pin.hook);
        match program.attach_to_link(link) {
            Ok(id) => {
                // The pin keeps the link; this process needs no descriptor of it.
                drop(program.take_link(id).map_err(|error| failed(error.to_string()))?);
                Ok(true)
            }
            Err(error) if is_without_device(&error) => {
                pins::remove(&path)?;
                Ok(false)
            }
            Err(error) => Err(failed(reason(&error))),
        }
    }

    /// Attaches both programs, or takes over the links that are there.
    pub(crate) fn ensure(&mut self, ifindex: u32) -> Result<(), ProbeError> {
        let interface = interface_name(ifindex).ok_or(ProbeError::NoInterface { ifindex })?;
        for hook in Hook::BOTH {
            let pin = LinkPin { ifindex, hook };
            if !self.adopt(pin)? {
                self.attach(pin, &interface)?;
            }
        }
        // aya takes a name: were it given to another interface meanwhile, the programs would sit on that one.
        if interface_name(ifindex).as_deref() == Some(interface.as_str()) {
            Ok(())
        } else {
            remove(&self.pins, ifindex)?;
            let reason = format!("it was renamed from {interface} meanwhile; try again");
            Err(ProbeError::Attach { ifindex, action: "attaching", reason })
        }
    }

    fn attach(&mut self, pin: LinkPin, interface: &str) -> Result<(), ProbeError> {
        let failed = |reason: String| ProbeError::Attach { ifindex: pin.ifindex, action: "attaching", reason };
        let path = pin.path(&self.pins);
        // First on the hook: a program that accepts a packet for good must not keep it from being judged.
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let program = self.program(pin.hook);
        let id =
            program.attach_with_options(interface, pin.hook.side(), options).map_err(|error| failed(reason(&error)))?;
        let link = program.take_link(id).map_err(|error| failed(error.to_string()))?;
        let link = FdLink::try_from(link).map_err(|error| failed(error.to_string()))?;
        link.pin(path).map_err(|error| failed(error.to_string()))?;
        Ok(())
    }

    fn program(&mut self, hook: Hook) -> &mut SchedClassifier {
        match hook {
            Hook::FromPod => &mut self.from_pod,
            Hook::ToPod => &mut self.to_pod,
        }
    }
}

/// The link is of an interface that was deleted.
fn is_without_device(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error)
        if error.io_error.raw_os_error().map(Errno::from_raw) == Some(Errno::ENOLINK))
}

fn reason(error: &ProgramError) -> String {
    match error {
        ProgramError::SyscallError(error) => format!("{}: {}", error.call, error.io_error),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pin_names_read_back_and_others_are_no_links() {
        let pins = Pins::of(std::path::Path::new("/x"));
        for hook in Hook::BOTH {
            let pin = LinkPin { ifindex: 17, hook };
            let path = pin.path(&pins);
            assert_eq!(LinkPin::parse(path.file_name().unwrap().to_str().unwrap()), Some(pin));
        }
        for name in ["17", "17-", "17-both", "x-from", "-from", "99999999999-to"] {
            assert_eq!(LinkPin::parse(name), None, "{name}");
        }
    }
}

//! Attaches the programs to interfaces: tcx links, pinned as `links/<ifindex>-<from|to>` for a pod's interface and as
//! `uplinks/<ifindex>-<leaving|bare>` for any other, so that they outlive the process.

mod detach;

use std::{
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

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

/// How often to look for the pin of a link that another process has attached, and the time in between.
const ATTACH_ATTEMPTS: u32 = 50;
const ATTACH_POLL: Duration = Duration::from_millis(10);

/// A hook of an interface, with the program that runs there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hook {
    FromPod,
    ToPod,
    /// Where packets leave the node with an Ethernet header.
    Leaving,
    /// Where packets leave the node without a link-layer header.
    LeavingBare,
}

impl Hook {
    /// On the host side of a pod's veth.
    pub(crate) const BOTH: [Self; 2] = [Self::FromPod, Self::ToPod];
    /// On any other interface, one of these.
    pub(crate) const OF_UPLINK: [Self; 2] = [Self::Leaving, Self::LeavingBare];

    pub(crate) const fn of_uplink(bare: bool) -> Self {
        if bare { Self::LeavingBare } else { Self::Leaving }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Self::FromPod => "from",
            Self::ToPod => "to",
            Self::Leaving => "leaving",
            Self::LeavingBare => "bare",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::FromPod => name::FROM_POD,
            Self::ToPod => name::TO_POD,
            Self::Leaving => name::LEAVING,
            Self::LeavingBare => name::LEAVING_BARE,
        }
    }

    /// On the host end of a pair, packets from the pod are ingress and packets to the pod are egress.
    const fn side(self) -> TcAttachType {
        match self {
            Self::FromPod => TcAttachType::Ingress,
            Self::ToPod | Self::Leaving | Self::LeavingBare => TcAttachType::Egress,
        }
    }
}

/// A pinned link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkPin {
    pub(crate) ifindex: u32,
    pub(crate) hook: Hook,
}

impl LinkPin {
    pub(crate) fn path(self, pins: &Pins) -> PathBuf {
        let folder = match self.hook {
            Hook::FromPod | Hook::ToPod => pins.links(),
            Hook::Leaving | Hook::LeavingBare => pins.uplinks(),
        };
        folder.join(format!("{}-{}", self.ifindex, self.hook.suffix()))
    }

    /// `hooks`: those of the folder.
    fn parse(file_name: &str, hooks: [Hook; 2]) -> Option<Self> {
        let (ifindex, suffix) = file_name.split_once('-')?;
        let hook = hooks.into_iter().find(|hook| hook.suffix() == suffix)?;
        Some(Self { ifindex: ifindex.parse().ok()?, hook })
    }
}

/// Every pinned link of pods' interfaces, including those of deleted interfaces.
pub(crate) fn pinned(pins: &Pins) -> Result<Vec<LinkPin>, ProbeError> {
    pinned_in(&pins.links(), Hook::BOTH)
}

/// Every pinned link of other interfaces, including those of deleted interfaces.
pub(crate) fn pinned_uplinks(pins: &Pins) -> Result<Vec<LinkPin>, ProbeError> {
    pinned_in(&pins.uplinks(), Hook::OF_UPLINK)
}

fn pinned_in(folder: &Path, hooks: [Hook; 2]) -> Result<Vec<LinkPin>, ProbeError> {
    let parse = |path: &PathBuf| LinkPin::parse(path.file_name()?.to_str()?, hooks);
    let mut found: Vec<_> = pins::entries(folder)?.iter().filter_map(parse).collect();
    found.sort_unstable();
    Ok(found)
}

/// Detaches the links of a pod's interface at once and removes their pins. Returns the number of links.
pub(crate) fn remove(pins: &Pins, ifindex: u32) -> Result<u32, ProbeError> {
    Hook::BOTH.into_iter().try_fold(0, |removed, hook| Ok(removed + remove_pin(pins, LinkPin { ifindex, hook })?))
}

/// Detaches a link and removes its pin. Returns the number of links, at most 1.
pub(crate) fn remove_pin(pins: &Pins, pin: LinkPin) -> Result<u32, ProbeError> {
    let path = pin.path(pins);
    detach::detach(&path).map_err(|source| pins::failed(&path, "detach", source))?;
    Ok(u32::from(pins::remove(&path)?))
}

/// Detaches every link and removes its pin.
pub(crate) fn remove_all(pins: &Pins) -> Result<u32, ProbeError> {
    let all = pinned(pins)?.into_iter().chain(pinned_uplinks(pins)?);
    all.into_iter().try_fold(0, |removed, pin| Ok(removed + remove_pin(pins, pin)?))
}

/// Name of the interface with this index in this network namespace; `None` if there is none.
pub(crate) fn interface_name(ifindex: u32) -> Option<String> {
    let socket = socket(AddressFamily::INET, SocketType::DGRAM, None).ok()?;
    netdevice::index_to_name(socket, ifindex).ok()
}

/// The programs, opened for attaching.
pub(crate) struct Links {
    from_pod: SchedClassifier,
    to_pod: SchedClassifier,
    leaving: SchedClassifier,
    leaving_bare: SchedClassifier,
    pins: Pins,
}

impl Links {
    pub(crate) fn open(pins: &Pins) -> Result<Self, ProbeError> {
        Ok(Self {
            from_pod: programs::open(pins, Hook::FromPod.program())?,
            to_pod: programs::open(pins, Hook::ToPod.program())?,
            leaving: programs::open(pins, Hook::Leaving.program())?,
            leaving_bare: programs::open(pins, Hook::LeavingBare.program())?,
            pins: pins.clone(),
        })
    }

    /// Makes a pinned link run the currently pinned program; the kernel replaces it atomically. Returns `false`, and
    /// removes the pin, if the interface was deleted.
    pub(crate) fn adopt(&mut self, pin: LinkPin) -> Result<bool, ProbeError> {
        let path = pin.path(&self.pins);
        let failed = |reason: String| ProbeError::Attach { ifindex: pin.ifindex, action: "adopting a link", reason };
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
                // The pin keeps the link alive; this process needs no descriptor.
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

    /// Whether both programs are attached. Adopts the links, as [`Self::adopt`] does.
    pub(crate) fn are_alive(&mut self, ifindex: u32) -> Result<bool, ProbeError> {
        Hook::BOTH.into_iter().try_fold(true, |alive, hook| Ok(self.adopt(LinkPin { ifindex, hook })? && alive))
    }

    /// Attaches both programs, or adopts the links that exist. The CNI plugin may attach the same ones at the same time.
    pub(crate) fn ensure(&mut self, ifindex: u32) -> Result<(), ProbeError> {
        self.ensure_hooks(ifindex, &Hook::BOTH)
    }

    /// Attaches a program, or adopts the link that exists.
    pub(crate) fn ensure_hook(&mut self, pin: LinkPin) -> Result<(), ProbeError> {
        self.ensure_hooks(pin.ifindex, &[pin.hook])
    }

    fn ensure_hooks(&mut self, ifindex: u32, hooks: &[Hook]) -> Result<(), ProbeError> {
        let interface = interface_name(ifindex).ok_or(ProbeError::NoInterface { ifindex })?;
        for &hook in hooks {
            let pin = LinkPin { ifindex, hook };
            let mut attempts = 0;
            while !self.adopt(pin)? {
                match self.attach(pin, &interface)? {
                    Attached::ByUs => break,
                    // The other process pins its link next; or it was killed, and the link is gone.
                    Attached::ByAnother if attempts < ATTACH_ATTEMPTS => {
                        attempts += 1;
                        thread::sleep(ATTACH_POLL);
                    }
                    Attached::ByAnother => {
                        let reason = "the program is attached there without a pin".to_owned();
                        return Err(ProbeError::Attach { ifindex, action: "attaching", reason });
                    }
                }
            }
        }
        // aya attaches by name. If the name moved to another interface meanwhile, the programs are attached to the
        // wrong one.
        if interface_name(ifindex).as_deref() == Some(interface.as_str()) {
            Ok(())
        } else {
            for &hook in hooks {
                remove_pin(&self.pins, LinkPin { ifindex, hook })?;
            }
            let reason = format!("interface {interface} was renamed meanwhile; try again");
            Err(ProbeError::Attach { ifindex, action: "attaching", reason })
        }
    }

    fn attach(&mut self, pin: LinkPin, interface: &str) -> Result<Attached, ProbeError> {
        let failed = |reason: String| ProbeError::Attach { ifindex: pin.ifindex, action: "attaching", reason };
        let path = pin.path(&self.pins);
        // First on the hook: a program before ours could accept a packet without letting it be judged.
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let program = self.program(pin.hook);
        let id = match program.attach_with_options(interface, pin.hook.side(), options) {
            Ok(id) => id,
            Err(error) if is_errno(&error, Errno::EEXIST) => return Ok(Attached::ByAnother),
            Err(error) => return Err(failed(reason(&error))),
        };
        let link = program.take_link(id).map_err(|error| failed(error.to_string()))?;
        let link = FdLink::try_from(link).map_err(|error| failed(error.to_string()))?;
        link.pin(path).map_err(|error| failed(error.to_string()))?;
        Ok(Attached::ByUs)
    }

    fn program(&mut self, hook: Hook) -> &mut SchedClassifier {
        match hook {
            Hook::FromPod => &mut self.from_pod,
            Hook::ToPod => &mut self.to_pod,
            Hook::Leaving => &mut self.leaving,
            Hook::LeavingBare => &mut self.leaving_bare,
        }
    }
}

/// The process that attached a program. The kernel refuses the same program a second time.
enum Attached {
    ByUs,
    ByAnother,
}

/// Whether the link's interface was deleted.
fn is_without_device(error: &ProgramError) -> bool {
    is_errno(error, Errno::ENOLINK)
}

fn is_errno(error: &ProgramError, expected: Errno) -> bool {
    matches!(error, ProgramError::SyscallError(error)
        if error.io_error.raw_os_error().map(Errno::from_raw) == Some(expected))
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
        let pins = Pins::of(Path::new("/x"));
        for hooks in [Hook::BOTH, Hook::OF_UPLINK] {
            for hook in hooks {
                let pin = LinkPin { ifindex: 17, hook };
                let path = pin.path(&pins);
                assert_eq!(LinkPin::parse(path.file_name().unwrap().to_str().unwrap(), hooks), Some(pin));
            }
        }
        for name in ["17", "17-", "17-both", "x-from", "-from", "99999999999-to"] {
            assert_eq!(LinkPin::parse(name, Hook::BOTH), None, "{name}");
        }
    }
}

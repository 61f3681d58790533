//! The interface of the probe: start, publish, attach, read. Connects the parts, and decides nothing about policy.
//!
//! Programs and maps outlive the process: dropping a [`Probe`] changes no verdict, and the next start adopts them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use netverdict_abi::{Lane, LossClass, Mode, Settings};
use netverdict_policy::{
    AttributionId, Decision,
    tables::{Change, IdFloor, Owner, OwnerId},
};

use crate::{
    btf::Conntrack,
    discover::{LinkLayer, Uplink},
    endpoint::BoundEndpoint,
    endpoints::Endpoints,
    error::{ProbeError, PublishError},
    links::{self, Hook, LinkPin, Links},
    local_pods,
    maps::{Maps, occupancy::MapOccupancy},
    object,
    options::ProbeOptions,
    pins::{Lock, Pins},
    programs,
    publish::Publisher,
    published::PublishedMaps,
    ring::RingReader,
    state::{Line, State, StateFile},
    status,
};

/// The state that a start found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restored {
    /// Revision in force; 0 before the first publication of this boot.
    pub revision: u64,
    /// The lowest ids that a compiler may give out.
    pub floor: IdFloor,
    /// The decisions behind the attribution ids of this boot.
    pub attributions: BTreeMap<AttributionId, Decision>,
    /// The owners behind the owner ids of this boot.
    pub owners: BTreeMap<OwnerId, Owner>,
    /// Interfaces that are attached.
    pub bindings: Vec<BoundEndpoint>,
    /// Whether pinned programs and maps were adopted. They enforce as before until the first publication.
    pub adopted: bool,
    /// (revision, number of the snapshot that it was compiled from), ascending. The last may not have been committed.
    pub snapshots: Vec<(u64, u64)>,
}

/// The programs' counters since their maps were created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// One for every possible CPU and lane, including idle ones.
    pub lanes: Vec<LaneCount>,
    /// The losses by interface, without entries that the kernel evicted.
    pub losses: Vec<Loss>,
    /// Frames that were dropped without a record, because they were not addressed to the pod. Entries that the kernel
    /// evicted are not counted.
    pub flooded: u64,
}

/// The counters of a lane on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneCount {
    pub cpu: u32,
    pub lane: Lane,
    /// Sequence number of the last event, delivered or lost; 0 before the first.
    pub seq: u64,
    /// Events for which the ring had no room.
    pub lost: u64,
}

/// Events of one interface for which a ring had no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    pub ifindex: u32,
    pub lane: Lane,
    pub lost: u64,
}

/// User space of the probe. A lock admits one per node.
pub struct Probe {
    maps: Maps,
    published: PublishedMaps,
    links: Links,
    publisher: Publisher,
    endpoints: Endpoints,
    state: StateFile,
    /// Interfaces whose binding changed after the last line about it in the state file.
    unsaved: BTreeSet<u32>,
    pins: Pins,
    /// Pins of other ABI versions. Their links are detached as ours are attached.
    predecessors: Vec<Pins>,
    pin_root: PathBuf,
    rings: Weak<()>,
    /// Why conntrack cannot be read.
    conntrack_trouble: Option<String>,
    _lock: Lock,
}

impl Probe {
    /// Takes the lock, then adopts the pinned programs and maps, or loads the object and pins it. Enforcement is not
    /// interrupted: links stay attached, and the kernel replaces their programs atomically.
    ///
    /// # Errors
    /// See [`ProbeError`]. Existing pins stay unchanged.
    pub fn start(options: ProbeOptions) -> Result<(Self, Restored), ProbeError> {
        let lock = Lock::take(&options.pin_root, options.lock_wait)?;
        let (mut state, known) = StateFile::open(&options.state_dir)?;
        let pins = Pins::of(&options.pin_root);
        let (conntrack, conntrack_trouble) = match Conntrack::find() {
            Ok(found) => (found, None),
            Err(why) => (Conntrack::default(), Some(format!("conntrack cannot be read: {why}"))),
        };
        let adopted = adopt_or_load(&options, &pins, conntrack)?;
        let mut maps = Maps::open(&pins.maps())?;
        let mut published = PublishedMaps::open(&pins.maps())?;
        maps.set_settings(settings(&options))?;
        if !adopted {
            // Revisions are not reused within a boot, because events of old ones may still be unread.
            let last = known.snapshots.keys().next_back().copied().unwrap_or_default();
            maps.set_revision(last)?;
        }
        let mut links = Links::open(&pins)?;
        for pin in links::pinned_uplinks(&pins)? {
            links.adopt(pin)?;
        }
        let endpoints = adopt_links(&mut maps, &mut published, &mut links, &pins, &mut state, &known)?;
        let publisher = Publisher::adopt(&maps, &mut published, known.floor, &known.owners, options.grace)?;
        let restored = Restored {
            revision: publisher.revision(),
            floor: publisher.floor(),
            attributions: known.attributions,
            owners: known.owners,
            bindings: endpoints.all().cloned().collect(),
            adopted,
            snapshots: known.snapshots.into_iter().collect(),
        };
        let predecessors = Pins::every(&options.pin_root)?.into_iter().filter(|other| *other != pins).collect();
        let probe = Self {
            maps,
            published,
            links,
            publisher,
            endpoints,
            state,
            unsaved: BTreeSet::new(),
            pins,
            predecessors,
            pin_root: options.pin_root,
            rings: Weak::new(),
            conntrack_trouble,
            _lock: lock,
        };
        Ok((probe, restored))
    }

    /// Publishes the tables that a snapshot was compiled into, and returns the revision that is now in force. Blocks
    /// until every program that ran during the last publication has ended: some milliseconds if that was recent.
    ///
    /// # Errors
    /// The previous revision stays in force unchanged. See [`PublishError`] for the next step.
    pub fn publish(&mut self, snapshot_number: u64, change: &Change) -> Result<u64, PublishError> {
        let Self { maps, published, publisher, endpoints, state, .. } = self;
        publisher.publish(maps, published, state, endpoints, snapshot_number, change)
    }

    /// Deletes the entries that the last publication replaced, once its grace period has passed; `true` if none is
    /// left. May block as `publish` does. If it is not called, the next publication deletes them.
    ///
    /// # Errors
    /// An entry cannot be deleted; the next call tries again.
    pub fn collect_garbage(&mut self) -> Result<bool, ProbeError> {
        self.publisher.collect_garbage(&mut self.published)
    }

    /// The revision in force; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.publisher.revision()
    }

    /// The lowest ids that a new compiler may give out.
    pub fn floor(&self) -> IdFloor {
        self.publisher.floor()
    }

    /// Attaches both programs to an interface whose pod need not be known. Without a record its endpoint is not ready: its
    /// packets are recorded, and denied in enforce mode. Neither a file nor a map has to be writable. Calling it again
    /// restores missing links.
    ///
    /// # Errors
    /// The interface does not exist, or the kernel refuses a link.
    pub fn guard(&mut self, ifindex: u32, netns_cookie: u64) -> Result<(), ProbeError> {
        if links::interface_name(ifindex).is_none() {
            return Err(ProbeError::NoInterface { ifindex });
        }
        // The record first, so that no packet is judged by that of another interface.
        let forgotten = match self.endpoints.get(ifindex) {
            // The index was reused for a new interface before the deletion of the old one was reported.
            Some(bound) if bound.netns_cookie != netns_cookie => self.forget(ifindex),
            Some(_) => Ok(()),
            None if self.links.are_alive(ifindex)? => Ok(()),
            None => self.published.endpoints.table.remove(&ifindex).map(drop),
        };
        self.links.ensure(ifindex)?;
        for hook in Hook::OF_UPLINK {
            links::remove_pin(&self.pins, LinkPin { ifindex, hook })?;
        }
        forgotten
    }

    /// Attaches both programs to an interface and binds it to its pod: to another one than before if the earlier binding
    /// was wrong. Calling it again updates the addresses and restores missing links. Until published tables contain the
    /// pod, the endpoint is not ready and is denied in enforce mode.
    ///
    /// # Errors
    /// The interface does not exist, or a map is full. The programs are attached even if a later step fails. If only the
    /// state file cannot be written, the binding is in force; the next call tries to write it again.
    pub fn attach(&mut self, endpoint: &BoundEndpoint) -> Result<(), ProbeError> {
        self.bind(endpoint)?;
        self.save()
    }

    /// As [`Self::attach`], but leaves the state file to [`Self::save`]: for many at once.
    ///
    /// # Errors
    /// As those of [`Self::attach`].
    pub fn bind(&mut self, endpoint: &BoundEndpoint) -> Result<(), ProbeError> {
        let ifindex = endpoint.ifindex;
        self.guard(ifindex, endpoint.netns_cookie)?;
        if self.endpoints.get(ifindex).is_some_and(|bound| bound.pod_uid != endpoint.pod_uid) {
            self.forget(ifindex)?;
        }
        if self.endpoints.get(ifindex) != Some(endpoint) {
            self.unsaved.insert(ifindex);
        }
        let standing = self.publisher.standing(&endpoint.pod, &endpoint.pod_uid);
        let Self { maps, published, endpoints, .. } = self;
        if endpoints.bind(&mut maps.own_addresses, &mut published.endpoints.table, endpoint, standing)? {
            self.publisher.note_write();
        }
        local_pods::enter(&mut maps.local_pods, endpoint)?;
        self.detach_predecessors(ifindex)
    }

    /// Detaches an interface and removes its records. Does nothing if the interface is not attached.
    ///
    /// # Errors
    /// A pin or a record cannot be removed.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), ProbeError> {
        links::remove(&self.pins, ifindex)?;
        self.forget(ifindex)?;
        self.save()
    }

    /// Whether an interface's packets are judged by published tables.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn is_ready(&self, ifindex: u32) -> Result<bool, ProbeError> {
        Ok(self.published.endpoints.table.get(&ifindex)?.is_some_and(|record| record.ready != 0))
    }

    /// Attaches the programs for packets that leave the node to every interface but those of pods, and detaches those of
    /// interfaces that are not in the list. Returns the interfaces that cannot be judged, for people.
    ///
    /// # Errors
    /// An interface cannot be attached; all others are.
    pub fn follow_uplinks(&mut self, uplinks: &[Uplink]) -> Result<Vec<String>, ProbeError> {
        let mut troubles = Vec::new();
        let (mut wanted, mut failed) = (BTreeSet::new(), None);
        let of_pods: BTreeSet<u32> = links::pinned(&self.pins)?.into_iter().map(|pin| pin.ifindex).collect();
        for Uplink { ifindex, name, link } in uplinks {
            if of_pods.contains(ifindex) {
                continue;
            }
            if *link == LinkLayer::Other {
                troubles.push(format!("{name}: packets on this kind of link cannot be read"));
                continue;
            }
            let pin = LinkPin { ifindex: *ifindex, hook: Hook::of_uplink(*link == LinkLayer::Bare) };
            wanted.insert(pin);
            match self.links.ensure_hook(pin) {
                Ok(()) | Err(ProbeError::NoInterface { .. }) => {}
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        for pin in links::pinned_uplinks(&self.pins)? {
            if !wanted.contains(&pin) {
                links::remove_pin(&self.pins, pin)?;
            }
        }
        failed.map_or(Ok(troubles), Err)
    }

    /// Why the backends of Services cannot be known on this node; `None` if they can.
    pub fn conntrack_trouble(&self) -> Option<&str> {
        self.conntrack_trouble.as_deref()
    }

    /// The bound interfaces.
    pub fn bindings(&self) -> impl Iterator<Item = &BoundEndpoint> {
        self.endpoints.all()
    }

    /// Changes the mode from the next packet on.
    ///
    /// # Errors
    /// The map cannot be written; the mode stays.
    pub fn set_mode(&mut self, mode: Mode) -> Result<(), ProbeError> {
        let settings = self.maps.settings()?;
        self.maps.set_settings(Settings { mode: mode as u8, ..settings })
    }

    /// The readers of both rings, [`Lane::Denied`] first.
    ///
    /// # Errors
    /// [`ProbeError::RingsTaken`] while an earlier pair exists.
    pub fn rings(&mut self) -> Result<[RingReader; 2], ProbeError> {
        if self.rings.strong_count() > 0 {
            return Err(ProbeError::RingsTaken);
        }
        let lease = Arc::new(());
        let maps = self.pins.maps();
        let denied = RingReader::open(Lane::Denied, &maps, Arc::clone(&lease))?;
        let flow = RingReader::open(Lane::Flow, &maps, Arc::clone(&lease))?;
        self.rings = Arc::downgrade(&lease);
        Ok([denied, flow])
    }

    /// The counters of the programs.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn counters(&self) -> Result<Counters, ProbeError> {
        let mut counters = Counters::default();
        for &lane in Lane::ALL {
            for (cpu, account) in (0_u32..).zip(self.maps.lane(lane as u32)?) {
                counters.lanes.push(LaneCount { cpu, lane, seq: account.seq, lost: account.lost });
            }
        }
        for (key, lost) in self.maps.losses()? {
            let ifindex = key.ifindex;
            match u8::try_from(key.class).map(LossClass::try_from) {
                Ok(Ok(LossClass::Denied)) => counters.losses.push(Loss { ifindex, lane: Lane::Denied, lost }),
                Ok(Ok(LossClass::Flow)) => counters.losses.push(Loss { ifindex, lane: Lane::Flow, lost }),
                Ok(Ok(LossClass::Flooded)) => counters.flooded += lost,
                // No program of this ABI version writes another class.
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Ok(counters)
    }

    /// The occupancy of the maps that can become full.
    pub fn occupancy(&self) -> Vec<MapOccupancy> {
        status::occupancy(&self.maps, &self.published)
    }

    /// The root folder of all pins.
    pub fn pin_root(&self) -> &std::path::Path {
        &self.pin_root
    }

    /// Ends user space. Programs, maps, links and rings stay pinned and keep working.
    pub fn shutdown(self) {
        drop(self);
    }

    /// Removes an interface's records: programs attached there take its endpoint for not ready.
    fn forget(&mut self, ifindex: u32) -> Result<(), ProbeError> {
        if self.endpoints.get(ifindex).is_some() {
            self.unsaved.insert(ifindex);
        }
        let Self { maps, published, endpoints, .. } = self;
        local_pods::remove(&mut maps.local_pods, ifindex)?;
        endpoints.unbind(&mut maps.own_addresses, &mut published.endpoints.table, ifindex)
    }

    /// Appends the bindings that the state file does not have yet. They are in force before: a disk that is full must not
    /// decide which endpoints are judged. Each call syncs the file once.
    ///
    /// # Errors
    /// The file cannot be written. The next call tries again.
    pub fn save(&mut self) -> Result<(), ProbeError> {
        let line = |&ifindex: &u32| match self.endpoints.get(ifindex) {
            Some(endpoint) => Line::Bound(endpoint.clone()),
            None => Line::Unbound { ifindex },
        };
        let lines: Vec<_> = self.unsaved.iter().map(line).collect();
        self.state.append(&lines)?;
        self.unsaved.clear();
        Ok(())
    }

    /// Detaches the links of other ABI versions from an interface whose endpoint is ready here.
    fn detach_predecessors(&mut self, ifindex: u32) -> Result<(), ProbeError> {
        if self.predecessors.is_empty()
            || self.published.endpoints.table.get(&ifindex)?.is_none_or(|known| known.ready == 0)
        {
            return Ok(());
        }
        let mut still_used = Vec::new();
        for other in std::mem::take(&mut self.predecessors) {
            links::remove(&other, ifindex)?;
            if links::pinned(&other)?.is_empty() {
                other.remove()?;
            } else {
                still_used.push(other);
            }
        }
        self.predecessors = still_used;
        Ok(())
    }
}

/// Adopts the pinned programs and maps, and brings the programs up to date; or loads the object and pins it. Returns
/// whether there were pins to adopt.
fn adopt_or_load(options: &ProbeOptions, pins: &Pins, conntrack: Conntrack) -> Result<bool, ProbeError> {
    let object = object::find(options.object.as_deref())?;
    if programs::are_complete(pins) {
        if let Some(object) = &object {
            let replaced = programs::replace(object, pins, options, conntrack)?;
            tracing::info!(programs.replaced = replaced, "adopting pinned programs and maps");
        }
        return Ok(true);
    }
    let object = object.ok_or(ProbeError::NoObject)?;
    // Left by an earlier start that did not finish.
    links::remove_all(pins)?;
    pins.remove()?;
    if let Err(error) = programs::load_fresh(&object, pins, options, conntrack) {
        if let Err(error) = pins.remove() {
            tracing::warn!(error = %error, "pins of a failed start cannot be removed");
        }
        return Err(error);
    }
    Ok(false)
}

/// Adopts pinned links, and removes the records of deleted interfaces.
fn adopt_links(
    maps: &mut Maps,
    published: &mut PublishedMaps,
    links: &mut Links,
    pins: &Pins,
    state: &mut StateFile,
    known: &State,
) -> Result<Endpoints, ProbeError> {
    let mut alive = BTreeMap::<u32, BTreeSet<Hook>>::new();
    for pin in links::pinned(pins)? {
        if links.adopt(pin)? {
            alive.entry(pin.ifindex).or_default().insert(pin.hook);
        }
    }
    let (kept, gone): (Vec<_>, Vec<_>) =
        known.bindings.values().partition(|endpoint| alive.contains_key(&endpoint.ifindex));
    let mut endpoints = Endpoints::new(kept.into_iter().cloned());
    for endpoint in gone {
        state.append(&[Line::Unbound { ifindex: endpoint.ifindex }])?;
    }
    let records = &mut published.endpoints.table;
    for ifindex in records.keys()? {
        if !alive.contains_key(&ifindex) {
            endpoints.unbind(&mut maps.own_addresses, records, ifindex)?;
        }
    }
    local_pods::retain(&mut maps.local_pods, |ifindex| alive.contains_key(&ifindex))?;
    // An interrupted start or attachment may have left one hook without its program.
    for (ifindex, hooks) in alive {
        if hooks.len() < Hook::BOTH.len() {
            links.ensure(ifindex)?;
        }
    }
    Ok(endpoints)
}

fn settings(options: &ProbeOptions) -> Settings {
    Settings {
        mode: options.mode as u8,
        unresolved: options.unresolved as u8,
        reserved: [0; 6],
        tcp_established_timeout: nanoseconds(options.tcp_established_timeout),
        other_timeout: nanoseconds(options.other_timeout),
        midstream_window: nanoseconds(options.midstream_window),
    }
}

/// In nanoseconds, at most `u64::MAX` (five centuries).
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

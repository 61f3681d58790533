//! The probe as its owner sees it: start, publish, attach, read. Wires the parts; decides nothing about policy.
//!
//! What it does in the kernel outlives it: dropping a [`Probe`] changes no verdict, and the next start takes over.

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
    endpoint::BoundEndpoint,
    endpoints::Endpoints,
    error::{ProbeError, PublishError},
    links::{self, Hook, Links},
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

/// What was found at the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restored {
    /// Revision in force; 0 before the first publication of this boot.
    pub revision: u64,
    /// The lowest ids that a compiler may give out.
    pub floor: IdFloor,
    /// What the attribution ids of this boot mean.
    pub attributions: BTreeMap<AttributionId, Decision>,
    /// What the owner ids of this boot mean.
    pub owners: BTreeMap<OwnerId, Owner>,
    /// Interfaces that are attached.
    pub bindings: Vec<BoundEndpoint>,
    /// Programs and maps were there, and judge on as before until the first publication.
    pub taken_over: bool,
    /// (revision, number of the snapshot it was compiled from), ascending. The last may never have been committed.
    pub snapshots: Vec<(u64, u64)>,
}

/// What the programs counted since their maps were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// For every possible CPU and lane, those that judged nothing included.
    pub lanes: Vec<LaneCount>,
    /// Which interfaces the losses belong to, as far as the kernel remembers.
    pub losses: Vec<Loss>,
    /// Frames that were dropped without a record, for they were not addressed to the pod; as far as the kernel remembers.
    pub flooded: u64,
}

/// One CPU's account of a lane.
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

/// User space of the probe; one on a node, held by a lock.
pub struct Probe {
    maps: Maps,
    published: PublishedMaps,
    links: Links,
    publisher: Publisher,
    endpoints: Endpoints,
    state: StateFile,
    pins: Pins,
    /// Pins of other ABI versions, whose links go as ours come.
    predecessors: Vec<Pins>,
    pin_root: PathBuf,
    rings: Weak<()>,
    _lock: Lock,
}

impl Probe {
    /// Takes the lock, and takes over what is pinned or loads the object and pins it. No packet passes unjudged that
    /// was judged before: links keep running, and change programs in one step.
    ///
    /// # Errors
    /// See [`ProbeError`]. What was pinned before stays as it was.
    pub fn start(options: ProbeOptions) -> Result<(Self, Restored), ProbeError> {
        let lock = Lock::take(&options.pin_root, options.lock_wait)?;
        let (mut state, known) = StateFile::open(&options.state_dir)?;
        let pins = Pins::of(&options.pin_root);
        let object = object::find(options.object.as_deref())?;
        let taken_over = programs::are_complete(&pins);
        if taken_over {
            if let Some(object) = &object {
                let replaced = programs::replace(object, &pins, &options)?;
                tracing::info!(programs.replaced = replaced, "taking over what is pinned");
            }
        } else {
            let object = object.ok_or(ProbeError::NoObject)?;
            // What an earlier start left unfinished.
            links::remove_all(&pins)?;
            pins.remove()?;
            if let Err(error) = programs::load_fresh(&object, &pins, &options) {
                if let Err(error) = pins.remove() {
                    tracing::warn!(error = %error, "pins of a start that failed cannot be removed");
                }
                return Err(error);
            }
        }
        let mut maps = Maps::open(&pins.maps())?;
        let mut published = PublishedMaps::open(&pins.maps())?;
        maps.set_settings(settings(&options))?;
        if !taken_over {
            // Revisions are never used again within a boot: events of old ones may still be on their way.
            let last = known.snapshots.keys().next_back().copied().unwrap_or_default();
            maps.set_revision(last)?;
        }
        let mut links = Links::open(&pins)?;
        let endpoints = restore(&mut maps, &mut published, &mut links, &pins, &mut state, &known)?;
        let publisher = Publisher::adopt(&maps, &mut published, known.floor, &known.owners, options.grace)?;
        let restored = Restored {
            revision: publisher.revision(),
            floor: publisher.floor(),
            attributions: known.attributions,
            owners: known.owners,
            bindings: endpoints.all().cloned().collect(),
            taken_over,
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
            pins,
            predecessors,
            pin_root: options.pin_root,
            rings: Weak::new(),
            _lock: lock,
        };
        Ok((probe, restored))
    }

    /// Publishes what a snapshot was compiled into; returns the revision now in force. Blocks until every program has
    /// ended that ran during the last publication: some milliseconds, soon after it.
    ///
    /// # Errors
    /// The revision before stays in force, whole. See [`PublishError`] for what to do next.
    pub fn publish(&mut self, snapshot_number: u64, change: &Change) -> Result<u64, PublishError> {
        let Self { maps, published, publisher, endpoints, state, .. } = self;
        publisher.publish(maps, published, state, endpoints, snapshot_number, change)
    }

    /// Deletes what the last publication made superfluous, once its grace period is over; `true` if nothing is left. Blocks
    /// as `publish` does. Call it now and then: otherwise the next publication does it.
    ///
    /// # Errors
    /// What could not be deleted is tried again.
    pub fn collect_garbage(&mut self) -> Result<bool, ProbeError> {
        self.publisher.collect_garbage(&mut self.published)
    }

    /// The revision in force; 0 before the first.
    pub fn revision(&self) -> u64 {
        self.publisher.revision()
    }

    /// The lowest ids that a new compiler may give out now.
    pub fn floor(&self) -> IdFloor {
        self.publisher.floor()
    }

    /// Binds an interface to its pod and attaches both programs to it. Doing so again brings addresses up to date and
    /// puts back what is missing. Until published tables know the pod it is not ready: denied in enforce mode.
    ///
    /// # Errors
    /// The interface is gone, or bound to another pod already.
    pub fn attach(&mut self, endpoint: &BoundEndpoint) -> Result<(), ProbeError> {
        let ifindex = endpoint.ifindex;
        if links::interface_name(ifindex).is_none() {
            return Err(ProbeError::NoInterface { ifindex });
        }
        if let Some(bound) = self.endpoints.get(ifindex) {
            if bound.netns_cookie != endpoint.netns_cookie {
                // The index was given to a new interface before anyone said that the old one was gone.
                self.detach(ifindex)?;
            } else if bound.pod_uid != endpoint.pod_uid {
                return Err(ProbeError::BoundToOther {
                    ifindex,
                    bound: bound.pod.to_string(),
                    bound_uid: bound.pod_uid.clone(),
                    asked: endpoint.pod.to_string(),
                    asked_uid: endpoint.pod_uid.clone(),
                });
            }
        }
        if self.endpoints.get(ifindex) != Some(endpoint) {
            self.state.append(&[Line::Bound(endpoint.clone())])?;
        }
        let standing = self.publisher.standing(&endpoint.pod, &endpoint.pod_uid);
        // The record before the programs: no packet is to find them without it.
        let Self { maps, published, endpoints, .. } = self;
        if endpoints.bind(&mut maps.own_addresses, &mut published.endpoints.table, endpoint, standing)? {
            self.publisher.note_write();
        }
        self.links.ensure(ifindex)?;
        self.succeed(ifindex)
    }

    /// Detaches an interface, or forgets one that is gone.
    ///
    /// # Errors
    /// A pin or a record cannot be removed. Nothing happens to an interface that is not attached.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), ProbeError> {
        links::remove(&self.pins, ifindex)?;
        if self.endpoints.get(ifindex).is_some() {
            self.state.append(&[Line::Unbound { ifindex }])?;
        }
        let Self { maps, published, endpoints, .. } = self;
        endpoints.unbind(&mut maps.own_addresses, &mut published.endpoints.table, ifindex)
    }

    /// Interfaces that are bound.
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
    /// [`ProbeError::RingsTaken`] while an earlier pair lives.
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

    /// What the programs counted.
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

    /// How full the maps are that can become full.
    pub fn occupancy(&self) -> Vec<MapOccupancy> {
        status::occupancy(&self.maps, &self.published)
    }

    /// Where everything is pinned.
    pub fn pin_root(&self) -> &std::path::Path {
        &self.pin_root
    }

    /// Ends user space. Programs, maps, links and rings stay and go on.
    pub fn shutdown(self) {
        drop(self);
    }

    /// Ends what another ABI version does on an interface that is now ours and ready.
    fn succeed(&mut self, ifindex: u32) -> Result<(), ProbeError> {
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

/// Takes over pinned links, and forgets interfaces that are gone.
fn restore(
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
    // A start or an attachment that was interrupted left one hook without its program.
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
        reserved: [0; 7],
        tcp_established_timeout: nanoseconds(options.tcp_established_timeout),
        other_timeout: nanoseconds(options.other_timeout),
        midstream_window: nanoseconds(options.midstream_window),
    }
}

/// As many as fit: five centuries.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

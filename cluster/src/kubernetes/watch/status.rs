//! The state of a watch in numbers, for metrics.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::SystemTime,
};

/// Numbers of all kinds that are or were watched. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct WatchStatus(Kinds);

type Kinds = Arc<Mutex<BTreeMap<Arc<str>, Arc<KindStatus>>>>;

/// Numbers of one kind.
#[derive(Debug, Default)]
pub(super) struct KindStatus {
    objects: AtomicU64,
    events: AtomicU64,
    lists: AtomicU64,
    errors: AtomicU64,
    last_event_ns: AtomicI64,
    stale_since_ns: AtomicI64,
}

/// Numbers of one kind at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KindFigures {
    /// Objects that the API server has.
    pub objects: u64,
    /// Changes that were received: objects put or deleted, each object of a list included.
    pub events: u64,
    /// Lists from beginning to end. The first is one; each further one is a relist.
    pub lists: u64,
    /// Requests that failed, and objects that could not be read.
    pub errors: u64,
    /// When the last change or bookmark came, in nanoseconds since 1970; 0 before the first.
    pub last_event_ns: i64,
    /// Since when changes cannot be seen, in nanoseconds since 1970; 0 while they can.
    pub stale_since_ns: i64,
}

impl WatchStatus {
    /// Of each kind.
    pub fn figures(&self) -> Vec<(Arc<str>, KindFigures)> {
        let kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.iter().map(|(kind, status)| (kind.clone(), status.figures())).collect()
    }

    pub(super) fn of(&self, kind: &str) -> Arc<KindStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kind.into()).or_default().clone()
    }
}

impl KindStatus {
    fn figures(&self) -> KindFigures {
        KindFigures {
            objects: self.objects.load(Ordering::Relaxed),
            events: self.events.load(Ordering::Relaxed),
            lists: self.lists.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            last_event_ns: self.last_event_ns.load(Ordering::Relaxed),
            stale_since_ns: self.stale_since_ns.load(Ordering::Relaxed),
        }
    }

    pub(super) fn holds(&self, objects: usize) {
        self.objects.store(objects as u64, Ordering::Relaxed);
    }

    pub(super) fn heard(&self, events: usize, at: SystemTime) {
        self.events.fetch_add(events as u64, Ordering::Relaxed);
        self.last_event_ns.store(nanoseconds(at), Ordering::Relaxed);
    }

    pub(super) fn listed(&self) {
        self.lists.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// `None`: its changes are seen.
    pub(super) fn stale_since(&self, ns: Option<i64>) {
        self.stale_since_ns.store(ns.unwrap_or(0), Ordering::Relaxed);
    }
}

/// Nanoseconds since 1970.
pub(super) fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

//! The interface of a source of Kubernetes objects: its reports, and their order.
//!
//! A source reports, and decides nothing: which of two objects counts, the meaning of an object, and when a snapshot is
//! published is decided behind it.

use std::{collections::BTreeSet, fmt, future::Future, path::Path, sync::Arc};

use netverdict_manifest::{Finding, Object};

/// A source of Kubernetes objects.
///
/// The rules that an implementation keeps:
/// - Of one object, states are reported in the order in which they happened. A list that may be older than an earlier
///   report (one from an API server's cache, with `resourceVersion=0`) must not be used.
/// - An unreadable object or scope is a [`Change::Fault`] of its own, and all others go on.
/// - An outage is [`Update::Stale`], never an end: the source retries by itself. After an outage it lists each scope
///   again and ends the list with [`Change::Retain`], so that objects that vanished meanwhile are deleted.
/// - An update holds no more than a page of a list, so that a large cluster is never in memory twice.
pub trait Source: Send {
    /// Why a source can end. `Infallible` for a source that goes on for ever.
    type Error: std::error::Error + Send + Sync + 'static;

    /// For logs, rows and metrics: one word.
    fn name(&self) -> &'static str;

    /// Waits for the next update. `None` after the last one, from a source that reads once.
    ///
    /// It may block on files, so a source that is followed has a thread of its own. Dropping the future loses nothing
    /// that was not yet reported.
    fn next(&mut self) -> impl Future<Output = Result<Option<Update>, Self::Error>> + Send;
}

/// A report of a source.
#[derive(Debug)]
pub enum Update {
    /// Changes that are applied together: no reader sees some of them without the others.
    Changes(Vec<Change>),
    /// Everything that the source holds has been reported. Also the end of [`Update::Stale`].
    InSync,
    /// From here on the source cannot see changes; its last objects stay in force.
    Stale {
        /// Nanoseconds since 1970.
        since_ns: i64,
        /// One line for people: the attempt, and its failure.
        reason: String,
    },
}

/// One change of a source's objects.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all changes are puts")]
pub enum Change {
    /// The object is new, or has changed.
    Put(Location, Object),
    /// The object is gone.
    Delete(Location),
    /// The end of a list: objects of the scope that are not among these keys are gone.
    Retain(Scope, BTreeSet<Key>),
    /// Faults of a scope as a whole (no key) or of one object of it, in place of its earlier faults. A fault does not change
    /// which objects there are. A `Put` or a `Delete` at a key ends the fault there.
    Fault(Scope, Option<Key>, Vec<Fault>),
}

/// Why a part of a source cannot be used.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It was read, and refused.
    Refused(Box<Finding>),
    /// It was not read; one line for people.
    Unreadable(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(finding) => finding.fmt(f),
            Self::Unreadable(text) => f.write_str(text),
        }
    }
}

/// Position among the sources that are laid over one another. Where several have the same object, that of the highest
/// layer counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Layer(pub usize);

/// Where in its source an object stands. No two objects of a source have the same location.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    pub scope: Scope,
    pub key: Key,
}

/// A part of a source that is listed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The documents of a file, or of the files of a command line.
    File(Arc<Path>),
    /// The objects of one kind in an API.
    Kind { group: Arc<str>, kind: Arc<str> },
}

/// Which object of a scope. Of two with the same identity in a scope the one with the higher key counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Position among the objects of a file, from 0.
    Index(usize),
    /// An object of an API; `namespace` is empty where its kind has none.
    Name { namespace: String, name: String },
}

impl Location {
    pub fn new(scope: &Scope, key: Key) -> Self {
        Self { scope: scope.clone(), key }
    }
}

impl Change {
    /// Puts all objects of a file in the place of its earlier objects.
    pub fn replace(scope: &Scope, objects: Vec<Object>) -> Vec<Self> {
        let keys = (0..objects.len()).map(Key::Index).collect();
        let puts = objects.into_iter().enumerate();
        let puts = puts.map(|(index, object)| Self::Put(Location::new(scope, Key::Index(index)), object));
        puts.chain([Self::Retain(scope.clone(), keys)]).collect()
    }
}

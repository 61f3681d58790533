//! One hash or trie: keyed access that knows how many entries there are and when it is full.
//!
//! A trie answers a lookup with the longest match, never with "no such entry", and older kernels ignore "only if
//! absent" for it. So a [`Trie`] remembers its keys.

use std::{collections::HashSet, hash::Hash as StdHash, io, path::Path};

use aya::maps::{HashMap, IterableMap, LpmTrie, MapData, MapError, lpm_trie::Key};
use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::{Raw, failed, into_io, open_as};
use crate::error::ProbeError;

/// `bpf(2)`: create, or fail with `EEXIST`.
const ONLY_IF_ABSENT: u64 = 1;
/// `bpf(2)`: write over what is there, or fail with `ENOENT`.
const ONLY_IF_PRESENT: u64 = 2;

/// Plain data that can be a key or a value.
pub(crate) trait Plain: FromBytes + IntoBytes + Copy + 'static {}
impl<T: FromBytes + IntoBytes + Copy + 'static> Plain for T {}

/// What a [`Table`] stands on.
pub(crate) trait Store: Sized {
    type Key: Copy + Eq;
    type Value: Copy;

    fn open(folder: &Path, name: &'static str) -> Result<Self, ProbeError>;
    fn data(&self) -> &MapData;
    fn remove(&mut self, key: &Self::Key) -> Result<(), MapError>;
    fn keys(&self) -> Result<Vec<Self::Key>, MapError>;
}

/// A map with a name for errors and a count of entries for [`crate::MapOccupancy`].
pub(crate) struct Table<S> {
    name: &'static str,
    limit: u32,
    used: u32,
    store: S,
}

impl<S: Store> Table<S> {
    pub(super) fn open(folder: &Path, name: &'static str) -> Result<Self, ProbeError> {
        let store = S::open(folder, name)?;
        let limit = store.data().info().map_err(|error| failed(name, "inspect", error))?.max_entries();
        let keys = store.keys().map_err(|error| failed(name, "list", error))?;
        // More keys than the limit cannot be: the limit is a u32.
        let used = u32::try_from(keys.len()).unwrap_or(limit);
        Ok(Self { name, limit, used, store })
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    fn not_written(&self, error: MapError) -> ProbeError {
        let source = into_io(error);
        if is_full(&source) {
            ProbeError::MapFull { map: self.name, limit: self.limit }
        } else {
            ProbeError::Map { name: self.name, action: "write", source }
        }
    }

    /// Removes an entry; `false` if there is none.
    pub(crate) fn remove(&mut self, key: &S::Key) -> Result<bool, ProbeError> {
        match self.store.remove(key).map_err(into_io) {
            Ok(()) => {
                self.used = self.used.saturating_sub(1);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(ProbeError::Map { name: self.name, action: "delete", source }),
        }
    }

    /// Every key, as of now.
    pub(crate) fn keys(&self) -> Result<Vec<S::Key>, ProbeError> {
        self.store.keys().map_err(|error| failed(self.name, "list", error))
    }
}

impl<K: Plain + Eq, V: Plain> Table<Hash<K, V>> {
    /// The entry at a key; `None` if there is none.
    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, ProbeError> {
        match self.store.0.get(&Raw(*key), 0) {
            Ok(Raw(value)) => Ok(Some(value)),
            Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(None),
            Err(error) => Err(failed(self.name, "read", error)),
        }
    }

    /// Writes an entry where `before` is what is there already; one call of the kernel.
    pub(crate) fn put_after(&mut self, key: K, before: Option<V>, value: V) -> Result<(), ProbeError> {
        let flags = if before.is_some() { ONLY_IF_PRESENT } else { ONLY_IF_ABSENT };
        self.store.0.insert(Raw(key), Raw(value), flags).map_err(|error| self.not_written(error))?;
        if before.is_none() {
            self.used += 1;
        }
        Ok(())
    }

    /// Writes an entry whose key is new, as a rule; what was there if it is not.
    pub(crate) fn put_new(&mut self, key: K, value: V) -> Result<Option<V>, ProbeError> {
        match self.store.0.insert(Raw(key), Raw(value), ONLY_IF_ABSENT) {
            Ok(()) => {
                self.used += 1;
                Ok(None)
            }
            // It is there, or the map is full, which it says first.
            Err(error) => match self.get(&key)? {
                Some(before) => self.put_after(key, Some(before), value).map(|()| Some(before)),
                None => Err(self.not_written(error)),
            },
        }
    }
}

impl<K: Plain + Eq + StdHash, V: Plain> Table<Trie<K, V>> {
    /// Writes an entry, whether or not there is one.
    pub(crate) fn put(&mut self, key: Prefix<K>, value: V) -> Result<(), ProbeError> {
        self.store.map.insert(&key.key(), Raw(value), 0).map_err(|error| self.not_written(error))?;
        if self.store.present.insert(key) {
            self.used += 1;
        }
        Ok(())
    }

    /// The entry of exactly this prefix; `None` if there is none, whatever covers it.
    pub(crate) fn get_exact(&self, prefix: &Prefix<K>) -> Result<Option<V>, ProbeError> {
        if !self.store.present.contains(prefix) {
            return Ok(None);
        }
        match self.store.map.get(&prefix.key(), 0) {
            Ok(Raw(value)) => Ok(Some(value)),
            Err(error) => Err(failed(self.name, "read", error)),
        }
    }
}

/// A hash map, preallocated or least recently used.
pub(crate) struct Hash<K, V>(HashMap<MapData, Raw<K>, Raw<V>>);

impl<K: Plain + Eq, V: Plain> Store for Hash<K, V> {
    type Key = K;
    type Value = V;

    fn open(folder: &Path, name: &'static str) -> Result<Self, ProbeError> {
        open_as(folder, name).map(Self)
    }

    fn data(&self) -> &MapData {
        IterableMap::map(&self.0)
    }

    fn remove(&mut self, key: &K) -> Result<(), MapError> {
        self.0.remove(&Raw(*key))
    }

    fn keys(&self) -> Result<Vec<K>, MapError> {
        self.0.keys().map(|key| key.map(|Raw(key)| key)).collect()
    }
}

/// First bits of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Prefix<K> {
    /// In bits.
    pub(crate) length: u32,
    pub(crate) data: K,
}

impl<K: Plain> Prefix<K> {
    fn key(&self) -> Key<Raw<K>> {
        Key::new(self.length, Raw(self.data))
    }
}

/// A longest-prefix-match trie.
pub(crate) struct Trie<K, V> {
    map: LpmTrie<MapData, Raw<K>, Raw<V>>,
    present: HashSet<Prefix<K>>,
}

impl<K: Plain + Eq + StdHash, V: Plain> Store for Trie<K, V> {
    type Key = Prefix<K>;
    type Value = V;

    fn open(folder: &Path, name: &'static str) -> Result<Self, ProbeError> {
        let map: LpmTrie<MapData, Raw<K>, Raw<V>> = open_as(folder, name)?;
        let present = map
            .keys()
            .map(|key| key.map(|key| Prefix { length: key.prefix_len(), data: key.data().0 }))
            .collect::<Result<_, _>>()
            .map_err(|error| failed(name, "list", error))?;
        Ok(Self { map, present })
    }

    fn data(&self) -> &MapData {
        IterableMap::map(&self.map)
    }

    fn remove(&mut self, key: &Self::Key) -> Result<(), MapError> {
        self.map.remove(&key.key())?;
        self.present.remove(key);
        Ok(())
    }

    fn keys(&self) -> Result<Vec<Self::Key>, MapError> {
        Ok(self.present.iter().copied().collect())
    }
}

/// A hash says `E2BIG`, a trie `ENOSPC`.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::E2BIG | Errno::ENOSPC))
}

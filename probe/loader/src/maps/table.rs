//! One hash map or trie: access by key, with a count of entries and an error of its own for a full map.
//!
//! A lookup in a trie returns the longest match, never "no such entry", and kernels before 6.13 ignore "only if absent" for
//! tries. So a [`Trie`] keeps a copy of its keys.

use std::{collections::HashSet, hash::Hash as StdHash, io, path::Path};

use aya::maps::{HashMap, IterableMap, LpmTrie, MapData, MapError, lpm_trie::Key};
use nix::errno::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::{
    occupancy::MapOccupancy,
    pinned::{Raw, failed, into_io, open_as},
};
use crate::error::ProbeError;

/// Flag of `bpf(2)`: create an entry, or fail with `EEXIST`.
const BPF_NOEXIST: u64 = 1;
/// Flag of `bpf(2)`: replace an entry, or fail with `ENOENT`.
const BPF_EXIST: u64 = 2;

/// Plain data that can be a key or a value.
pub(crate) trait Plain: FromBytes + IntoBytes + Copy + 'static {}
impl<T: FromBytes + IntoBytes + Copy + 'static> Plain for T {}

/// The kind of map below a [`Table`].
pub(crate) trait Store: Sized {
    type Key: Copy + Eq + StdHash;
    type Value: Copy;

    fn open(folder: &Path, name: &'static str) -> Result<Self, ProbeError>;
    fn data(&self) -> &MapData;
    /// The entry of exactly this key; `None` if there is none.
    fn get(&self, key: &Self::Key) -> Result<Option<Self::Value>, MapError>;
    /// Writes an entry with one system call. Fails with `EEXIST` or `ENOENT` where `exists` is wrong.
    fn put(&mut self, key: &Self::Key, value: &Self::Value, exists: bool) -> Result<(), MapError>;
    fn remove(&mut self, key: &Self::Key) -> Result<(), MapError>;
    fn keys(&self) -> Result<Vec<Self::Key>, MapError>;
}

/// A map with its name for errors and its number of entries for [`MapOccupancy`].
pub(crate) struct Table<S> {
    name: &'static str,
    limit: u32,
    used: u32,
    store: S,
}

impl<S: Store> Table<S> {
    pub(crate) fn open(folder: &Path, name: &'static str) -> Result<Self, ProbeError> {
        let store = S::open(folder, name)?;
        let limit = store.data().info().map_err(|error| failed(name, "inspect", error))?.max_entries();
        let keys = store.keys().map_err(|error| failed(name, "list", error))?;
        // More keys than the limit are impossible, and the limit is a u32.
        let used = u32::try_from(keys.len()).unwrap_or(limit);
        Ok(Self { name, limit, used, store })
    }

    pub(crate) fn occupancy(&self) -> MapOccupancy {
        MapOccupancy { map: self.name, used: Some(self.used.into()), limit: self.limit.into() }
    }

    /// Every key, as of now.
    pub(crate) fn keys(&self) -> Result<Vec<S::Key>, ProbeError> {
        self.store.keys().map_err(|error| failed(self.name, "list", error))
    }

    /// The entry of exactly this key, not of a prefix that covers it; `None` if there is none.
    pub(crate) fn get(&self, key: &S::Key) -> Result<Option<S::Value>, ProbeError> {
        self.store.get(key).map_err(|error| failed(self.name, "read", error))
    }

    /// Writes an entry where `before` is the present one. One system call.
    pub(crate) fn replace(&mut self, key: S::Key, before: Option<S::Value>, value: S::Value) -> Result<(), ProbeError> {
        self.store.put(&key, &value, before.is_some()).map_err(|error| self.not_written(error))?;
        if before.is_none() {
            self.used += 1;
        }
        Ok(())
    }

    /// Writes an entry whose key is expected to be absent, and returns the entry that it replaced if the key was
    /// present. One system call where the expectation holds.
    pub(crate) fn add(&mut self, key: S::Key, value: S::Value) -> Result<Option<S::Value>, ProbeError> {
        match self.store.put(&key, &value, false) {
            Ok(()) => {
                self.used += 1;
                Ok(None)
            }
            // The key is present, or the map is full: a full map is checked first, so the error does not tell them apart.
            Err(error) => match self.get(&key)? {
                Some(before) => self.replace(key, Some(before), value).map(|()| Some(before)),
                None => Err(self.not_written(error)),
            },
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

    fn not_written(&self, error: MapError) -> ProbeError {
        let source = into_io(error);
        if is_full(&source) {
            ProbeError::MapFull { map: self.name, limit: self.limit }
        } else {
            ProbeError::Map { name: self.name, action: "write", source }
        }
    }
}

/// A hash map, with or without eviction of the least recently used entry.
pub(crate) struct Hash<K, V>(HashMap<MapData, Raw<K>, Raw<V>>);

impl<K: Plain + Eq + StdHash, V: Plain> Store for Hash<K, V> {
    type Key = K;
    type Value = V;

    fn open(folder: &Path, name: &'static str) -> Result<Self, ProbeError> {
        open_as(folder, name).map(Self)
    }

    fn data(&self) -> &MapData {
        IterableMap::map(&self.0)
    }

    fn get(&self, key: &K) -> Result<Option<V>, MapError> {
        match self.0.get(&Raw(*key), 0) {
            Ok(Raw(value)) => Ok(Some(value)),
            Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put(&mut self, key: &K, value: &V, exists: bool) -> Result<(), MapError> {
        self.0.insert(Raw(*key), Raw(*value), if exists { BPF_EXIST } else { BPF_NOEXIST })
    }

    fn remove(&mut self, key: &K) -> Result<(), MapError> {
        self.0.remove(&Raw(*key))
    }

    fn keys(&self) -> Result<Vec<K>, MapError> {
        self.0.keys().map(|key| key.map(|Raw(key)| key)).collect()
    }
}

/// The first bits of a key.
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

    fn get(&self, prefix: &Prefix<K>) -> Result<Option<V>, MapError> {
        if !self.present.contains(prefix) {
            return Ok(None);
        }
        self.map.get(&prefix.key(), 0).map(|Raw(value)| Some(value))
    }

    fn put(&mut self, prefix: &Prefix<K>, value: &V, exists: bool) -> Result<(), MapError> {
        match (self.present.contains(prefix), exists) {
            (true, false) => return Err(MapError::IoError(Errno::EEXIST.into())),
            (false, true) => return Err(MapError::IoError(Errno::ENOENT.into())),
            _ => {}
        }
        self.map.insert(&prefix.key(), Raw(*value), 0)?;
        self.present.insert(*prefix);
        Ok(())
    }

    fn remove(&mut self, prefix: &Prefix<K>) -> Result<(), MapError> {
        self.map.remove(&prefix.key())?;
        self.present.remove(prefix);
        Ok(())
    }

    fn keys(&self) -> Result<Vec<Prefix<K>>, MapError> {
        Ok(self.present.iter().copied().collect())
    }
}

/// A full hash map fails with `E2BIG`, a full trie with `ENOSPC`.
fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw), Some(Errno::E2BIG | Errno::ENOSPC))
}

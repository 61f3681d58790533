//! Facts that are found while a question is answered and belong into the answer: why it may be out of date, the time that
//! was scanned, the files that were read. Table scans write them here; the session carries the notes to the scans.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use object_store::ObjectMeta;

use crate::tables::Window;

#[derive(Debug, Default)]
pub struct Notes {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    stale: BTreeSet<String>,
    window: Option<Window>,
    files: BTreeMap<String, ObjectMeta>,
}

impl Notes {
    /// Adds a reason why the answer may be out of date or incomplete.
    pub fn stale(&self, reason: impl Into<String>) {
        self.with(|inner| inner.stale.insert(reason.into()));
    }

    /// A table with times was scanned for this window.
    pub fn scanned(&self, window: Window) {
        self.with(|inner| inner.window = Some(inner.window.map_or(window, |known| known.union(window))));
    }

    pub(crate) fn read(&self, file: &ObjectMeta) {
        self.with(|inner| inner.files.insert(file.location.to_string(), file.clone()));
    }

    /// The reasons, sorted, without duplicates.
    pub fn reasons(&self) -> Vec<String> {
        self.with(|inner| inner.stale.iter().cloned().collect())
    }

    /// The union of all scanned windows; `None` if no table with times was scanned.
    pub fn window(&self) -> Option<Window> {
        self.with(|inner| inner.window)
    }

    pub(crate) fn files(&self) -> Vec<ObjectMeta> {
        self.with(|inner| inner.files.values().cloned().collect())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

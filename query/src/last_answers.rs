//! The node behind each collector's address, and when it answered last: kept for the time when it does not answer.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use chrono::{DateTime, Utc};
use reqwest::Url;

/// Most addresses that are kept: more than a cluster has nodes, and pods change their addresses.
const MOST: usize = 16_384;

#[derive(Debug, Default)]
pub(crate) struct LastAnswers {
    by_address: Mutex<HashMap<Url, LastAnswer>>,
}

#[derive(Clone, Debug)]
pub(crate) struct LastAnswer {
    pub(crate) node: String,
    pub(crate) time: DateTime<Utc>,
}

impl LastAnswers {
    /// The collector of a node has answered now.
    pub(crate) fn note(&self, address: &Url, node: &str) {
        let mut known = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST
            && !known.contains_key(address)
            && let Some(oldest) = known.iter().min_by_key(|(_, answer)| answer.time).map(|(address, _)| address.clone())
        {
            known.remove(&oldest);
        }
        known.insert(address.clone(), LastAnswer { node: node.to_owned(), time: Utc::now() });
    }

    /// `None`: it has not answered since the start.
    pub(crate) fn of(&self, address: &Url) -> Option<LastAnswer> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner).get(address).cloned()
    }
}

//! Policy states of the past: the executor that reads them from the record, and the cache of states in use.

use std::sync::Arc;

use crate::{Executor, options::LimitOptions, state::States};

/// Rebuilds policy states (`state::rebuild`). Cheap to clone.
#[derive(Clone)]
pub struct History {
    executor: Executor,
    states: Arc<States>,
}

impl History {
    pub fn new(executor: Executor, limits: &LimitOptions) -> Self {
        let states = Arc::new(States::new(limits, Arc::clone(executor.metrics())));
        Self { executor, states }
    }

    pub(crate) fn executor(&self) -> &Executor {
        &self.executor
    }

    pub(crate) fn states(&self) -> &States {
        &self.states
    }
}

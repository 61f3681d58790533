//! One recorded file for several threads: the drain has inputs for it, the control thread has facts.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Recorder;
use netverdict_service::error_chain::chain;

use crate::input::Input;

/// The recorded file, shared by all threads that record. It ends at the first error.
#[derive(Clone, Default)]
pub struct SharedRecorder(Arc<Mutex<Option<Recorder>>>);

impl SharedRecorder {
    pub fn new(recorder: Option<Recorder>) -> Self {
        Self(Arc::new(Mutex::new(recorder)))
    }

    /// Whether a file is being written.
    pub fn is_on(&self) -> bool {
        self.lock().is_some()
    }

    /// Writes an input, if a file is being written.
    pub fn write(&self, input: &Input) {
        let mut recorder = self.lock();
        if let Some(open) = &mut *recorder
            && let Err(error) = open.write(input)
        {
            tracing::error!(error = %chain(&error), "recorded file ends here");
            *recorder = None;
        }
    }

    /// Completes the file: the last inputs are in it, or the log says that they are not.
    pub fn finish(&self) {
        if let Some(Err(error)) = self.lock().take().map(Recorder::finish) {
            tracing::error!(error = %chain(&error), "recorded file not finished");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Recorder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

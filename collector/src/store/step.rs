//! Points in time at which a crash leaves different files behind. Tests observe each, and make it fail.

use std::{io, path::Path, sync::Arc};

use super::error::StoreError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Cleaning,
    Journalling,
    Journalled,
    Preparing,
    Publishing,
    Sealing,
    Committing,
    Committed,
    Released,
    Removing,
}

pub(super) type Observer = Arc<dyn Fn(Step) -> io::Result<()> + Send + Sync>;

pub(super) fn observe(observer: Option<&Observer>, step: Step, at: &Path) -> Result<(), StoreError> {
    observer.map_or(Ok(()), |observer| observer(step)).map_err(|source| StoreError::io(at, source))
}

//! User space of the probe.
pub mod discover;
mod endpoint;
mod error;
mod options;
mod probe;
mod ring;
mod status;

pub use discover::{Discovered, Sighting, Watch};
pub use endpoint::{BoundEndpoint, bind};
pub use error::{ProbeError, PublishError};
pub use options::{ProbeOptions, RingBytes};
pub use probe::{Counters, LaneCount, Loss, Probe, Restored};
pub use ring::{Batch, RingReader, batch::{Records, Truncated}};
pub use status::{EndpointStatus, MapOccupancy, ProgramStatus, Removed, Status, detach_all, status};

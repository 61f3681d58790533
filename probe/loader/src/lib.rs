//! User space of the probe: discovers pods, loads, attaches and pins the BPF programs, publishes decision tables, and
//! reads the ring buffers in batches.
//!
//! The pinned programs and maps keep enforcing without this process. The crate compiles no policy and interprets no
//! event: tables come from `netverdict-policy`, and records are handed out as bytes.

mod btf;
mod claim;
pub mod discover;
mod endpoint;
mod endpoints;
mod error;
mod links;
mod local_pods;
mod mapping;
mod maps;
mod object;
mod options;
mod outage;
mod pins;
mod probe;
mod programs;
mod publish;
mod published;
mod ring;
mod state;
mod status;
mod test_run;

pub use claim::{Announcement, Answer, Claim, ClaimFolder, Claims, MOST_ADDRESSES, check_attachment, prepare_run_dir};
pub use discover::{Discovered, Sighting, Uncovered, Uplink, Watch};
pub use endpoint::{BoundEndpoint, bind};
pub use error::{ProbeError, PublishError};
pub use maps::occupancy::MapOccupancy;
pub use options::{ProbeOptions, RingBytes};
pub use outage::{are_attached, attach_pinned, pinned_mode};
pub use probe::{Counters, LaneCount, Loss, Probe, Restored};
pub use ring::{
    Batch, RingReader,
    batch::{Records, Truncated},
};
pub use state::boot_id;
pub use status::{EndpointStatus, ProgramStatus, Removed, Status, detach_all, status};
pub use test_run::{TestRun, test_run};

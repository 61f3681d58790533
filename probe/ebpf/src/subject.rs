//! The endpoint of one packet as a policy subject.

use netverdict_abi::EndpointClasses;

/// An endpoint's record, as of the packet's revision.
pub struct Subject {
    pub classes: EndpointClasses,
    /// When the endpoint was first attached, in nanoseconds since boot.
    pub attached_at: u64,
    /// Owner id.
    pub owner: u32,
    /// Not 0 if the endpoint's tables are complete.
    pub ready: u8,
}

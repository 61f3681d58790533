//! Ids that are never given out twice.

/// Gives out numbers in ascending order.
#[derive(Debug)]
pub(super) struct Counter(u32);

impl From<u32> for Counter {
    /// The first number to give out.
    fn from(first: u32) -> Self {
        Self(first)
    }
}

impl Counter {
    /// Stops at the last number rather than give out a used one: four billion changes within one boot do not happen.
    pub(super) fn take(&mut self) -> u32 {
        let next = self.0;
        self.0 = self.0.checked_add(1).expect("fewer than 2^32 ids are given out within a boot");
        next
    }

    /// The next number to be given out.
    pub(super) fn peek(&self) -> u32 {
        self.0
    }
}

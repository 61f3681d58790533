//! The only conversions of lanes and receivers: the ABI's enum, the number in the write-ahead log and in recorded files,
//! and the name in rows. A number is never reused.

use netverdict_abi::Lane;
use netverdict_flowlog::row::{LaneName, Receiver};

/// The lane as rows name it.
pub const fn lane_name(lane: Lane) -> LaneName {
    match lane {
        Lane::Denied => LaneName::Denied,
        Lane::Flow => LaneName::Flow,
    }
}

/// The lane as logs number it.
pub const fn lane_number(lane: LaneName) -> u8 {
    match lane {
        LaneName::Denied => Lane::Denied as u8,
        LaneName::Flow => Lane::Flow as u8,
    }
}

/// The lane that logs number so; `None` for any other number.
pub fn lane_of(number: u8) -> Option<LaneName> {
    Lane::try_from(number).ok().map(lane_name)
}

/// The receiver as logs number it.
pub const fn receiver_number(receiver: Receiver) -> u8 {
    match receiver {
        Receiver::Ring => 0,
        Receiver::Goldmane => 1,
    }
}

/// The receiver that logs number so; `None` for any other number.
pub fn receiver_of(number: u8) -> Option<Receiver> {
    Receiver::ALL.iter().copied().find(|receiver| receiver_number(*receiver) == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_back_from_its_number() {
        for lane in LaneName::ALL {
            assert_eq!(lane_of(lane_number(*lane)), Some(*lane));
        }
        for receiver in Receiver::ALL {
            assert_eq!(receiver_of(receiver_number(*receiver)), Some(*receiver));
        }
        assert_eq!((lane_of(0xff), receiver_of(0xff)), (None, None));
    }
}

//! Runs a pinned program on a packet without a network (`BPF_PROG_TEST_RUN`): for benches and fuzzing.
//!
//! The program runs for real: it counts, remembers connections and writes events.

use std::{path::Path, time::Duration};

use aya::programs::{TestRun as _, TestRunOptions};

use crate::{error::ProbeError, pins::Pins, programs};

/// Size of the kernel's `struct __sk_buff`.
const CONTEXT_BYTES: usize = 192;
/// Where `ifindex` lies in it.
const IFINDEX: usize = 40;
/// Room for a packet that a program makes longer.
const HEADROOM: usize = 256;

/// What a test run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// What the program returned last: a `TCX_*` code, -1 (`TCX_NEXT`) as `u32::MAX`.
    pub return_value: u32,
    /// Mean time of one run.
    pub duration: Duration,
    /// The packet afterwards.
    pub data_out: Vec<u8>,
}

/// Runs the program `name` (see `netverdict_abi::map::name`) `repeat` times on a packet that begins with its Ethernet
/// header, as if it came by `ifindex`, an interface of this network namespace.
///
/// # Errors
/// Nothing is pinned under the name, or the kernel refuses: the packet is shorter than an Ethernet header, there is no
/// such interface, or `repeat` is 0.
pub fn test_run(pin_root: &Path, name: &str, packet: &[u8], ifindex: u32, repeat: u32) -> Result<TestRun, ProbeError> {
    let program = programs::open(&Pins::of(pin_root), name)?;
    let mut context = [0_u8; CONTEXT_BYTES];
    context[IFINDEX..IFINDEX + size_of::<u32>()].copy_from_slice(&ifindex.to_ne_bytes());
    let mut data_out = vec![0; packet.len() + HEADROOM];
    let options = TestRunOptions {
        data_in: Some(packet),
        data_out: Some(&mut data_out),
        ctx_in: Some(&context),
        repeat,
        ..TestRunOptions::default()
    };
    let result = program
        .test_run(options)
        .map_err(|error| ProbeError::TestRun { name: name.to_owned(), reason: programs::with_causes(&error) })?;
    // Never more than there was room for; the kernel says `ENOSPC` instead.
    data_out.truncate(usize::try_from(result.data_size_out).unwrap_or(0));
    Ok(TestRun { return_value: result.return_value, duration: result.duration, data_out })
}

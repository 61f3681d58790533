//! Runs a pinned program on a packet without a network (`BPF_PROG_TEST_RUN`), for benches and fuzzing. The run has all
//! side effects: it changes counters and the connection table and writes events.

use std::{path::Path, time::Duration};

use aya::programs::{TestRun as _, TestRunOptions};

use crate::{error::ProbeError, pins::Pins, programs};

/// Size of the kernel's `struct __sk_buff`.
const CONTEXT_BYTES: usize = 192;
/// Offset of `ifindex` in it.
const IFINDEX: usize = 40;
/// Additional output space, in case a program makes the packet longer.
const HEADROOM: usize = 256;

/// The result of a test run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// Return value of the last run: a `TCX_*` code, with -1 (`TCX_NEXT`) as `u32::MAX`.
    pub return_value: u32,
    /// Mean duration of a run.
    pub duration: Duration,
    /// The packet after the last run.
    pub data_out: Vec<u8>,
}

/// Runs the program `name` (see `netverdict_abi::map::name`) `repeat` times on a packet that begins with its Ethernet
/// header, as if it were on the interface `ifindex` of this network namespace.
///
/// # Errors
/// The program is not pinned, or the kernel refuses the run: the packet is shorter than an Ethernet header, the
/// interface does not exist, or `repeat` is 0.
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
    // Never longer than the buffer: the kernel fails with `ENOSPC` instead.
    data_out.truncate(usize::try_from(result.data_size_out).unwrap_or(0));
    Ok(TestRun { return_value: result.return_value, duration: result.duration, data_out })
}

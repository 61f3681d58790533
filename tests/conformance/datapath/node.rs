//! A node of the cases: a compiler, a probe that publishes the compiled tables, and one interface, which is bound to the pod
//! that is asked about. Packets come by `BPF_PROG_TEST_RUN`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use netverdict_abi::{Mode, VerdictEvent, map::name};
use netverdict_policy::{Compiler, Direction, Pod, Snapshot};
use netverdict_probe::{
    Batch, BoundEndpoint, Probe, ProbeError, ProbeOptions, RingBytes, RingReader, detach_all, test_run,
};
use tempfile::TempDir;
use zerocopy::FromBytes;

/// The loopback interface of every network namespace.
const LOOPBACK: u32 = 1;
/// Return values of the programs: `TCX_NEXT` and `TCX_DROP`.
const PASS: u32 = u32::MAX;
const DROP: u32 = 2;

pub(crate) struct Node {
    pub(crate) compiler: Compiler,
    name: String,
    bound: Option<BoundEndpoint>,
    snapshots: u64,
    readers: [RingReader; 2],
    probe: Probe,
    // After the probe, which holds their lock.
    pins: Pins,
    _state: TempDir,
}

/// Removed on drop, with all that is pinned there.
struct Pins(PathBuf);

/// Result of one packet.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) dropped: bool,
    pub(crate) events: Vec<VerdictEvent>,
}

impl Node {
    /// A probe that enforces, loaded anew.
    pub(crate) fn start(node: &str) -> Result<Self, ProbeError> {
        let state = tempfile::tempdir().expect("a folder");
        let pin_root = PathBuf::from(format!("/sys/fs/bpf/netverdict-datapath-{}-{node}", std::process::id()));
        let pins = Pins(pin_root.clone());
        let options = ProbeOptions {
            pin_root,
            state_dir: state.path().to_owned(),
            mode: Mode::Enforce,
            ring_bytes: RingBytes { denied: RingBytes::SMALLEST, flow: RingBytes::SMALLEST },
            // A case has a dozen pods; the room of maps is allocated at once.
            max_addresses: 1_024,
            max_blocks: 1_024,
            max_pairs: 4_096,
            max_columns: 1_024,
            max_column_ports: 4_096,
            max_column_ranges: 4_096,
            max_connections: 16_384,
            // A test run has ended before the next publication begins.
            grace: Duration::ZERO,
            ..ProbeOptions::default()
        };
        let (mut probe, restored) = Probe::start(options)?;
        let readers = probe.rings()?;
        let compiler = Compiler::new(node, restored.floor);
        Ok(Self { compiler, name: node.to_owned(), bound: None, snapshots: 0, readers, probe, pins, _state: state })
    }

    /// Another cluster: a compiler that knows nothing, above every id that was used, as after a restart.
    pub(crate) fn begin(&mut self) {
        self.compiler = Compiler::new(self.name.clone(), self.probe.floor());
    }

    pub(crate) fn publish(&mut self, snapshot: &Arc<Snapshot>) {
        self.snapshots += 1;
        let change = self.compiler.compile(snapshot);
        self.probe.publish(self.snapshots, &change).expect("a publication");
    }

    /// Puts the pod behind the interface. A pod that is there already keeps it, and its connections.
    pub(crate) fn bind(&mut self, pod: &Pod) {
        let netns_cookie = self.bound.as_ref().map_or(1, |bound| bound.netns_cookie);
        let mut endpoint = BoundEndpoint {
            ifindex: LOOPBACK,
            netns_cookie,
            pod: pod.key(),
            pod_uid: pod.uid.clone(),
            own_addresses: pod.addresses.clone(),
        };
        if self.bound.as_ref() == Some(&endpoint) {
            return;
        }
        if self.bound.as_ref().is_some_and(|bound| (&bound.pod, &bound.pod_uid) != (&endpoint.pod, &endpoint.pod_uid)) {
            // Another namespace: the probe takes the index for that of a new interface.
            endpoint.netns_cookie += 1;
        }
        self.probe.attach(&endpoint).expect("an attachment");
        self.bound = Some(endpoint);
    }

    /// A packet that the bound pod sends (egress) or is sent.
    pub(crate) fn run(&mut self, direction: Direction, packet: &[u8]) -> Run {
        let program = match direction {
            Direction::Egress => name::FROM_POD,
            Direction::Ingress => name::TO_POD,
        };
        self.run_program(program, packet)
    }

    /// A packet that the bound pod sends to a Service, and that leaves the node as `translated`.
    pub(crate) fn run_translated(&mut self, packet: &[u8], translated: &[u8]) -> Run {
        let mut sent = self.run_program(name::FROM_POD, packet);
        if sent.dropped {
            return sent;
        }
        let Run { dropped, events } = self.run_program(name::LEAVING, translated);
        sent.events.extend(events);
        Run { dropped, ..sent }
    }

    fn run_program(&mut self, program: &str, packet: &[u8]) -> Run {
        let run = test_run(&self.pins.0, program, packet, LOOPBACK, 1).expect("a test run");
        assert!(matches!(run.return_value, PASS | DROP), "{program} returned {:#x}", run.return_value);
        assert_eq!(run.data_out, packet, "{program} only looks");
        Run { dropped: run.return_value == DROP, events: self.readers.iter_mut().flat_map(drain).collect() }
    }
}

fn drain(reader: &mut RingReader) -> Vec<VerdictEvent> {
    let mut events = Vec::new();
    while let Some(batch) = reader.drain(1 << 20) {
        for record in Batch::records_of(&batch.bytes) {
            events.push(VerdictEvent::read_from_bytes(record.expect("a record")).expect("a verdict event"));
        }
        reader.commit();
    }
    events
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = detach_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

//! A node whose pods are network namespaces and whose tables are compiled from manifests.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use netverdict_abi::{Mode, VerdictEvent};
use netverdict_manifest::{Severity, read};
use netverdict_policy::{Compiler, ObjectKey, Snapshot, tables::IdFloor};
use netverdict_probe::{Batch, Probe, ProbeError, ProbeOptions, RingBytes, RingReader, bind, detach_all, discover};
use netverdict_tests::topology::{PodNetwork, Topology};
use tempfile::TempDir;
use zerocopy::FromBytes;

/// Name of the node in manifests.
const NAME: &str = "here";

pub(crate) struct Node {
    pub(crate) topology: Topology,
    pub(crate) probe: Probe,
    pub(crate) compiler: Compiler,
    /// The denied lane first.
    pub(crate) readers: [RingReader; 2],
    /// Index of the host end of each pod's interface.
    pub(crate) ifindexes: BTreeMap<ObjectKey, u32>,
    pub(crate) options: ProbeOptions,
    subnet: u8,
    _pins: Pins,
    _state: TempDir,
}

/// Removes the pins, after the probe has ended.
struct Pins(PathBuf);

impl Node {
    /// A node with the pods of a manifest, published and attached. Prints a message and returns `None` if the suite
    /// cannot run here. Tests that run at the same time need distinct values of `subnet`.
    pub(crate) fn start(subnet: u8, mode: Mode, pods: &str) -> Option<Self> {
        Self::start_with(subnet, pods, |options| options.mode = mode)
    }

    pub(crate) fn start_with(subnet: u8, pods: &str, adjust: impl FnOnce(&mut ProbeOptions)) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skip("it takes root rights");
        }
        let state = tempfile::tempdir().unwrap();
        let mut options = ProbeOptions {
            pin_root: PathBuf::from(format!("/sys/fs/bpf/netverdict-truth-{}-{subnet}", std::process::id())),
            state_dir: state.path().to_owned(),
            ring_bytes: RingBytes { denied: 1 << 23, flow: 1 << 23 },
            lock_wait: Duration::ZERO,
            ..ProbeOptions::default()
        };
        adjust(&mut options);
        let pins = Pins(options.pin_root.clone());
        let mut probe = match Probe::start(options.clone()) {
            Ok((probe, _)) => probe,
            Err(error @ (ProbeError::NoObject | ProbeError::NoBpfFileSystem { .. })) => {
                return skip(&error.to_string());
            }
            Err(error) => panic!("the probe does not start: {error}"),
        };
        let snapshot = snapshot_at(subnet, &[pods]);
        let mut topology = Topology::new(&format!("nvt{subnet}"), subnet).unwrap();
        let mut by_address: Vec<_> = snapshot.pods.values().collect();
        by_address.sort_by_key(|pod| pod.addresses[0]);
        for pod in by_address {
            let network = topology.pod(&pod.key().to_string()).unwrap();
            assert_eq!(
                pod.addresses,
                [network.address(4), network.address(6)],
                "the manifest says where {network:?} is"
            );
        }
        let mut compiler = Compiler::new(NAME, IdFloor::default());
        probe.publish(0, &compiler.compile(&snapshot)).unwrap();
        let mut ifindexes = BTreeMap::new();
        for found in block_on(discover::scan()).unwrap() {
            if let Some(pod) = topology.pods().iter().find(|pod| pod.host_interface == found.name) {
                let uid = &snapshot.pods[&key(pod)].uid;
                let endpoint = bind(&found, uid, &snapshot).expect("it is in the manifest");
                probe.attach(&endpoint).unwrap();
                ifindexes.insert(endpoint.pod, endpoint.ifindex);
            }
        }
        assert_eq!(ifindexes.len(), snapshot.pods.len());
        let readers = probe.rings().unwrap();
        Some(Self { topology, probe, compiler, readers, ifindexes, options, subnet, _pins: pins, _state: state })
    }

    /// Reads manifests as one cluster. Of two objects with the same name the later one wins.
    pub(crate) fn snapshot(&self, manifests: &[&str]) -> Arc<Snapshot> {
        snapshot_at(self.subnet, manifests)
    }

    /// Compiles and publishes; returns the revision in force.
    pub(crate) fn publish(&mut self, number: u64, snapshot: &Arc<Snapshot>) -> u64 {
        let change = self.compiler.compile(snapshot);
        self.probe.publish(number, &change).unwrap()
    }

    pub(crate) fn pod(&self, name: &str) -> PodNetwork {
        self.topology.pods().iter().find(|pod| pod.pod == name).unwrap_or_else(|| panic!("no pod {name}")).clone()
    }

    pub(crate) fn ifindex(&self, pod: &PodNetwork) -> u32 {
        self.ifindexes[&key(pod)]
    }

    /// All events since the last call, denied ones first.
    pub(crate) fn events(&mut self) -> Vec<VerdictEvent> {
        self.readers.iter_mut().flat_map(drain).collect()
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        if let Err(error) = detach_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// Drains and commits a ring.
pub(crate) fn drain(reader: &mut RingReader) -> Vec<VerdictEvent> {
    let mut events = Vec::new();
    while let Some(batch) = reader.drain(1 << 20) {
        for record in Batch::records_of(&batch.bytes) {
            let event = VerdictEvent::read_from_bytes(record.unwrap()).expect("a verdict event");
            assert_eq!(event.lane, batch.lane as u8, "{event:?}");
            events.push(event);
        }
        reader.commit();
    }
    events
}

pub(crate) fn key(pod: &PodNetwork) -> ObjectKey {
    let (namespace, name) = pod.pod.split_once('/').expect("namespace/name");
    ObjectKey::new(namespace, name)
}

fn snapshot_at(subnet: u8, manifests: &[&str]) -> Arc<Snapshot> {
    let mut objects = Vec::new();
    for manifest in manifests {
        let text =
            manifest.replace("V4NET", &format!("10.233.{subnet}")).replace("V6NET", &format!("fd33:0:0:{subnet:x}"));
        let (read, findings) = read(&text, "truth");
        assert!(findings.is_empty(), "{findings:?}");
        objects.extend(read);
    }
    let reading = netverdict_manifest::snapshot(&objects);
    let errors: Vec<_> = reading.findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:?}");
    Arc::new(reading.snapshot)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Prints that a test did not run.
///
/// # Panics
/// If kernel tests are required.
fn skip<T>(why: &str) -> Option<T> {
    let required = std::env::var_os("NETVERDICT_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    assert!(!required, "kernel tests are required but cannot run: {why}");
    eprintln!("SKIPPED truth: {why}");
    None
}

//! A node with pods and a probe, created for one test and removed after it.

use std::{
    io::Write,
    path::PathBuf,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use netverdict_abi::{Lane, Mode, Verdict, VerdictEvent};
use netverdict_policy::{ObjectKey, tables::Change};
use netverdict_probe::{
    Batch, BoundEndpoint, Discovered, Probe, ProbeError, ProbeOptions, Restored, RingBytes, RingReader, detach_all,
    discover,
};
use netverdict_tests::topology::{PodNetwork, Topology};
use tempfile::TempDir;
use zerocopy::FromBytes;

/// The subnets of the topologies of one run are distinct; the demo uses a lower one.
static NEXT: AtomicU8 = AtomicU8::new(100);

pub(crate) struct Node {
    pub(crate) topology: Topology,
    /// `None` between [`Node::stop`] and [`Node::start_again`].
    probe: Option<Probe>,
    readers: Option<[RingReader; 2]>,
    pub(crate) options: ProbeOptions,
    _state: TempDir,
}

impl Node {
    /// A node with these pods, none of them attached. Prints a message and returns `None` if the kernel suite cannot
    /// run here.
    pub(crate) fn start(mode: Mode, pods: &[&str]) -> Option<Self> {
        Self::start_with(pods, |options| options.mode = mode)
    }

    pub(crate) fn start_with(pods: &[&str], adjust: impl FnOnce(&mut ProbeOptions)) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skip("it takes root rights");
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let state = tempfile::tempdir().unwrap();
        let mut options = ProbeOptions {
            pin_root: PathBuf::from(format!("/sys/fs/bpf/netverdict-test-{}-{number}", std::process::id())),
            state_dir: state.path().to_owned(),
            ring_bytes: RingBytes { denied: 1 << 20, flow: 1 << 20 },
            // Child processes of other tests hold a copy of the lock's descriptor until their `exec`.
            lock_wait: Duration::from_millis(500),
            ..ProbeOptions::default()
        };
        adjust(&mut options);
        let probe = match Probe::start(options.clone()) {
            Ok((probe, _)) => probe,
            Err(error @ (ProbeError::NoObject | ProbeError::NoBpfFileSystem { .. })) => {
                return skip(&error.to_string());
            }
            Err(error) => panic!("the probe does not start: {error}"),
        };
        let mut topology = Topology::new(&format!("nvk{number}"), number).unwrap();
        for pod in pods {
            topology.pod(pod).unwrap();
        }
        Some(Self { topology, probe: Some(probe), readers: None, options, _state: state })
    }

    pub(crate) fn probe(&mut self) -> &mut Probe {
        self.probe.as_mut().expect("the probe runs")
    }

    /// Publishes and attaches every pod of the change.
    pub(crate) fn publish_and_attach(&mut self, change: &Change) -> u64 {
        let revision = self.probe().publish(1, change).unwrap();
        self.attach_all();
        revision
    }

    pub(crate) fn attach_all(&mut self) {
        for pod in self.topology.pods().to_vec() {
            let endpoint = self.bound(&pod);
            self.probe().attach(&endpoint).unwrap();
        }
    }

    pub(crate) fn pod(&self, name: &str) -> PodNetwork {
        self.topology.pods().iter().find(|pod| pod.pod == name).unwrap_or_else(|| panic!("no pod {name}")).clone()
    }

    /// The result of discovery for a pod's interface.
    pub(crate) fn discovered(&self, pod: &PodNetwork) -> Discovered {
        let found = block_on(discover::scan()).unwrap();
        found.into_iter().find(|found| found.name == pod.host_interface).expect("the interface is found")
    }

    pub(crate) fn bound(&self, pod: &PodNetwork) -> BoundEndpoint {
        let Discovered { ifindex, netns_cookie, addresses, mut link_local, .. } = self.discovered(pod);
        link_local.extend(addresses);
        BoundEndpoint { ifindex, netns_cookie, pod: key(pod), pod_uid: uid(pod), own_addresses: link_local }
    }

    pub(crate) fn ifindex(&self, pod: &PodNetwork) -> u32 {
        self.discovered(pod).ifindex
    }

    /// Ends user space, like a killed process.
    pub(crate) fn stop(&mut self) {
        self.readers = None;
        self.probe = None;
    }

    pub(crate) fn start_again(&mut self) -> Restored {
        let (probe, restored) = Probe::start(self.options.clone()).unwrap();
        self.probe = Some(probe);
        restored
    }

    pub(crate) fn readers(&mut self) -> &mut [RingReader; 2] {
        if self.readers.is_none() {
            self.readers = Some(self.probe().rings().unwrap());
        }
        self.readers.as_mut().unwrap()
    }

    /// Discards all events so far.
    pub(crate) fn forget_events(&mut self) {
        self.events();
    }

    /// All events since the last call, denied ones first.
    pub(crate) fn events(&mut self) -> Vec<VerdictEvent> {
        let mut events = Vec::new();
        for reader in self.readers() {
            while let Some(batch) = reader.drain(1 << 20) {
                events.extend(events_of(&batch));
                reader.commit();
            }
        }
        events
    }

    /// The events of TCP or UDP flows to a port at the interface of the pod `at`.
    pub(crate) fn events_to(&mut self, at: &PodNetwork, port: u16) -> Vec<VerdictEvent> {
        let ifindex = self.ifindex(at);
        self.events().into_iter().filter(|event| event.ifindex == ifindex && event.destination_port == port).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop();
        if let Err(error) = detach_all(&self.options.pin_root) {
            eprintln!("{}: {error}", self.options.pin_root.display());
        }
    }
}

pub(crate) fn events_of(batch: &Batch) -> Vec<VerdictEvent> {
    let events: Vec<_> = Batch::records_of(&batch.bytes)
        .map(|record| VerdictEvent::read_from_bytes(record.unwrap()).expect("a verdict event"))
        .collect();
    assert_eq!(events.len(), batch.records as usize);
    assert!(events.iter().all(|event| event.lane == batch.lane as u8));
    let denied = Verdict::Denied as u8;
    assert!(events.iter().all(|event| (event.verdict == denied) == (batch.lane == Lane::Denied)));
    events
}

pub(crate) fn key(pod: &PodNetwork) -> ObjectKey {
    let (namespace, name) = pod.pod.split_once('/').expect("namespace/name");
    ObjectKey::new(namespace, name)
}

pub(crate) fn uid(pod: &PodNetwork) -> String {
    format!("uid-of-{}", pod.pod)
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Prints that a test did not run.
///
/// # Panics
/// If kernel tests are required.
pub(crate) fn skip<T>(why: &str) -> Option<T> {
    let required = std::env::var_os("NETVERDICT_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    assert!(!required, "kernel tests are required but cannot run: {why}");
    // Not `eprintln!`, whose output the test harness hides for tests that pass.
    let _ = writeln!(std::io::stderr(), "SKIPPED kernel: {why}");
    None
}

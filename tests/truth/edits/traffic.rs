//! Continuous traffic: new flows from every pod to every other, each of one request packet, and no flow twice.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use netverdict_policy::model::Protocol;
use netverdict_tests::topology::PodNetwork;

use crate::{
    attempts::{Servers, start_connecting, unblocked},
    cells::{Cell, FAMILIES, cells_from},
};

/// How long to wait for a connection. TCP retransmits a SYN after a second, and until then an attempt is one packet.
const TCP_WAITS: Duration = Duration::from_millis(500);
const FIRST_SOURCE: u16 = 10_000;

/// The progress of publications, as the sending threads see it.
pub(super) struct Clock {
    /// A revision that is in force for certain.
    pub(super) committed: AtomicU64,
    /// The latest revision that may be in force.
    pub(super) begun: AtomicU64,
    pub(super) over: AtomicBool,
}

/// One flow.
pub(super) struct Attempt {
    pub(super) cell: Cell,
    pub(super) source_port: u16,
    /// The committed revision before the packet was sent.
    pub(super) committed: u64,
    /// Whether a TCP connection was opened; `None` for UDP.
    pub(super) connected: Option<bool>,
}

/// The datagrams that arrived, each with the latest revision that may have been in force.
pub(super) type Arrivals = HashMap<(Cell, u16), u64>;

/// Reads all server sockets in turn.
pub(super) struct Receivers {
    servers: Servers,
    /// How often all sockets were emptied. Senders wait for it, so that no socket overflows.
    passes: AtomicU64,
}

impl Receivers {
    pub(super) fn start(pods: &[PodNetwork]) -> Self {
        Self { servers: Servers::start(pods), passes: AtomicU64::new(0) }
    }

    /// Receives until the test is over and no more datagrams arrive.
    pub(super) fn receive(&self, pods: &[PodNetwork], clock: &Clock) -> Arrivals {
        let by_address: HashMap<IpAddr, usize> = pods
            .iter()
            .enumerate()
            .flat_map(|(index, pod)| FAMILIES.map(|family| (pod.address(family), index)))
            .collect();
        let mut arrivals = Arrivals::new();
        let mut quiet_since = Instant::now();
        while !clock.over.load(Ordering::SeqCst) || quiet_since.elapsed() < 2 * TCP_WAITS {
            let before = arrivals.len();
            self.servers.receive(|from, to| {
                let latest = clock.begun.load(Ordering::SeqCst);
                let (source, destination) = (by_address[&from.ip()], by_address[&to.ip()]);
                let family = if to.is_ipv4() { 4 } else { 6 };
                let cell = Cell { source, destination, protocol: Protocol::UDP, family, port: to.port() };
                assert_eq!(arrivals.insert((cell, from.port()), latest), None, "each was sent once");
            });
            self.servers.hang_up();
            self.passes.fetch_add(1, Ordering::SeqCst);
            if arrivals.len() > before {
                quiet_since = Instant::now();
            } else {
                thread::sleep(Duration::from_millis(1));
            }
        }
        arrivals
    }

    /// Waits until all sockets were emptied this many times.
    pub(super) fn await_rounds(&self, rounds: u64) {
        // A pass that has begun may have visited a socket already.
        let until = self.passes.load(Ordering::SeqCst) + rounds + 1;
        let started = Instant::now();
        while self.passes.load(Ordering::SeqCst) < until {
            assert!(started.elapsed() < Duration::from_secs(30), "nobody receives any more");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Sends from the pod of this thread until the test is over.
pub(super) fn send(source: usize, pods: &[PodNetwork], clock: &Clock, receivers: &Receivers) -> Vec<Attempt> {
    let pod = &pods[source];
    let cells = cells_from(source, pods.len());
    let mut attempts = Vec::new();
    let mut connecting = Vec::new();
    for source_port in FIRST_SOURCE.. {
        if clock.over.load(Ordering::SeqCst) {
            break;
        }
        let senders = FAMILIES.map(|family| unblocked(UdpSocket::bind((pod.address(family), source_port)).unwrap()));
        for cell in &cells {
            let to = SocketAddr::new(pods[cell.destination].address(cell.family), cell.port);
            let committed = clock.committed.load(Ordering::SeqCst);
            let connected = if cell.protocol == Protocol::TCP {
                let stream = start_connecting(pod, to, source_port);
                connecting.push(Connecting { attempt: attempts.len(), stream, since: Instant::now() });
                Some(false)
            } else {
                let [four, six] = &senders;
                if cell.family == 4 { four } else { six }.send_to(b"?", to).unwrap();
                None
            };
            attempts.push(Attempt { cell: *cell, source_port, committed, connected });
        }
        settle(&mut connecting, &mut attempts);
        receivers.await_rounds(1);
    }
    while !connecting.is_empty() {
        settle(&mut connecting, &mut attempts);
        thread::sleep(Duration::from_millis(5));
    }
    attempts
}

struct Connecting {
    attempt: usize,
    stream: TcpStream,
    since: Instant,
}

/// Records completed connections, and gives up connections that take too long.
fn settle(connecting: &mut Vec<Connecting>, attempts: &mut [Attempt]) {
    connecting.retain(|Connecting { attempt, stream, since }| {
        let connected = stream.peer_addr().is_ok();
        attempts[*attempt].connected = Some(connected);
        assert!(stream.take_error().unwrap().is_none(), "denied means silence");
        !connected && since.elapsed() < TCP_WAITS
    });
}

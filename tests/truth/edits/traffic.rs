//! New flows from every pod to every other, all the time: each of one packet that asks, never the same twice.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use netverdict_policy::model::Protocol;
use netverdict_tests::topology::PodNetwork;

use super::cells_from;
use crate::{
    attempts::{Servers, start_connecting, unblocked},
    cells::{Cell, FAMILIES},
};

/// TCP asks again after a second; until then a connection is one question.
const TCP_WAITS: Duration = Duration::from_millis(500);
const FIRST_SOURCE: u16 = 10_000;

/// What is known of publications from outside.
pub(super) struct Clock {
    /// In force for certain.
    pub(super) committed: AtomicU64,
    /// May be in force.
    pub(super) begun: AtomicU64,
    pub(super) over: AtomicBool,
}

/// One flow.
pub(super) struct Attempt {
    pub(super) cell: Cell,
    pub(super) source_port: u16,
    /// In force before it was sent.
    pub(super) committed: u64,
    /// Of TCP.
    pub(super) connected: Option<bool>,
}

/// Datagrams that arrived, each with the revision that may have been in force by then.
pub(super) type Arrivals = HashMap<(Cell, u16), u64>;

/// Reads everywhere in turn.
pub(super) struct Receivers {
    servers: Servers,
    /// How often all sockets were emptied: senders wait for it, so that no socket ever overflows.
    passes: AtomicU64,
}

impl Receivers {
    pub(super) fn start(pods: &[PodNetwork]) -> Self {
        Self { servers: Servers::start(pods), passes: AtomicU64::new(0) }
    }

    /// Until it is over and nothing more comes.
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

    /// Waits until what was sent before has been received, this many times over.
    pub(super) fn await_rounds(&self, rounds: u64) {
        // A pass that is under way may be past a socket already.
        let until = self.passes.load(Ordering::SeqCst) + rounds + 1;
        let started = Instant::now();
        while self.passes.load(Ordering::SeqCst) < until {
            assert!(started.elapsed() < Duration::from_secs(30), "nobody receives any more");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Sends from the pod of this thread until it is over.
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

/// Notes who is connected, and gives up on those who wait too long.
fn settle(connecting: &mut Vec<Connecting>, attempts: &mut [Attempt]) {
    connecting.retain(|Connecting { attempt, stream, since }| {
        let connected = stream.peer_addr().is_ok();
        attempts[*attempt].connected = Some(connected);
        assert!(stream.take_error().unwrap().is_none(), "denied means silence");
        !connected && since.elapsed() < TCP_WAITS
    });
}

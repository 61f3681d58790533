//! Real sockets: servers in every pod, and clients that all connect at once.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use netverdict_policy::model::Protocol;
use netverdict_tests::topology::PodNetwork;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

use crate::cells::{Cell, FAMILIES, PORTS};

/// How long an allowed attempt may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for denied attempts once all others have arrived. Local packets take microseconds; TCP retransmits
/// a SYN only after a second.
const SILENCE: Duration = Duration::from_millis(300);
/// The first source port that [`source_port`] gives out.
const FIRST_SOURCE: u16 = 20_000;

/// The source port of every attempt in a round. Each round has another, because a flow of an earlier round is still in
/// the connection table and would not be judged as new.
pub(crate) fn source_port(round: u16) -> u16 {
    FIRST_SOURCE + round
}

/// All servers. They live through all rounds.
pub(crate) struct Servers {
    tcp: Vec<TcpListener>,
    udp: Vec<UdpSocket>,
}

impl Servers {
    /// Starts servers in every pod, on every port, for both protocols and families.
    pub(crate) fn start(pods: &[PodNetwork]) -> Self {
        let mut servers = Self { tcp: Vec::new(), udp: Vec::new() };
        for pod in pods {
            let addresses = FAMILIES.map(|family| PORTS.map(|port| SocketAddr::new(pod.address(family), port)));
            pod.enter(|| {
                for address in addresses.into_iter().flatten() {
                    let listener = TcpListener::bind(address).unwrap();
                    listener.set_nonblocking(true).unwrap();
                    servers.tcp.push(listener);
                    servers.udp.push(unblocked(UdpSocket::bind(address).unwrap()));
                }
            })
            .unwrap();
        }
        servers
    }

    /// Receives every waiting datagram, with its sender and its receiver.
    pub(crate) fn receive(&self, mut take: impl FnMut(SocketAddr, SocketAddr)) {
        for socket in &self.udp {
            while let Some((_, from)) = receive(socket, &mut [0; 16]) {
                take(from, socket.local_addr().unwrap());
            }
        }
    }

    /// Echoes every waiting datagram, and returns them.
    fn answer(&self, arrived: &mut Vec<Datagram>) {
        for socket in &self.udp {
            while let Some((datagram, from)) = Datagram::receive(socket) {
                socket.send_to(&datagram.bytes(), from).unwrap();
                arrived.push(datagram);
            }
        }
    }

    /// Closes the accepted connections.
    pub(crate) fn hang_up(&self) {
        for listener in &self.tcp {
            loop {
                match listener.accept() {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
}

/// The content of a datagram: it identifies its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Datagram {
    round: u16,
    cell: u32,
}

impl Datagram {
    fn bytes(self) -> [u8; 6] {
        let mut bytes = [0; 6];
        bytes[..2].copy_from_slice(&self.round.to_be_bytes());
        bytes[2..].copy_from_slice(&self.cell.to_be_bytes());
        bytes
    }

    fn receive(socket: &UdpSocket) -> Option<(Self, SocketAddr)> {
        let mut bytes = [0; 7];
        let (length, from) = receive(socket, &mut bytes)?;
        assert_eq!(length, 6, "{from} is none of us");
        let [a, b, c, d, e, f, _] = bytes;
        Some((Self { round: u16::from_be_bytes([a, b]), cell: u32::from_be_bytes([c, d, e, f]) }, from))
    }
}

fn receive(socket: &UdpSocket, bytes: &mut [u8]) -> Option<(usize, SocketAddr)> {
    match socket.recv_from(bytes) {
        Ok(received) => Some(received),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) => panic!("denied means silence, not {error}"),
    }
}

/// Tries every cell at the same time and returns the cells that got through in both directions. `expected` only determines
/// how long to wait.
pub(crate) fn attempt(
    round: u16,
    cells: &[Cell],
    pods: &[PodNetwork],
    servers: &Servers,
    expected: &[bool],
) -> Vec<bool> {
    let mut connecting: Vec<(usize, TcpStream)> = Vec::new();
    let mut clients: Vec<UdpSocket> = Vec::new();
    for (source, pod) in pods.iter().enumerate() {
        let mine = cells.iter().enumerate().filter(|(_, cell)| cell.source == source);
        pod.enter(|| {
            let senders =
                FAMILIES.map(|family| unblocked(UdpSocket::bind((pod.address(family), source_port(round))).unwrap()));
            for (index, cell) in mine {
                let to = SocketAddr::new(pods[cell.destination].address(cell.family), cell.port);
                if cell.protocol == Protocol::TCP {
                    connecting.push((index, start_connecting(pod, to, source_port(round))));
                } else {
                    let datagram = Datagram { round, cell: u32::try_from(index).unwrap() };
                    let family = FAMILIES.iter().position(|family| *family == cell.family).unwrap();
                    senders[family].send_to(&datagram.bytes(), to).unwrap();
                }
            }
            clients.extend(senders);
        })
        .unwrap();
    }

    let mut through = vec![false; cells.len()];
    let mut arrived = Vec::new();
    let started = Instant::now();
    let mut all_since = None;
    loop {
        servers.answer(&mut arrived);
        for client in &clients {
            while let Some((datagram, _)) = Datagram::receive(client) {
                assert_eq!(datagram.round, round);
                through[datagram.cell as usize] = true;
            }
        }
        connecting.retain(|(index, stream)| {
            let connected = stream.peer_addr().is_ok();
            if let Some(error) = stream.take_error().unwrap() {
                panic!("denied means silence, not {error} ({:?})", cells[*index]);
            }
            through[*index] |= connected;
            // Reset at once, so that no packet of this round arrives in the next.
            !connected
        });
        let done = through.iter().zip(expected).all(|(through, expected)| through >= expected);
        if done && all_since.is_none() {
            all_since = Some(Instant::now());
        }
        if all_since.is_some_and(|since| since.elapsed() > SILENCE) || started.elapsed() > PATIENCE {
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    for datagram in arrived {
        assert_eq!(datagram.round, round);
        assert!(through[datagram.cell as usize], "{:?} arrived, but not its answer", cells[datagram.cell as usize]);
    }
    servers.hang_up();
    through
}

/// Starts a TCP connection without waiting for it. Dropping the stream resets the connection.
pub(crate) fn start_connecting(pod: &PodNetwork, to: SocketAddr, source_port: u16) -> TcpStream {
    let from = SocketAddr::new(pod.address(if to.is_ipv4() { 4 } else { 6 }), source_port);
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None).unwrap();
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    // Several connections may share a source port if their destinations differ.
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &from).unwrap();
    match connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => socket.into(),
        Err(error) => panic!("{to}: {error}"),
    }
}

pub(crate) fn unblocked(socket: UdpSocket) -> UdpSocket {
    socket.set_nonblocking(true).unwrap();
    socket
}

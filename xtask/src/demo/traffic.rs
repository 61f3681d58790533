//! Real servers and clients in the pods, and the table of who reached whom.

use std::{
    fmt,
    io::{Read, Write},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use anyhow::{Context, Result};

use super::shop::port_of;
use crate::topology::PodNetwork;

/// How long an answer may take. A denied packet is dropped silently, so each denied attempt takes this long.
const PATIENCE: Duration = Duration::from_millis(900);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// The transports and address families with which every pair of pods is tried.
pub(super) const WAYS: [(Transport, u8); 4] =
    [(Transport::Tcp, 4), (Transport::Tcp, 6), (Transport::Udp, 4), (Transport::Udp, 6)];

/// The results of trying one pod from another, in the order of [`WAYS`].
#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub source: String,
    pub destination: String,
    pub reached: [bool; WAYS.len()],
}

/// Starts a server for TCP and UDP in a pod. Its threads live as long as the process.
pub(super) fn serve(pod: &PodNetwork) -> Result<()> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port_of(&pod.pod)));
    // One socket serves both families: IPv4 arrives as mapped addresses.
    let (listener, socket) = pod.enter(|| -> Result<_> {
        let listener = TcpListener::bind(address).with_context(|| format!("no TCP server on {address}"))?;
        let socket = UdpSocket::bind(address).with_context(|| format!("no UDP server on {address}"))?;
        Ok((listener, socket))
    })??;
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A client that has gone away already is no concern of the server.
            let _ = stream.write_all(b"hello");
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    Ok(())
}

/// Tries every ordered pair of pods in every way, all pairs at once.
pub(super) fn try_all(pods: &[PodNetwork]) -> Result<Vec<Cell>> {
    let pairs = pods.iter().flat_map(|from| pods.iter().filter(|to| to.pod != from.pod).map(move |to| (from, to)));
    std::thread::scope(|scope| {
        let attempts: Vec<_> = pairs
            .map(|(from, to)| {
                scope.spawn(move || {
                    from.enter(|| Cell {
                        source: from.pod.clone(),
                        destination: to.pod.clone(),
                        reached: WAYS
                            .map(|(transport, family)| attempt(transport, to.address(family), port_of(&to.pod))),
                    })
                })
            })
            .collect();
        attempts.into_iter().map(|attempt| attempt.join().expect("an attempt does not panic")).collect()
    })
}

/// Whether an answer came. To be called inside the source's namespace.
fn attempt(transport: Transport, address: IpAddr, port: u16) -> bool {
    let destination = SocketAddr::new(address, port);
    match transport {
        Transport::Tcp => answer_by_tcp(destination),
        Transport::Udp => answer_by_udp(destination),
    }
    .unwrap_or(false)
}

fn answer_by_tcp(destination: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect_timeout(&destination, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting)?;
    Ok(&greeting == b"hello")
}

fn answer_by_udp(destination: SocketAddr) -> std::io::Result<bool> {
    let socket = UdpSocket::bind(any_port(destination))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(destination)?;
    socket.send(b"ping")?;
    let mut echo = [0; 4];
    Ok(socket.recv(&mut echo)? == 4)
}

/// Sends one datagram each from `ports`, a pause apart; nobody waits for an answer. Calls `sent` after each.
pub(super) fn send_numbered(
    from: &PodNetwork,
    destination: SocketAddr,
    ports: std::ops::Range<u16>,
    pause: Duration,
    mut sent: impl FnMut(u16) + Send,
) -> Result<()> {
    from.enter(|| -> Result<()> {
        for port in ports {
            let mut own = any_port(destination);
            own.set_port(port);
            let socket = UdpSocket::bind(own).with_context(|| format!("could not bind {own}"))?;
            socket.send_to(b"numbered", destination)?;
            sent(port);
            std::thread::sleep(pause);
        }
        Ok(())
    })?
}

fn any_port(destination: SocketAddr) -> SocketAddr {
    let unspecified: IpAddr = match destination {
        SocketAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(unspecified, 0)
}

/// The table for a terminal: a row per source, a column per destination, a sign per element of [`WAYS`].
pub(super) fn table(pods: &[PodNetwork], cells: &[Cell]) -> String {
    let wide = pods.iter().map(|pod| pod.pod.len()).max().unwrap_or(0).max(22);
    let mut text = format!("{:wide$}", "from \\ to");
    for pod in pods {
        let name = pod.pod.rsplit('/').next().unwrap_or(&pod.pod);
        text.push_str(&format!("  {name:>10}"));
    }
    text.push('\n');
    for from in pods {
        text.push_str(&format!("{:wide$}", from.pod));
        for to in pods {
            let signs = match cells.iter().find(|cell| cell.source == from.pod && cell.destination == to.pod) {
                Some(cell) => cell.reached.map(|reached| if reached { '✓' } else { '✗' }).iter().collect(),
                None => "·".to_owned(),
            };
            text.push_str(&format!("  {signs:>10}"));
        }
        text.push('\n');
    }
    text
}

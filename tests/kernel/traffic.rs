//! Real sockets between pods.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use netverdict_tests::topology::PodNetwork;

/// How long to wait for a connection: long enough on a busy machine, and short enough to wait out a denied one, which
/// gets no answer.
const PATIENCE: Duration = Duration::from_millis(400);

/// Whether a TCP connection can be opened.
pub(crate) fn connects(from: &PodNetwork, to: &PodNetwork, family: u8, port: u16) -> bool {
    let address = SocketAddr::new(to.address(family), port);
    let _listener = to.enter(|| TcpListener::bind(address)).unwrap().unwrap();
    match from.enter(|| TcpStream::connect_timeout(&address, PATIENCE)).unwrap() {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::TimedOut => false,
        Err(error) => panic!("denied means silence, not {error}"),
    }
}

/// A UDP socket in a pod; port 0 is any port.
pub(crate) fn udp(pod: &PodNetwork, family: u8, port: u16) -> UdpSocket {
    let address = SocketAddr::new(pod.address(family), port);
    let socket = pod.enter(|| UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Whether a datagram arrives.
pub(crate) fn arrives(from: &PodNetwork, to: &PodNetwork, family: u8, port: u16) -> bool {
    let receiver = udp(to, family, port);
    let sender = udp(from, family, 0);
    sender.send_to(b"hello", receiver.local_addr().unwrap()).unwrap();
    receiver.recv(&mut [0; 16]).is_ok()
}

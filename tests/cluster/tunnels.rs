//! An HTTP proxy on the way to an API server: it makes tunnels (`CONNECT`), and counts them.

use std::{
    io::{BufRead as _, BufReader, Write as _, copy},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

pub(crate) struct Tunnels {
    url: String,
    made: Arc<AtomicUsize>,
}

impl Tunnels {
    /// Serves until the test ends.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let made = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&made);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                thread::spawn(move || tunnel(client, &counter));
            }
        });
        Self { url, made }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }
}

/// `None` where an end goes away.
fn tunnel(mut client: TcpStream, made: &AtomicUsize) -> Option<()> {
    let mut head = BufReader::new(client.try_clone().ok()?);
    let mut line = String::new();
    head.read_line(&mut line).ok()?;
    let target = line.strip_prefix("CONNECT ")?.split(' ').next()?.to_owned();
    while line.trim_end() != "" {
        line.clear();
        head.read_line(&mut line).ok()?;
    }
    let server = TcpStream::connect(target).ok()?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").ok()?;
    made.fetch_add(1, Ordering::SeqCst);
    let (mut to_server, mut from_server) = (server.try_clone().ok()?, server);
    let mut to_client = client;
    let asking = thread::spawn(move || {
        let _ = copy(&mut head, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let _ = copy(&mut from_server, &mut to_client);
    let _ = to_client.shutdown(Shutdown::Both);
    asking.join().ok()
}

//! A client that has not logged in over the PostgreSQL protocol can do nothing but log in, in bounded time and
//! memory.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::{
    postgres::{connect, text},
    world::{SECRET, Served, World},
};

const PATIENCE: Duration = Duration::from_secs(10);
/// A mechanism that is not offered.
const PLAIN: &[u8] = b"PLAIN\0\0\0\0\x05\0x\0x\0";

/// A connection without a driver.
struct Raw(TcpStream);

impl Raw {
    async fn connect(served: &Served) -> Self {
        Self(TcpStream::connect(served.postgres).await.expect("a connection"))
    }

    /// Up to the request for a login.
    async fn started(served: &Served) -> Self {
        let mut raw = Self::connect(served).await;
        raw.send(&startup()).await;
        assert_eq!(raw.message().await.expect("a request for a login").0, b'R');
        raw
    }

    async fn send(&mut self, bytes: &[u8]) {
        // The server may have closed already; the caller judges the bytes that it sent before.
        let _ = self.0.write_all(bytes).await;
    }

    /// The next message's type and body; `None` at the end.
    async fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        timeout(PATIENCE, self.0.read_exact(&mut head)).await.expect("a message or an end in time").ok()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let mut body = vec![0; length - 4];
        timeout(PATIENCE, self.0.read_exact(&mut body)).await.expect("a body in time").ok()?;
        Some((head[0], body))
    }

    /// All messages up to the end, which must come.
    async fn rest(&mut self) -> Vec<(u8, String)> {
        let mut messages = Vec::new();
        while let Some((kind, body)) = self.message().await {
            messages.push((kind, String::from_utf8_lossy(&body).into_owned()));
        }
        messages
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
    [&[kind], &length[..], body].concat()
}

fn startup() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0netverdict\0database\0netverdict\0\0";
    let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
    [&length[..], body].concat()
}

/// A statement in either protocol.
fn statements() -> Vec<u8> {
    [
        message(b'Q', b"select 1\0"),
        message(b'P', b"\0select 1\0\0\0"),
        message(b'B', b"\0\0\0\0\0\0\0\0"),
        message(b'D', b"P\0"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'C', b"S\0"),
        message(b'S', b""),
        message(b'd', b"1\n"),
        message(b'c', b""),
    ]
    .concat()
}

async fn metrics(served: &Served) -> String {
    served.raw(served.client().get(format!("{}/metrics", served.http))).await.text().await.expect("text")
}

/// Counters of statements.
async fn counted(served: &Served) -> Vec<String> {
    let metrics = metrics(served).await;
    metrics.lines().filter(|line| line.starts_with("netverdict_query_statement")).map(str::to_owned).collect()
}

/// No connection is open, and a client with the password can log in.
async fn is_free(served: &Served, after: &str) {
    let begun = Instant::now();
    while !metrics(served).await.contains("netverdict_query_postgres_connections 0\n") {
        assert!(begun.elapsed() < PATIENCE, "a connection is still open after {after}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_run_after_a_failed_login() {
    let world = World::new().await;
    let served = world.serve_with(&["--max-connections", "1"]).await;
    let before = counted(&served).await;
    let first = message(b'p', b"SCRAM-SHA-256\0\0\0\0\x0bn,,n=,r=abc");
    let last = message(b'p', b"c=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    for (how, login) in [
        ("another mechanism", message(b'p', PLAIN)),
        ("a password in clear text", message(b'p', format!("{SECRET}\0").as_bytes())),
        ("a wrong proof", [first.clone(), last].concat()),
        ("a proof that is none", [first.clone(), message(b'p', b"\xff\xfe")].concat()),
        ("no login at all", Vec::new()),
        ("half a login", first),
    ] {
        // Once the error is there, as a client that ignores it.
        let mut raw = Raw::started(&served).await;
        if !login.is_empty() {
            raw.send(&login).await;
        }
        raw.send(&statements()).await;
        let told = raw.rest().await;
        let errors: Vec<_> = told.iter().filter(|(kind, _)| *kind == b'E').collect();
        // The server may reset a connection with unread messages before the error is read.
        assert!(errors.len() <= 1 && errors.iter().all(|(_, text)| text.contains("FATAL")), "{how}: {told:?}");
        assert!(told.iter().all(|(kind, _)| matches!(kind, b'E' | b'R')), "{how}: {told:?}");
        is_free(&served, how).await;

        // All at once: nothing waits for the server.
        let mut raw = Raw::connect(&served).await;
        raw.send(&[startup(), login, statements()].concat()).await;
        let told = raw.rest().await;
        assert!(told.iter().all(|(kind, _)| matches!(kind, b'E' | b'R')), "{how} at once: {told:?}");
        is_free(&served, how).await;
    }
    // A client that waits for the error reads it, and the server has closed.
    let mut raw = Raw::started(&served).await;
    raw.send(&message(b'p', PLAIN)).await;
    let (kind, body) = raw.message().await.expect("an error");
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(kind == b'E' && body.contains("FATAL") && body.contains("PLAIN"), "{body}");
    raw.send(&message(b'Q', b"select 1\0")).await;
    assert_eq!(raw.rest().await, [], "nothing follows a fatal error");
    is_free(&served, "a fatal error").await;
    assert_eq!(counted(&served).await, before, "a statement was run");
    let client = connect(&served, "netverdict", SECRET, "netverdict").await.expect("the only place is free");
    assert_eq!(text(&client, "select 1").await, Ok(vec!["1".into()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbled_messages_end_a_connection_and_nothing_else() {
    let world = World::new().await;
    let served = world.serve_with(&["--max-connections", "1"]).await;
    // The first message.
    for bytes in [
        b"\0\0\0\0".as_slice(),
        b"\0\0\0\x08\0\x03\0\0",
        b"\0\0\0\x04junk",
        b"\0\0\0\x09\0\x03\0\0\0",
        b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02",
        b"\0\0\0\x08\x04\xd2\x16\x2e",
        b"\xff\xff\xff\xff\0\x03\0\0",
        b"\x3f\xff\xff\xff\0\x03\0\0",
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let mut raw = Raw::connect(&served).await;
        raw.send(bytes).await;
        // The service may wait for the rest of a short message.
        let _ = raw.0.shutdown().await;
        raw.rest().await;
        is_free(&served, &format!("{bytes:?}")).await;
    }
    // The message with the login.
    for body in [
        b"".as_slice(),
        b"S",
        b"SCRAM-SHA-256",
        b"SCRAM-SHA-256\0",
        b"SCRAM-SHA-256\0\0",
        b"SCRAM-SHA-256\0\0\0\0\x7f",
        b"SCRAM-SHA-256\0\x7f\xff\xff\xff",
        b"SCRAM-SHA-256\0\xff\xff\xff\xff",
        b"SCRAM-SHA-256\0\xff\xff\xff\xfe",
        b"SCRAM-SHA-256\0\0\0\0\x01n",
        b"SCRAM-SHA-256-PLUS\0\0\0\0\x03y,,",
        b"\0\0\0\0\0",
    ] {
        let mut raw = Raw::started(&served).await;
        raw.send(&message(b'p', body)).await;
        let told = raw.rest().await;
        assert!(told.len() == 1 && told[0].0 == b'E' && told[0].1.contains("FATAL"), "{body:?}: {told:?}");
        is_free(&served, &format!("{body:?}")).await;
    }
    // Lengths that lie.
    for head in [b"p\0\0\0\0".as_slice(), b"p\0\0\0\x03", b"p\x80\0\0\0", b"p\xff\xff\xff\xff"] {
        let mut raw = Raw::started(&served).await;
        raw.send(head).await;
        let told = raw.rest().await;
        assert!(told.len() == 1 && told[0].1.contains("08P01"), "{head:?}: {told:?}");
        is_free(&served, &format!("{head:?}")).await;
    }
    let client = connect(&served, "netverdict", SECRET, "netverdict").await.expect("the only place is free");
    assert_eq!(text(&client, "select 1").await, Ok(vec!["1".into()]));
    assert!(!metrics(&served).await.contains("netverdict_query_statements_total{outcome=\"internal\"}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_message_is_refused_by_its_length() {
    let world = World::new().await;
    let served = world.serve().await;
    // Before a login: the body is never waited for.
    for head in [b"p\x3f\xff\xff\xfe".as_slice(), b"Q\x3f\xff\xff\xfe", b"p\0\0\x27\x11"] {
        let mut raw = Raw::started(&served).await;
        raw.send(head).await;
        let told = raw.rest().await;
        assert!(told.len() == 1 && told[0].1.contains("at most 10000 bytes"), "{head:?}: {told:?}");
        is_free(&served, &format!("{head:?}")).await;
    }
}

//! The HTTP server against real sockets: slow, silent, too many, too large, and the end.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    routing::{get, post},
};
use netverdict_service::{
    http_server::{HttpLimits, HttpServer, HttpServerMetrics},
    shutdown::Shutdown,
    tls::{self, ServerTls, TlsFiles},
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, pem::PemObject as _},
    },
};

/// Longest time for any expected event.
const PATIENCE: Duration = Duration::from_secs(30);
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";

fn limits() -> HttpLimits {
    HttpLimits {
        max_connections: 100,
        max_connections_per_address: 100,
        header_timeout: PATIENCE,
        idle_timeout: PATIENCE,
        write_timeout: PATIENCE,
        body_bytes: 1_000,
        drain: PATIENCE,
    }
}

struct Running {
    address: SocketAddr,
    /// Lets one request of `/slow` be answered.
    release: Arc<Notify>,
    shutdown: Shutdown,
    served: JoinHandle<()>,
    registry: Registry,
}

impl Running {
    async fn start(limits: HttpLimits, tls: Option<ServerTls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (release, shutdown) = (Arc::new(Notify::new()), Shutdown::new());
        let slow = release.clone();
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/large", get(|| async { vec![b'x'; 64 << 20] }))
            .route("/echo", post(|body: String| async { body }))
            .route(
                "/slow",
                get(|| async move {
                    slow.notified().await;
                    "done"
                }),
            );
        let (metrics, mut registry) = (HttpServerMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let server = HttpServer { port: "test", limits, tls, metrics };
        let served = tokio::spawn(server.serve(listener, router, shutdown.clone()));
        Self { address, release, shutdown, served, registry }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }

    async fn wait_for_metric(&self, line: &str) {
        let begun = Instant::now();
        while !self.metrics().contains(line) {
            assert!(begun.elapsed() < PATIENCE, "no {line} in {}", self.metrics());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(self) {
        self.shutdown.request();
        tokio::time::timeout(PATIENCE, self.served).await.expect("the server ends").unwrap();
    }
}

/// All bytes until the other side closes.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the connection is closed");
    // Cut connections may be reset as well as closed.
    let _ = read;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One answer on a connection that stays open.
async fn answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &[u8], ends_with: &str) -> String {
    stream.write_all(request).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(ends_with.as_bytes()) {
        let mut buffer = [0; 1_024];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("an answer").unwrap();
        assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_header_is_cut_off_and_a_slow_answer_is_not() {
    let header_timeout = Duration::from_millis(300);
    let server = Running::start(HttpLimits { header_timeout, ..limits() }, None).await;
    let mut slow_answer = server.connect().await;
    slow_answer.write_all(b"GET /slow HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
    // Clients that send nothing, or too little, a byte from time to time, at first and on a used connection.
    let mut silent = server.connect().await;
    let mut first = server.connect().await;
    let mut later = server.connect().await;
    answer(&mut later, GET, "hello").await;
    for stream in [&mut first, &mut later] {
        let mut sent = 0;
        while stream.write_all(&GET[sent % 10..=sent % 10]).await.is_ok() {
            sent += 1;
            assert!(sent < 1_000, "never cut off");
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    assert_eq!(rest(&mut silent).await, "");
    server.wait_for_metric("http_closed_connections_total{port=\"test\",cause=\"header\"} 3\n").await;
    server.release.notify_one();
    assert!(rest(&mut slow_answer).await.ends_with("done"));
    server.wait_for_metric("http_connections{port=\"test\"} 0\n").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_beyond_the_cap_is_refused_in_words_while_another_finishes() {
    for (total, per_address, cause) in [(2, 100, "total"), (100, 2, "address")] {
        let limits = HttpLimits { max_connections: total, max_connections_per_address: per_address, ..limits() };
        let server = Running::start(limits, None).await;
        let mut busy = server.connect().await;
        busy.write_all(b"GET /slow HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut other = server.connect().await;
        answer(&mut other, GET, "hello").await;

        let mut refused = server.connect().await;
        refused.write_all(GET).await.unwrap();
        let said = rest(&mut refused).await;
        assert!(said.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{said}");
        assert!(said.contains("too many connections: 2 connections") && said.contains("try again later"), "{said}");
        server.wait_for_metric(&format!("http_refused_connections_total{{port=\"test\",cause=\"{cause}\"}} 1\n")).await;

        server.release.notify_one();
        assert!(rest(&mut busy).await.ends_with("done"), "the one that was there first is answered");
        server.wait_for_metric("http_connections{port=\"test\"} 1\n").await;
        // The place is free again.
        answer(&mut server.connect().await, GET, "hello").await;
        drop(other);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed() {
    let server = Running::start(HttpLimits { idle_timeout: Duration::from_millis(200), ..limits() }, None).await;
    let mut stream = server.connect().await;
    answer(&mut stream, GET, "hello").await;
    assert_eq!(rest(&mut stream).await, "");
    server.wait_for_metric("http_connections{port=\"test\"} 0\n").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_take_its_answer_is_cut_off() {
    let server = Running::start(HttpLimits { write_timeout: Duration::from_millis(200), ..limits() }, None).await;
    let mut stream = server.connect().await;
    stream.write_all(b"GET /large HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    server.wait_for_metric("http_closed_connections_total{port=\"test\",cause=\"write\"} 1\n").await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_limited_in_size_and_in_time() {
    let server = Running::start(HttpLimits { idle_timeout: Duration::from_millis(200), ..limits() }, None).await;
    let post = |length: usize| format!("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n");
    let mut stream = server.connect().await;
    let said = answer(&mut stream, format!("{}hello", post(5)).as_bytes(), "hello").await;
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    let mut large = server.connect().await;
    large.write_all(post(1_001).as_bytes()).await.unwrap();
    let mut status = [0; 12];
    large.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 413");
    let mut stalled = server.connect().await;
    stalled.write_all(format!("{}hel", post(5)).as_bytes()).await.unwrap();
    let said = rest(&mut stalled).await;
    assert!(!said.starts_with("HTTP/1.1 200"), "{said}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_answers_what_has_begun_and_accepts_nothing_new() {
    let server = Running::start(limits(), None).await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    let mut idle = server.connect().await;
    answer(&mut idle, GET, "hello").await;
    server.wait_for_metric("http_connections{port=\"test\"} 2\n").await;
    server.shutdown.request();
    assert_eq!(rest(&mut idle).await, "", "an idle connection is closed at once");
    let begun = Instant::now();
    while TcpStream::connect(server.address).await.is_ok() {
        assert!(begun.elapsed() < PATIENCE, "still listening");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!server.served.is_finished(), "a request is still being answered");
    server.release.notify_one();
    assert!(rest(&mut busy).await.ends_with("done"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_does_not_wait_for_ever() {
    let server = Running::start(HttpLimits { drain: Duration::from_millis(100), ..limits() }, None).await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    server.wait_for_metric("http_connections{port=\"test\"} 1\n").await;
    server.stop().await;
    assert_eq!(rest(&mut busy).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_served_and_plain_text_is_not() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    let files = TlsFiles {
        certificate: folder.join("first.crt"),
        certificate_option: "--tls-cert",
        key: folder.join("first.key"),
        key_option: "--tls-key",
        protocols: tls::HTTP,
    };
    let server = Running::start(limits(), Some(ServerTls::load(files).unwrap())).await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("first.crt")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let name = "localhost".try_into().unwrap();
    let mut stream = connector.connect(name, server.connect().await).await.unwrap();
    answer(&mut stream, GET, "hello").await;

    let mut plain = server.connect().await;
    plain.write_all(GET).await.unwrap();
    assert!(!rest(&mut plain).await.contains("hello"));
    server.stop().await;
}

use clap::Parser as _;
use datafusion_postgres::pgwire::api::{ConnectionManager, auth::sasl::scram::ScramAuth};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use netverdict_service::secret::SecretFile;

use crate::{Executor, Options, postgres::login::User, tables::Store, threads::Threads, unflushed::Collectors};

/// The whole time of a test: far more than the connection is given.
const PATIENCE: Duration = Duration::from_secs(20);
const STARTUP: &[u8] = b"\0\0\0\x2b\0\x03\0\0user\0netverdict\0database\0postgres\0\0";

async fn connection(folder: &std::path::Path, login_timeout: Duration) -> Connection {
    let data = folder.join("data");
    let options = Options::parse_from(["netverdict-query", "--data-dir", data.to_str().expect("UTF-8")]);
    let metrics = Arc::new(Metrics::default());
    let collectors = Arc::new(Collectors::new(&options.data, None, Arc::clone(&metrics)).expect("collectors"));
    let store = Arc::new(Store::open(&data, collectors, Arc::clone(&metrics)).expect("a store"));
    let threads = Threads::start(1).expect("threads");
    let executor = Executor::new(store, threads, &options.limits, Arc::clone(&metrics)).await.expect("an executor");
    let secret = SecretFile::new(folder.join("secret"), "--secret-file").load_or_create().expect("a secret");
    let manager = Arc::new(ConnectionManager::new());
    let scram = ScramAuth::new(Arc::new(User::new(&secret).expect("a user")));
    Connection {
        acceptor: None,
        login: Arc::new(Login::new(scram, Arc::clone(&manager), false)),
        cancel: Arc::new(DefaultCancelHandler::new(manager)),
        statements: Arc::new(Statements::new(executor)),
        metrics,
        login_timeout,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_log_in_is_not_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    // Silent, in the middle of a message, after the first one, and in the middle of the second.
    for sent in [b"".as_slice(), &STARTUP[..6], &STARTUP[..20], STARTUP, &[STARTUP, b"p\0\0\0\x30SCRAM"].concat()] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let mut client = TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (server, _) = listener.accept().await.expect("a client");
        client.write_all(sent).await.expect("sent");
        let connection = connection(folder.path(), Duration::from_millis(300)).await;
        let begun = Instant::now();
        timeout(PATIENCE, connection.serve(server)).await.expect("the connection ends").expect("without an error");
        assert!(begun.elapsed() >= Duration::from_millis(300), "{sent:?}: {:?}", begun.elapsed());
        let mut received = Vec::new();
        timeout(PATIENCE, client.read_to_end(&mut received)).await.expect("the socket is closed").expect("read");
        let received = String::from_utf8_lossy(&received).into_owned();
        // Before it is known whether the client wants TLS, there is no message that it could read.
        assert_eq!(received.contains("no login within 300ms"), sent.len() > 8, "{sent:?}: {received}");
    }
}

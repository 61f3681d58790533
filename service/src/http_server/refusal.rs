//! The answer to a connection beyond the cap: sent without reading a request, and with little effort.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::connection_limit::Refused;

/// Refusals that are being sent at once; beyond that connections are closed without a word.
pub(super) const AT_ONCE: usize = 32;
const PATIENCE: Duration = Duration::from_secs(1);
/// Most that is read of a request that is not answered.
const MOST_READ: u64 = 64 << 10;

/// Answers 503 and closes.
pub(super) async fn send(mut stream: TcpStream, refused: Refused) {
    let body = format!("too many connections: {refused}; close some, or try again later\n");
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\nretry-after: 1\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let said = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        // Closing a socket with unread bytes resets it, and the client may then never see the answer.
        tokio::io::copy(&mut (&mut stream).take(MOST_READ), &mut tokio::io::sink()).await
    };
    // A client that does not listen is no trouble of ours.
    let _ = tokio::time::timeout(PATIENCE, said).await;
}

//! The collector, asked over its Unix socket: one line of JSON each way.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use netverdict_probe::{Announcement, Answer};

const SOCKET: &str = "collector.sock";
/// For everything but waiting for the pod.
const PATIENCE: Duration = Duration::from_secs(3);
const LARGEST: u64 = 64 << 10;

/// Announces a pod and waits for the answer.
///
/// # Errors
/// No collector answers in time.
pub(crate) fn announce(run_dir: &Path, announcement: &Announcement) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(run_dir.join(SOCKET))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(Duration::from_millis(announcement.wait_ms) + PATIENCE))?;
    let mut line = serde_json::to_vec(announcement)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(LARGEST)).read_until(b'\n', &mut answer)?;
    if answer.is_empty() {
        return Err(io::Error::other("the collector has hung up; its log says why"));
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// # Errors
/// No collector listens.
pub(crate) fn is_there(run_dir: &Path) -> io::Result<()> {
    UnixStream::connect(run_dir.join(SOCKET)).map(drop)
}

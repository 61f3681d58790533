//! The Unix socket that netverdict-cni asks: one line of JSON each way. Only root reaches it, and each message is bounded in
//! size and time.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use netverdict_probe::{Announcement, Answer, MOST_ADDRESSES, prepare_run_dir};
use netverdict_service::{error_chain::chain, queue::QueueSender, shutdown::Shutdown};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, oneshot},
    task::JoinSet,
};

use crate::control::Announced;

/// Plugins that are answered at once: a kubelet starts a few hundred pods at most.
pub(super) const AT_ONCE: usize = 512;
const SOCKET: &str = "collector.sock";
/// An announcement names a pod, some addresses and an interface or two.
const LARGEST: u64 = 64 << 10;
/// Most host ends of one namespace.
const MOST_INTERFACES: usize = 64;
/// For sending a line and for reading one.
const PATIENCE: Duration = Duration::from_secs(2);
/// Longest that a plugin may wait for its pod.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The socket. Its file stays when the collector ends, because by then it may be the next collector's. A plugin that
/// connects while no collector listens is refused at once.
///
/// # Errors
/// The folder or the socket cannot be made, or others can write to the folder.
pub(super) fn bind(run_dir: &Path) -> anyhow::Result<UnixListener> {
    let remedy = || format!("{} cannot be used; choose another with --run-dir", run_dir.display());
    prepare_run_dir(run_dir).with_context(remedy)?;
    let path = run_dir.join(SOCKET);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(remedy),
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(remedy)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).with_context(remedy)?;
    Ok(listener)
}

/// Answers until the end is requested.
pub(super) async fn serve(
    listener: UnixListener,
    announced: QueueSender<Announced>,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shutdown.requested() => break,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        match (accepted, places.clone().try_acquire_owned()) {
            (Ok((stream, _)), Ok(place)) => {
                let announced = announced.clone();
                connections.spawn(async move {
                    if let Err(error) = answer(stream, &announced).await {
                        tracing::warn!(error = %format!("{error:#}"), "announcement not answered");
                    }
                    drop(place);
                });
            }
            // The plugin attaches the pinned programs by itself.
            (Ok(_), Err(_)) => tracing::warn!("too many announcements at once, refusing one"),
            (Err(error), _) => {
                tracing::warn!(error = %chain(&error), "announcement not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
    Ok(())
}

async fn answer(mut stream: UnixStream, announced: &QueueSender<Announced>) -> anyhow::Result<()> {
    let peer = stream.peer_cred().context("nobody knows who asks")?;
    let own = rustix::process::geteuid().as_raw();
    if ![0, own].contains(&peer.uid()) {
        bail!("user {} asks; only root may", peer.uid());
    }
    let mut line = Vec::new();
    let (read, mut write) = stream.split();
    let mut reader = BufReader::new(read.take(LARGEST));
    tokio::time::timeout(PATIENCE, reader.read_until(b'\n', &mut line))
        .await
        .context("no announcement came in time")??;
    let announcement = parse(&line)?;
    let wait = Duration::from_millis(announcement.wait_ms);
    let (sender, receiver) = oneshot::channel();
    let sent = announced.send_async(Announced { announcement, answer: sender });
    tokio::time::timeout(PATIENCE, sent).await.context("the control thread is busy")?.ok().context("it has ended")?;
    let answer: Answer =
        tokio::time::timeout(wait + PATIENCE, receiver).await.context("the control thread does not answer")??;
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    tokio::time::timeout(PATIENCE, write.write_all(&text)).await.context("the plugin does not read")??;
    Ok(())
}

fn parse(line: &[u8]) -> anyhow::Result<Announcement> {
    let mut announcement: Announcement = serde_json::from_slice(line).context("an announcement cannot be read")?;
    announcement.claim.check().map_err(anyhow::Error::msg)?;
    if announcement.found.len() > MOST_INTERFACES {
        bail!("{} interfaces for one namespace, expected at most {MOST_INTERFACES}", announcement.found.len());
    }
    for found in &mut announcement.found {
        found.addresses.truncate(MOST_ADDRESSES);
        found.link_local.truncate(MOST_ADDRESSES);
        if found.netns_cookie != announcement.claim.netns_cookie {
            bail!("interface {} leads to another namespace than the one announced", found.ifindex);
        }
    }
    announcement.wait_ms = announcement.wait_ms.min(u64::try_from(LONGEST_WAIT.as_millis()).unwrap_or(u64::MAX));
    Ok(announcement)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(container_id: &str, cookies: [u64; 2]) -> String {
        format!(
            r#"{{"claim":{{"boot_id":"b","netns_cookie":{},"container_id":"{container_id}","interface":"eth0",
            "pod":{{"namespace":"shop","name":"web"}},"pod_uid":"u","addresses":["10.0.0.1"]}},
            "found":[{{"ifindex":7,"name":"veth7","netns_cookie":{},"pod_uid":null,"has_processes":false,
            "addresses":[],"link_local":[],"born":null}}],"wait_ms":99999999}}"#,
            cookies[0], cookies[1]
        )
    }

    #[test]
    fn announcement_is_checked_before_anybody_acts_on_it() {
        let read = parse(announcement("a", [7, 7]).as_bytes()).unwrap();
        assert_eq!((read.found[0].ifindex, read.wait_ms), (7, 60_000), "the wait is bounded");
        for bad in [announcement("../a", [7, 7]), announcement("a", [7, 8]), String::new(), "[]".to_owned()] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}

use std::{collections::VecDeque, convert::Infallible, path::Path, thread};

use netverdict_cluster::{Change, Generations, Scope};
use netverdict_service::queue::QueueMetrics;

use super::*;

/// Reports these, and then nothing for ever.
struct Script(VecDeque<Update>);

impl Source for Script {
    type Error = Infallible;

    fn name(&self) -> &'static str {
        "script"
    }

    async fn next(&mut self) -> Result<Option<Update>, Infallible> {
        match self.0.pop_front() {
            Some(update) => Ok(Some(update)),
            None => std::future::pending().await,
        }
    }
}

fn pod(name: &str) -> Update {
    let text = format!("{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: a}}}}");
    let (objects, _) = netverdict_manifest::read(&text, name);
    Update::Changes(Change::replace(&Scope::File(Path::new(name).into()), objects))
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn states_begin_when_all_sources_are_in_sync_and_threads_end_when_told_to() {
    let runtime = runtime();
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::new(Generations::open(folder.path()).unwrap());
    let layers = [cluster.add_source("kubernetes"), cluster.add_source("manifests")];
    let scripts = [vec![pod("web"), Update::InSync], vec![pod("pg"), Update::InSync]];
    let queues = QueueMetrics::default();
    let (stop, (updates, updated), (states, seen)) =
        (Shutdown::new(), queues.bounded("cluster_updates", UPDATES), queues.bounded("cluster_states", 4));
    thread::scope(|scope| {
        for (layer, script) in layers.into_iter().zip(scripts) {
            let (updates, stop, runtime) = (updates.clone(), &stop, runtime.handle());
            scope.spawn(move || follow(Script(script.into()), layer, &updates, runtime, stop).unwrap());
        }
        drop(updates);
        scope.spawn(move || merge(cluster, &updated, &states, drop));
        let first = seen.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(first.snapshot.pods.len(), 2);
        stop.request();
    });
    assert!(seen.recv().is_err(), "the threads have ended");
}

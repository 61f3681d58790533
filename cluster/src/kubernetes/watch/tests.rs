//! Servers that a real API server cannot be made to be. The watch of a real one is tested in `tests/cluster`.

mod server;

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::response::{IntoResponse as _, Response};
use netverdict_policy::model::ObjectKey;
use serde_json::{Value, json};
use tempfile::TempDir;

use self::server::{Asked, Server, event, events, list, short, silence, status};
use super::*;
use crate::{Cluster, ClusterState, Generations, Layer};

/// Builds machines are slow at times; nothing waits this long that works.
const PATIENCE: Duration = Duration::from_secs(120);

/// A cluster that a watch feeds.
struct Watched {
    watch: ApiWatch,
    cluster: Cluster,
    layer: Layer,
    server: Server,
    _state: TempDir,
}

impl Watched {
    async fn of(answer: impl Fn(&Asked) -> Option<Response> + Send + Sync + 'static) -> Self {
        let server = Server::start(answer).await;
        let state = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::new(Generations::open(state.path()).unwrap());
        let layer = cluster.add_source("kubernetes");
        let options = WatchOptions {
            discover_every: Duration::from_millis(100),
            grace: Duration::from_millis(50),
            first_backoff: Duration::from_millis(10),
            most_backoff: Duration::from_millis(200),
            ..WatchOptions::default()
        };
        let watch = ApiWatch::open(server.access(), options).await.unwrap();
        Self { watch, cluster, layer, server, _state: state }
    }

    /// Follows the watch until this is so.
    async fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let following = async {
            while !is_so(self) {
                let update = self.watch.update().await;
                self.cluster.apply(self.layer, update);
            }
        };
        if tokio::time::timeout(PATIENCE, following).await.is_err() {
            panic!("not in time: {what}; {:?}", self.cluster.waiting());
        }
    }

    async fn synced(&mut self) -> ClusterState {
        self.until("in sync", |watched| watched.cluster.waiting().is_empty()).await;
        self.cluster.state(0).unwrap()
    }

    /// Follows the watch until the state is so.
    async fn state(&mut self, what: &str, is_so: impl Fn(&ClusterState) -> bool) -> ClusterState {
        let following = async {
            loop {
                let update = self.watch.update().await;
                self.cluster.apply(self.layer, update);
                if let Some(state) = self.cluster.state(0).filter(&is_so) {
                    return state;
                }
            }
        };
        match tokio::time::timeout(PATIENCE, following).await {
            Ok(state) => state,
            Err(_) => panic!("not in time: {what}; {:?}", self.cluster.state(0)),
        }
    }

    /// The reasons why there is no state yet, once there are some.
    async fn reason(&mut self) -> String {
        let told = |watched: &Self| {
            watched.cluster.waiting().iter().any(|line| {
                line.starts_with("kubernetes: cannot") || line.contains("did not") || line.contains("may not")
            })
        };
        self.until("a reason", told).await;
        self.cluster.waiting().join("; ")
    }
}

fn pod(name: &str, version: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": name, "resourceVersion": version},
           "spec": {"nodeName": "n"}, "status": {"phase": "Running"}})
}

fn objects(watch: &ApiWatch, kind: &str) -> u64 {
    watch.status().figures().iter().find(|(known, _)| **known == *kind).map_or(0, |(_, figures)| figures.objects)
}

fn names(state: &ClusterState) -> Vec<&str> {
    state.snapshot.pods.keys().map(|key: &ObjectKey| key.name.as_str()).collect()
}

#[tokio::test]
async fn a_list_that_does_not_end_is_given_up_and_never_taken_for_complete() {
    let same_page = |asked: &Asked| {
        (asked.is_for("pods") && !asked.is_streaming_list())
            .then(|| list(&[pod("a", "1"), pod("b", "1")], "1", Some("again")))
    };
    let endless_and_empty = |asked: &Asked| {
        let token = asked.before.to_string();
        (asked.is_for("pods") && !asked.is_streaming_list()).then(|| list(&[], "1", Some(&token)))
    };
    for server in [Watched::of(same_page).await, Watched::of(endless_and_empty).await] {
        let mut watched = server;
        let reason = watched.reason().await;
        assert!(reason.contains("does not end") && reason.contains("not watched: pods"), "{reason}");
        assert!(watched.cluster.state(0).is_none());
    }
}

#[tokio::test]
async fn a_server_that_fails_at_first_is_asked_until_it_answers() {
    let mut watched = Watched::of(|asked| {
        let fails = asked.is_for("pods") && !asked.is_watch() && asked.before < 5;
        let codes = [500, 503, 429, 504, 500];
        if fails {
            return Some(status(codes[asked.before], "not now"));
        }
        (asked.is_for("pods") && !asked.is_watch()).then(|| list(&[pod("a", "1")], "1", None))
    })
    .await;
    assert_eq!(names(&watched.synced().await), ["a"]);
    let figures = watched.watch.status().figures();
    let of_pods = figures.iter().find(|(kind, _)| &**kind == "Pod").unwrap().1;
    assert!(of_pods.errors >= 5 && of_pods.objects == 1 && of_pods.lists == 1, "{of_pods:?}");
}

#[tokio::test]
async fn large_objects_are_read_in_pages_that_fit() {
    // 60 MB in all: a page of the size that is asked for first would not be read.
    let large = |number: usize| {
        let mut pod = pod(&format!("p{number:02}"), "1");
        pod["metadata"]["annotations"] = json!({"a": "x".repeat(1 << 20)});
        pod
    };
    let mut watched = Watched::of(move |asked| {
        if !asked.is_for("pods") || asked.is_watch() {
            return None;
        }
        let number = |name: &str| asked.query.get(name).and_then(|text| text.parse::<usize>().ok());
        let (limit, from) = (number("limit").unwrap(), number("continue").unwrap_or(0));
        let to = (from + limit).min(60);
        let items: Vec<Value> = (from..to).map(large).collect();
        Some(list(&items, "1", (to < 60).then(|| to.to_string()).as_deref()))
    })
    .await;
    assert_eq!(watched.synced().await.snapshot.pods.len(), 60);
}

#[tokio::test]
async fn a_watch_that_ends_at_once_loses_nothing_and_is_not_asked_for_without_pause() {
    let mut watched = Watched::of(|asked| {
        if !asked.is_for("pods") || asked.is_streaming_list() {
            return None;
        }
        Some(match (asked.is_watch(), asked.before) {
            (false, _) => list(&[pod("a", "1")], "1", None),
            (true, 20) => short(&event("ADDED", &pod("b", "2"))),
            (true, _) => short(""),
        })
    })
    .await;
    let state = watched.state("the pod that one watch told of", |state| names(state) == ["a", "b"]).await;
    assert_eq!(state.stale, []);
    let watches = |asked: &Asked| asked.is_for("pods") && asked.is_watch() && !asked.is_streaming_list();
    // With pauses of up to 0.2 s, twenty take longer than ten looks at which kinds are served.
    let looks = watched.server.count(|asked| asked.path == "/apis");
    assert!(watched.server.count(watches) <= 20 + 4 * looks, "{looks} looks");
}

#[tokio::test]
async fn a_server_that_ignores_streaming_lists_is_listed_in_pages() {
    let mut watched = Watched::of(|asked| {
        if !asked.is_for("pods") {
            return None;
        }
        Some(match () {
            () if asked.is_streaming_list() => events(&event("ADDED", &pod("old", "1"))),
            () if asked.is_watch() => silence(),
            () => list(&[pod("a", "2")], "2", None),
        })
    })
    .await;
    assert_eq!(names(&watched.synced().await), ["a"]);
}

#[tokio::test]
async fn a_streaming_list_is_complete_at_its_mark_and_becomes_the_watch() {
    let mark = json!({"kind": "Pod", "metadata": {"resourceVersion": "9", "annotations": {"k8s.io/initial-events-end": "true"}}});
    let text = [event("ADDED", &pod("a", "1")), event("BOOKMARK", &mark), event("ADDED", &pod("b", "10"))].concat();
    let mut watched = Watched::of(move |asked| {
        (asked.is_for("pods")).then(|| if asked.is_streaming_list() { events(&text) } else { status(500, "no") })
    })
    .await;
    watched.synced().await;
    watched.until("the pod after the mark", |watched| objects(&watched.watch, "Pod") == 2).await;
    let lists = |asked: &Asked| asked.is_for("pods") && !asked.is_watch();
    assert_eq!(watched.server.count(lists), 0, "one request was enough");
}

#[tokio::test]
async fn an_event_that_cannot_be_read_is_passed_over_by_a_new_list() {
    let listed = Arc::new(AtomicUsize::new(0));
    let mut watched = Watched::of(move |asked| {
        if !asked.is_for("pods") || asked.is_streaming_list() {
            return None;
        }
        Some(if asked.is_watch() {
            match asked.query["resourceVersion"].as_str() {
                "1" => short("{\"type\": \"ADDED\", \"object\": {{{\n"),
                _ => silence(),
            }
        } else {
            match listed.fetch_add(1, Ordering::Relaxed) {
                0 => list(&[pod("a", "1")], "1", None),
                _ => list(&[pod("b", "2")], "2", None),
            }
        })
    })
    .await;
    watched.state("the second list", |state| names(state) == ["b"] && state.stale.is_empty()).await;
}

#[tokio::test]
async fn a_bad_object_keeps_its_last_good_state_and_stalls_nothing() {
    let bad = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "a", "resourceVersion": "2", "labels": {"x": {}}}});
    let text = [event("MODIFIED", &bad), event("ADDED", &pod("b", "3"))].concat();
    let mut watched = Watched::of(move |asked| {
        if !asked.is_for("pods") || asked.is_streaming_list() {
            return None;
        }
        Some(if asked.is_watch() { events(&text) } else { list(&[pod("a", "1")], "1", None) })
    })
    .await;
    let state = watched.state("both", |state| names(state) == ["a", "b"] && !state.troubles.is_empty()).await;
    assert!(state.troubles[0].contains("Pod a/a"), "{:?}", state.troubles);
    assert_eq!(state.stale, [], "an object that is refused is no outage");
}

#[tokio::test]
async fn an_expired_version_is_listed_again_and_what_vanished_is_deleted() {
    let gone = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"});
    let mut watched = Watched::of(move |asked| {
        if !asked.is_for("pods") || asked.is_streaming_list() {
            return None;
        }
        Some(match (asked.is_watch(), asked.before) {
            (false, 0) => list(&[pod("a", "1"), pod("b", "1")], "1", None),
            (false, _) => list(&[pod("b", "1"), pod("c", "5")], "5", None),
            (true, 0) => short(&event("ERROR", &gone)),
            (true, _) => silence(),
        })
    })
    .await;
    watched.state("the second list", |state| names(state) == ["b", "c"]).await;
}

#[tokio::test]
async fn an_outage_is_told_with_its_reason_and_the_last_state_stays() {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = down.clone();
    let mut watched = Watched::of(move |asked| {
        if is_down.load(Ordering::Relaxed) {
            return Some((http::StatusCode::BAD_GATEWAY, "the balancer has no server").into_response());
        }
        (asked.is_for("pods") && !asked.is_watch()).then(|| list(&[pod("a", "1")], "1", None))
    })
    .await;
    watched.synced().await;
    down.store(true, Ordering::Relaxed);
    let state = watched.state("stale", |state| !state.stale.is_empty()).await;
    assert!(state.troubles.iter().any(|line| line.contains("the balancer has no server")), "{:?}", state.troubles);
    assert_eq!(names(&state), ["a"]);
    down.store(false, Ordering::Relaxed);
    watched.state("no longer stale", |state| state.stale.is_empty() && state.troubles.is_empty()).await;
}

#[tokio::test]
async fn an_outage_after_which_the_version_has_expired_lasts_until_the_list() {
    const DOWN: usize = 0;
    const EXPIRED: usize = 1;
    const UP: usize = 2;
    let gone = json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"});
    let phase = Arc::new(AtomicUsize::new(DOWN));
    let now = phase.clone();
    let mut watched = Watched::of(move |asked| {
        if !asked.is_for("pods") || asked.is_streaming_list() {
            return None;
        }
        Some(match (now.load(Ordering::Relaxed), asked.is_watch(), asked.before) {
            (_, false, 0) => list(&[pod("a", "1")], "1", None),
            (DOWN, true, 0) => short(&event("ADDED", &pod("b", "2"))),
            (DOWN, true, _) => status(503, "down"),
            (EXPIRED, true, _) => short(&event("ERROR", &gone)),
            (UP, true, _) => silence(),
            (UP, false, _) => list(&[pod("c", "9")], "9", None),
            _ => status(500, "not yet"),
        })
    })
    .await;
    let state = watched.state("the outage", |state| !state.stale.is_empty()).await;
    let since_ns = state.stale[0].since_ns;
    phase.store(EXPIRED, Ordering::Relaxed);
    let seen = Cell::new(false);
    let tries = |state: &ClusterState| {
        seen.set(seen.get() || state.stale.is_empty());
        state.troubles.iter().any(|line| line.contains("not yet"))
    };
    let state = watched.state("the list that fails", tries).await;
    assert!(!seen.get(), "a watch that is opened to say that it cannot be is no end of an outage");
    assert_eq!(state.stale[0].since_ns, since_ns, "nothing was heard since");
    phase.store(UP, Ordering::Relaxed);
    watched.state("the list", |state| names(state) == ["c"] && state.stale.is_empty()).await;
}

//! A server that answers as an API server could and a real one does not when it is asked to: a script of answers.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    response::{IntoResponse as _, Response},
};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::kubernetes::Access;

/// A request to the server.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) query: BTreeMap<String, String>,
    /// How many requests for the same path came before, of lists or of watches.
    pub(super) before: usize,
}

impl Asked {
    pub(super) fn is_watch(&self) -> bool {
        self.query.contains_key("watch")
    }

    pub(super) fn is_streaming_list(&self) -> bool {
        self.query.contains_key("sendInitialEvents")
    }

    pub(super) fn is_for(&self, plural: &str) -> bool {
        self.path.rsplit('/').next() == Some(plural)
    }
}

pub(super) struct Server {
    folder: TempDir,
    task: JoinHandle<()>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// `answer`: `None` for the answer of an empty cluster that knows no streaming lists.
    pub(super) async fn start(answer: impl Fn(&Asked) -> Option<Response> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = json!({
            "current-context": "a",
            "clusters": [{"name": "a", "cluster": {"server": url}}],
            "users": [{"name": "a", "user": {}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        });
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (answer, kept) = (Arc::new(answer), asked.clone());
        let router = Router::new().fallback(move |request: Request| {
            let (answer, kept) = (answer.clone(), kept.clone());
            async move {
                let asked = note(&request, &mut kept.lock().unwrap());
                answer(&asked).unwrap_or_else(|| of_empty_cluster(&asked))
            }
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { folder, task, asked }
    }

    pub(super) fn access(&self) -> Access {
        Access { kubeconfig: Some(self.folder.path().join("kubeconfig")), context: None }
    }

    /// Requests so far.
    pub(super) fn count(&self, of: impl Fn(&Asked) -> bool) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| of(asked)).count()
    }
}

fn note(request: &Request, all: &mut Vec<Asked>) -> Asked {
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default());
    let query: BTreeMap<String, String> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut asked = Asked { path, query, before: 0 };
    let same = |other: &&Asked| {
        other.path == asked.path
            && (other.is_watch(), other.is_streaming_list()) == (asked.is_watch(), asked.is_streaming_list())
    };
    asked.before = all.iter().filter(same).count();
    all.push(asked.clone());
    asked
}

fn of_empty_cluster(asked: &Asked) -> Response {
    match asked.path.as_str() {
        "/readyz" => "ok".into_response(),
        "/apis" => object(&json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})),
        _ if asked.is_streaming_list() => status(422, "sendInitialEvents is forbidden for watch"),
        _ if asked.is_watch() => silence(),
        _ => list(&[], "1", None),
    }
}

pub(super) fn object(value: &Value) -> Response {
    ([("content-type", "application/json")], value.to_string()).into_response()
}

pub(super) fn list(items: &[Value], version: &str, next: Option<&str>) -> Response {
    object(&json!({"kind": "List", "metadata": {"resourceVersion": version, "continue": next}, "items": items}))
}

pub(super) fn status(code: u16, message: &str) -> Response {
    let body = object(&json!({"kind": "Status", "status": "Failure", "code": code, "message": message}));
    (http::StatusCode::from_u16(code).unwrap(), body).into_response()
}

/// A watch on which nothing happens.
pub(super) fn silence() -> Response {
    events("")
}

/// A watch that sends this text, and then nothing.
pub(super) fn events(text: &str) -> Response {
    let said = stream::iter([Ok::<_, Infallible>(Bytes::from(text.to_owned()))]);
    Response::new(Body::from_stream(said.chain(stream::pending())))
}

/// A watch that sends this text, and ends.
pub(super) fn short(text: &str) -> Response {
    Response::new(Body::from(text.to_owned()))
}

pub(super) fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

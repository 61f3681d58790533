//! A proxy before the API server that alters its answers: failures, a page that comes again and again, tokens that are
//! refused. All other answers are the real server's own, watches included.

use axum::{
    Router,
    body::Body,
    extract::Request,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::StreamExt as _;
use kube::Client;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::server::Server;

/// The proxy's treatment of requests from now on. A change ends the answers that are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Every answer is this failure.
    Fail(u16),
    /// The first page of each list, whichever is asked for.
    SamePage,
    /// This token is refused.
    Refuse(&'static str),
}

pub(crate) struct Proxy {
    url: String,
    mode: watch::Sender<Mode>,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// It asks the server as its admin.
    pub(crate) fn start(server: &Server, mode: Mode) -> Self {
        let (sender, modes) = watch::channel(mode);
        let client = server.client();
        let router = Router::new().fallback(move |request: Request| answer(client.clone(), modes.clone(), request));
        let listener = server.runtime().block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let task = server.runtime().spawn(async move { axum::serve(listener, router).await.expect("served") });
        Self { url, mode: sender, task }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn answer(client: Client, mut modes: watch::Receiver<Mode>, request: Request) -> Response {
    let mode = *modes.borrow_and_update();
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let target = match mode {
        Mode::Pass => target.to_owned(),
        Mode::Fail(code) => return failure(code, "the proxy was told to"),
        Mode::Refuse(token) if bears(&request, token) => return failure(401, "this token is no longer good"),
        Mode::Refuse(_) => target.to_owned(),
        Mode::SamePage if target.contains("sendInitialEvents") => return failure(422, "no streaming lists here"),
        Mode::SamePage => first_page(target),
    };
    let passed_on = axum::http::Request::get(target).body(Vec::new().into()).expect("a request");
    let answered = match client.send(passed_on).await {
        Ok(answered) => answered,
        Err(error) => return failure(502, &error.to_string()),
    };
    let (status, content) = (answered.status(), answered.headers().get(header::CONTENT_TYPE).cloned());
    let body = Body::new(answered.into_body()).into_data_stream();
    let body = Body::from_stream(body.take_until(async move { _ = modes.changed().await }));
    let mut response = (status, body).into_response();
    if let Some(content) = content {
        response.headers_mut().insert(header::CONTENT_TYPE, content);
    }
    response
}

fn bears(request: &Request, token: &str) -> bool {
    let header = request.headers().get(header::AUTHORIZATION);
    header.and_then(|value| value.to_str().ok()).is_some_and(|value| value == format!("Bearer {token}"))
}

/// The same question for two objects, from the beginning.
fn first_page(target: &str) -> String {
    let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
    let kept = query.split('&').filter(|pair| !pair.starts_with("continue="));
    let kept = kept.map(|pair| if pair.starts_with("limit=") { "limit=2" } else { pair });
    format!("{path}?{}", kept.collect::<Vec<_>>().join("&"))
}

fn failure(code: u16, message: &str) -> Response {
    let status = StatusCode::from_u16(code).expect("a status");
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message
    });
    (status, axum::Json(body)).into_response()
}

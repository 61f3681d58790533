//! The health of a service, as Kubernetes asks for it: `/livez`, `/readyz`, and `/healthz` for older probes.
//!
//! Parts register a check each. `/readyz` answers every client with 200 or 503 and names the parts with problems. The text
//! of problems may hold paths and addresses, so only clients that send the token get it.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{Router, extract::RawQuery, extract::State, response::IntoResponse, response::Response, routing::get};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;

use crate::{bearer, secret::SharedSecret};

/// Longest time of one check: a probe of the kubelet waits a second unless told otherwise.
const CHECK_TIMEOUT: Duration = Duration::from_millis(800);
const WITHHELD: &str = "withheld: ask with the token as `Authorization: Bearer`, or read the service's log";

type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Vec<String>> + Send>> + Send + Sync>;

/// Meaning of a part's problems for clients of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The service cannot be relied on.
    Unready,
    /// Worth a look, and no reason to stop using the service.
    Warning,
}

/// The parts of a service and how they are checked. Clones share them.
#[derive(Clone, Default)]
pub struct HealthRegistry {
    parts: Arc<Mutex<Vec<Part>>>,
}

#[derive(Clone)]
struct Part {
    name: &'static str,
    effect: Effect,
    check: Check,
}

/// Result of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartReport {
    pub part: &'static str,
    pub effect: Effect,
    /// Empty if all is well.
    pub problems: Vec<String>,
}

impl fmt::Debug for HealthRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_list().entries(parts.iter().map(|part| part.name)).finish()
    }
}

impl HealthRegistry {
    /// A part whose state is known at any time: `problems` must not block.
    pub fn register(
        &self,
        name: &'static str,
        effect: Effect,
        problems: impl Fn() -> Vec<String> + Send + Sync + 'static,
    ) {
        self.register_check(name, effect, move || std::future::ready(problems()));
    }

    /// A part that has to be tried. A check without an answer in time is a problem.
    pub fn register_check<F>(&self, name: &'static str, effect: Effect, check: impl Fn() -> F + Send + Sync + 'static)
    where
        F: Future<Output = Vec<String>> + Send + 'static,
    {
        let check: Check = Arc::new(move || Box::pin(check()));
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).push(Part { name, effect, check });
    }

    /// Checks all parts, in the order in which they were registered.
    pub async fn reports(&self) -> Vec<PartReport> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut reports = Vec::with_capacity(parts.len());
        for Part { name, effect, check } in parts {
            let checked = tokio::time::timeout(CHECK_TIMEOUT, check()).await;
            let problems = checked.unwrap_or_else(|_| vec![format!("no answer within {CHECK_TIMEOUT:?}")]);
            reports.push(PartReport { part: name, effect, problems });
        }
        reports
    }

    /// `GET /livez`, `/healthz` and `/readyz`. Clients must send `secret` to get the text of problems.
    pub fn router<S: Clone + Send + Sync + 'static>(self, secret: SharedSecret) -> Router<S> {
        // A thread or task that dies ends the process: a process that answers is alive.
        let alive = || async { "ok\n" };
        Router::new()
            .route("/livez", get(alive))
            .route("/healthz", get(alive))
            .route("/readyz", get(ready).with_state(Port { registry: self, secret }))
    }
}

#[derive(Clone)]
struct Port {
    registry: HealthRegistry,
    secret: SharedSecret,
}

/// One line of `/readyz`.
#[derive(Serialize)]
struct Line<'a> {
    part: &'static str,
    /// Whether it makes the service unready.
    unready: bool,
    problem: &'a str,
}

/// 200 when the service can be relied on. A JSON object a line for each problem; with `?verbose`, also for the parts
/// that have none.
async fn ready(State(port): State<Port>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let reports = port.registry.reports().await;
    let told = bearer::check(&headers, &port.secret).is_ok();
    let verbose = query.is_some_and(|query| query.split('&').any(|one| matches!(one, "verbose" | "verbose=true")));
    let mut body = String::new();
    let mut unready = false;
    for PartReport { part, effect, problems } in &reports {
        let stops = *effect == Effect::Unready && !problems.is_empty();
        unready |= stops;
        let mut line = |problem| {
            // Two texts and a flag: JSON refuses nothing of it.
            body += &serde_json::to_string(&Line { part, unready: stops, problem }).unwrap_or_default();
            body.push('\n');
        };
        match problems.as_slice() {
            [] if verbose => line(""),
            [] => {}
            _ if !told => line(WITHHELD),
            problems => problems.iter().for_each(|problem| line(problem)),
        }
    }
    let status = if unready { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (status, [(header::CONTENT_TYPE, "application/jsonl")], body).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::{
        body::{Body, to_bytes},
        extract::Request,
    };
    use tower::ServiceExt as _;

    use super::*;
    use crate::secret::SecretFile;

    async fn ask(router: &Router, path: &str, token: Option<&str>) -> (u16, String) {
        let mut request = Request::builder().uri(path);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 16).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_parts_to_everybody_and_problems_to_who_knows_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = SecretFile::new(folder.path().join("token"), "--token-file");
        let secret = SharedSecret::load_or_create(file).unwrap();
        let token = secret.current().0.reveal().to_owned();
        let (health, full) = (HealthRegistry::default(), Arc::new(AtomicBool::new(false)));
        let is_full = full.clone();
        health.register("source", Effect::Warning, || vec!["/etc/netverdict/a.yaml is broken".into()]);
        health.register("store", Effect::Unready, move || match is_full.load(Ordering::Relaxed) {
            true => vec!["/var/lib: no space left".into()],
            false => Vec::new(),
        });
        let router: Router = health.router(secret);

        let source = format!("{{\"part\":\"source\",\"unready\":false,\"problem\":\"{WITHHELD}\"}}\n");
        assert_eq!(ask(&router, "/readyz", None).await, (200, source.clone()));
        let well = "{\"part\":\"store\",\"unready\":false,\"problem\":\"\"}\n";
        assert_eq!(ask(&router, "/readyz?verbose", None).await, (200, format!("{source}{well}")));
        full.store(true, Ordering::Relaxed);
        let (status, body) = ask(&router, "/readyz", Some("0123456789abcdef")).await;
        assert_eq!(status, 503);
        assert!(body.contains("{\"part\":\"store\",\"unready\":true,") && !body.contains("/var/lib"), "{body}");
        let (status, body) = ask(&router, "/readyz", Some(&token)).await;
        assert_eq!(status, 503);
        assert!(body.contains("a.yaml is broken") && body.contains("no space left"), "{body}");
        for path in ["/livez", "/healthz"] {
            assert_eq!(ask(&router, path, None).await, (200, "ok\n".to_owned()), "unready is not dead");
        }
    }

    #[tokio::test]
    async fn a_check_that_does_not_answer_is_a_problem() {
        let health = HealthRegistry::default();
        health.register_check("store", Effect::Unready, std::future::pending);
        let reports = health.reports().await;
        assert_eq!(reports[0].problems, ["no answer within 800ms"]);
    }
}

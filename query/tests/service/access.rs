//! Access control: which requests are answered.

use serde_json::Value;

use crate::world::{SECRET, Served, World};

#[tokio::test(flavor = "multi_thread")]
async fn only_who_knows_the_secret_is_answered() {
    let world = World::new().await;
    let served = world.serve().await;
    for path in ["/v1/status", "/v1/why?source=a/b&destination=c/d", "/v1/flows", "/v1/sql", "/v1/nothing"] {
        for token in [None, Some("wrong"), Some("")] {
            let mut request = served.client().get(format!("{}{path}", served.http));
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let response = served.raw(request).await;
            assert_eq!(response.status(), 401, "{path} with {token:?}");
            let body: Value = response.json().await.expect("JSON");
            assert_eq!(body["code"], "unauthorized");
        }
    }
    for path in ["/livez", "/healthz", "/readyz", "/metrics"] {
        let response = served.raw(served.client().get(format!("{}{path}", served.http))).await;
        assert_eq!(response.status(), 200, "{path}");
    }
    let metrics = served.raw(served.client().get(format!("{}/metrics", served.http))).await.text().await.expect("text");
    assert!(metrics.contains("netverdict_query_refused_logins_total{protocol=\"http\"} 15"), "{metrics}");
    // Two headers are refused, with any content: the service does not guess which one counts.
    let twice = served.client().get(format!("{}/v1/status", served.http)).bearer_auth(SECRET).bearer_auth("wrong");
    assert_eq!(served.raw(twice).await.status(), 401);
    let (status, body) = served.get("/v1/status").await;
    assert_eq!((status, body["collectors"][0]["status"]["node"].as_str()), (200, Some("demo-node")));
    let (status, body) = served.get("/v1/nothing").await;
    assert_eq!((status, body["code"].as_str()), (404, Some("bad-request")));
    served.stop().await.expect("a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_does_not_open_itself_to_others() {
    let world = World::new().await;
    for (option, remedy) in [("--postgres", "--tls-cert"), ("--http", "TLS proxy")] {
        let options = [option, "0.0.0.0:0"];
        // The later of two values counts, as on a command line that is put together.
        let error = match Served::start(&world, &options).await {
            Ok(_) => panic!("{option} on all addresses was accepted"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains("open to others") && error.contains(remedy), "{error}");
    }
    let served = world.serve().await;
    let taken = served.http.strip_prefix("http://").expect("an address");
    let error = Served::start(&world, &["--http", taken]).await.err().expect("a refusal").to_string();
    assert!(error.contains("is in use by another process"), "{error}");
    assert!(!error.contains(SECRET));
}

//! The state of all nodes, where some collectors answer nonsense, too much, too late, or not at all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, http::StatusCode, response::IntoResponse, routing::get};
use netverdict_flowlog::answer::{CollectorAnswer, CollectorStatus, ServiceStatus};

use crate::world::{NODE, Served, World};

#[tokio::test(flavor = "multi_thread")]
async fn collectors_that_answer_badly_are_told_and_hold_up_nobody() {
    let mut world = World::new().await;
    world.seen("shop/web", "db/pg", 5432, crate::world::ago(5));
    let nonsense = serve(Router::new().fallback(|| async { "<html>nginx</html>" })).await;
    let half = serve(Router::new().fallback(|| async { r#"{"node":"n3","mode":7}"# })).await;
    let endless = serve(Router::new().fallback(|| async { " ".repeat(8 << 20) })).await;
    // The kernel connects; no program answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent_url = format!("http://{}", silent.local_addr().expect("an address"));
    // Bound and not listening: refused as long as it is held.
    let refusing = tokio::net::TcpSocket::new_v4().expect("a socket");
    refusing.bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
    let refusing_url = format!("http://{}", refusing.local_addr().expect("an address"));
    let mut arguments = vec!["--collector-timeout", "500ms"];
    for url in [&nonsense, &half, &endless, &silent_url, &refusing_url] {
        arguments.extend(["--collector", url]);
    }
    let served = world.serve_with(&arguments).await;
    let status = status(&served).await;
    let answered = of(&status, &world.collector.url()).status.as_ref().map(|status| status.node.clone());
    assert_eq!(answered.as_deref(), Some(NODE));
    for (url, expected) in [
        (&nonsense, "its status cannot be read"),
        (&half, "its status cannot be read"),
        (&endless, "its answer is larger than"),
        (&silent_url, "nothing within 500ms"),
        (&refusing_url, "Connection refused"),
    ] {
        let answer = of(&status, url);
        let problem = answer.problem.clone().unwrap_or_default();
        assert!(answer.status.is_none() && problem.contains(expected), "{expected}: {answer:?}");
    }
    assert_eq!(status.collectors.len(), 6);
    let (_, why) = served.get("/v1/why?source=shop/web&destination=db/pg&port=5432").await;
    assert_eq!(why["verdict"], "denied", "the others still answer: {why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_about_many_tables_waits_once_for_a_collector_that_is_silent() {
    let mut world = World::new().await;
    world.seen("shop/web", "db/pg", 5432, crate::world::ago(5));
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            held.push(stream);
        }
    });
    let served = world.serve_with(&["--collector-timeout", "500ms", "--collector", &url]).await;
    let (_, why) = served.get("/v1/why?source=shop/web&destination=db/pg&port=5432").await;
    assert_eq!(why["verdict"], "denied", "{why}");
    assert!(why["stale"].to_string().contains(&url), "{why}");
    let asked = asked.load(Ordering::Relaxed);
    assert!((1..=2).contains(&asked), "for rows of the first table, not of each: {asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_stops_answering_is_told_with_its_node_and_when_it_answered_last() {
    let world = World::new().await;
    let well = Arc::new(AtomicBool::new(true));
    let answer = {
        let well = Arc::clone(&well);
        move || {
            let well = well.load(Ordering::Relaxed);
            let status = CollectorStatus { node: "n7".into(), ..CollectorStatus::default() };
            async move { if well { Json(status).into_response() } else { StatusCode::BAD_GATEWAY.into_response() } }
        }
    };
    let url = serve(Router::new().route("/v1/status", get(answer))).await;
    let served = world.serve_with(&["--collector", &url]).await;
    let node = |status: &ServiceStatus| of(status, &url).status.as_ref().map(|status| status.node.clone());
    assert_eq!(node(&status(&served).await).as_deref(), Some("n7"));
    well.store(false, Ordering::Relaxed);
    let away = loop {
        let status = status(&served).await;
        let answer = of(&status, &url).clone();
        if answer.problem.is_some() {
            break answer;
        }
        // Answers are cached for a moment.
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((away.node.as_deref(), away.problem.as_deref()), (Some("n7"), Some("it answers 502 Bad Gateway")));
    assert!(away.answered.is_some() && away.status.is_none(), "{away:?}");
}

async fn status(served: &Served) -> ServiceStatus {
    let (code, body) = served.get("/v1/status").await;
    assert_eq!(code, 200, "{body}");
    serde_json::from_value(body).expect("a ServiceStatus")
}

fn of<'a>(status: &'a ServiceStatus, url: &str) -> &'a CollectorAnswer {
    let is_it = |answer: &&CollectorAnswer| answer.url.trim_end_matches('/') == url;
    status.collectors.iter().find(is_it).unwrap_or_else(|| panic!("{url} is not in {status:?}"))
}

async fn serve(router: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

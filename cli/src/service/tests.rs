//! Against a socket that answers with fixed bytes: what the tool makes of each answer, whatever the service.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use netverdict_flowlog::answer::SqlAnswer;

use super::*;

fn options(server: &str, token: &str, folder: &tempfile::TempDir) -> ServiceOptions {
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, token).unwrap();
    ServiceOptions { server: Some(server.parse().unwrap()), token_file: Some(token_file), ..ServiceOptions::default() }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// Asks for `/v1/why` where `status` and `body` are what is answered; gives the request's head beside the result.
fn ask(status: &str, body: &str) -> (String, Result<SqlAnswer, ServiceError>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}/base/", listener.local_addr().unwrap());
    let response = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(response.as_bytes()).unwrap();
        String::from_utf8(head).unwrap()
    });
    let folder = tempfile::tempdir().unwrap();
    let parameters = [("source", Some("shop/web".to_owned())), ("at", None)];
    let result = block_on(async {
        let service = Service::connect(&options(&server, "secret\n", &folder)).await.unwrap();
        service.get("/v1/why", &parameters).await
    });
    (answering.join().unwrap(), result)
}

#[test]
fn the_request_carries_the_token_and_only_given_parameters() {
    let (head, result) = ask("200 OK", r#"{"columns":[],"rows":[],"gaps":[],"stale":[],"truncated":false}"#);
    assert!(result.unwrap().rows.is_empty());
    assert!(head.starts_with("GET /base/v1/why?source=shop%2Fweb HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("authorization: Bearer secret\r\n"), "{head}");
}

#[test]
fn an_error_of_the_service_is_told_with_its_remedy() {
    let body = r#"{"code":"unknown-pod","message":"no pod shop/wep is on record","remedy":"did you mean shop/web?"}"#;
    let error = ask("404 Not Found", body).1.unwrap_err();
    assert_eq!(error.to_string(), "no pod shop/wep is on record\n  did you mean shop/web?");
    assert!(!error.may_pass());
}

#[test]
fn a_refused_token_names_the_file() {
    let error = ask("401 Unauthorized", "").1.unwrap_err().to_string();
    assert!(error.contains("refused the token of") && error.contains("--token-file"), "{error}");
}

#[test]
fn another_service_on_the_port_is_recognised() {
    let error = ask("404 Not Found", "<html>nginx</html>").1.unwrap_err().to_string();
    assert!(error.contains("not as a query service does: <html>nginx</html>"), "{error}");
    let error = ask("200 OK", "<html>nginx</html>").1.unwrap_err().to_string();
    assert!(error.contains("cannot understand"), "{error}");
}

#[test]
fn a_question_that_took_too_long_is_told_as_that() {
    for (body, status) in [("", "504 Gateway Timeout"), ("<html>504</html>", "503 Service Unavailable")] {
        let error = ask(status, body).1.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("took too long") && text.contains("--since") && !text.contains("--server"), "{text}");
        assert!(error.may_pass());
    }
}

#[test]
fn nobody_listening_is_told_with_what_to_start() {
    // Bound but not listening: refused for as long as it is held, and no other test can be given the port meanwhile.
    let silent = tokio::net::TcpSocket::new_v4().unwrap();
    silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let server = format!("http://{}", silent.local_addr().unwrap());
    let error = block_on(async {
        let service = Service::connect(&options(&server, "secret", &folder)).await.unwrap();
        service.get::<SqlAnswer>("/v1/why", &[]).await.unwrap_err()
    });
    assert!(error.may_pass());
    let text = error.to_string();
    assert!(
        text.contains("cannot be reached: Connection refused") && text.contains("start netverdict-query"),
        "{text}"
    );
}

#[test]
fn a_token_that_cannot_be_one_is_refused_before_anything_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let mut missing = options("http://127.0.0.1:1", "", &folder);
    let refused = |options: &ServiceOptions| block_on(Service::connect(options)).err().unwrap().to_string();
    let error = refused(&missing);
    assert!(error.contains("empty"), "{error}");
    missing.token_file = Some(folder.path().join("absent"));
    let error = refused(&missing);
    assert!(error.contains("cannot read the token file") && error.contains("start netverdict-query once"), "{error}");
}

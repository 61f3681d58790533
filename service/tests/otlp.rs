//! Spans reach a real OTLP receiver, gRPC over HTTP/2, under the name of the service.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use netverdict_service::telemetry::{LogFormat, ServiceIdentity, Telemetry, TelemetryOptions, continue_trace};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::any_value::Value,
};
use prost::Message as _;
use tokio::net::{TcpListener, TcpStream};

/// Of a gRPC message: whether it is compressed, and its length.
const PREFIX_LENGTH: usize = 5;

/// Takes one export, and answers with success.
async fn receive(stream: TcpStream) -> ExportTraceServiceRequest {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    // The connection moves on only while a task waits for it.
    tokio::spawn(async move { while connection.accept().await.is_some() {} });
    assert_eq!(request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let mut body = request.into_body();
    let mut message = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.unwrap();
        body.flow_control().release_capacity(part.len()).unwrap();
        message.extend_from_slice(&part);
    }
    let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut answer = respond.send_response(head, false).unwrap();
    let empty = ExportTraceServiceResponse::default().encode_to_vec();
    let mut framed = vec![0; PREFIX_LENGTH];
    framed[1..].copy_from_slice(&u32::try_from(empty.len()).unwrap().to_be_bytes());
    framed.extend(empty);
    answer.send_data(Bytes::from(framed), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    answer.send_trailers(trailers).unwrap();
    ExportTraceServiceRequest::decode(&message[PREFIX_LENGTH..]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_a_receiver_under_the_name_of_the_service() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let received = tokio::spawn(async move { receive(listener.accept().await.unwrap().0).await });
    let options = TelemetryOptions {
        log: "info".to_owned(),
        log_format: LogFormat::Json,
        otlp_endpoint: format!("http://{address}").parse().ok(),
    };
    let service = ServiceIdentity { name: "netverdict-test", version: "1.2.3", quiet: "h2=warn" };
    let telemetry = Telemetry::start(service, &options).unwrap();
    let span = tracing::info_span!("question", pod = "db/pg");
    let mut headers = http::HeaderMap::new();
    headers.insert("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap());
    continue_trace(&span, &headers);
    span.in_scope(|| tracing::info!("asked"));
    drop(span);
    // Remaining spans are sent at the end.
    tokio::task::spawn_blocking(|| telemetry.stop()).await.unwrap();

    let request = tokio::time::timeout(Duration::from_secs(30), received).await.unwrap().unwrap();
    let [spans] = request.resource_spans.as_slice() else { panic!("{request:?}") };
    let attributes = &spans.resource.as_ref().unwrap().attributes;
    let text = |key: &str| match &attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value {
        Some(Value::StringValue(text)) => Some(text.clone()),
        _ => None,
    };
    assert_eq!(text("service.name").as_deref(), Some("netverdict-test"));
    assert_eq!(text("service.version").as_deref(), Some("1.2.3"));
    let spans: Vec<_> = spans.scope_spans.iter().flat_map(|scope| &scope.spans).collect();
    let [question] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!(question.name, "question");
    let hexadecimal = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hexadecimal(&question.trace_id), "0af7651916cd43dd8448eb211c80319c", "the trace of who asked");
    assert_eq!(hexadecimal(&question.parent_span_id), "b7ad6b7169203331");
}

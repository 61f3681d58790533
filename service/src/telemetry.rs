//! The telemetry of a service: log lines on standard error, and traces over OTLP if an endpoint is given. One set of
//! options for all services. It knows nothing of the content of log lines.

use std::{env, io::IsTerminal as _};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use http::{HeaderMap, HeaderName};
use opentelemetry::{KeyValue, global, propagation::Extractor, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::endpoint_url::EndpointUrl;

/// OpenTelemetry's own variables for the receiver of traces.
const STANDARD_ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const OTLP_EXAMPLE: &str = "http://127.0.0.1:4317";

/// Logs and traces.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Telemetry")]
pub struct TelemetryOptions {
    /// Filter of log lines, in the form of `RUST_LOG`: `info`, `info,netverdict_query=debug`, …
    #[arg(long, env = "NETVERDICT_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// Text lines for people, or JSON objects for log collectors.
    #[arg(long, env = "NETVERDICT_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Receiver of traces (OTLP over gRPC, for instance `http://127.0.0.1:4317`). Without it, OpenTelemetry's own
    /// variable `OTEL_EXPORTER_OTLP_ENDPOINT` counts; without either, no traces are sent.
    #[arg(long, env = "NETVERDICT_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<EndpointUrl>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Which service logs and sends traces.
#[derive(Clone, Copy, Debug)]
pub struct ServiceIdentity {
    /// As `service.name`, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` has another.
    pub name: &'static str,
    pub version: &'static str,
    /// Filter directives before those of `--log`, for libraries that log too much; may be empty.
    pub quiet: &'static str,
}

/// Logging and tracing of the process; [`Self::stop`] sends the traces that are left.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sets up logging for the whole process. With an endpoint it has to be called inside a Tokio runtime.
    ///
    /// # Errors
    /// The filter or the endpoint cannot be used, or logging has been set up before.
    pub fn start(service: ServiceIdentity, options: &TelemetryOptions) -> anyhow::Result<Self> {
        let TelemetryOptions { log, log_format, otlp_endpoint } = options;
        let filter = EnvFilter::try_new(format!("{},{log}", service.quiet)).with_context(|| {
            format!("--log: expected a filter such as `info,netverdict_query=debug`, found `{log}`")
        })?;
        let standard = STANDARD_ENDPOINTS.iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
        let traces = match otlp_endpoint.as_ref().filter(|endpoint| !endpoint.reveal().is_empty()) {
            None if !standard => None,
            endpoint => Some(provider(service, endpoint)?),
        };
        global::set_text_map_propagator(TraceContextPropagator::new());
        let spans =
            traces.as_ref().map(|traces| tracing_opentelemetry::layer().with_tracer(traces.tracer(service.name)));
        let lines =
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
        let registry = tracing_subscriber::registry().with(filter).with(spans);
        match log_format {
            LogFormat::Text => registry.with(lines).try_init(),
            LogFormat::Json => registry.with(lines.json()).try_init(),
        }
        .context("logging is set up already")?;
        Ok(Self { traces })
    }

    /// Sends the spans that have not been sent.
    pub fn stop(self) {
        if let Some(Err(error)) = self.traces.map(|traces| traces.shutdown()) {
            tracing::warn!(%error, "traces not sent");
        }
    }
}

/// Makes a request's span part of the client's trace, as the `traceparent` header says (W3C Trace Context). Without the
/// header a new trace begins.
pub fn continue_trace(span: &Span, headers: &HeaderMap) {
    let context = global::get_text_map_propagator(|propagator| propagator.extract(&Headers(headers)));
    // Fails where no traces are sent: then there is nothing to continue.
    let _ = span.set_parent(context);
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

fn provider(service: ServiceIdentity, endpoint: Option<&EndpointUrl>) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder().with_tonic();
    let exporter = match endpoint {
        Some(endpoint) => {
            exporter.with_endpoint(endpoint.check(OTLP_EXAMPLE).context("--otlp-endpoint")?.reveal()).build()
        }
        // From OpenTelemetry's variables.
        None => exporter.build(),
    };
    let exporter = exporter.with_context(|| match endpoint {
        Some(endpoint) => format!("--otlp-endpoint: `{endpoint}` cannot be used"),
        None => "the endpoint of OTEL_EXPORTER_OTLP_ENDPOINT cannot be used".to_owned(),
    })?;
    let resource = resource(service, env::var("OTEL_SERVICE_NAME").ok(), env::var("OTEL_RESOURCE_ATTRIBUTES").ok());
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// The environment's name and attributes replace ours.
fn resource(service: ServiceIdentity, name: Option<String>, attributes: Option<String>) -> Resource {
    let resource = Resource::builder().with_attribute(KeyValue::new("service.version", service.version));
    let named = name.is_some_and(|name| !name.is_empty())
        || attributes.is_some_and(|all| all.split(',').any(|one| one.trim_start().starts_with("service.name=")));
    if named { resource.build() } else { resource.with_service_name(service.name).build() }
}

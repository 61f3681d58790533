//! Logs, and traces where asked for. It knows nothing of what is logged.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::options::{LogFormat, TelemetryOptions};

/// Held for as long as the process tells of itself; `stop` sends what is left.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sets up logging for the whole process.
    ///
    /// # Errors
    /// When the filter or the endpoint is none, or logging has been set up before.
    pub fn start(options: &TelemetryOptions) -> anyhow::Result<Self> {
        let TelemetryOptions { log, log_format, otlp_endpoint } = options;
        let filter = EnvFilter::try_new(log).with_context(|| format!("--log: `{log}` is no filter"))?;
        let traces = otlp_endpoint.as_deref().map(exporter).transpose()?;
        let spans = traces.as_ref().map(|t| tracing_opentelemetry::layer().with_tracer(t.tracer("netverdict-query")));
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

    /// Sends what has not been sent.
    pub fn stop(self) {
        if let Some(Err(error)) = self.traces.map(|traces| traces.shutdown()) {
            tracing::warn!(%error, "traces not sent");
        }
    }
}

fn exporter(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .with_context(|| format!("--otlp-endpoint: `{endpoint}` cannot be used"))?;
    let resource = Resource::builder().with_service_name("netverdict-query").build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

//! The state that all requests share, their parameters, and errors as responses.

use std::time::Duration;

use axum::{
    Json,
    extract::{Query, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use netverdict_service::{health::HealthRegistry, secret::SharedSecret};

use crate::{Executor, QueryError, flows::Followers, history::History};

/// Longest body of a request, in bytes: room for a statement that is too long (`guard::MAX_STATEMENT`) and gets an answer
/// that says so.
pub(super) const MAX_BODY: usize = 1 << 20;

/// The state that all requests share.
pub(super) struct Api {
    pub(super) executor: Executor,
    pub(super) history: History,
    pub(super) followers: Followers,
    pub(super) secret: SharedSecret,
    pub(super) health: HealthRegistry,
    pub(super) max_rows: usize,
    pub(super) statement_timeout: Duration,
    pub(super) started: DateTime<Utc>,
}

impl Api {
    /// An answer that may take several statements, in the time of one.
    pub(super) async fn in_time<T>(
        &self,
        answer: impl Future<Output = Result<T, QueryError>>,
    ) -> Result<T, QueryError> {
        let timeout = self.statement_timeout;
        tokio::time::timeout(timeout, answer).await.unwrap_or(Err(QueryError::Timeout(timeout)))
    }
}

impl IntoResponse for QueryError {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::BadRequest { .. } | Self::BadSql(_) => StatusCode::BAD_REQUEST,
            Self::UnknownPod { .. } => StatusCode::NOT_FOUND,
            Self::RefusedSql { .. } => StatusCode::FORBIDDEN,
            Self::TooComplex { .. } | Self::Resources(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unreadable(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.answer())).into_response()
    }
}

/// The parameters of a URL, or an error that says which of them is wrong.
pub(super) fn parameters<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, QueryError> {
    query.map(|Query(parameters)| parameters).map_err(|rejection| {
        let text = rejection.body_text();
        let message = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text).to_owned();
        QueryError::BadRequest { message, remedy: String::new() }
    })
}

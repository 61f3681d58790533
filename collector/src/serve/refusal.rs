//! Answers of the rows port that are errors.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use netverdict_flowlog::answer::ErrorAnswer;

pub(super) fn internal(message: &str) -> Response {
    tracing::error!(error = message, "not served");
    refusal(StatusCode::INTERNAL_SERVER_ERROR, "internal", message, "")
}

pub(super) fn refusal(status: StatusCode, code: &str, message: &str, remedy: &str) -> Response {
    (status, Json(ErrorAnswer { code: code.into(), message: message.into(), remedy: remedy.into() })).into_response()
}

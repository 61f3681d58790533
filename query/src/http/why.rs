//! `GET /v1/why`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use chrono::Utc;
use netverdict_flowlog::answer::WhyAnswer;

use super::api::{Api, parameters};
use crate::{
    QueryError,
    why::{Parameters, Question},
};

pub(super) async fn why(
    State(api): State<Arc<Api>>,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<WhyAnswer>, QueryError> {
    let question = Question::of(&parameters(query)?, Utc::now())?;
    Ok(Json(api.in_time(Box::pin(crate::why::answer(&api.history, &question))).await?))
}

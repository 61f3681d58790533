//! `GET /v1/flows`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use chrono::Utc;
use netverdict_flowlog::answer::FlowsAnswer;

use super::api::{Api, parameters};
use crate::{
    QueryError,
    flows::{self, Parameters},
};

pub(super) async fn flows(
    State(api): State<Arc<Api>>,
    query: Result<Query<Parameters>, QueryRejection>,
) -> Result<Json<FlowsAnswer>, QueryError> {
    let parameters = parameters(query)?;
    let answer = flows::answer(&api.executor, &api.followers, &parameters, Utc::now());
    Ok(Json(Box::pin(api.in_time(answer)).await?))
}

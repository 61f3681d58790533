//! What a connection may set. Its `statement_timeout` is kept here and holds below the service's own; all else has no
//! effect beyond the connection, or none at all.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use datafusion::{
    common::ParamValues,
    logical_expr::LogicalPlan,
    prelude::SessionContext,
    sql::sqlparser::ast::{Set, Statement},
};
use datafusion_postgres::{
    QueryHook,
    hooks::HookClient,
    pgwire::{
        api::{
            ClientInfo, Type,
            results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Response, Tag},
        },
        error::PgWireResult,
    },
};
use futures::stream;
use netverdict_service::quantity;

use super::session::to_client;
use crate::{Executor, QueryError, execute::Limit};

const TIMEOUT: &str = "statement_timeout";
/// Where a connection's timeout is kept, in milliseconds.
const KEY: &str = "statement_timeout_ms";
/// What may be set without an effect beyond the connection. The first ones have one on it, the others are taken so
/// that drivers that always set them can connect.
const SETTABLE: [&str; 16] = [
    "application_name",
    "bytea_output",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "search_path",
    "timezone",
    "client_encoding",
    "client_min_messages",
    "default_transaction_read_only",
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "row_security",
    "standard_conforming_strings",
    "synchronize_seqscans",
    "transaction_timeout",
];
/// So many of them are passed on.
const PASSED: usize = 6;

/// The time that a statement of a connection has from now on.
pub(super) fn limit(executor: &Executor, metadata: &HashMap<String, String>) -> Limit {
    let set = metadata.get(KEY).and_then(|text| text.parse().ok());
    executor.limit(set.map(Duration::from_millis))
}

/// A bare number is milliseconds, as PostgreSQL has it; 0 and `default` leave the service's own.
fn set_timeout(metadata: &mut HashMap<String, String>, value: &str) -> PgWireResult<Response> {
    let text = value.trim_matches(['\'', '"']).trim().replace(' ', "");
    let set = match text.as_str() {
        "" | "0" => None,
        text if text.eq_ignore_ascii_case("default") => None,
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => Some(quantity::duration(&format!("{text}ms"))),
        text => Some(quantity::duration(text)),
    };
    match set.transpose() {
        Ok(None) => metadata.remove(KEY),
        Ok(Some(timeout)) => metadata.insert(KEY.into(), timeout.as_millis().to_string()),
        Err(expected) => {
            let remedy = "set it for instance to 500 (milliseconds), '2s' or '1min'".into();
            return Err(to_client(QueryError::BadRequest { message: format!("{TIMEOUT}: {expected}"), remedy }));
        }
    };
    Ok(Response::Execution(Tag::new("SET")))
}

/// As PostgreSQL shows it.
fn milliseconds(timeout: Duration) -> String {
    match timeout.as_millis() {
        whole if whole % 1_000 == 0 => format!("{}s", whole / 1_000),
        part => format!("{part}ms"),
    }
}

fn shown(name: &str, value: &str) -> PgWireResult<QueryResponse> {
    let fields = Arc::new(vec![FieldInfo::new(name.into(), None, None, Type::VARCHAR, FieldFormat::Text)]);
    let mut encoder = DataRowEncoder::new(Arc::clone(&fields));
    encoder.encode_field(&Some(value))?;
    Ok(QueryResponse::new(fields, stream::iter([Ok(encoder.take_row())])))
}

/// Stands before the hook that would pass any `SET` on to DataFusion, and with it limits and paths of the service.
pub(super) struct Settings(pub(super) Executor);

impl Settings {
    /// `None` lets it pass.
    fn check(&self, statement: &Statement) -> Option<PgWireResult<Response>> {
        let Statement::Set(set) = statement else { return None };
        let name = match set {
            Set::SetTimeZone { .. } => return None,
            // Sessions only read, whatever they say of their transactions.
            Set::SetTransaction { .. } | Set::SetNames { .. } => return Some(Ok(Response::Execution(Tag::new("SET")))),
            Set::SingleAssignment { hivevar: false, variable, .. } => variable.to_string().to_lowercase(),
            other => other.to_string(),
        };
        match SETTABLE.iter().position(|known| *known == name) {
            Some(0..PASSED) => None,
            Some(_) => Some(Ok(Response::Execution(Tag::new("SET")))),
            None => {
                let refused = QueryError::RefusedSql {
                    message: format!("`{name}` cannot be set here"),
                    remedy: "limits of the service are set with its options",
                };
                let result = Err(refused);
                self.0.metrics().refused::<()>(&result, Duration::ZERO);
                result.map_err(to_client).err().map(Err)
            }
        }
    }
}

#[async_trait]
impl QueryHook for Settings {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        match statement {
            Statement::Set(Set::SingleAssignment { hivevar: false, variable, values, .. })
                if variable.to_string().eq_ignore_ascii_case(TIMEOUT) =>
            {
                let value = values.first().map(ToString::to_string).unwrap_or_default();
                Some(set_timeout(client.metadata_mut(), &value))
            }
            Statement::ShowVariable { variable } => match variable.as_slice() {
                [name] if name.value.eq_ignore_ascii_case(TIMEOUT) => {
                    let timeout = limit(&self.0, client.metadata()).timeout;
                    Some(shown(TIMEOUT, &milliseconds(timeout)).map(Response::Query))
                }
                _ => None,
            },
            statement => self.check(statement),
        }
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        // Those that pass get their plan from the next hook.
        match self.check(statement) {
            Some(Err(error)) => Some(Err(error)),
            Some(Ok(_)) | None => None,
        }
    }

    async fn handle_extended_query(
        &self,
        _: &Statement,
        _: &LogicalPlan,
        _: &ParamValues,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        None
    }
}

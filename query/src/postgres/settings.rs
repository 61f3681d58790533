//! The settings of a connection. Its `statement_timeout` is kept here and may only shorten the service's own; the other
//! settings have no effect beyond the connection, or none at all.

use std::{collections::HashMap, slice, sync::Arc, time::Duration};

use async_trait::async_trait;
use datafusion::{
    common::ParamValues,
    logical_expr::LogicalPlan,
    prelude::SessionContext,
    sql::sqlparser::ast::{Expr, Set, Statement},
};
use datafusion_postgres::{
    QueryHook,
    hooks::{HookClient, set_show::SetShowHook},
    pgwire::{
        api::{
            ClientInfo, Type,
            results::{DataRowEncoder, FieldFormat, FieldInfo, QueryResponse, Response, Tag},
        },
        error::{PgWireError, PgWireResult},
    },
};
use futures::stream;

use super::client_error::to_client;
use crate::{Executor, QueryError, deadline::Deadline, options};

const TIMEOUT: &str = "statement_timeout";
/// Where a connection's timeout is kept, in milliseconds.
const KEY: &str = "statement_timeout_ms";
const TIME_ZONE: &str = "timezone";
/// Settings without an effect beyond the connection. The first ones have one on it; the others are accepted because some
/// drivers always set them.
const SETTABLE: [&str; 15] = [
    "application_name",
    "bytea_output",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "search_path",
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
/// As many of them go on to the next hook.
const PASSED: usize = 6;

/// The time that a statement of a connection has from now on.
pub(super) fn deadline(executor: &Executor, metadata: &HashMap<String, String>) -> Deadline {
    let set = metadata.get(KEY).and_then(|text| text.parse().ok());
    executor.deadline(set.map(Duration::from_millis))
}

/// A bare number is milliseconds, as PostgreSQL has it; 0 and `default` leave the service's own.
fn set_timeout(metadata: &mut HashMap<String, String>, value: &str) -> PgWireResult<Response> {
    let text = value.trim_matches(['\'', '"']).trim().replace(' ', "");
    let set = match text.as_str() {
        "" | "0" => None,
        text if text.eq_ignore_ascii_case("default") => None,
        text if text.bytes().all(|byte| byte.is_ascii_digit()) => Some(options::duration(&format!("{text}ms"))),
        text => Some(options::duration(text)),
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

/// Comes before DataFusion's hook, which would hand any `SET` to DataFusion, and with it limits and paths of the service.
pub(super) struct Settings(pub(super) Executor);

impl Settings {
    /// The answer; `None` where the next hook has it.
    fn check(&self, statement: &Statement) -> Option<PgWireResult<Response>> {
        let Statement::Set(set) = statement else { return None };
        let (name, values) = match set {
            // There are no transactions, so nothing is set until the end of one; and sessions only read anyway.
            Set::SetTimeZone { local: true, .. } | Set::SetTransaction { .. } | Set::SetNames { .. } => {
                return Some(Ok(Response::Execution(Tag::new("SET"))));
            }
            Set::SetTimeZone { value, .. } => (TIME_ZONE.to_owned(), slice::from_ref(value)),
            Set::SingleAssignment { hivevar: false, variable, values, .. } => {
                (variable.to_string().to_lowercase(), values.as_slice())
            }
            other => return Some(Err(self.refuse(&other.to_string()))),
        };
        if !values.iter().all(is_simple) {
            let (message, remedy) =
                (format!("the value of {name} is an expression"), "write it as 'text' or as a number");
            return Some(Err(to_client(QueryError::BadRequest { message, remedy: remedy.into() })));
        }
        match SETTABLE.iter().position(|known| *known == name) {
            Some(0..PASSED) => None,
            Some(_) => Some(Ok(Response::Execution(Tag::new("SET")))),
            None if matches!(name.as_str(), TIME_ZONE | TIMEOUT) => None,
            None => Some(Err(self.refuse(&name))),
        }
    }

    fn refuse(&self, name: &str) -> PgWireError {
        let refused = QueryError::RefusedSql {
            message: format!("`{name}` cannot be set here"),
            remedy: "limits of the service are set with its options",
        };
        self.0.metrics().failed(&refused, Duration::ZERO);
        to_client(refused)
    }
}

/// Whether a value is a literal or a name.
fn is_simple(value: &Expr) -> bool {
    match value {
        Expr::Value(_) | Expr::Identifier(_) => true,
        Expr::UnaryOp { expr, .. } => matches!(**expr, Expr::Value(_)),
        _ => false,
    }
}

#[async_trait]
impl QueryHook for Settings {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        context: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        if let Some(answer) = self.check(statement) {
            return Some(answer);
        }
        match statement {
            Statement::Set(Set::SingleAssignment { variable, values, .. }) => {
                let value = values.first()?;
                match variable.to_string().to_lowercase().as_str() {
                    TIMEOUT => Some(set_timeout(client.metadata_mut(), &value.to_string())),
                    // In this form the next hook would set it for all connections.
                    TIME_ZONE => {
                        let set = Set::SetTimeZone { local: false, value: value.clone() };
                        SetShowHook.handle_simple_query(&Statement::Set(set), context, client).await
                    }
                    _ => None,
                }
            }
            Statement::ShowVariable { variable } => match variable.as_slice() {
                [name] if name.value.eq_ignore_ascii_case(TIMEOUT) => {
                    let timeout = deadline(&self.0, client.metadata()).timeout;
                    Some(shown(TIMEOUT, &milliseconds(timeout)).map(Response::Query))
                }
                _ => None,
            },
            _ => None,
        }
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        _: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        // The others get their plan from the next hook.
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

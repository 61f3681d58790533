//! Statements of one connection, in the simple and the extended protocol. Everything that reads goes through the
//! executor, with its guard and its deadline; what only concerns the session (`SET`, `SHOW`, `BEGIN`) is answered here.

use std::{fmt::Debug, sync::Arc, time::Instant};

use arrow::datatypes::DataType;
use async_trait::async_trait;
use datafusion::{
    common::ParamValues,
    logical_expr::LogicalPlan,
    prelude::SessionContext,
    sql::{parser::Statement as Parsed, sqlparser::ast::Statement},
};
use datafusion_postgres::{
    DfSessionService, Parser, QueryHook,
    arrow_pg::datatypes::{
        arrow_schema_to_pg_fields, df::deserialize_parameters_with_server_types, encode_recordbatch,
    },
    datafusion_pg_catalog::sql::PostgresCompatibilityParser,
    hooks::{HookClient, set_show::SetShowHook, transactions::TransactionStatementHook},
    pgwire::{
        api::{
            ClientInfo, ClientPortalStore, Type,
            portal::{Format, Portal},
            query::{ExtendedQueryHandler, SimpleQueryHandler},
            results::{QueryResponse, Response},
            stmt::QueryParser,
            store::PortalStore,
        },
        error::{ErrorInfo, PgWireError, PgWireResult},
        messages::PgWireBackendMessage,
        types::format::FormatOptions,
    },
};
use futures::{Sink, StreamExt, stream};

use super::{
    settings::{self, Settings},
    warnings,
};
use crate::{
    Executor, QueryError,
    execute::{Rows, flat},
    guard::MAX_STATEMENT,
    notes::Notes,
};

/// Statements in one message of the simple protocol.
const MAX_STATEMENTS: usize = 16;

/// As the parser stores it: its text, and what came of it.
type Prepared = (String, Option<(Statement, LogicalPlan)>);

/// What all connections share.
pub(super) struct Shared {
    executor: Executor,
    parser: PostgresCompatibilityParser,
}

impl Shared {
    pub(super) fn new(executor: Executor) -> Self {
        Self { executor, parser: PostgresCompatibilityParser::new() }
    }
}

/// One connection's statements.
pub(super) struct Session {
    shared: Arc<Shared>,
    hooks: Vec<Arc<dyn QueryHook>>,
    parser: Arc<Parser>,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let own: Vec<Arc<dyn QueryHook>> = vec![
            Arc::new(Settings(shared.executor.clone())),
            Arc::new(SetShowHook),
            Arc::new(TransactionStatementHook),
        ];
        let mut all = own.clone();
        all.push(Arc::new(Plan(shared.executor.clone())));
        let context = Arc::new(shared.executor.context().clone());
        let parser = DfSessionService::new_with_hooks(context, all).query_parser();
        Self { shared, hooks: own, parser }
    }

    /// The statements in a text. Those that cannot be taken apart are counted as one.
    fn parse(&self, text: &str) -> PgWireResult<Vec<Statement>> {
        let started = Instant::now();
        let parsed = bounded(text).and_then(|()| {
            let statements = self.shared.parser.parse(text).map_err(|error| QueryError::BadSql(error.to_string()))?;
            match statements.len() {
                0..=MAX_STATEMENTS => Ok(statements),
                count => {
                    let message = format!("expected at most {MAX_STATEMENTS} statements at once, found {count}");
                    Err(QueryError::RefusedSql { message, remedy: "send them one by one" })
                }
            }
        });
        self.shared.executor.metrics().refused(&parsed, started.elapsed());
        parsed.map_err(to_client)
    }

    /// Answers of statements that only concern the session; `None` for all others.
    async fn aside(&self, statement: &Statement, client: &mut dyn HookClient) -> Option<PgWireResult<Response>> {
        let context = self.shared.executor.context();
        for hook in &self.hooks {
            if let Some(response) = hook.handle_simple_query(statement, context, client).await {
                return Some(response);
            }
        }
        None
    }

    async fn run(&self, client: &mut dyn HookClient, plan: LogicalPlan, format: &Format) -> PgWireResult<Response> {
        let limit = settings::limit(&self.shared.executor, client.metadata());
        let options = Arc::new(FormatOptions::from_client_metadata(client.metadata()));
        let fields = Arc::new(arrow_schema_to_pg_fields(plan.schema().as_arrow(), format, Some(options))?);
        let notes = Arc::new(Notes::default());
        let rows = self.shared.executor.run(plan, limit, Arc::clone(&notes)).await.map_err(to_client)?;
        warnings::tell(&self.shared.executor, &notes, limit, client).await?;
        let encoded = Arc::clone(&fields);
        let batches = stream::unfold(rows, |mut rows: Rows| async { Some((rows.next().await?, rows)) });
        let rows = batches.flat_map(move |batch| match batch {
            Ok(batch) => stream::iter(encode_recordbatch(Arc::clone(&encoded), batch).collect::<Vec<_>>()),
            Err(error) => stream::iter(vec![Err(to_client(error))]),
        });
        Ok(Response::Query(QueryResponse::new(fields, rows)))
    }
}

#[async_trait]
impl SimpleQueryHandler for Session {
    async fn do_query<C>(&self, client: &mut C, text: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statements = self.parse(text)?;
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        let mut responses = Vec::with_capacity(statements.len());
        for statement in statements {
            if let Some(response) = self.aside(&statement, client).await {
                responses.push(response?);
                continue;
            }
            let plan = planned(&self.shared.executor, &statement, client).await?;
            responses.push(self.run(client, plan, &Format::UnifiedText).await?);
        }
        Ok(responses)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Session {
    type Statement = Prepared;
    type QueryParser = Parser;

    fn query_parser(&self) -> Arc<Parser> {
        Arc::clone(&self.parser)
    }

    async fn do_query<C>(&self, client: &mut C, portal: &Portal<Prepared>, _max_rows: usize) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement;
        let (_, Some((statement, plan))) = prepared else { return Ok(Response::EmptyQuery) };
        if let Some(response) = self.aside(statement, client).await {
            return response;
        }
        let plan = bind(plan, portal, &self.parser.get_parameter_types(prepared)?)?;
        self.run(client, plan, &portal.result_column_format).await
    }
}

/// The plan with its parameters' values.
fn bind(plan: &LogicalPlan, portal: &Portal<Prepared>, wire: &[Type]) -> PgWireResult<LogicalPlan> {
    let planning = |error: datafusion::error::DataFusionError| to_client(error.into());
    let mut types: Vec<(String, Option<DataType>)> =
        plan.get_parameter_types().map_err(planning)?.into_iter().collect();
    types.sort_by_key(|(name, _)| name.trim_start_matches('$').parse().unwrap_or(u32::MAX));
    let types: Vec<Option<&DataType>> = types.iter().map(|(_, data_type)| data_type.as_ref()).collect();
    let wire: Vec<Option<&Type>> = wire.iter().map(Some).collect();
    let values: ParamValues = deserialize_parameters_with_server_types(portal, &types, &wire)?;
    plan.clone().replace_params_with_values(&values).map_err(planning)
}

async fn planned<C: ClientInfo + ?Sized>(
    executor: &Executor,
    statement: &Statement,
    client: &C,
) -> PgWireResult<LogicalPlan> {
    let limit = settings::limit(executor, client.metadata());
    let plan = executor.plan_statement(Parsed::Statement(Box::new(statement.clone())), limit).await;
    plan.and_then(flat).map_err(to_client)
}

fn bounded(text: &str) -> Result<(), QueryError> {
    if text.len() <= MAX_STATEMENT {
        return Ok(());
    }
    let message = format!("expected a statement of at most {MAX_STATEMENT} bytes, found {}", text.len());
    Err(QueryError::RefusedSql { message, remedy: "ask in parts" })
}

pub(super) fn to_client(error: QueryError) -> PgWireError {
    let mut info = ErrorInfo::new("ERROR".into(), error.sqlstate().into(), error.to_string());
    info.hint = Some(error.remedy().to_owned()).filter(|remedy| !remedy.is_empty());
    PgWireError::UserError(Box::new(info))
}

/// Plans what the extended protocol prepares, as the executor would.
struct Plan(Executor);

#[async_trait]
impl QueryHook for Plan {
    async fn handle_simple_query(
        &self,
        _: &Statement,
        _: &SessionContext,
        _: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        None
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _: &SessionContext,
        client: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        Some(planned(&self.0, statement, client).await)
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

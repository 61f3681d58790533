//! Statements that the extended protocol prepares: parsed and planned once, described, and run with values.

use std::sync::Arc;

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
    arrow_pg::datatypes::{arrow_schema_to_pg_fields, df::deserialize_parameters_with_server_types},
    pgwire::{
        api::{
            ClientInfo, Type,
            portal::{Format, Portal},
            query::ExtendedQueryHandler as _,
            results::FieldInfo,
            stmt::QueryParser,
        },
        error::{PgWireError, PgWireResult},
    },
};

use super::{client_error::to_client, settings, statements::Statements};
use crate::{
    Executor, QueryError,
    deadline::Deadline,
    execute::{self, flat},
};

/// A prepared statement.
pub(super) struct Prepared {
    pub(super) statement: Statement,
    plan: LogicalPlan,
    /// The types of the parameters, in order: as the client is told them, and as the plan needs them.
    wire_types: Vec<Type>,
    types: Vec<Option<DataType>>,
}

/// Prepares the statements of one connection.
pub(super) struct Preparer {
    statements: Arc<Statements>,
    /// They answer statements that only concern the session and have no plan.
    hooks: Vec<Arc<dyn QueryHook>>,
    /// The connection's own, for the hooks.
    context: SessionContext,
    /// Knows the types of parameters.
    parser: Arc<Parser>,
}

impl Preparer {
    pub(super) fn new(statements: Arc<Statements>, hooks: Vec<Arc<dyn QueryHook>>, context: SessionContext) -> Self {
        let parser = DfSessionService::new_with_hooks(Arc::new(context.clone()), Vec::new()).query_parser();
        Self { statements, hooks, context, parser }
    }

    /// All of it on a statement's thread: copying a statement or walking through a plan recurses, too.
    async fn plan(&self, statement: Statement, deadline: Deadline) -> Result<Prepared, QueryError> {
        let (executor, parser) = (&self.statements.executor, Arc::clone(&self.parser));
        let context = executor.context().clone();
        let plan = async move {
            let plan = flat(execute::plan(&context, Parsed::Statement(Box::new(statement.clone()))).await?)?;
            let mut types: Vec<(String, Option<DataType>)> = plan.get_parameter_types()?.into_iter().collect();
            types.sort_by_key(|(name, _)| name.trim_start_matches('$').parse().unwrap_or(u32::MAX));
            let types = types.into_iter().map(|(_, data_type)| data_type).collect();
            let parsed = (String::new(), Some((statement, plan)));
            let wire_types = parser.get_parameter_types(&parsed).map_err(of_pgwire)?;
            match parsed {
                (_, Some((statement, plan))) => Ok(Prepared { statement, plan, wire_types, types }),
                (_, None) => Err(QueryError::Internal("a prepared statement has no plan".into())),
            }
        };
        Box::pin(executor.work(plan, deadline)).await
    }
}

fn of_pgwire(error: PgWireError) -> QueryError {
    QueryError::BadSql(error.to_string())
}

#[async_trait]
impl QueryParser for Preparer {
    type Statement = Arc<Prepared>;

    async fn parse_sql<C>(&self, client: &C, text: &str, _: &[Option<Type>]) -> PgWireResult<Option<Arc<Prepared>>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let executor = &self.statements.executor;
        let deadline = settings::deadline(executor, client.metadata());
        let mut statements = self.statements.parse(text, deadline).await.map_err(to_client)?;
        let statement = match (statements.pop(), statements.len()) {
            (Some(statement), 0) => statement,
            (None, _) => return Ok(None),
            (Some(_), more) => {
                let message = format!("expected one statement to prepare, found {}", more + 1);
                return Err(to_client(QueryError::RefusedSql { message, remedy: "prepare them one by one" }));
            }
        };
        for hook in &self.hooks {
            if let Some(plan) = hook.handle_extended_parse_query(&statement, &self.context, client).await {
                let (plan, wire_types, types) = (plan?, Vec::new(), Vec::new());
                return Ok(Some(Arc::new(Prepared { statement, plan, wire_types, types })));
            }
        }
        Box::pin(self.plan(statement, deadline)).await.map(|prepared| Some(Arc::new(prepared))).map_err(to_client)
    }

    fn get_parameter_types(&self, prepared: &Arc<Prepared>) -> PgWireResult<Vec<Type>> {
        Ok(prepared.wire_types.clone())
    }

    fn get_result_schema(&self, prepared: &Arc<Prepared>, format: Option<&Format>) -> PgWireResult<Vec<FieldInfo>> {
        let schema = prepared.plan.schema().as_arrow();
        arrow_schema_to_pg_fields(schema, format.unwrap_or(&Format::UnifiedText), None)
    }
}

/// The plan of a prepared statement with the values of its parameters.
pub(super) async fn bind(
    executor: &Executor,
    portal: &Portal<Arc<Prepared>>,
    deadline: Deadline,
) -> PgWireResult<LogicalPlan> {
    let prepared = Arc::clone(&portal.statement.statement);
    let types: Vec<Option<&DataType>> = prepared.types.iter().map(Option::as_ref).collect();
    let wire_types: Vec<Option<&Type>> = prepared.wire_types.iter().map(Some).collect();
    let values: ParamValues = deserialize_parameters_with_server_types(portal, &types, &wire_types)?;
    let bind = async move { Ok(prepared.plan.clone().replace_params_with_values(&values)?) };
    executor.work(bind, deadline).await.map_err(to_client)
}

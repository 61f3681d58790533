//! Statements of one connection, in the simple and the extended protocol. Statements that read go through the executor,
//! with its guard and its deadline; statements that only concern the session (`SET`, `SHOW`, `BEGIN`) are answered here.

use std::{fmt::Debug, sync::Arc};

use async_trait::async_trait;
use datafusion::{logical_expr::LogicalPlan, prelude::SessionContext, sql::sqlparser::ast::Statement};
use datafusion_postgres::{
    QueryHook,
    arrow_pg::datatypes::{arrow_schema_to_pg_fields, encode_recordbatch},
    hooks::{HookClient, set_show::SetShowHook, transactions::TransactionStatementHook},
    pgwire::{
        api::{
            ClientInfo, ClientPortalStore,
            portal::{Format, Portal},
            query::{ExtendedQueryHandler, SimpleQueryHandler},
            results::{QueryResponse, Response},
            store::PortalStore,
        },
        error::{PgWireError, PgWireResult},
        messages::PgWireBackendMessage,
        types::format::FormatOptions,
    },
};
use futures::{Sink, StreamExt, stream};

use super::{
    client_error::to_client,
    login::LoggedIn,
    prepare::{Prepared, Preparer, bind},
    settings::{self, Settings},
    statements::Statements,
    warnings,
};
use crate::{deadline::Deadline, execute::Rows, notes::Notes};

/// The statements of a connection whose client has logged in.
pub(super) struct Session {
    statements: Arc<Statements>,
    hooks: Vec<Arc<dyn QueryHook>>,
    /// A copy for the hooks: some of them apply a `SET`, which must not reach other connections.
    context: SessionContext,
    preparer: Arc<Preparer>,
    _logged_in: LoggedIn,
}

impl Session {
    pub(super) fn new(statements: Arc<Statements>, logged_in: LoggedIn) -> Self {
        let hooks: Vec<Arc<dyn QueryHook>> = vec![
            Arc::new(Settings(statements.executor.clone())),
            Arc::new(SetShowHook),
            Arc::new(TransactionStatementHook),
        ];
        let context = SessionContext::new_with_state(statements.executor.context().state());
        let preparer = Arc::new(Preparer::new(Arc::clone(&statements), hooks.clone(), context.clone()));
        Self { statements, hooks, context, preparer, _logged_in: logged_in }
    }

    /// The answer of a statement that only concerns the session; `None` for all others.
    async fn session_answer(
        &self,
        statement: &Statement,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        for hook in &self.hooks {
            if let Some(response) = hook.handle_simple_query(statement, &self.context, client).await {
                return Some(response);
            }
        }
        None
    }

    async fn run(
        &self,
        client: &mut dyn HookClient,
        plan: LogicalPlan,
        deadline: Deadline,
        format: &Format,
    ) -> PgWireResult<Response> {
        let executor = &self.statements.executor;
        let options = Arc::new(FormatOptions::from_client_metadata(client.metadata()));
        let fields = Arc::new(arrow_schema_to_pg_fields(plan.schema().as_arrow(), format, Some(options))?);
        let notes = Arc::new(Notes::default());
        let rows = executor.run(plan, deadline, Arc::clone(&notes)).await.map_err(to_client)?;
        warnings::send(executor, &notes, deadline, client).await?;
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
        let deadline = |client: &C| settings::deadline(&self.statements.executor, client.metadata());
        let statements = self.statements.parse(text, deadline(client)).await.map_err(to_client)?;
        if statements.is_empty() {
            return Ok(vec![Response::EmptyQuery]);
        }
        let mut responses = Vec::with_capacity(statements.len());
        for statement in statements {
            if let Some(response) = self.session_answer(&statement, client).await {
                responses.push(response?);
                continue;
            }
            let deadline = deadline(client);
            let plan = Box::pin(self.statements.plan(statement, deadline)).await.map_err(to_client)?;
            responses.push(self.run(client, plan, deadline, &Format::UnifiedText).await?);
        }
        Ok(responses)
    }
}

#[async_trait]
impl ExtendedQueryHandler for Session {
    type Statement = Arc<Prepared>;
    type QueryParser = Preparer;

    fn query_parser(&self) -> Arc<Preparer> {
        Arc::clone(&self.preparer)
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Arc<Prepared>>,
        _max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Arc<Prepared>>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if let Some(response) = self.session_answer(&portal.statement.statement.statement, client).await {
            return response;
        }
        let executor = &self.statements.executor;
        let deadline = settings::deadline(executor, client.metadata());
        let plan = bind(executor, portal, deadline).await?;
        self.run(client, plan, deadline, &portal.result_column_format).await
    }
}

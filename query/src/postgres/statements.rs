//! Texts of clients as statements, and statements as plans: on statement threads, within the limits of the service.

use std::sync::Arc;

use datafusion::{
    logical_expr::LogicalPlan,
    sql::{parser::Statement as Parsed, sqlparser::ast::Statement},
};
use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;

use crate::{Executor, QueryError, deadline::Deadline, execute::flat};

/// Statements in one text.
const MAX_STATEMENTS: usize = 16;

/// Parses and plans for all connections.
pub(super) struct Statements {
    pub(super) executor: Executor,
    parser: Arc<PostgresCompatibilityParser>,
}

impl Statements {
    pub(super) fn new(executor: Executor) -> Self {
        Self { executor, parser: Arc::new(PostgresCompatibilityParser::new()) }
    }

    /// The statements in a text. A text that cannot be parsed is counted as one failed statement.
    pub(super) async fn parse(&self, text: &str, deadline: Deadline) -> Result<Vec<Statement>, QueryError> {
        let parser = Arc::clone(&self.parser);
        let parse = |text: String| async move {
            let statements = parser.parse(&text)?;
            match statements.len() {
                0..=MAX_STATEMENTS => Ok(statements),
                count => Err(QueryError::RefusedSql {
                    message: format!("expected at most {MAX_STATEMENTS} statements at once, found {count}"),
                    remedy: "send them one by one",
                }),
            }
        };
        self.executor.parse(text, deadline, parse).await
    }

    /// The plan of a statement that only reads. Nested columns are JSON text: few clients can take them otherwise.
    pub(super) async fn plan(&self, statement: Statement, deadline: Deadline) -> Result<LogicalPlan, QueryError> {
        flat(self.executor.plan_statement(Parsed::Statement(Box::new(statement)), deadline).await?)
    }
}

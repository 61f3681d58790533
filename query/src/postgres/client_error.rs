//! Our errors as PostgreSQL's.

use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};

use crate::QueryError;

/// The part of an error that a client may know; the statement has failed, and the connection goes on.
pub(super) fn to_client(error: QueryError) -> PgWireError {
    let answer = error.answer();
    let mut info = ErrorInfo::new("ERROR".into(), error.sqlstate().into(), answer.message);
    info.hint = Some(answer.remedy).filter(|remedy| !remedy.is_empty());
    PgWireError::UserError(Box::new(info))
}

/// An error that ends the connection.
pub(super) fn fatal(code: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".into(), code.into(), message.into())))
}

/// The client sent a message that the protocol does not allow.
pub(super) fn protocol_violation(message: impl Into<String>) -> PgWireError {
    fatal("08P01", message)
}

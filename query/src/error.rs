//! Errors of a question: the party that has to act (the client or the operator), the problem, and the remedy.
//!
//! `Display` is for the log. Clients get [`QueryError::answer`]: of errors that the client cannot mend it tells an id
//! only, under which the log has the details. They may name files, hosts and internals of the service.

use std::time::Duration;

use arrow::error::ArrowError;
use datafusion::{error::DataFusionError, sql::sqlparser::parser::ParserError};
use netverdict_flowlog::answer::ErrorAnswer;
use ring::rand::{SecureRandom, SystemRandom};

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// A parameter of a question is missing or has another form than expected.
    #[error("{message}")]
    BadRequest { message: String, remedy: String },
    #[error("{message}")]
    UnknownPod { message: String, remedy: String },
    /// The statement cannot be understood.
    #[error("{0}")]
    BadSql(String),
    /// The statement is understood, and not allowed.
    #[error("{message}")]
    RefusedSql { message: String, remedy: &'static str },
    /// The statement is so long or so deep that parsing or planning it could exhaust a stack.
    #[error("{message}")]
    TooComplex { message: String, remedy: &'static str },
    #[error("it did not end within {0:?}")]
    Timeout(Duration),
    /// All threads for statements are taken by others.
    #[error("no thread for statements was free within {0:?}")]
    Busy(Duration),
    /// It needs more memory or temporary space than there may be.
    #[error("{0}")]
    Resources(String),
    /// Files or rows cannot be read; possibly others can when it is asked again.
    #[error("{0}")]
    Unreadable(String),
    #[error("{0}")]
    Internal(String),
}

pub(crate) const NEST_LESS: &str = "name the inner parts with `with name as (…)`";
pub(crate) const READ_ONLY: &str = "the record can only be read: use select, with, explain or show";

impl QueryError {
    /// One of the closed list of [`ErrorAnswer::code`].
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadRequest { .. } => "bad-request",
            Self::UnknownPod { .. } => "unknown-pod",
            Self::BadSql(_) => "bad-sql",
            Self::RefusedSql { .. } | Self::TooComplex { .. } | Self::Resources(_) => "refused-sql",
            Self::Timeout(_) => "timeout",
            Self::Busy(_) => "busy",
            Self::Unreadable(_) | Self::Internal(_) => "internal",
        }
    }

    /// PostgreSQL's code for the condition.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::BadRequest { .. } | Self::UnknownPod { .. } => "22023",
            Self::BadSql(message) if message.contains("not found") => "42P01",
            Self::BadSql(_) => "42601",
            Self::RefusedSql { .. } => "42501",
            Self::TooComplex { .. } => "54001",
            Self::Timeout(_) => "57014",
            Self::Busy(_) => "53300",
            Self::Resources(_) => "53200",
            Self::Unreadable(_) => "58030",
            Self::Internal(_) => "XX000",
        }
    }

    /// Remedy for the client; empty where nothing helps.
    pub fn remedy(&self) -> &str {
        match self {
            Self::BadRequest { remedy, .. } | Self::UnknownPod { remedy, .. } => remedy,
            Self::BadSql(message) if message.contains("not found") => {
                "see what there is with `select table_name from information_schema.tables`"
            }
            Self::BadSql(_) => "",
            Self::RefusedSql { remedy, .. } | Self::TooComplex { remedy, .. } => remedy,
            Self::Timeout(_) => "ask about less time (a condition on `time`, --since), or raise --statement-timeout",
            Self::Busy(_) => "ask again when others are done, or give the service more with --query-threads",
            Self::Resources(_) => "narrow it with a condition on `time`, or raise --memory-limit and --spill-limit",
            Self::Unreadable(_) => "ask again; if it stays, look up the id in the service's log",
            Self::Internal(_) => "look up the id in the service's log",
        }
    }

    /// The error as a client may read it. The details of an error of the service itself are logged, and the answer
    /// carries an id to find them.
    pub fn answer(&self) -> ErrorAnswer {
        let message = match self {
            Self::Unreadable(_) => format!("files or rows could not be read (error {})", self.log()),
            Self::Internal(_) => format!("the service failed (error {})", self.log()),
            other => other.to_string(),
        };
        ErrorAnswer { code: self.code().into(), message, remedy: self.remedy().into() }
    }

    /// The parser's own limit. Brackets are limited before it (`guard::check`); subqueries take several of its levels.
    fn nested() -> Self {
        Self::TooComplex {
            message: "the statement's brackets and subqueries are nested more than the parser's 50 levels deep".into(),
            remedy: NEST_LESS,
        }
    }

    /// Logs the error; returns the id that it is logged under.
    fn log(&self) -> String {
        let mut bytes = [0; 4];
        // Without random numbers the id is zero: the log still has the details.
        let _ = SystemRandom::new().fill(&mut bytes);
        let id = format!("{:08x}", u32::from_ne_bytes(bytes));
        tracing::error!(error.id = %id, error = %self, "question failed");
        id
    }
}

impl From<ParserError> for QueryError {
    fn from(error: ParserError) -> Self {
        match error {
            ParserError::RecursionLimitExceeded => Self::nested(),
            other => Self::BadSql(other.to_string()),
        }
    }
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        let text = first_line(&error);
        match error.find_root() {
            DataFusionError::NotImplemented(message) if message.starts_with("Unsupported SQL statement") => {
                Self::RefusedSql { message: text, remedy: READ_ONLY }
            }
            DataFusionError::SQL(error, _) if matches!(**error, ParserError::RecursionLimitExceeded) => Self::nested(),
            DataFusionError::SQL(..)
            | DataFusionError::Plan(_)
            | DataFusionError::NotImplemented(_)
            | DataFusionError::SchemaError(..) => Self::BadSql(text),
            DataFusionError::ResourcesExhausted(_) => Self::Resources(text),
            DataFusionError::ParquetError(_)
            | DataFusionError::ObjectStore(_)
            | DataFusionError::IoError(_)
            | DataFusionError::ArrowError(..)
                if of_a_file(error.find_root()) =>
            {
                Self::Unreadable(text)
            }
            // A value that cannot be cast, a division by zero: the statement's fault.
            DataFusionError::ArrowError(..) | DataFusionError::Execution(_) => Self::BadSql(text),
            _ => Self::Internal(text),
        }
    }
}

impl From<ArrowError> for QueryError {
    fn from(error: ArrowError) -> Self {
        Self::Internal(error.to_string())
    }
}

fn of_a_file(error: &DataFusionError) -> bool {
    match error {
        DataFusionError::ArrowError(error, _) => {
            matches!(**error, ArrowError::ParquetError(_) | ArrowError::IoError(..) | ArrowError::ExternalError(_))
        }
        _ => true,
    }
}

/// DataFusion's messages without its names for their classes, and without the stack below them.
fn first_line(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let text = text.lines().next().unwrap_or_default().trim();
    let plain = ["Error during planning: ", "Schema error: ", "SQL error: ", "Execution error: "]
        .iter()
        .fold(text, |text, prefix| text.strip_prefix(prefix).unwrap_or(text));
    plain.chars().take(2_000).collect()
}

//! What can go wrong with a question, told to the one who asked: whose fault it is, what was found, and what to do.

use std::time::Duration;

use arrow::error::ArrowError;
use datafusion::{common::SchemaError, error::DataFusionError};
use netverdict_flowlog::answer::ErrorAnswer;

#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// A parameter of a question is missing or is not what it should be.
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

pub(crate) const READ_ONLY: &str = "the record can only be read: use select, with, explain or show";

impl QueryError {
    /// One of the closed list of [`ErrorAnswer::code`].
    pub fn code(&self) -> &'static str {
        match self {
            Self::BadRequest { .. } => "bad-request",
            Self::UnknownPod { .. } => "unknown-pod",
            Self::BadSql(_) => "bad-sql",
            Self::RefusedSql { .. } | Self::Resources(_) => "refused-sql",
            Self::Timeout(_) => "timeout",
            Self::Busy(_) => "busy",
            Self::Unreadable(_) | Self::Internal(_) => "internal",
        }
    }

    /// Of PostgreSQL.
    pub fn sqlstate(&self) -> &'static str {
        match self {
            Self::BadRequest { .. } | Self::UnknownPod { .. } => "22023",
            Self::BadSql(message) if message.contains("not found") => "42P01",
            Self::BadSql(_) => "42601",
            Self::RefusedSql { .. } => "42501",
            Self::Timeout(_) => "57014",
            Self::Busy(_) => "53300",
            Self::Resources(_) => "53200",
            Self::Unreadable(_) => "58030",
            Self::Internal(_) => "XX000",
        }
    }

    /// What to do about it; empty where nothing helps.
    pub fn remedy(&self) -> &str {
        match self {
            Self::BadRequest { remedy, .. } | Self::UnknownPod { remedy, .. } => remedy,
            Self::BadSql(message) if message.contains("not found") => {
                "see what there is with `select table_name from information_schema.tables`"
            }
            Self::BadSql(_) => "",
            Self::RefusedSql { remedy, .. } => remedy,
            Self::Timeout(_) => "ask about less time (a condition on `time`, --since), or raise --statement-timeout",
            Self::Busy(_) => "ask again when others are done, or give the service more with --query-threads",
            Self::Resources(_) => "narrow it with a condition on `time`, or raise --memory-limit and --spill-limit",
            Self::Unreadable(_) => "ask again; if it stays, see the service's log",
            Self::Internal(_) => "see the service's log",
        }
    }

    pub fn answer(&self) -> ErrorAnswer {
        ErrorAnswer { code: self.code().into(), message: self.to_string(), remedy: self.remedy().into() }
    }
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        let text = first_line(&error);
        match error.find_root() {
            DataFusionError::NotImplemented(message) if message.starts_with("Unsupported SQL statement") => {
                Self::RefusedSql { message: text, remedy: READ_ONLY }
            }
            DataFusionError::SQL(..) | DataFusionError::Plan(_) | DataFusionError::NotImplemented(_) => {
                Self::BadSql(text)
            }
            DataFusionError::SchemaError(schema, _) => match **schema {
                SchemaError::FieldNotFound { .. } => Self::BadSql(text),
                _ => Self::BadSql(text),
            },
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

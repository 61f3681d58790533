//! Errors as the CNI specification has them: a code, a message, details; as JSON on standard output.

use serde::Serialize;

use crate::version::NEWEST;

/// The codes of the specification, and our own from 100 on.
pub(crate) mod code {
    pub(crate) const INCOMPATIBLE_VERSION: u32 = 1;
    pub(crate) const INVALID_ENVIRONMENT: u32 = 4;
    pub(crate) const IO: u32 = 5;
    pub(crate) const DECODING: u32 = 6;
    pub(crate) const INVALID_CONFIGURATION: u32 = 7;
    pub(crate) const TRY_AGAIN: u32 = 11;
    pub(crate) const NOT_AVAILABLE: u32 = 50;
    /// CHECK: the programs are not attached.
    pub(crate) const NOT_ATTACHED: u32 = 100;
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CniError {
    #[serde(rename = "cniVersion")]
    version: String,
    pub code: u32,
    #[serde(rename = "msg")]
    pub message: String,
    pub details: String,
}

impl CniError {
    pub(crate) fn new(code: u32, message: &str, details: &str) -> Self {
        let version = NEWEST.to_owned();
        Self { version, code, message: format!("netverdict: {message}"), details: details.to_owned() }
    }

    pub(crate) fn for_version(self, version: &str) -> Self {
        Self { version: version.to_owned(), ..self }
    }

    /// As the container runtime reads it.
    pub fn to_json(&self) -> String {
        // Text and a number: this does not fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

//! A chained CNI plugin: a pod's creation waits until the programs are attached to its interface and judge it.
//!
//! It follows the CNI specification 1.1 (ADD, CHECK, DEL, GC, STATUS, VERSION) and configures no interface itself. What it
//! knows of a pod it writes down as a claim and tells the collector. While no collector answers it attaches what is pinned.

mod call;
mod collector;
mod configuration;
mod error;
pub mod node;
mod verbs;
mod version;

use std::io;

pub use self::error::CniError;
use self::{
    call::{Call, Verb},
    configuration::Configuration,
    error::code,
};

/// Most bytes of a configuration; container runtimes write some kilobytes.
pub const LARGEST_CONFIGURATION: u64 = 1 << 20;

/// The answer to one call: text for standard output, empty where nothing is to be said. `configuration` is what was read
/// from standard input, `variable` looks up an environment variable.
///
/// # Errors
/// As the specification has them.
pub fn answer(configuration: io::Result<&[u8]>, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, CniError> {
    let text = configuration
        .map_err(|error| CniError::new(code::IO, "the configuration cannot be read", &error.to_string()))?;
    if text.len() as u64 > LARGEST_CONFIGURATION {
        return Err(CniError::new(code::DECODING, "the configuration is too large", "expected at most 1 MiB"));
    }
    let verb = Verb::of(variable)?;
    if verb == Verb::Version {
        return Ok(configuration::versions(text));
    }
    let configuration = Configuration::read(text)?;
    let with_version = |error: CniError| error.for_version(&configuration.version);
    configuration.allows(verb).map_err(with_version)?;
    let call = Call::read(verb, variable).map_err(with_version)?;
    verbs::run(&configuration, &call).map_err(with_version)
}

#[cfg(test)]
mod tests;

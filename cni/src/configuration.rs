//! The network configuration: its version, our settings, and what the plugins before us made.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use netverdict_probe::MOST_ADDRESSES;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    call::Verb,
    error::{CniError, code},
    version::{NEWEST, SUPPORTED},
};

/// Longest that a pod may wait. Container runtimes give a plugin minutes.
pub(crate) const LONGEST_WAIT: u64 = 60;

/// What to do where no collector answers and nothing is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnUnavailable {
    /// The pod is not started; the kubelet tries again.
    Fail,
    /// The pod starts without programs. The collector records the time as a gap.
    Allow,
}

/// As the container runtime gives it. What belongs to other plugins or to the runtime is left alone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Text {
    #[serde(default)]
    cni_version: String,
    #[serde(default)]
    run_dir: Option<PathBuf>,
    #[serde(default)]
    pin_root: Option<PathBuf>,
    #[serde(default)]
    wait_seconds: Option<u64>,
    #[serde(default)]
    on_unavailable: Option<OnUnavailable>,
    #[serde(default)]
    prev_result: Option<Value>,
    #[serde(default, rename = "cni.dev/valid-attachments", alias = "cni.dev/attachments")]
    valid_attachments: Option<Vec<Attachment>>,
}

/// An attachment that still exists, as GC has it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Attachment {
    #[serde(rename = "containerID")]
    pub(crate) container_id: String,
    #[serde(rename = "ifname")]
    pub(crate) interface: String,
}

/// The configuration of one call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Configuration {
    pub(crate) version: String,
    /// The collector's `--run-dir`.
    pub(crate) run_dir: PathBuf,
    /// The collector's `--pin-root`.
    pub(crate) pin_root: PathBuf,
    /// How long a pod waits until it is judged.
    pub(crate) wait: Duration,
    pub(crate) on_unavailable: OnUnavailable,
    /// The result of the plugins before us.
    pub(crate) result: Option<Value>,
    /// `None` if the runtime lists none.
    pub(crate) valid_attachments: Option<Vec<Attachment>>,
}

impl Configuration {
    pub(crate) fn read(text: &[u8]) -> Result<Self, CniError> {
        let read: Text = serde_json::from_slice(text)
            .map_err(|error| CniError::new(code::DECODING, "the configuration cannot be read", &error.to_string()))?;
        let Text { cni_version, run_dir, pin_root, wait_seconds, on_unavailable, prev_result, valid_attachments } =
            read;
        if !SUPPORTED.contains(&cni_version.as_str()) {
            let found = if cni_version.is_empty() { "none" } else { cni_version.as_str() };
            let details = format!("found cniVersion {found}, expected one of {}", SUPPORTED.join(", "));
            return Err(CniError::new(code::INCOMPATIBLE_VERSION, "incompatible version", &details));
        }
        Ok(Self {
            version: cni_version,
            run_dir: run_dir.unwrap_or_else(|| "/run/netverdict".into()),
            pin_root: pin_root.unwrap_or_else(|| "/sys/fs/bpf/netverdict".into()),
            wait: Duration::from_secs(wait_seconds.unwrap_or(5).min(LONGEST_WAIT)),
            on_unavailable: on_unavailable.unwrap_or(OnUnavailable::Fail),
            result: prev_result.filter(|result| !result.is_null()),
            valid_attachments,
        })
    }

    /// Whether the version has the verb.
    pub(crate) fn allows(&self, verb: Verb) -> Result<(), CniError> {
        let since = match verb {
            Verb::Add | Verb::Del | Verb::Version => return Ok(()),
            Verb::Check => "0.4.0",
            Verb::Gc | Verb::Status => "1.1.0",
        };
        let age = |version: &str| SUPPORTED.iter().position(|supported| *supported == version);
        if age(&self.version) >= age(since) {
            return Ok(());
        }
        let details = format!("cniVersion is {}; the call exists since {since}", self.version);
        Err(CniError::new(code::INCOMPATIBLE_VERSION, "incompatible version", &details))
    }

    /// What a chained plugin passes on: the result of those before, in the same version.
    ///
    /// # Errors
    /// There is none: it is not chained.
    pub(crate) fn result(&self) -> Result<&Value, CniError> {
        self.result.as_ref().filter(|result| result.is_object()).ok_or_else(|| {
            let details =
                "there is no prevResult: put netverdict-cni into the list of plugins behind the one that connects pods";
            CniError::new(code::INVALID_CONFIGURATION, "invalid configuration", details)
        })
    }

    /// The addresses that the plugins before us assigned.
    pub(crate) fn assigned(&self) -> Vec<IpAddr> {
        let list = self.result.as_ref().and_then(|result| result["ips"].as_array());
        let address = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
        list.into_iter().flatten().filter_map(address).take(MOST_ADDRESSES).collect()
    }
}

/// The answer to VERSION, which needs no valid configuration.
pub(crate) fn versions(text: &[u8]) -> String {
    let asked =
        serde_json::from_slice::<Value>(text).ok().and_then(|value| Some(value["cniVersion"].as_str()?.to_owned()));
    let version = asked.filter(|asked| SUPPORTED.contains(&asked.as_str())).unwrap_or_else(|| NEWEST.to_owned());
    json!({ "cniVersion": version, "supportedVersions": SUPPORTED }).to_string()
}

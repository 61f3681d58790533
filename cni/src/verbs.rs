//! The verbs of the CNI specification.
//!
//! A pod never starts with packets that nobody judges, unless the configuration says so and it is told: a collector that
//! answers, or the pinned programs, or no pod. What is said goes to standard error, which runtimes log.

use std::path::Path;

use netverdict_policy::ObjectKey;
use netverdict_probe::{
    Announcement, Answer, Claim, ClaimFolder, are_attached, attach_pinned, boot_id,
    discover::{self, Behind},
    pinned_mode,
};
use serde_json::Value;

use crate::{
    call::{Call, Verb},
    collector,
    configuration::{Configuration, OnUnavailable},
    error::{CniError, code},
};

const ENFORCE: &str = "enforce";

pub(crate) fn run(configuration: &Configuration, call: &Call) -> Result<String, CniError> {
    match call.verb {
        Verb::Add => add(configuration, call).map(|result| result.to_string()),
        Verb::Check => check(configuration, call).map(|()| String::new()),
        Verb::Del => del(configuration, call).map(|()| String::new()),
        Verb::Gc => gc(configuration).map(|()| String::new()),
        Verb::Status => status(configuration).map(|()| String::new()),
        Verb::Version => Ok(String::new()),
    }
}

fn add(configuration: &Configuration, call: &Call) -> Result<Value, CniError> {
    let mut result = configuration.result()?.clone();
    result["cniVersion"] = configuration.version.clone().into();
    let Some(pod) = &call.pod else {
        say(&format!("container {} is no pod of Kubernetes, so no policy is for it", call.container_id));
        return Ok(result);
    };
    let Behind { netns_cookie, found } = behind(call)?;
    let interfaces: Vec<u32> = found.iter().map(|found| found.ifindex).collect();
    let claim = claim(configuration, call, pod, netns_cookie)?;
    // Written first: a collector that starts now finds it. Without it the pod's processes say later whose it is.
    if let Err(error) = ClaimFolder::of(&configuration.run_dir).write(&claim) {
        say(&format!("{pod}: {}", with_causes(&error)));
    }
    if interfaces.is_empty() {
        say(&format!("{pod}: no pair of interfaces leads to it, so no program covers it; the record says so"));
        return Ok(result);
    }
    let wait_ms = u64::try_from(configuration.wait.as_millis()).unwrap_or(u64::MAX);
    match collector::announce(&configuration.run_dir, &Announcement { claim, found, wait_ms }) {
        Ok(Answer::Judged) => {}
        Ok(Answer::NotReady { mode, reason }) => say(&format!("{pod} starts not ready (mode {mode}): {reason}")),
        Ok(Answer::NotAttached { mode, reason }) if mode == ENFORCE => {
            return Err(CniError::new(code::TRY_AGAIN, "no program is attached to the pod", &reason));
        }
        Ok(Answer::NotAttached { mode, reason }) => {
            say(&format!("{pod} starts without programs (mode {mode}): {reason}"));
        }
        Err(error) => bridge(configuration, pod, &interfaces, &error.to_string())?,
    }
    Ok(result)
}

/// Attaches what is pinned, because no collector answers for the reason given.
fn bridge(configuration: &Configuration, pod: &ObjectKey, interfaces: &[u32], why: &str) -> Result<(), CniError> {
    match attach_pinned(&configuration.pin_root, interfaces) {
        Ok(mode) => {
            say(&format!(
                "{pod} starts not ready (mode {mode}): no collector answers ({why}), the pinned programs are attached"
            ));
            Ok(())
        }
        Err(error) => {
            let reason = format!(
                "no collector answers ({why}), and the pinned programs cannot be attached: {}",
                with_causes(&error)
            );
            let enforces = pinned_mode(&configuration.pin_root) == Some(ENFORCE);
            if configuration.on_unavailable == OnUnavailable::Allow && !enforces {
                say(&format!("{pod} starts without programs, as onUnavailable says: {reason}"));
                return Ok(());
            }
            let details = format!(
                "{reason}; start the collector, or set \"onUnavailable\": \"allow\" where pods may start unjudged"
            );
            Err(CniError::new(code::TRY_AGAIN, "the pod would not be judged", &details))
        }
    }
}

fn check(configuration: &Configuration, call: &Call) -> Result<(), CniError> {
    configuration.result()?;
    if call.pod.is_none() {
        return Ok(());
    }
    let interfaces: Vec<u32> = behind(call)?.found.iter().map(|found| found.ifindex).collect();
    match are_attached(&configuration.pin_root, &interfaces) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CniError::new(
            code::NOT_ATTACHED,
            "programs are missing on the pod's interface",
            "a running collector attaches them within a second; `netverdict probe status` shows what is attached",
        )),
        Err(error) => Err(CniError::new(code::NOT_ATTACHED, "nothing is attached", &with_causes(&error))),
    }
}

/// The links go with the interface, which the plugin that made it deletes. What is missing is no error.
fn del(configuration: &Configuration, call: &Call) -> Result<(), CniError> {
    let removed = ClaimFolder::of(&configuration.run_dir).remove(&call.container_id, &call.interface);
    removed.map(drop).map_err(|error| CniError::new(code::IO, "the claim cannot be removed", &with_causes(&error)))
}

fn gc(configuration: &Configuration) -> Result<(), CniError> {
    // Without a list nothing is known to be gone.
    let Some(valid) = &configuration.valid_attachments else { return Ok(()) };
    let is_valid = |container_id: &str, interface: &str| {
        valid.iter().any(|valid| valid.container_id == container_id && valid.interface == interface)
    };
    let removed = ClaimFolder::of(&configuration.run_dir).retain(is_valid);
    removed.map(drop).map_err(|error| CniError::new(code::IO, "claims cannot be removed", &with_causes(&error)))
}

/// Whether an ADD would be judged, or may go without.
fn status(configuration: &Configuration) -> Result<(), CniError> {
    let Err(error) = collector::is_there(&configuration.run_dir) else { return Ok(()) };
    if pinned_mode(&configuration.pin_root).is_some() || configuration.on_unavailable == OnUnavailable::Allow {
        return Ok(());
    }
    let details = format!("no collector answers ({error}), and nothing is pinned: start the collector");
    Err(CniError::new(code::NOT_AVAILABLE, "new pods would not be judged", &details))
}

fn claim(configuration: &Configuration, call: &Call, pod: &ObjectKey, netns_cookie: u64) -> Result<Claim, CniError> {
    let boot_id = boot_id().map_err(|error| CniError::new(code::IO, "the boot has no name", &with_causes(&error)))?;
    let claim = Claim {
        boot_id,
        netns_cookie,
        container_id: call.container_id.clone(),
        interface: call.interface.clone(),
        pod: pod.clone(),
        pod_uid: call.pod_uid.clone(),
        addresses: configuration.assigned(),
    };
    claim.check().map_err(|reason| CniError::new(code::INVALID_ENVIRONMENT, "invalid CNI_ARGS", reason))?;
    Ok(claim)
}

fn behind(call: &Call) -> Result<Behind, CniError> {
    let path = call.namespace.as_deref().unwrap_or(Path::new(""));
    discover::behind(path)
        .map_err(|error| CniError::new(code::IO, "the pod's network namespace cannot be read", &with_causes(&error)))
}

fn say(text: &str) {
    eprintln!("netverdict-cni: {text}");
}

/// An error with its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

//! A call as the environment describes it.

use std::path::PathBuf;

use netverdict_policy::ObjectKey;
use netverdict_probe::check_attachment;

use crate::error::{CniError, code};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Add,
    Check,
    Del,
    Gc,
    Status,
    Version,
}

impl Verb {
    pub(crate) fn of(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        Ok(match variable("CNI_COMMAND").as_deref() {
            Some("ADD") => Self::Add,
            Some("CHECK") => Self::Check,
            Some("DEL") => Self::Del,
            Some("GC") => Self::Gc,
            Some("STATUS") => Self::Status,
            Some("VERSION") => Self::Version,
            Some(_) => return Err(invalid("CNI_COMMAND is none of ADD, CHECK, DEL, GC, STATUS, VERSION")),
            None => {
                return Err(invalid("CNI_COMMAND is not set: a container runtime calls this program, see docs/cni.md"));
            }
        })
    }
}

/// The rest of the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    /// Empty for GC and STATUS.
    pub(crate) container_id: String,
    /// Name of the interface inside. Empty for GC and STATUS.
    pub(crate) interface: String,
    /// `None` for DEL where the namespace is gone, and for GC and STATUS.
    pub(crate) namespace: Option<PathBuf>,
    /// `None` for a container that is no pod of Kubernetes.
    pub(crate) pod: Option<ObjectKey>,
    /// Empty if the container runtime does not tell it.
    pub(crate) pod_uid: String,
}

impl Call {
    pub(crate) fn read(verb: Verb, variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, CniError> {
        let text = |name: &str| variable(name).unwrap_or_default();
        let mut call = Self {
            verb,
            container_id: text("CNI_CONTAINERID"),
            interface: text("CNI_IFNAME"),
            namespace: variable("CNI_NETNS").filter(|path| !path.is_empty()).map(PathBuf::from),
            pod: None,
            pod_uid: String::new(),
        };
        if matches!(verb, Verb::Gc | Verb::Status | Verb::Version) {
            return Ok(call);
        }
        check_attachment(&call.container_id, &call.interface)
            .map_err(|reason| invalid(&format!("CNI_CONTAINERID or CNI_IFNAME is wrong: {reason}")))?;
        if call.namespace.is_none() && verb != Verb::Del {
            return Err(invalid("CNI_NETNS is not set"));
        }
        let arguments = text("CNI_ARGS");
        let argument = |name: &str| {
            let pairs = arguments.split(';').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value.to_owned()).next()
        };
        if let (Some(namespace), Some(name)) = (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME")) {
            call.pod = Some(ObjectKey::new(namespace, name));
        }
        call.pod_uid = argument("K8S_POD_UID").unwrap_or_default();
        Ok(call)
    }
}

fn invalid(reason: &str) -> CniError {
    CniError::new(code::INVALID_ENVIRONMENT, "invalid environment", reason)
}

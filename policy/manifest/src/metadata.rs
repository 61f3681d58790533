//! JSON value to [`Object`]: reads apiVersion, kind and metadata, which every object has, and checks its nesting.
//!
//! `spec` and `status` are left to the file of the kind.

use serde_json::Value;
use uuid::Uuid;

use crate::{
    canonical::content_hash,
    fields::{Field, Fields, Read, quoted},
    finding::{Finding, Invalid, ObjectRef, Severity, code},
    kind::{self, Scope},
    object::{Object, Origin},
    spelling::Spelling,
};

/// Levels that an object may nest; the deepest that Kubernetes stores have some thirty. Readers recurse, and must fit
/// the stack of a worker thread.
pub(crate) const MOST_LEVELS: usize = 64;

/// Bytes of a name: the limit of Kubernetes for a DNS subdomain.
const LONGEST_NAME: usize = 253;

/// Takes an object as an API hands it over.
///
/// Fails where apiVersion, kind or name is missing, or where these, labels or annotations are of another type.
#[expect(clippy::result_large_err, reason = "the finding is the caller's to keep, and failures are few")]
pub fn object_from_value(value: Value, origin: Origin) -> Result<Object, Finding> {
    object_from_text(value, Spelling::default(), origin)
}

/// As [`object_from_value`], for a value whose text had spellings of its own.
#[expect(clippy::result_large_err, reason = "as object_from_value")]
pub(crate) fn object_from_text(value: Value, spelling: Spelling, origin: Origin) -> Result<Object, Finding> {
    match identify(&value, &spelling, &origin) {
        Ok(mut object) => {
            object.content_hash = content_hash(&value);
            (object.value, object.spelling) = (value, spelling);
            Ok(object)
        }
        Err(invalid) => {
            let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let object = ObjectRef {
                api_version: text("/apiVersion"),
                kind: text("/kind"),
                namespace: text("/metadata/namespace"),
                name: text("/metadata/name"),
            };
            let message = format!("{}; the object is ignored", invalid.message);
            let invalid = Invalid { code: code::INVALID_OBJECT, message, ..*invalid };
            let object = Some(object).filter(|object| *object != ObjectRef::default());
            Err(Finding::new(Severity::Error, object, Some(origin.to_string()), invalid))
        }
    }
}

/// Everything but the hash, the value and its spelling.
fn identify(value: &Value, spelling: &Spelling, origin: &Origin) -> Read<Object> {
    if is_deeper_than(value, MOST_LEVELS) {
        let message = format!("the object nests more than {MOST_LEVELS} levels");
        return Err(Box::new(Invalid::new(code::INVALID_OBJECT, "", message, "no Kubernetes object nests that deep")));
    }
    let mut fields = Fields::of(Field::new(value, "", Some(spelling)))?;
    let api_version = fields.required_text("apiVersion")?.to_owned();
    let kind = fields.required_text("kind")?.to_owned();
    let mut metadata = fields.required_object("metadata")?;
    let name = metadata.required_text("name")?;
    check_name("metadata.name", name)?;
    let namespace = metadata.text("namespace")?.unwrap_or_default();
    let namespace = match kind::scope(&api_version, &kind) {
        Some(Scope::Cluster) => String::new(),
        Some(Scope::Namespace) if namespace.is_empty() => "default".to_owned(),
        Some(Scope::Namespace) | None => {
            if !namespace.is_empty() {
                check_name("metadata.namespace", namespace)?;
            }
            namespace.to_owned()
        }
    };
    let uid = match metadata.text("uid")?.filter(|uid| !uid.is_empty()) {
        Some(uid) => uid.to_owned(),
        None => derived_uid(&kind, &namespace, name),
    };
    let resource_version = metadata.text("resourceVersion")?.unwrap_or_default().to_owned();
    let generation = metadata.integer("generation")?.unwrap_or(0);
    check_text_map(&mut metadata, "labels")?;
    check_text_map(&mut metadata, "annotations")?;
    let name = name.to_owned();
    Ok(Object {
        api_version,
        kind,
        namespace,
        name,
        uid,
        resource_version,
        generation,
        content_hash: String::new(),
        value: Value::Null,
        origin: origin.clone(),
        spelling: Spelling::default(),
    })
}

/// The same for the same object in every file and on every node. Another kind's object of the same name has another.
pub(crate) fn derived_uid(kind: &str, namespace: &str, name: &str) -> String {
    let ours = Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"netverdict.io");
    Uuid::new_v5(&ours, format!("{kind}/{namespace}/{name}").as_bytes()).to_string()
}

/// Wider than Kubernetes' own rules, which differ by kind. An accepted name is safe in paths, logs and queries.
fn check_name(field: &str, name: &str) -> Read<()> {
    let fits = !name.is_empty() && name.len() <= LONGEST_NAME && !matches!(name, "." | "..");
    if fits && name.chars().all(|c| !c.is_control() && !c.is_whitespace() && !matches!(c, '/' | '%')) {
        return Ok(());
    }
    let message = format!("expected a name, found {}", quoted(name));
    let remedy = format!("use 1 to {LONGEST_NAME} letters, digits, '-' and '.'");
    Err(Box::new(Invalid::new(code::INVALID_OBJECT, field, message, remedy)))
}

/// Labels and annotations: every value is text, or null.
fn check_text_map(metadata: &mut Fields<'_>, name: &'static str) -> Read<()> {
    let Some(map) = metadata.object(name)? else { return Ok(()) };
    match map.entries().find(|(_, entry)| !entry.value.is_string() && !entry.value.is_null()) {
        None => Ok(()),
        Some((key, entry)) => {
            let message = format!("expected text for {}, found {}", quoted(key), entry.describe());
            let remedy = "put the value in quotes";
            Err(Box::new(Invalid::new(code::INVALID_OBJECT, map.own_path(), message, remedy)))
        }
    }
}

fn is_deeper_than(value: &Value, levels: usize) -> bool {
    let Some(left) = levels.checked_sub(1) else { return true };
    match value {
        Value::Array(items) => items.iter().any(|item| is_deeper_than(item, left)),
        Value::Object(map) => map.values().any(|item| is_deeper_than(item, left)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

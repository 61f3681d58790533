//! One Kubernetes object as its text said it, with where it came from and the hash of what matters in it.

use std::fmt;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    canonical,
    fields::{Fields, Read, quoted},
    finding::{Finding, Invalid, ObjectRef, Severity, code},
    kind,
};

/// Annotations of this prefix change what we do with an object, so they are part of its hash.
pub(crate) const ANNOTATION_PREFIX: &str = "netverdict.io/";

/// `netverdict.io/mode: audit`, on policies and namespaces.
pub(crate) const MODE_ANNOTATION: &str = "netverdict.io/mode";

/// Levels that an object may nest; the deepest that Kubernetes stores have some thirty. Readers recurse, and must fit
/// the stack of a worker thread.
pub(crate) const MOST_LEVELS: usize = 64;

/// Bytes of a name: what Kubernetes permits a DNS subdomain.
const LONGEST_NAME: usize = 253;

/// Where an object came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// `document` counts from 1 within the file, `item` from 0 within a list.
    File { path: String, document: usize, item: Option<usize> },
    /// A value that somebody handed over under a name, for instance `objects[3]`; `item` counts from 0 within a list.
    Value { name: String, item: Option<usize> },
    /// A Kubernetes API.
    Api,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, document, item: None } => write!(f, "{path}#{document}"),
            Self::File { path, document, item: Some(item) } => write!(f, "{path}#{document}[{item}]"),
            Self::Value { name, item: None } => f.write_str(name),
            Self::Value { name, item: Some(item) } => write!(f, "{name}.items[{item}]"),
            Self::Api => f.write_str("api"),
        }
    }
}

/// A Kubernetes object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub api_version: String,
    pub kind: String,
    /// Empty for kinds that have none; `default` where a kind has one and the text does not say.
    pub namespace: String,
    pub name: String,
    /// A UUIDv5 of kind, namespace and name where the text does not say.
    pub uid: String,
    /// Empty where the text does not say.
    pub resource_version: String,
    /// 0 where the text does not say.
    pub generation: i64,
    pub content_hash: String,
    pub value: Value,
    pub origin: Origin,
}

/// Group, kind, namespace and name: see [`Object::identity`].
pub type Identity<'a> = (&'a str, &'a str, &'a str, &'a str);

impl Object {
    /// Equal for what a cluster keeps as one object: in any version of its group it is the same, and a `Service` of another
    /// group is another.
    pub fn identity(&self) -> Identity<'_> {
        (kind::group_of(&self.api_version), &self.kind, &self.namespace, &self.name)
    }

    pub fn reference(&self) -> ObjectRef {
        ObjectRef {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// A label or annotation map of the metadata; every value in it is text, or null, which is the empty text.
    pub(crate) fn metadata_map(&self, field: &str) -> impl Iterator<Item = (&str, &str)> {
        let map = self.value.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_object);
        map.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
    }

    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata_map("annotations").find(|(key, _)| *key == name).map(|(_, value)| value)
    }
}

/// Takes an object as an API hands it over.
///
/// Fails where apiVersion, kind, name, labels or annotations are missing or of another type: without them there is
/// no object to speak of. `spec` and `status` are not looked at.
#[expect(clippy::result_large_err, reason = "the finding is the caller's to keep, and failures are few")]
pub fn object_from_value(value: Value, origin: Origin) -> Result<Object, Finding> {
    match identify(&value, &origin) {
        Ok(mut object) => {
            object.content_hash = content_hash(&value);
            object.value = value;
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
            let Invalid { field, message, remedy, .. } = *invalid;
            let message = format!("{message}; the object is ignored");
            Err(Finding {
                severity: Severity::Error,
                code: code::INVALID_OBJECT,
                object: Some(object).filter(|object| *object != ObjectRef::default()),
                origin: Some(origin.to_string()),
                field,
                message,
                remedy,
            })
        }
    }
}

/// All but hash and value.
fn identify(value: &Value, origin: &Origin) -> Read<Object> {
    if is_deeper_than(value, MOST_LEVELS) {
        let message = format!("the object nests more than {MOST_LEVELS} levels");
        return Err(Box::new(Invalid::new(code::INVALID_OBJECT, "", message, "no Kubernetes object nests that deep")));
    }
    let mut fields = Fields::of(value, String::new())?;
    let api_version = fields.required_text("apiVersion")?.to_owned();
    let kind = fields.required_text("kind")?.to_owned();
    let mut metadata = fields.required_object("metadata")?;
    let name = metadata.required_text("name")?;
    check_name("metadata.name", name)?;
    let namespace = metadata.text("namespace")?.unwrap_or_default();
    let namespace = match kind::scope(&api_version, &kind) {
        Some(kind::Scope::Cluster) => String::new(),
        Some(kind::Scope::Namespace) if namespace.is_empty() => "default".to_owned(),
        Some(kind::Scope::Namespace) | None => {
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
    let (content_hash, value, origin) = (String::new(), Value::Null, origin.clone());
    Ok(Object { api_version, kind, namespace, name, uid, resource_version, generation, content_hash, value, origin })
}

/// The same for the same object in every file and on every node. Another kind's object of the same name has another.
pub(crate) fn derived_uid(kind: &str, namespace: &str, name: &str) -> String {
    let ours = Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"netverdict.io");
    Uuid::new_v5(&ours, format!("{kind}/{namespace}/{name}").as_bytes()).to_string()
}

/// Wider than Kubernetes' own rule, which differs by kind; enough that a name is safe in paths, logs and queries.
fn check_name(field: &str, name: &str) -> Read<()> {
    let fits = !name.is_empty() && name.len() <= LONGEST_NAME && !matches!(name, "." | "..");
    if fits && name.chars().all(|c| !c.is_control() && !c.is_whitespace() && !matches!(c, '/' | '%')) {
        return Ok(());
    }
    let message = format!("{} is no name", quoted(name));
    let remedy = format!("use 1 to {LONGEST_NAME} letters, digits, '-' and '.'");
    Err(Box::new(Invalid::new(code::INVALID_OBJECT, field, message, remedy)))
}

fn check_text_map(metadata: &mut Fields<'_>, field: &'static str) -> Read<()> {
    let path = metadata.path(field);
    let Some(Value::Object(map)) = metadata.value(field) else {
        return match metadata.object(field) {
            Ok(_) => Ok(()),
            Err(invalid) => Err(invalid),
        };
    };
    match map.iter().find(|(_, value)| !value.is_string() && !value.is_null()) {
        None => Ok(()),
        Some((key, value)) => {
            let message = format!("{} is {}, not text", quoted(key), crate::fields::describe(value));
            Err(Box::new(Invalid::new(code::INVALID_OBJECT, path, message, "put the value in quotes")))
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

/// SHA-256, in lower-case hex, of the canonical JSON (RFC 8785) of what matters in an object: apiVersion, kind,
/// namespace, name, `netverdict.io/*` annotations and spec.
///
/// What an API server fills in (`policyTypes`, `protocol: TCP`) changes the hash; labels, status and the rest of the
/// metadata do not. Fields that are missing count as null, so a value that is no object has a hash too.
pub fn content_hash(value: &Value) -> String {
    let mut annotations = Map::new();
    if let Some(Value::Object(all)) = value.pointer("/metadata/annotations") {
        let ours = all.iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX));
        annotations.extend(ours.map(|(key, value)| (key.clone(), value.clone())));
    }
    let part = |pointer: &str| value.pointer(pointer).cloned().unwrap_or(Value::Null);
    let metadata = Map::from_iter([
        ("annotations".to_owned(), Value::Object(annotations)),
        ("name".to_owned(), part("/metadata/name")),
        ("namespace".to_owned(), part("/metadata/namespace")),
    ]);
    let matters = Map::from_iter([
        ("apiVersion".to_owned(), part("/apiVersion")),
        ("kind".to_owned(), part("/kind")),
        ("metadata".to_owned(), Value::Object(metadata)),
        ("spec".to_owned(), part("/spec")),
    ]);
    canonical::sha256(&Value::Object(matters))
}

/// The object as YAML, as the record keeps it: all of it but `metadata.managedFields`, which say nothing about
/// policy and are often longer than the rest.
pub fn text(object: &Object) -> String {
    let mut value = object.value.clone();
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        metadata.remove("managedFields");
    }
    // Every JSON text is YAML too; the writer refuses nothing that a `Value` can hold, so this is a matter of looks.
    serde_saphyr::to_string(&value).unwrap_or_else(|_| value.to_string())
}

//! One Kubernetes object: its identity, its value and its origin.

use std::fmt;

use serde_json::Value;

use crate::{
    fields::{Field, Fields, Read, child_path, quoted},
    finding::{Invalid, ObjectRef, Report, code},
    spelling::Spelling,
};

/// Annotations with this prefix change our treatment of an object, so they are part of its hash.
pub(crate) const ANNOTATION_PREFIX: &str = "netverdict.io/";

/// Where an object came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// `document` counts from 1 within the file, `item` from 0 within a list.
    File { path: String, document: usize, item: Option<usize> },
    /// A value that the caller named, for instance `objects[3]`; `item` counts from 0 within a list.
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
    /// Empty for cluster-scoped kinds; `default` where the text has none.
    pub namespace: String,
    pub name: String,
    /// A UUIDv5 of kind, namespace and name where the text has none.
    pub uid: String,
    /// Empty where the text has none.
    pub resource_version: String,
    /// 0 where the text has none.
    pub generation: i64,
    pub content_hash: String,
    pub value: Value,
    pub origin: Origin,
    /// How the text spells the value; empty for JSON.
    pub(crate) spelling: Spelling,
}

/// Group, kind, namespace and name: see [`Object::identity`].
pub type Identity<'a> = (&'a str, &'a str, &'a str, &'a str);

impl Object {
    /// Equal for manifests that a cluster stores as one object, in any version of its group. A `Service` of another group is
    /// another object.
    pub fn identity(&self) -> Identity<'_> {
        (group_of(&self.api_version), &self.kind, &self.namespace, &self.name)
    }

    pub fn reference(&self) -> ObjectRef {
        ObjectRef {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// A report without findings yet.
    pub(crate) fn report(&self) -> Report {
        Report::about(self.reference(), Some(self.origin.to_string()))
    }

    /// The fields of the whole object.
    pub(crate) fn fields(&self) -> Read<Fields<'_>> {
        Fields::of(Field::new(&self.value, "", Some(&self.spelling)))
    }

    /// The specification; null where it is missing.
    pub(crate) fn spec(&self) -> Field<'_> {
        Field::new(self.value.get("spec").unwrap_or(&Value::Null), "spec", self.spelling.child("spec"))
    }

    /// A label or annotation map of the metadata; every value in it is text, or null, which is the empty text.
    pub(crate) fn metadata_map(&self, field: &str) -> impl Iterator<Item = (&str, &str)> {
        let map = self.value.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_object);
        map.into_iter().flatten().map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
    }

    pub(crate) fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata_map("annotations").find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// Warns of keys that kubectl reads as other text than they are written: a label `on` becomes `true`.
    pub(crate) fn warn_of_keys(&self, report: &mut Report) {
        for (steps, written) in self.spelling.misread_keys(Report::MOST) {
            let Some((key, above)) = steps.split_last() else { continue };
            let path = above.iter().fold(String::new(), |path, step| match step.parse::<usize>() {
                Ok(index) => format!("{path}[{index}]"),
                Err(_) => child_path(&path, step),
            });
            let message = format!("kubectl reads the unquoted key {written} as {}", quoted(key));
            report.warning(Invalid::new(code::WRONG_TYPE, path, message, "put the key in quotes"));
        }
    }
}

/// Empty for the core group, which is named by its version alone.
pub(crate) fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// The object as YAML, as the record stores it: without `metadata.managedFields`, which do not affect policy and are often
/// longer than the rest.
pub fn text(object: &Object) -> String {
    let mut value = object.value.clone();
    if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
        metadata.remove("managedFields");
    }
    // The writer accepts every `Value`; JSON, which is YAML too, is only a fallback.
    serde_saphyr::to_string(&value).unwrap_or_else(|_| value.to_string())
}

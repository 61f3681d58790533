//! Bytes of an API server to changes: an object that cannot be read becomes a fault at its key, and all others go on.

use kube::{api::ApiResource, core::Status};
use netverdict_manifest::Origin;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::source::{Change, Fault, Key, Location, Scope};

/// Marks the bookmark that ends the initial events of a streaming list.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Reads the objects of one kind.
#[derive(Clone, Debug)]
pub(super) struct Decoder {
    resource: ApiResource,
    scope: Scope,
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) objects: Vec<Decoded>,
    /// Of the list as a whole.
    pub(super) version: String,
    /// Where the next page begins; `None` after the last one.
    pub(super) next: Option<String>,
}

/// The key, version and change of an object.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) key: Key,
    /// Empty where it says none.
    pub(super) version: String,
    pub(super) change: Change,
}

/// A line of a watch.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all events are puts")]
pub(super) enum Event {
    Put(Decoded),
    /// The object is gone; the version of its deletion.
    Delete(Key, String),
    Bookmark {
        version: String,
        ends_initial_events: bool,
    },
    Error(Status),
    /// Of a type that we do not know.
    Other,
}

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListMetadata {
    #[serde(rename = "resourceVersion")]
    version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    r#type: String,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Deserialize)]
struct RawObject<'a> {
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

/// Each field is read by itself: a name that is text counts, whether or not the others are readable.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawMetadata<'a> {
    #[serde(borrow)]
    namespace: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow, rename = "resourceVersion")]
    version: Option<&'a RawValue>,
    #[serde(borrow)]
    annotations: Option<&'a RawValue>,
}

impl Decoder {
    pub(super) fn new(resource: ApiResource, scope: Scope) -> Self {
        Self { resource, scope }
    }

    /// # Errors
    /// The body is no list in JSON. Of one object in it nothing can be wrong that fails the page.
    pub(super) fn page(&self, body: &[u8]) -> serde_json::Result<Page> {
        let RawPage { metadata, items } = serde_json::from_slice(body)?;
        let metadata: ListMetadata =
            metadata.map(|raw| serde_json::from_str(raw.get())).transpose()?.unwrap_or_default();
        Ok(Page {
            objects: items.into_iter().flatten().map(|raw| self.object(raw)).collect(),
            version: metadata.version.unwrap_or_default(),
            next: metadata.next.filter(|next| !next.is_empty()),
        })
    }

    /// # Errors
    /// The line is no event in JSON.
    pub(super) fn event(&self, line: &[u8]) -> serde_json::Result<Event> {
        let RawEvent { r#type, object } = serde_json::from_slice(line)?;
        Ok(match r#type.as_str() {
            "ADDED" | "MODIFIED" => Event::Put(self.object(object)),
            "DELETED" => {
                let (key, version, _) = head(object);
                Event::Delete(key, version)
            }
            "BOOKMARK" => {
                let (_, version, ends_initial_events) = head(object);
                Event::Bookmark { version, ends_initial_events }
            }
            "ERROR" => Event::Error(serde_json::from_str(object.get())?),
            _ => Event::Other,
        })
    }

    fn object(&self, raw: &RawValue) -> Decoded {
        let (key, version, _) = head(raw);
        let location = Location::new(&self.scope, key.clone());
        let fault = |fault| Change::Fault(self.scope.clone(), Some(key.clone()), vec![fault]);
        let change = match netverdict_manifest::json_value(raw.get().as_bytes()) {
            Ok(mut value) => {
                if let Some(fields) = value.as_object_mut() {
                    // Items of a list do not repeat them.
                    let text = |text: &str| serde_json::Value::String(text.to_owned());
                    fields.entry("apiVersion").or_insert_with(|| text(&self.resource.api_version));
                    fields.entry("kind").or_insert_with(|| text(&self.resource.kind));
                }
                netverdict_manifest::trim(&mut value);
                match netverdict_manifest::object_from_value(value, Origin::Api) {
                    Ok(object) => Change::Put(location, object),
                    Err(finding) => fault(Fault::Refused(Box::new(finding))),
                }
            }
            Err(error) => {
                let (kind, name) = (&self.resource.kind, name_of(&key));
                fault(Fault::Unreadable(format!("{kind} {name} of the API server cannot be read: {error}")))
            }
        };
        Decoded { key, version, change }
    }
}

fn name_of(key: &Key) -> String {
    match key {
        Key::Name { namespace, name } if namespace.is_empty() => name.clone(),
        Key::Name { namespace, name } => format!("{namespace}/{name}"),
        Key::Index(index) => index.to_string(),
    }
}

/// Key, version, and whether it ends the initial events of a list.
fn head(raw: &RawValue) -> (Key, String, bool) {
    let metadata = serde_json::from_str::<RawObject<'_>>(raw.get()).ok().and_then(|object| object.metadata);
    let metadata = metadata.and_then(|raw| serde_json::from_str::<RawMetadata<'_>>(raw.get()).ok()).unwrap_or_default();
    let text = |raw: Option<&RawValue>| -> String {
        raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
    };
    let ends = metadata.annotations.is_some_and(|raw| {
        serde_json::from_str::<serde_json::Value>(raw.get())
            .is_ok_and(|annotations| annotations.get(INITIAL_EVENTS_END).is_some())
    });
    let key = Key::Name { namespace: text(metadata.namespace), name: text(metadata.name) };
    (key, text(metadata.version), ends)
}

#[cfg(test)]
mod tests;

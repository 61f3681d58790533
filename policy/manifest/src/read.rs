//! Text to objects: several documents of YAML or JSON, lists expanded, one broken document never stopping the rest.
//!
//! Bounds: [`MOST_BYTES`] of text, [`MOST_OBJECTS`] objects, [`MOST_LEVELS`] of nesting, and what aliases may expand to.

use serde_json::Value;

use crate::{
    fields::describe,
    finding::{Finding, ObjectRef, Severity, code},
    object::{MOST_LEVELS, Object, Origin, object_from_value},
};

/// 256 MiB: some 50 000 pods as an API server prints them.
const MOST_BYTES: usize = 256 << 20;

/// More than any cluster that Kubernetes supports has pods, policies and Services.
const MOST_OBJECTS: usize = 1_000_000;

/// Lists within lists that are expanded.
const MOST_NESTED_LISTS: usize = 4;

/// Reads every object of a text. `origin` names the text in findings, for instance a path.
///
/// Every document and list item that cannot be read becomes a finding; all others are returned, in order.
pub fn read(text: &str, origin: &str) -> (Vec<Object>, Vec<Finding>) {
    let mut reader = Reader::of(Source::Text(origin));
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.len() > MOST_BYTES {
        reader.refuse(0, code::TOO_LARGE, format!("the text has {} bytes", text.len()), "split it into several files");
        return (reader.objects, reader.findings);
    }
    match json_documents(text) {
        Some(documents) => {
            for (index, document) in documents.into_iter().enumerate() {
                reader.value(document, index + 1);
            }
        }
        None if is_json_lines(text) => {
            for (index, document) in text.lines().filter(|line| !line.trim().is_empty()).enumerate() {
                reader.document(document, index + 1);
            }
        }
        None => {
            for (index, document) in documents(text).enumerate() {
                reader.document(document, index + 1);
            }
        }
    }
    (reader.objects, reader.findings)
}

/// [`read`] for bytes: those that are no UTF-8 are one finding.
pub fn read_bytes(bytes: &[u8], origin: &str) -> (Vec<Object>, Vec<Finding>) {
    match str::from_utf8(bytes) {
        Ok(text) => read(text, origin),
        Err(error) => {
            let mut reader = Reader::of(Source::Text(origin));
            let message = format!("the text is not UTF-8 from byte {} on", error.valid_up_to());
            reader.refuse(0, code::BROKEN_DOCUMENT, message, "save it as UTF-8; it was left out");
            (reader.objects, reader.findings)
        }
    }
}

/// Takes a value that holds an object, or a list of them. `name` stands for it in findings.
///
/// Every item that cannot be read becomes a finding; all others are returned, in order.
pub fn objects_from_value(value: Value, name: &str) -> (Vec<Object>, Vec<Finding>) {
    let mut reader = Reader::of(Source::Value(name));
    reader.object(value, 1, None, &mut 0, MOST_NESTED_LISTS);
    (reader.objects, reader.findings)
}

/// One JSON value, in which no mapping says a key twice.
///
/// # Errors
/// It is no JSON, or which of two values counts would be anybody's guess.
pub fn json_value(text: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(text).map(|unique::Unique(value)| value)
}

/// What is read, by the name that findings call it.
#[derive(Clone, Copy)]
enum Source<'a> {
    Text(&'a str),
    Value(&'a str),
}

struct Reader<'a> {
    source: Source<'a>,
    objects: Vec<Object>,
    findings: Vec<Finding>,
}

impl<'a> Reader<'a> {
    fn of(source: Source<'a>) -> Self {
        Self { source, objects: Vec::new(), findings: Vec::new() }
    }

    fn document(&mut self, text: &str, document: usize) {
        match yaml(text) {
            Ok(value) => self.value(value, document),
            Err(error) => {
                let remedy = match text.contains("{{") {
                    true => "render the template first, for instance by helm template; the other documents were read",
                    false => "repair the document; the others were read",
                };
                self.refuse(document, code::BROKEN_DOCUMENT, error, remedy);
            }
        }
    }

    /// A whole document. An empty one, between two separators or of comments only, is nothing.
    fn value(&mut self, value: Value, document: usize) {
        if value.is_null() {
            return;
        }
        if !value.is_object() {
            let message = format!("expected a Kubernetes object, found {}", describe(&value));
            return self.refuse(document, code::BROKEN_DOCUMENT, message, "write one object a document");
        }
        let mut next_item = 0;
        self.object(value, document, None, &mut next_item, MOST_NESTED_LISTS);
    }

    /// An object, or a list of them: `List`, or the `PodList` of an API, whose items have no kind of their own.
    fn object(&mut self, mut value: Value, document: usize, item: Option<usize>, next_item: &mut usize, nested: usize) {
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
        let Some(item_kind) = kind.strip_suffix("List").filter(|_| value.get("items").is_some()) else {
            return self.push(value, self.origin(document, item));
        };
        let item_kind = item_kind.to_owned();
        let api_version = value.get("apiVersion").cloned();
        let items = match value.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            Some(Value::Null) | None => return,
            Some(other) => {
                let message = format!("the items of a list are {}", describe(&other));
                return self.refuse(document, code::BROKEN_DOCUMENT, message, "write a list of objects");
            }
        };
        let Some(nested) = nested.checked_sub(1) else {
            let message = format!("lists nest more than {MOST_NESTED_LISTS} deep");
            return self.refuse(document, code::BROKEN_DOCUMENT, message, "write the objects in one list");
        };
        for mut entry in items {
            if let (Value::Object(fields), false) = (&mut entry, item_kind.is_empty()) {
                fields.entry("kind").or_insert_with(|| Value::String(item_kind.clone()));
                if let Some(api_version) = &api_version {
                    fields.entry("apiVersion").or_insert_with(|| api_version.clone());
                }
            }
            let item = *next_item;
            *next_item += 1;
            self.object(entry, document, Some(item), next_item, nested);
        }
    }

    fn push(&mut self, value: Value, origin: Origin) {
        if self.objects.len() >= MOST_OBJECTS {
            if self.findings.last().is_none_or(|last| last.code != code::TOO_LARGE) {
                let message = format!("the text holds more than {MOST_OBJECTS} objects");
                self.refuse(0, code::TOO_LARGE, message, "split it into several files");
            }
            return;
        }
        match object_from_value(value, origin) {
            Ok(object) => self.objects.push(object),
            Err(finding) => self.findings.push(finding),
        }
    }

    fn origin(&self, document: usize, item: Option<usize>) -> Origin {
        match self.source {
            Source::Text(path) => Origin::File { path: path.to_owned(), document, item },
            Source::Value(name) => Origin::Value { name: name.to_owned(), item },
        }
    }

    /// `document` 0 stands for the text as a whole.
    fn refuse(&mut self, document: usize, code: &'static str, message: String, remedy: &str) {
        let origin = match (document, self.source) {
            (0, Source::Text(path)) => path.to_owned(),
            _ => self.origin(document, None).to_string(),
        };
        self.findings.push(Finding {
            severity: Severity::Error,
            code,
            object: None::<ObjectRef>,
            origin: Some(origin),
            field: String::new(),
            message,
            remedy: remedy.to_owned(),
        });
    }
}

/// JSON texts one after another, with or without line ends between them. `None` where any of it is no JSON: it may
/// still be YAML, which is read by document, so that one that is broken costs no other.
fn json_documents(text: &str) -> Option<Vec<Value>> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let mut documents = Vec::new();
    for document in serde_json::Deserializer::from_str(text).into_iter::<unique::Unique>() {
        documents.push(document.ok()?.0);
    }
    Some(documents)
}

/// Whether every line is meant to be a JSON object of its own.
fn is_json_lines(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.clone().nth(1).is_some() && lines.all(|line| line.starts_with('{'))
}

/// The documents of a YAML text: a line of `---` begins one, wherever it stands (it cannot stand inside a block).
fn documents(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let mut text = rest?;
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            if begins_document(line) {
                let before = &text[..at];
                if has_content(before) {
                    rest = Some(&text[at..]);
                    return Some(before);
                }
                if !before.lines().any(|line| line.starts_with('%')) {
                    text = &text[at..];
                    at = 0;
                }
            }
            at += line.len();
        }
        rest = None;
        has_content(text).then_some(text)
    })
}

fn begins_document(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether there is more than comments, directives, empty lines and separators.
fn has_content(document: &str) -> bool {
    document.lines().any(|line| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        !(line.is_empty() || line == "..." || line.starts_with('#') || line.starts_with('%'))
    })
}

fn yaml(text: &str) -> Result<Value, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            // What a text can say without aliases is bounded by its own size.
            max_events: text.len().saturating_mul(2).max(1_000),
            max_nodes: text.len().saturating_mul(2).max(1_000),
            max_total_scalar_bytes: text.len().saturating_mul(2).max(1_000),
            max_depth: MOST_LEVELS,
            max_documents: 1,
            max_anchors: 1_000,
            max_aliases: 1_000,
            max_recorded_anchor_events: 100_000,
            max_recorded_anchor_bytes: 4 << 20,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 100_000,
            max_replay_stack_depth: 16,
            max_alias_expansions_per_anchor: 1_000,
        },
        // `y` is a name, not a truth; writers of YAML disagree on all but these two words.
        strict_booleans: true,
        emit_comments: false,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        // Advice to whoever calls the reader, not to whoever wrote the text.
        shorten(&error.to_string().replace(", set DuplicateKeyPolicy in Options if acceptable", ""))
    })
}

/// One line, of bounded length: an error may repeat the text that it is about.
fn shorten(message: &str) -> String {
    const LONGEST: usize = 300;
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

/// JSON values in which no mapping says a key twice: which one counts would be anybody's guess.
mod unique {
    use std::fmt;

    use serde::{
        Deserialize, Deserializer,
        de::{Error, MapAccess, SeqAccess, Visitor},
    };
    use serde_json::{Map, Number, Value};

    pub(super) struct Unique(pub(super) Value);

    impl<'de> Deserialize<'de> for Unique {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(Build).map(Self)
        }
    }

    struct Build;

    impl<'de> Visitor<'de> for Build {
        type Value = Value;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON value")
        }

        fn visit_unit<E: Error>(self) -> Result<Value, E> {
            Ok(Value::Null)
        }

        fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
            Ok(Value::Bool(value))
        }

        fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
            Ok(value.into())
        }

        fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
            Ok(value.into())
        }

        fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
            Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
        }

        fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
            Ok(value.into())
        }

        fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
            Ok(value.into())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
            let mut list = Vec::new();
            while let Some(Unique(item)) = items.next_element()? {
                list.push(item);
            }
            Ok(Value::Array(list))
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
            let mut map = Map::new();
            while let Some((key, Unique(value))) = entries.next_entry::<String, Unique>()? {
                if map.contains_key(&key) {
                    return Err(A::Error::custom(format_args!("the key {key:?} stands twice")));
                }
                map.insert(key, value);
            }
            Ok(Value::Object(map))
        }
    }
}

#[cfg(test)]
mod tests;

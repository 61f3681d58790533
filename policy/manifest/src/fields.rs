//! Walks a mapping field by field, remembers where it is, and notices fields that nobody asked for.
//!
//! A field that holds null counts as absent, as Kubernetes has it; an unknown field counts even then.

use serde_json::{Map, Value};

use crate::finding::{Invalid, code};

/// Boxed: most readings succeed, and the error is large.
pub(crate) type Read<T> = Result<T, Box<Invalid>>;

/// Characters of a value that a message repeats.
const LONGEST_QUOTE: usize = 64;

/// One mapping and its path.
#[derive(Debug)]
pub(crate) struct Fields<'v> {
    map: &'v Map<String, Value>,
    path: String,
    known: Vec<&'static str>,
}

/// One list and its path.
#[derive(Debug)]
pub(crate) struct List<'v> {
    pub(crate) items: &'v [Value],
    pub(crate) path: String,
}

impl<'v> List<'v> {
    /// Each item with its path.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (String, &'v Value)> {
        self.items.iter().enumerate().map(|(index, item)| (format!("{}[{index}]", self.path), item))
    }
}

impl<'v> Fields<'v> {
    /// `path` is the mapping's own, empty at the top.
    pub(crate) fn of(value: &'v Value, path: String) -> Read<Self> {
        match value {
            Value::Object(map) => Ok(Self { map, path, known: Vec::new() }),
            other => Err(wrong_type(path, "a mapping", other)),
        }
    }

    pub(crate) fn own_path(&self) -> &str {
        &self.path
    }

    /// The path of a field of this mapping.
    pub(crate) fn path(&self, name: &str) -> String {
        let plain = name.len() <= LONGEST_QUOTE && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        match (self.path.as_str(), plain) {
            ("", true) => name.to_owned(),
            (path, true) => format!("{path}.{name}"),
            (path, false) => format!("{path}[{}]", quoted(name)),
        }
    }

    /// `None` where it is missing or null.
    pub(crate) fn value(&mut self, name: &'static str) -> Option<&'v Value> {
        self.known.push(name);
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn object(&mut self, name: &'static str) -> Read<Option<Fields<'v>>> {
        let path = self.path(name);
        self.value(name).map(|value| Fields::of(value, path)).transpose()
    }

    pub(crate) fn list(&mut self, name: &'static str) -> Read<Option<List<'v>>> {
        let path = self.path(name);
        match self.value(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(List { items, path })),
            Some(other) => Err(wrong_type(path, "a list", other)),
        }
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Read<Option<&'v str>> {
        let path = self.path(name);
        self.value(name).map(|value| text(value, path)).transpose()
    }

    pub(crate) fn integer(&mut self, name: &'static str) -> Read<Option<i64>> {
        let path = self.path(name);
        match self.value(name) {
            None => Ok(None),
            Some(value) => value.as_i64().map(Some).ok_or_else(|| wrong_type(path, "a whole number", value)),
        }
    }

    /// Older YAML has more spellings than JSON; `kubectl` takes them. Quoted words are text to it as they are to us.
    pub(crate) fn boolean(&mut self, name: &'static str) -> Read<Option<bool>> {
        let path = self.path(name);
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(value) => match value.as_str().map(str::to_ascii_lowercase).as_deref() {
                Some("yes" | "on") => Ok(Some(true)),
                Some("no" | "off") => Ok(Some(false)),
                _ => Err(wrong_type(path, "true or false", value)),
            },
        }
    }

    pub(crate) fn required_text(&mut self, name: &'static str) -> Read<&'v str> {
        match self.text(name)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) | None => Err(self.missing(name)),
        }
    }

    pub(crate) fn required_object(&mut self, name: &'static str) -> Read<Fields<'v>> {
        self.object(name)?.ok_or_else(|| self.missing(name))
    }

    pub(crate) fn missing(&self, name: &str) -> Box<Invalid> {
        let message = format!("{name} is missing");
        Box::new(Invalid::new(code::MISSING_FIELD, self.path(name), message, format!("add {name}")))
    }

    /// Call when all fields that the mapping may have were asked for: fails where it has others.
    pub(crate) fn finish(self) -> Read<()> {
        let Some(unknown) = self.map.keys().find(|key| !self.known.contains(&key.as_str())) else { return Ok(()) };
        let near = self.known.iter().find(|known| is_misspelling(unknown, known));
        let remedy = match near {
            Some(known) => format!("did you mean {known}?"),
            None => format!("remove it; known here: {}", self.known.join(", ")),
        };
        let message = format!("the field {} is not known", quoted(unknown));
        Err(Box::new(Invalid::new(code::UNKNOWN_FIELD, self.path(unknown), message, remedy)))
    }
}

pub(crate) fn text(value: &Value, path: String) -> Read<&str> {
    value.as_str().ok_or_else(|| wrong_type(path, "text", value))
}

pub(crate) fn wrong_type(path: String, expected: &str, found: &Value) -> Box<Invalid> {
    let message = format!("expected {expected}, found {}", describe(found));
    Box::new(Invalid::new(code::WRONG_TYPE, path, message, format!("write {expected}")))
}

/// For messages: the type, and the value where that is short.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string(),
        Value::Number(value) => value.to_string(),
        Value::String(value) => format!("the text {}", quoted(value)),
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
    }
}

/// The text in quotes, escaped, and cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(LONGEST_QUOTE) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// Other case, two letters swapped, or a letter or two too many, too few or wrong.
pub(crate) fn is_misspelling(found: &str, known: &str) -> bool {
    if found.len() > LONGEST_QUOTE {
        return false;
    }
    let (found, known) = (found.to_lowercase(), known.to_lowercase());
    let sorted = |text: &str| {
        let mut letters: Vec<char> = text.chars().collect();
        letters.sort_unstable();
        letters
    };
    sorted(&found) == sorted(&known) || distance(&found, &known) <= known.len() / 4
}

/// Letters to insert, remove or replace.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, other) in b.iter().enumerate() {
            let replace = diagonal + usize::from(letter != *other);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_field_is_found_with_its_path_and_the_likely_name() {
        let value = json!({"form": [], "ports": null});
        let mut fields = Fields::of(&value, "spec.ingress[0]".into()).unwrap();
        assert!(fields.list("from").unwrap().is_none());
        assert!(fields.list("ports").unwrap().is_none());
        let invalid = fields.finish().unwrap_err();
        assert_eq!(invalid.field, "spec.ingress[0].form");
        assert_eq!(invalid.remedy, "did you mean from?");
    }

    #[test]
    fn misspellings_are_near_and_other_words_are_not() {
        for (found, known, expected) in [
            ("podselector", "podSelector", true),
            ("matchLabel", "matchLabels", true),
            ("form", "from", true),
            ("port", "ports", true),
            ("cidr", "from", false),
            ("services", "namespaces", false),
        ] {
            assert_eq!(is_misspelling(found, known), expected, "{found} for {known}");
        }
    }

    #[test]
    fn long_values_are_cut_in_messages() {
        let invalid = text(&json!([1]), "a".into()).unwrap_err();
        assert_eq!(invalid.message, "expected text, found a list");
        assert_eq!(quoted(&"é".repeat(1000)).chars().count(), LONGEST_QUOTE + 3);
    }
}

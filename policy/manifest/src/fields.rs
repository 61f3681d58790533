//! Access to the fields of an object: each value with its path, for findings. [`Fields::finish`] fails on unknown fields.
//!
//! As in Kubernetes, a field that is null counts as absent; an unknown field is an error even then. Messages show a value as its
//! text spells it.

use serde_json::{Map, Value};

use crate::{
    finding::{Invalid, code},
    spelling::Spelling,
};

/// Boxed, since the error is large and rare.
pub(crate) type Read<T> = Result<T, Box<Invalid>>;

/// Characters of a value that a message shows.
const LONGEST_QUOTE: usize = 64;

/// One value of an object, with its path.
#[derive(Clone, Debug)]
pub(crate) struct Field<'v> {
    pub(crate) value: &'v Value,
    pub(crate) path: String,
    spelling: Option<&'v Spelling>,
}

/// One mapping, with the names of the fields that were read so far.
#[derive(Debug)]
pub(crate) struct Fields<'v> {
    map: &'v Map<String, Value>,
    path: String,
    spelling: Option<&'v Spelling>,
    known: Vec<&'static str>,
}

/// One list.
#[derive(Debug)]
pub(crate) struct List<'v> {
    pub(crate) items: &'v [Value],
    pub(crate) path: String,
    spelling: Option<&'v Spelling>,
}

impl<'v> Field<'v> {
    /// `path` is the value's own, empty for a whole object.
    pub(crate) fn new(value: &'v Value, path: impl Into<String>, spelling: Option<&'v Spelling>) -> Self {
        Self { value, path: path.into(), spelling }
    }

    /// Another value in the same place.
    pub(crate) fn with_value(self, value: &'v Value) -> Self {
        Self { value, ..self }
    }

    pub(crate) fn text(&self) -> Read<&'v str> {
        self.value.as_str().ok_or_else(|| {
            let mut invalid = self.wrong_type("text");
            if self.value.is_boolean() || self.value.is_number() {
                invalid.remedy = "put the value in quotes".to_owned();
            }
            invalid
        })
    }

    pub(crate) fn integer(&self) -> Read<i64> {
        self.value.as_i64().ok_or_else(|| self.wrong_type("a whole number"))
    }

    pub(crate) fn boolean(&self) -> Read<bool> {
        self.value.as_bool().ok_or_else(|| self.wrong_type("true or false"))
    }

    pub(crate) fn list(self) -> Read<List<'v>> {
        match self.value {
            Value::Array(items) => Ok(List { items, path: self.path, spelling: self.spelling }),
            _ => Err(self.wrong_type("a list")),
        }
    }

    pub(crate) fn wrong_type(&self, expected: &str) -> Box<Invalid> {
        let message = format!("expected {expected}, found {}", self.describe());
        Box::new(Invalid::new(code::WRONG_TYPE, &self.path, message, format!("write {expected}")))
    }

    /// The value as its text spells it, and the value that it counts as where that is another.
    pub(crate) fn describe(&self) -> String {
        match self.spelling.and_then(Spelling::text) {
            Some(text) => format!("{}, which kubectl reads as {}", cut(text), self.value),
            None => describe(self.value),
        }
    }
}

impl<'v> List<'v> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Field<'v>> {
        self.items.iter().enumerate().map(|(index, value)| Field {
            value,
            path: format!("{}[{index}]", self.path),
            spelling: self.spelling.and_then(|spelling| spelling.item(index)),
        })
    }
}

impl<'v> Fields<'v> {
    pub(crate) fn of(field: Field<'v>) -> Read<Self> {
        match field.value {
            Value::Object(map) => Ok(Self { map, path: field.path, spelling: field.spelling, known: Vec::new() }),
            _ => Err(field.wrong_type("a mapping")),
        }
    }

    pub(crate) fn own_path(&self) -> &str {
        &self.path
    }

    /// The path of a field of this mapping.
    pub(crate) fn path(&self, name: &str) -> String {
        child_path(&self.path, name)
    }

    /// Every entry, with its key in brackets in the path: for mappings whose keys are the user's own words.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'v String, Field<'v>)> {
        self.map.iter().map(|(key, value)| {
            let spelling = self.spelling.and_then(|spelling| spelling.child(key));
            (key, Field { value, path: format!("{}[{}]", self.path, quoted(key)), spelling })
        })
    }

    /// `None` where it is missing or null.
    pub(crate) fn field(&mut self, name: &'static str) -> Option<Field<'v>> {
        self.known.push(name);
        let value = self.map.get(name).filter(|value| !value.is_null())?;
        Some(Field { value, path: self.path(name), spelling: self.spelling.and_then(|spelling| spelling.child(name)) })
    }

    pub(crate) fn object(&mut self, name: &'static str) -> Read<Option<Fields<'v>>> {
        self.field(name).map(Fields::of).transpose()
    }

    pub(crate) fn list(&mut self, name: &'static str) -> Read<Option<List<'v>>> {
        self.field(name).map(Field::list).transpose()
    }

    pub(crate) fn text(&mut self, name: &'static str) -> Read<Option<&'v str>> {
        self.field(name).map(|field| field.text()).transpose()
    }

    pub(crate) fn integer(&mut self, name: &'static str) -> Read<Option<i64>> {
        self.field(name).map(|field| field.integer()).transpose()
    }

    pub(crate) fn boolean(&mut self, name: &'static str) -> Read<Option<bool>> {
        self.field(name).map(|field| field.boolean()).transpose()
    }

    /// Fails where it is missing, null or the empty text.
    pub(crate) fn required(&mut self, name: &'static str) -> Read<Field<'v>> {
        self.field(name).filter(|field| field.value != "").ok_or_else(|| self.missing(name))
    }

    pub(crate) fn required_text(&mut self, name: &'static str) -> Read<&'v str> {
        self.required(name)?.text()
    }

    pub(crate) fn required_object(&mut self, name: &'static str) -> Read<Fields<'v>> {
        self.object(name)?.ok_or_else(|| self.missing(name))
    }

    pub(crate) fn missing(&self, name: &str) -> Box<Invalid> {
        let message = format!("{name} is missing");
        Box::new(Invalid::new(code::MISSING_FIELD, self.path(name), message, format!("add {name}")))
    }

    /// Call this when every known field has been read: fails where the mapping has others.
    pub(crate) fn finish(self) -> Read<()> {
        let Some(unknown) = self.map.keys().find(|key| !self.known.contains(&key.as_str())) else { return Ok(()) };
        let near = self.known.iter().find(|known| is_misspelling(unknown, known));
        let remedy = match near {
            Some(known) => format!("did you mean {known}?"),
            None => format!("remove it; known here: {}", self.known.join(", ")),
        };
        let message = format!("the field {} is unknown", quoted(unknown));
        Err(Box::new(Invalid::new(code::UNKNOWN_FIELD, self.path(unknown), message, remedy)))
    }
}

/// The path of a field of the mapping at `path`. Names with unusual characters are written in brackets.
pub(crate) fn child_path(path: &str, name: &str) -> String {
    let plain = name.len() <= LONGEST_QUOTE && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    match (path, plain) {
        ("", true) => name.to_owned(),
        (path, true) => format!("{path}.{name}"),
        (path, false) => format!("{path}[{}]", quoted(name)),
    }
}

/// The type of a value for messages, and the value itself where it is short.
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

/// The text without quotes, cut where it is long.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_QUOTE) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The text in quotes, escaped, and cut where it is long.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(LONGEST_QUOTE) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// Whether two words differ only in case, in the order of letters, or in a quarter of their letters.
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

/// Levenshtein distance: letters to insert, remove or replace.
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
        let mut fields = Fields::of(Field::new(&value, "spec.ingress[0]", None)).unwrap();
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
        let value = json!([1]);
        let invalid = Field::new(&value, "a", None).text().unwrap_err();
        assert_eq!(invalid.message, "expected text, found a list");
        assert_eq!(quoted(&"é".repeat(1000)).chars().count(), LONGEST_QUOTE + 3);
    }
}

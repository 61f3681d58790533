//! Text to [`Object`]s: splits YAML or JSON into documents and expands lists. A broken document does not affect the others.
//!
//! Bounds: [`MOST_BYTES`] of text, [`MOST_OBJECTS`] objects, and those of [`yaml`] for each document.

use serde_json::Value;

use crate::{
    fields::{Field, describe},
    finding::{Finding, Invalid, Severity, code},
    json,
    metadata::object_from_text,
    object::{Object, Origin},
    spelling::Spelling,
    yaml::{self, Broken, Document},
};

/// 256 MiB: some 50 000 pods as an API server prints them.
const MOST_BYTES: usize = 256 << 20;

/// More than any cluster that Kubernetes supports has pods, policies and Services.
const MOST_OBJECTS: usize = 1_000_000;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Lists within lists that are expanded.
const MOST_NESTED_LISTS: usize = 4;

/// Reads every object of a text. `origin` names the text in findings, for instance a path.
///
/// Every document and list item that cannot be read becomes a finding; all others are returned, in order.
pub fn read(text: &str, origin: &str) -> (Vec<Object>, Vec<Finding>) {
    let mut reader = Reader::of(Source::Text(origin));
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if text.len() > MOST_BYTES {
        reader.refuse(0, code::TOO_LARGE, format!("the text has {} bytes", text.len()), "split it into several files");
        return (reader.objects, reader.findings);
    }
    match json::values(text) {
        Some(values) => {
            for (index, value) in values.into_iter().enumerate() {
                reader.value(value, Spelling::default(), index + 1);
            }
        }
        None if is_json_lines(text) => {
            let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
            for (index, (text, first_line)) in lines.enumerate() {
                reader.document(&Part { text, first_line, unseparated: false }, index + 1);
            }
        }
        None => {
            for (index, part) in parts(text).enumerate() {
                reader.document(&part, index + 1);
            }
        }
    }
    (reader.objects, reader.findings)
}

/// As [`read`]. Bytes that are not UTF-8 are one finding.
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
    let position = Position { document: 1, item: None, next_item: &mut 0, lists_left: MOST_NESTED_LISTS };
    reader.object(value, Spelling::default(), position);
    (reader.objects, reader.findings)
}

/// The input, with its name for findings.
#[derive(Clone, Copy)]
enum Source<'a> {
    Text(&'a str),
    Value(&'a str),
}

/// The position of an object in the text.
struct Position<'n> {
    document: usize,
    /// Its number among the items of all lists of the document, or `None` outside of lists.
    item: Option<usize>,
    next_item: &'n mut usize,
    /// Levels of lists that it may still hold.
    lists_left: usize,
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

    fn document(&mut self, part: &Part<'_>, document: usize) {
        if part.unseparated {
            let message = "the document begins with a byte order mark and has no separator before it";
            let remedy =
                "put a line of --- before it, or save the files without byte order marks; kubectl refuses this";
            self.warn(document, message, remedy);
        }
        match yaml::document(part.text, part.first_line) {
            Ok(Document { value, spelling, next_at }) => {
                self.value(value, spelling, document);
                if let Some(line) = next_at {
                    let message = format!("the text from line {line} on is not read; kubectl ignores it, too");
                    let has_lone_returns = part.text.matches('\r').count() > part.text.matches("\r\n").count();
                    let remedy = match has_lone_returns {
                        true => "end the lines with LF, or with CR and LF",
                        false => "begin each document with a line of ---",
                    };
                    self.refuse(document, code::BROKEN_DOCUMENT, message, remedy);
                }
            }
            Err(Broken { message, remedy }) => {
                let remedy = match remedy {
                    Some(remedy) => remedy,
                    None if part.text.contains("{{") => {
                        "render the template first, for instance by helm template; the other documents were read"
                    }
                    None => "repair the document; the others were read",
                };
                self.refuse(document, code::BROKEN_DOCUMENT, shorten(&message), remedy);
            }
        }
    }

    /// A whole document. An empty one, between two separators or of comments only, is nothing.
    fn value(&mut self, value: Value, spelling: Spelling, document: usize) {
        if value.is_null() {
            return;
        }
        if !value.is_object() {
            let found = Field::new(&value, "", Some(&spelling)).describe();
            let message = format!("expected a Kubernetes object, found {found}");
            return self.refuse(document, code::BROKEN_DOCUMENT, message, "write one object a document");
        }
        let position = Position { document, item: None, next_item: &mut 0, lists_left: MOST_NESTED_LISTS };
        self.object(value, spelling, position);
    }

    /// An object, or a list of them: `List`, or the `PodList` of an API, whose items have no kind of their own.
    fn object(&mut self, mut value: Value, mut spelling: Spelling, position: Position<'_>) {
        let kind = value.get("kind").and_then(Value::as_str).unwrap_or_default();
        let Some(item_kind) = kind.strip_suffix("List").filter(|_| value.get("items").is_some()) else {
            return self.push(value, spelling, self.origin(position.document, position.item));
        };
        let item_kind = item_kind.to_owned();
        let api_version = value.get("apiVersion").cloned();
        let items = match value.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            Some(Value::Null) | None => return,
            Some(other) => {
                let message = format!("expected a list of objects as items, found {}", describe(&other));
                return self.refuse(position.document, code::BROKEN_DOCUMENT, message, "write a list of objects");
            }
        };
        let Some(lists_left) = position.lists_left.checked_sub(1) else {
            let message = format!("lists nest more than {MOST_NESTED_LISTS} deep");
            return self.refuse(position.document, code::BROKEN_DOCUMENT, message, "write the objects in one list");
        };
        let mut spellings = spelling.take("items");
        for (index, mut entry) in items.into_iter().enumerate() {
            if let (Value::Object(fields), false) = (&mut entry, item_kind.is_empty()) {
                fields.entry("kind").or_insert_with(|| Value::String(item_kind.clone()));
                if let Some(api_version) = &api_version {
                    fields.entry("apiVersion").or_insert_with(|| api_version.clone());
                }
            }
            let item = *position.next_item;
            *position.next_item += 1;
            let spelling = spellings.take(&index.to_string());
            let (document, next_item) = (position.document, &mut *position.next_item);
            self.object(entry, spelling, Position { document, item: Some(item), next_item, lists_left });
        }
    }

    fn push(&mut self, value: Value, spelling: Spelling, origin: Origin) {
        if self.objects.len() >= MOST_OBJECTS {
            if self.findings.last().is_none_or(|last| last.code != code::TOO_LARGE) {
                let message = format!("the text holds more than {MOST_OBJECTS} objects");
                self.refuse(0, code::TOO_LARGE, message, "split it into several files");
            }
            return;
        }
        match object_from_text(value, spelling, origin) {
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
        let invalid = Invalid::new(code, "", message, remedy);
        self.findings.push(Finding::new(Severity::Error, None, Some(self.place(document)), invalid));
    }

    fn warn(&mut self, document: usize, message: &str, remedy: &str) {
        let invalid = Invalid::new(code::BROKEN_DOCUMENT, "", message, remedy);
        self.findings.push(Finding::new(Severity::Warning, None, Some(self.place(document)), invalid));
    }

    fn place(&self, document: usize) -> String {
        match (document, self.source) {
            (0, Source::Text(path)) => path.to_owned(),
            _ => self.origin(document, None).to_string(),
        }
    }
}

/// Whether every line is meant to be a JSON object of its own.
fn is_json_lines(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.clone().nth(1).is_some() && lines.all(|line| line.starts_with('{'))
}

/// A part of a text that holds one document.
struct Part<'t> {
    text: &'t str,
    /// Line number in the whole text, from 1.
    first_line: usize,
    /// It begins with a byte order mark, without a separator before it.
    unseparated: bool,
}

/// Splits a YAML text at the separators of kubectl: every line of `---` begins a document (no scalar can contain one). So does
/// a byte order mark at the beginning of a line, which concatenated files have.
fn parts(text: &str) -> impl Iterator<Item = Part<'_>> {
    let (mut rest, mut first_line, mut after_separator) = (Some(text), 1, true);
    std::iter::from_fn(move || {
        loop {
            let text = rest?;
            let (mut end, mut lines) = (0, 0);
            let (mut directive, mut separator, mut content) = (false, false, false);
            let mut next = None;
            for line in text.split_inclusive('\n') {
                let begins_here = begins_document(line);
                // Directives belong to the document that the first separator after them begins.
                let may_end = end > 0 && (content || separator || !directive);
                if may_end && (begins_here || line.starts_with(BYTE_ORDER_MARK)) {
                    next = Some(&text[end..]);
                    break;
                }
                separator |= begins_here;
                directive |= line.starts_with('%');
                content |= has_content(line);
                end += line.len();
                lines += 1;
            }
            let unseparated = text.starts_with(BYTE_ORDER_MARK) && !after_separator;
            let part = Part { text: text[..end].trim_start_matches(BYTE_ORDER_MARK), first_line, unseparated };
            rest = next;
            first_line += lines;
            after_separator = separator && !content;
            if content {
                return Some(part);
            }
        }
    })
}

fn begins_document(line: &str) -> bool {
    let line = line.trim_start_matches(BYTE_ORDER_MARK);
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether there is more than comments, directives, empty lines and separators.
fn has_content(text: &str) -> bool {
    text.split(['\n', '\r']).any(|line| {
        let line = line.trim_start_matches(BYTE_ORDER_MARK);
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        !(line.is_empty() || line == "..." || line.starts_with('#') || line.starts_with('%'))
    })
}

/// One line of bounded length: an error may repeat the text.
fn shorten(message: &str) -> String {
    const LONGEST: usize = 300;
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONGEST) {
        None => line,
        Some((end, _)) => format!("{}…", &line[..end]),
    }
}

#[cfg(test)]
mod tests;

//! One YAML document to the JSON value that kubectl sends for it.
//!
//! Scalars have the types of kubectl's parser, not of YAML 1.2. A merge key (`<<`) replaces earlier keys of the same name, and
//! later keys replace it, as in kubectl. One difference is intended: a duplicate key is an error, where kubectl silently takes
//! the last value.
//!
//! Memory for a text is bounded by its length, nesting by [`MOST_LEVELS`], and repetition by aliases by
//! [`MOST_REPEATED_NODES`] and [`MOST_REPEATED_BYTES`].

mod scalar;

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};
use serde_json::{Map, Value};

use self::scalar::{NoValue, Scalar};
use crate::{metadata::MOST_LEVELS, spelling::Spelling};

/// Values that anchors may hold, and that aliases may repeat, each in one document.
const MOST_REPEATED_NODES: usize = 100_000;

/// Bytes of text in them.
const MOST_REPEATED_BYTES: usize = 4 << 20;

/// Tags of the YAML specification begin with this; `!!str` is short for `tag:yaml.org,2002:str`.
const TAG_PREFIX: &str = "tag:yaml.org,2002:";

/// The first document of a text.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) value: Value,
    pub(crate) spelling: Spelling,
    /// The line on which another document begins, without a separator that kubectl knows.
    pub(crate) next_at: Option<usize>,
}

/// Why a text cannot be read.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) message: String,
    /// `None` where the message says it all.
    pub(crate) remedy: Option<&'static str>,
}

/// Reads the first document of a text. `first_line` is its line number in the file, for messages.
pub(crate) fn document(text: &str, first_line: usize) -> Result<Document, Broken> {
    let mut options = granit_parser::options! {
        flow_nesting_limit: MOST_LEVELS,
        block_nesting_limit: MOST_LEVELS,
    };
    options.set_emit_comments(false);
    let parser = Parser::new_from_str_with_options(text, options);
    let (anchored, repeated) = (Budget::new("anchors hold"), Budget::new("aliases repeat"));
    let mut composer = Composer { parser, first_line, anchors: HashMap::new(), anchored, repeated };
    composer.document()
}

/// A value with the cost of repeating it.
#[derive(Clone, Debug)]
struct Node {
    value: Value,
    spelling: Spelling,
    /// Levels of nesting; a scalar has one.
    levels: usize,
    nodes: usize,
    bytes: usize,
}

/// Nodes and bytes that may still be copied.
struct Budget {
    nodes: usize,
    bytes: usize,
    /// The part that copies, for the message.
    what: &'static str,
}

struct Composer<'t> {
    parser: Parser<'t, StrInput<'t>>,
    first_line: usize,
    anchors: HashMap<usize, Node>,
    anchored: Budget,
    repeated: Budget,
}

impl<'t> Composer<'t> {
    fn document(&mut self) -> Result<Document, Broken> {
        let mut document = Document { value: Value::Null, spelling: Spelling::default(), next_at: None };
        let mut documents = 0;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(document),
                Event::DocumentStart(..) if documents > 0 => {
                    document.next_at = Some(self.line(span.start));
                    return Ok(document);
                }
                Event::DocumentStart(..) => documents += 1,
                event if event.is_node() => {
                    let node = self.node(event, span, 1)?;
                    (document.value, document.spelling) = (node.value, node.spelling);
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Broken> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Err(Broken { message: "the text ends too early".to_owned(), remedy: None }),
        }
    }

    /// `level` counts from 1.
    fn node(&mut self, event: Event<'t>, span: Span, level: usize) -> Result<Node, Broken> {
        if level > MOST_LEVELS {
            return Err(self.broken(format!("more than {MOST_LEVELS} levels of nesting"), span.start, None));
        }
        let (node, anchor) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span, level),
            Event::Scalar(text, style, anchor, tag) => {
                let scalar = scalar_of(&text, style, tag.as_deref());
                let value = scalar.and_then(Scalar::value).map_err(|error| self.no_value(error, span.start))?;
                let spelling = Spelling::of_scalar(&text, &value);
                (Node { value, spelling, levels: 1, nodes: 1, bytes: text.len() }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.sequence(level)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping(level)?, anchor),
            _ => return Err(self.broken("expected a value".to_owned(), span.start, None)),
        };
        if anchor != 0 {
            self.anchored.spend(&node).map_err(|message| self.broken(message, span.start, None))?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn alias(&mut self, anchor: usize, span: Span, level: usize) -> Result<Node, Broken> {
        // The anchor is known to the parser, so its value is not complete: it holds the alias.
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(self.broken("the alias is inside its own anchor".to_owned(), span.start, None));
        };
        if level + node.levels - 1 > MOST_LEVELS {
            return Err(self.broken(format!("more than {MOST_LEVELS} levels of nesting"), span.start, None));
        }
        match self.repeated.spend(node) {
            Ok(()) => Ok(node.clone()),
            Err(message) => Err(self.broken(message, span.start, None)),
        }
    }

    fn sequence(&mut self, level: usize) -> Result<Node, Broken> {
        let mut list = Node::empty();
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                list.value = Value::Array(items);
                return Ok(list);
            }
            let item = self.node(event, span, level + 1)?;
            list.count(&item);
            list.spelling.insert_item(items.len(), item.spelling);
            items.push(item.value);
        }
    }

    fn mapping(&mut self, level: usize) -> Result<Node, Broken> {
        let mut mapping = Node::empty();
        let mut entries = Map::new();
        let mut written = HashSet::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                mapping.value = Value::Object(entries);
                return Ok(mapping);
            }
            if is_merge_key(&event) {
                let (event, value_span) = self.next()?;
                let merged = self.node(event, value_span, level + 1)?;
                mapping.count(&merged);
                if !merge(&mut entries, &mut mapping.spelling, merged) {
                    let message = "a merge key << needs a mapping, or a list of mappings".to_owned();
                    let remedy = "write a mapping or its alias; put << in quotes if it is text";
                    return Err(self.broken(message, span.start, Some(remedy)));
                }
                continue;
            }
            let (key, key_written) = self.key(event, span, level + 1)?;
            if !written.insert(key.clone()) {
                return Err(self.broken(format!("duplicate mapping key: {key}"), span.start, None));
            }
            let (event, value_span) = self.next()?;
            let value = self.node(event, value_span, level + 1)?;
            mapping.count(&value);
            mapping.bytes += key.len();
            mapping.spelling.insert(&key, value.spelling.with_key(&key_written, &key));
            entries.insert(key, value.value);
        }
    }

    /// A key, and how it is written.
    fn key(&mut self, event: Event<'t>, span: Span, level: usize) -> Result<(String, String), Broken> {
        if let Event::Scalar(text, style, anchor, tag) = &event {
            let scalar = scalar_of(text, *style, tag.as_deref()).and_then(Scalar::key);
            let key = scalar.map_err(|error| self.no_value(error, span.start))?;
            let written = text.to_string();
            if *anchor != 0 {
                self.node(event, span, level)?;
            }
            return Ok((key, written));
        }
        match self.node(event, span, level)?.value {
            Value::String(text) => Ok((text.clone(), text)),
            Value::Bool(value) => Ok((value.to_string(), value.to_string())),
            Value::Number(value) => Ok((value.to_string(), value.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                Err(self.broken("a key must be text".to_owned(), span.start, None))
            }
        }
    }

    fn line(&self, at: Marker) -> usize {
        self.first_line + at.line().saturating_sub(1)
    }

    fn broken(&self, message: String, at: Marker, remedy: Option<&'static str>) -> Broken {
        let message = format!("{message} at line {}, column {}", self.line(at), at.col() + 1);
        Broken { message, remedy }
    }

    fn no_value(&self, NoValue(message): NoValue, at: Marker) -> Broken {
        self.broken(message, at, Some("put it in quotes if it is text; kubectl refuses it, too"))
    }

    fn syntax(&self, error: &ScanError) -> Broken {
        self.broken(error.info(), *error.marker(), None)
    }
}

impl Node {
    fn empty() -> Self {
        Self { value: Value::Null, spelling: Spelling::default(), levels: 1, nodes: 1, bytes: 0 }
    }

    /// Adds the cost of a child.
    fn count(&mut self, child: &Self) {
        self.levels = self.levels.max(child.levels + 1);
        self.nodes += child.nodes;
        self.bytes += child.bytes;
    }
}

impl Budget {
    fn new(what: &'static str) -> Self {
        Self { nodes: MOST_REPEATED_NODES, bytes: MOST_REPEATED_BYTES, what }
    }

    fn spend(&mut self, node: &Node) -> Result<(), String> {
        match (self.nodes.checked_sub(node.nodes), self.bytes.checked_sub(node.bytes)) {
            (Some(nodes), Some(bytes)) => {
                (self.nodes, self.bytes) = (nodes, bytes);
                Ok(())
            }
            _ => Err(format!("{} more than {MOST_REPEATED_NODES} values or {MOST_REPEATED_BYTES} bytes", self.what)),
        }
    }
}

fn scalar_of(text: &str, style: ScalarStyle, tag: Option<&granit_parser::Tag>) -> Result<Scalar, NoValue> {
    let tag = tag.map(|tag| match tag.suffix_in_namespace(TAG_PREFIX).as_deref() {
        Some("null") => scalar::Tag::Null,
        Some("bool") => scalar::Tag::Bool,
        Some("int") => scalar::Tag::Int,
        Some("float") => scalar::Tag::Float,
        Some("binary") => scalar::Tag::Binary,
        _ => scalar::Tag::Text,
    });
    Scalar::of(text, style == ScalarStyle::Plain, tag)
}

fn is_merge_key(event: &Event<'_>) -> bool {
    match event {
        Event::Scalar(text, ScalarStyle::Plain, _, None) => text == "<<",
        Event::Scalar(text, _, _, Some(tag)) => {
            text == "<<" && tag.suffix_in_namespace(TAG_PREFIX).as_deref() == Some("merge")
        }
        _ => false,
    }
}

/// Sets the entries of a mapping, or of a list of mappings, of which the first counts. `false` for anything else.
fn merge(entries: &mut Map<String, Value>, spelling: &mut Spelling, mut merged: Node) -> bool {
    match merged.value {
        Value::Object(map) => {
            spelling.merge(map.keys().cloned(), merged.spelling);
            entries.extend(map);
            true
        }
        Value::Array(items) => {
            if !items.iter().all(Value::is_object) {
                return false;
            }
            for (index, item) in items.into_iter().enumerate().rev() {
                let Value::Object(map) = item else { continue };
                spelling.merge(map.keys().cloned(), merged.spelling.take(&index.to_string()));
                entries.extend(map);
            }
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;

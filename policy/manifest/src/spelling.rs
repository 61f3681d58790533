//! The spelling of values whose text differs from their JSON form, for messages.
//!
//! `port: 0x1F90` is 8080 to kubectl and to us. A message about it shows `0x1F90`, which can be found in the file.

use std::collections::BTreeMap;

use serde_json::Value;

/// The spelling of a value and of the values below it, where JSON spells them in another way.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Spelling {
    /// Of the value itself, if it is a scalar.
    text: Option<String>,
    /// Of the key that holds the value.
    key: Option<String>,
    /// By key, or by the index in a list.
    children: BTreeMap<String, Spelling>,
}

impl Spelling {
    /// Of a scalar. Text is its own spelling.
    pub(crate) fn of_scalar(text: &str, value: &Value) -> Self {
        let json = value.to_string();
        let differs = !text.is_empty() && !value.is_string() && text != json;
        Self { text: differs.then(|| text.to_owned()), ..Self::default() }
    }

    pub(crate) fn with_key(self, written: &str, key: &str) -> Self {
        Self { key: (written != key).then(|| written.to_owned()), ..self }
    }

    /// Sets the spelling of a value that a mapping or a list holds at `step`, or forgets an earlier one.
    pub(crate) fn insert(&mut self, step: &str, child: Self) {
        if child == Self::default() {
            self.children.remove(step);
        } else {
            self.children.insert(step.to_owned(), child);
        }
    }

    /// Adds that of an item of a list.
    pub(crate) fn insert_item(&mut self, index: usize, child: Self) {
        if child != Self::default() {
            self.children.insert(index.to_string(), child);
        }
    }

    /// Adopts the spellings of `other` for these keys, as a merge key does with their values.
    pub(crate) fn merge(&mut self, keys: impl Iterator<Item = String>, mut other: Self) {
        for key in keys {
            let child = other.children.remove(&key).unwrap_or_default();
            self.insert(&key, child);
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }

    /// Of a field, by its key.
    pub(crate) fn child(&self, key: &str) -> Option<&Self> {
        self.children.get(key)
    }

    /// Of an item of a list.
    pub(crate) fn item(&self, index: usize) -> Option<&Self> {
        self.children.get(&index.to_string())
    }

    /// Removes that of an item of a list, for a list that is taken apart.
    pub(crate) fn take(&mut self, step: &str) -> Self {
        self.children.remove(step).unwrap_or_default()
    }

    /// Keys that are read as another text, as (steps to the key, spelling): `on`, which is read as `true`.
    /// At most `most` of them.
    pub(crate) fn misread_keys(&self, most: usize) -> Vec<(Vec<&str>, &str)> {
        let mut found = Vec::new();
        self.collect_keys(&mut Vec::new(), &mut found, most);
        found
    }

    fn collect_keys<'s>(&'s self, steps: &mut Vec<&'s str>, found: &mut Vec<(Vec<&'s str>, &'s str)>, most: usize) {
        for (step, child) in &self.children {
            steps.push(step);
            if let Some(key) = child.key.as_ref().filter(|_| found.len() < most) {
                found.push((steps.clone(), key));
            }
            child.collect_keys(steps, found, most);
            steps.pop();
        }
    }
}

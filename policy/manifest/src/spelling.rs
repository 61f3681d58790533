//! How a text spells a value, where that differs from its JSON form: messages repeat what somebody wrote.
//!
//! `port: 0x1F90` is 8080 to kubectl and to us. A message about it says `0x1F90`, for that is what can be found in the file.

use std::collections::BTreeMap;

use serde_json::Value;

/// The spelling of a value and of those below it. Only those are here that JSON would spell in another way.
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

    /// Sets the spelling of what a mapping or a list holds at `step`, or forgets an earlier one.
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

    /// Takes over what `other` says, as a merge key does with the values.
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

    /// Keys that count as other text than they are spelled, as (steps to the key, spelling): `on`, which is `true`.
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

//! A list of plugins (`.conflist`) as a value. It reads and writes no file.

use serde_json::{Value, json};

use crate::version::SUPPORTED;

/// The name of the program, which is the type of its entry in the list.
pub(super) const PLUGIN: &str = "netverdict-cni";

/// A configuration that is understood: every plugin has a type, and somebody else connects the pods.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PluginList(Value);

impl PluginList {
    /// # Errors
    /// The reason why it is not understood.
    pub(super) fn read(text: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| format!("no JSON: {error}"))?;
        let version = value["cniVersion"].as_str().unwrap_or("none");
        if !SUPPORTED.contains(&version) {
            return Err(format!("its cniVersion is {version}, expected one of {}", SUPPORTED.join(", ")));
        }
        let plugins = value["plugins"].as_array().ok_or("it has no list `plugins`")?;
        if let Some(nameless) = plugins.iter().position(|plugin| !plugin["type"].is_string()) {
            return Err(format!("plugin {nameless} of its list has no type"));
        }
        if plugins.first().is_none_or(is_ours) {
            return Err("no plugin before ours connects pods".to_owned());
        }
        Ok(Self(value))
    }

    pub(super) fn has_ours(&self) -> bool {
        self.plugins().iter().any(is_ours)
    }

    /// With our entry as the last, and nowhere else.
    pub(super) fn with(&self, entry: Value) -> Self {
        let others = self.plugins().iter().filter(|plugin| !is_ours(plugin)).cloned();
        self.replaced(others.chain([entry]).collect())
    }

    /// # Errors
    /// Nothing would be left.
    pub(super) fn without(&self) -> Result<Self, String> {
        let others: Vec<Value> = self.plugins().iter().filter(|plugin| !is_ours(plugin)).cloned().collect();
        match others.is_empty() {
            true => Err("no plugin would be left".to_owned()),
            false => Ok(self.replaced(others)),
        }
    }

    pub(super) fn text(&self) -> String {
        format!("{:#}\n", self.0)
    }

    fn plugins(&self) -> &[Value] {
        self.0["plugins"].as_array().map_or(&[], Vec::as_slice)
    }

    fn replaced(&self, plugins: Vec<Value>) -> Self {
        let mut value = self.0.clone();
        value["plugins"] = json!(plugins);
        Self(value)
    }
}

fn is_ours(plugin: &Value) -> bool {
    plugin["type"] == PLUGIN
}

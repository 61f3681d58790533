//! The forms of an answer, and those for programs: JSON and YAML.

use clap::ValueEnum;

/// `-o` of commands whose table has a wide form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Wide,
    Json,
    Yaml,
}

/// Indented JSON, with a newline at the end.
pub(crate) fn json(value: &impl serde::Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// YAML, with a newline at the end.
pub(crate) fn yaml(value: &impl serde::Serialize) -> anyhow::Result<String> {
    // Through a JSON value, so that numbers, times and null are spelled as in JSON.
    let mut text = serde_saphyr::to_string(&serde_json::to_value(value)?)?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

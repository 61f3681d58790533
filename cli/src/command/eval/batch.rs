//! Cases as JSON lines, answered one by one: what cannot be read is answered too, and stops nothing.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, IsTerminal as _, Read as _, Write},
    net::IpAddr,
    path::Path,
};

use anyhow::Context;
use netverdict_manifest::Finding;
use netverdict_policy::{End, Family, Flow, ObjectKey, Snapshot, evaluate};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{answer::FlowAnswer, flow_between};
use crate::{exit::Exit, place::parse_protocol, terminal::Terminal};

/// Longer lines are answered by an error and skipped: some 10⁵ objects.
const LONGEST_LINE: u64 = 256 << 20;
/// A case's findings that are told, in its answer and on standard error.
const MOST_FINDINGS: usize = 20;
/// Some programs begin a text with it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Deserialize)]
struct Case {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    objects: Vec<Value>,
    flows: Vec<Value>,
    /// A misspelt `objects` is told, and notes that a case carries along stop nothing.
    #[serde(flatten)]
    unknown: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "expected a flow, an object with source and destination")]
struct FlowText {
    source: EndText,
    destination: EndText,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    family: Option<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", expecting = "expected {\"pod\": \"namespace/name\"} or {\"ip\": \"...\"}")]
enum EndText {
    Pod(String),
    Ip(IpAddr),
}

#[derive(Serialize)]
struct CaseAnswer {
    id: Value,
    flows: Vec<FlowAnswer>,
    /// What of the objects counts for nothing, or not as it is written; left out where there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    findings: Vec<Finding>,
}

#[derive(Serialize)]
struct ErrorLine {
    /// Null where it could not be read either.
    id: Value,
    error: String,
}

/// Answers every line of the file, or of standard input.
pub(super) fn execute(path: Option<&Path>, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let output = BufWriter::new(io::stdout().lock());
    let mut warn = |text: &str| terminal.warn(text);
    match path.filter(|path| path.as_os_str() != "-") {
        None => {
            let input = io::stdin().lock();
            if input.is_terminal() {
                warn("reading cases from the terminal, one JSON object a line; for one flow see eval --help");
            }
            answer_all(input, output, &mut warn)?;
        }
        Some(path) => {
            let file = File::open(path).with_context(|| format!("cannot read the cases in {}", path.display()))?;
            answer_all(BufReader::new(file), output, &mut warn)?;
        }
    }
    Ok(Exit::Done)
}

/// Each answer is written out before the next line is awaited, so that another program may ask and listen in turn.
fn answer_all(mut input: impl BufRead, mut output: impl Write, warn: &mut dyn FnMut(&str)) -> io::Result<()> {
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let cut = read as u64 == LONGEST_LINE && line.last() != Some(&b'\n');
        if cut {
            input.skip_until(b'\n')?;
            let error = format!("line {number} is longer than {} MiB; split the case", LONGEST_LINE >> 20);
            write_line(&mut output, &ErrorLine { id: Value::Null, error })?;
        } else if let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line).trim_ascii()
            && !line.is_empty()
        {
            match answer(line, warn) {
                Ok(answer) => write_line(&mut output, &answer)?,
                Err((id, error)) => {
                    write_line(&mut output, &ErrorLine { id, error: format!("line {number}: {error}") })?;
                }
            }
        }
        output.flush()?;
    }
    Ok(())
}

fn write_line(output: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *output, value).map_err(io::Error::from)?;
    output.write_all(b"\n")
}

/// On failure the id, as far as it could be read, and why.
fn answer(line: &[u8], warn: &mut dyn FnMut(&str)) -> Result<CaseAnswer, (Value, String)> {
    let value: Value = serde_json::from_slice(line).map_err(|error| (Value::Null, format!("no JSON: {error}")))?;
    if !value.is_object() {
        return Err((Value::Null, "expected an object with id, objects and flows".to_owned()));
    }
    let id = value.get("id").cloned().unwrap_or_default();
    let Case { id, objects, flows, unknown } =
        serde_json::from_value(value).map_err(|error| (id, error.to_string()))?;
    if let Some(name) = unknown.keys().find(|name| name.starts_with("object")) {
        warn(&format!("case {id}: `{name}` means nothing; the objects are in `objects`"));
    }
    let (snapshot, findings) = snapshot(&id, objects, warn);
    let flows = flows.into_iter().map(|flow| answer_flow(&snapshot, flow)).collect();
    Ok(CaseAnswer { id, flows, findings })
}

/// With what of the objects counts for nothing, or not as it is written. People are told on standard error.
fn snapshot(id: &Value, objects: Vec<Value>, warn: &mut dyn FnMut(&str)) -> (Snapshot, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut read = Vec::with_capacity(objects.len());
    for value in objects {
        let (objects, unreadable) = netverdict_manifest::objects_from_value(value);
        read.extend(objects);
        findings.extend(unreadable);
    }
    let reading = netverdict_manifest::snapshot(&read);
    findings.extend(reading.findings);
    findings.retain(Finding::changes_verdicts);
    for finding in findings.iter().take(MOST_FINDINGS) {
        warn(&format!("case {id}: {finding}"));
    }
    if let Some(more) = findings.len().checked_sub(MOST_FINDINGS).filter(|more| *more > 0) {
        warn(&format!("case {id}: {more} more objects or fields of it do not count as they are written"));
    }
    findings.truncate(MOST_FINDINGS);
    (reading.snapshot, findings)
}

fn answer_flow(snapshot: &Snapshot, flow: Value) -> FlowAnswer {
    let read = serde_json::from_value(flow).map_err(|error| error.to_string());
    let read = read.and_then(|text| read_flow(&text, snapshot));
    let evaluated = read.and_then(|flow| evaluate(snapshot, &flow).map_err(|error| error.to_string()));
    evaluated.map_or_else(FlowAnswer::failed, |evaluation| FlowAnswer::of(&evaluation))
}

fn read_flow(text: &FlowText, snapshot: &Snapshot) -> Result<Flow, String> {
    let FlowText { source, destination, protocol, port, family } = text;
    let (source, destination) = (end(source)?, end(destination)?);
    let chosen = match family {
        None => None,
        Some(4) => Some(Family::V4),
        Some(6) => Some(Family::V6),
        Some(other) => return Err(format!("family: expected 4 or 6, found {other}")),
    };
    let protocol = protocol.as_deref().map(parse_protocol).transpose().map_err(|error| format!("protocol: {error}"))?;
    if *port == Some(0) {
        return Err("port: expected 1 to 65535, found 0".to_owned());
    }
    flow_between(snapshot, source, destination, protocol, *port, chosen).map_err(|error| error.to_string())
}

fn end(text: &EndText) -> Result<End, String> {
    match text {
        EndText::Ip(address) => Ok(End::Address(*address)),
        EndText::Pod(pod) => match pod.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(End::Pod(ObjectKey::new(namespace, name)))
            }
            _ => Err(format!("pod: expected namespace/name, found `{pod}`")),
        },
    }
}

#[cfg(test)]
mod tests;

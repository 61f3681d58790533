//! Cases as JSON lines, answered one by one: what cannot be read is answered too, and stops nothing.

mod asked;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, IsTerminal as _, Read as _, Write},
    path::Path,
};

use anyhow::Context;
use netverdict_manifest::Finding;
use netverdict_policy::{Snapshot, evaluate};
use serde::Serialize;
use serde_json::{Map, Value};

use super::answer::FlowAnswer;
use crate::{exit::Exit, terminal::Terminal};

/// Longer lines are answered by an error and skipped: some 10⁵ objects.
const LONGEST_LINE: u64 = 256 << 20;
/// A case's findings that are told, in its answer and on standard error.
const MOST_FINDINGS: usize = 20;
const CANNOT_WRITE: &str = "cannot write the answers";
/// Some programs begin a text with it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

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
            answer_all(input, "standard input", output, &mut warn)?;
        }
        Some(path) => {
            let name = path.display().to_string();
            let file = File::open(path).with_context(|| cannot_read(&name))?;
            answer_all(BufReader::new(file), &name, output, &mut warn)?;
        }
    }
    Ok(Exit::Done)
}

/// Each answer is written out before the next line is awaited, so that another program may ask and listen in turn.
fn answer_all(
    mut input: impl BufRead,
    name: &str,
    mut output: impl Write,
    warn: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let read = input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).with_context(|| cannot_read(name))?;
        if read == 0 {
            break;
        }
        let cut = read as u64 == LONGEST_LINE && line.last() != Some(&b'\n');
        if cut {
            input.skip_until(b'\n').with_context(|| cannot_read(name))?;
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
        output.flush().context(CANNOT_WRITE)?;
    }
    Ok(())
}

fn cannot_read(name: &str) -> String {
    format!("cannot read the cases in {name}")
}

fn write_line(output: &mut impl Write, value: &impl Serialize) -> anyhow::Result<()> {
    let written = serde_json::to_writer(&mut *output, value).map_err(io::Error::from);
    written.and_then(|()| output.write_all(b"\n")).context(CANNOT_WRITE)
}

/// On failure the id, as far as it could be read, and why.
fn answer(line: &[u8], warn: &mut dyn FnMut(&str)) -> Result<CaseAnswer, (Value, String)> {
    let value = netverdict_manifest::json_value(line).map_err(|error| unreadable(line, &error))?;
    let Value::Object(mut case) = value else {
        return Err((Value::Null, "expected an object with id, objects and flows".to_owned()));
    };
    let id = case.remove("id").unwrap_or_default();
    let (objects, flows) = match (objects(&mut case), flows(&mut case)) {
        (Ok(objects), Ok(flows)) => (objects, flows),
        (Err(error), _) | (_, Err(error)) => return Err((id, error)),
    };
    // Notes that a case carries along stop nothing; what is nearly a field of ours is told.
    for name in case.keys().filter(|name| name.starts_with("object") || name.starts_with("flow")) {
        warn(&format!("case {id}: `{name}` means nothing; a case has id, objects and flows"));
    }
    let (snapshot, findings) = snapshot(&id, objects, warn);
    let flows = flows.iter().map(|flow| answer_flow(&snapshot, flow)).collect();
    Ok(CaseAnswer { id, flows, findings })
}

/// A key that stands twice is refused, for one of its two values would count and the other be lost; the id is told then.
fn unreadable(line: &[u8], error: &serde_json::Error) -> (Value, String) {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let (text, column) = (text.strip_suffix(&place).unwrap_or(&text), error.column());
    match serde_json::from_slice::<Value>(line) {
        Ok(value) => (value.get("id").cloned().unwrap_or_default(), format!("column {column}: {text}")),
        Err(_) => (Value::Null, format!("no JSON at column {column}: {text}")),
    }
}

/// Absent or null where a case needs none.
fn objects(case: &mut Map<String, Value>) -> Result<Vec<Value>, String> {
    match case.remove("objects") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(objects)) => Ok(objects),
        Some(other) => Err(format!("objects: expected a list of Kubernetes objects, found {}", asked::found(&other))),
    }
}

fn flows(case: &mut Map<String, Value>) -> Result<Vec<Value>, String> {
    match case.remove("flows") {
        Some(Value::Array(flows)) => Ok(flows),
        Some(other) => Err(format!("flows: expected a list of flows, found {}", asked::found(&other))),
        None => Err("flows is missing; add the list of flows that are asked for".to_owned()),
    }
}

/// With what of the objects counts for nothing, or not as it is written. People are told on standard error.
fn snapshot(id: &Value, objects: Vec<Value>, warn: &mut dyn FnMut(&str)) -> (Snapshot, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut read = Vec::with_capacity(objects.len());
    for (index, value) in objects.into_iter().enumerate() {
        let (objects, unreadable) = netverdict_manifest::objects_from_value(value, &format!("objects[{index}]"));
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

fn answer_flow(snapshot: &Snapshot, flow: &Value) -> FlowAnswer {
    let read = asked::flow(flow, snapshot);
    let evaluated = read.and_then(|flow| evaluate(snapshot, &flow).map_err(|error| error.to_string()));
    evaluated.map_or_else(FlowAnswer::failed, |evaluation| FlowAnswer::of(&evaluation))
}

#[cfg(test)]
mod tests;

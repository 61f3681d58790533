//! `sql QUERY`: one read-only statement over the tables of the record.

mod result;

use std::io::Read as _;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use netverdict_flowlog::answer::{SqlAnswer, SqlQuestion};

use crate::{
    exit::Exit,
    service::{Service, ServiceOptions},
    structured::json,
    terminal::Terminal,
    wording::gap_lines,
};

/// Queries the record in SQL
#[derive(Args, Debug)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The statement; - reads it from standard input
    query: String,
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    service: ServiceOptions,
}

const AFTER_HELP: &str = "\
Examples:
  What is denied most
    {program} sql \"select source_pod, destination_pod, destination_port, sum(count) as events
      from flows where verdict = 'denied' group by 1, 2, 3 order by events desc limit 10\"
  Which tables and columns there are
    {program} sql \"select table_name, column_name, data_type from information_schema.columns\"
  From a file, to a spreadsheet
    {program} sql - -o csv < report.sql > report.csv

json prints a list of objects, one per row. Gaps in the time of the query are listed on standard error.
Exit codes: 0 done, 1 it failed, 2 the arguments were not understood.";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
    Csv,
}

/// Longest statement that is read from standard input. The service's own limit is lower, and its error names it.
const MOST_QUERY_BYTES: u64 = 1 << 20;

pub(crate) async fn execute(arguments: &Arguments, terminal: &mut Terminal) -> anyhow::Result<Exit> {
    let query = match arguments.query.as_str() {
        "-" => {
            let mut text = String::new();
            std::io::stdin()
                .take(MOST_QUERY_BYTES + 1)
                .read_to_string(&mut text)
                .context("cannot read the query from standard input")?;
            text
        }
        text => text.to_owned(),
    };
    if query.len() as u64 > MOST_QUERY_BYTES {
        bail!("the query is longer than {MOST_QUERY_BYTES} bytes");
    }
    if query.trim().is_empty() {
        bail!("the query is empty; write one statement, like \"select * from flows limit 10\"");
    }
    let service = Service::connect(&arguments.service).await?;
    // Whatever is printed: only JSON answers carry gaps and warnings beside the rows.
    let question = SqlQuestion { query, format: "json".to_owned() };
    let answer: SqlAnswer = service.post("/v1/sql", &question).await?;
    let text = match arguments.output {
        Output::Table => result::table(&answer),
        Output::Json => json(&result::objects(&answer))?,
        Output::Csv => result::csv(&answer),
    };
    terminal.print(&text)?;
    for reason in &answer.stale {
        terminal.warn(&format!("the answer may be out of date: {reason}"));
    }
    for line in gap_lines(&answer.gaps) {
        terminal.warn(&format!("known to be missing: {line}"));
    }
    if answer.truncated {
        let shown = answer.rows.len();
        terminal.warn(&format!(
            "there are more rows than the {shown} that the service gives at once; use LIMIT and OFFSET"
        ));
    }
    Ok(Exit::Done)
}

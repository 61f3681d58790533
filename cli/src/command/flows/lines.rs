//! Records as lines of a table that may grow.

use std::net::IpAddr;

use netverdict_flowlog::answer::FlowLine;
use netverdict_policy::Verdict;

use crate::{
    moment::stamp,
    table::{Cell, Columns},
    terminal::Paint,
};

const HEADER: &[&str] = &["TIME", "VERDICT", "SOURCE", "DESTINATION", "PROTOCOL", "DIRECTION", "DECIDED BY", "REASON"];
const HEADER_WIDE: &[&str] = &[
    "TIME",
    "VERDICT",
    "IF ENFORCED",
    "DISPOSITION",
    "SOURCE",
    "SOURCE ADDRESS",
    "DESTINATION",
    "DESTINATION ADDRESS",
    "PROTOCOL",
    "DIRECTION",
    "NODE",
    "COUNT",
    "REASON",
    "DECIDED BY",
    "NEAR MISS",
];

/// Prints the header once, and keeps columns as wide as they have been.
#[derive(Debug)]
pub(super) struct Lines {
    wide: bool,
    paint: Paint,
    columns: Columns,
    begun: bool,
}

impl Lines {
    pub(super) fn new(wide: bool, paint: Paint) -> Self {
        Self { wide, paint, columns: Columns::new(if wide { HEADER_WIDE } else { HEADER }), begun: false }
    }

    /// The text of these records; nothing for none.
    pub(super) fn next(&mut self, flows: &[FlowLine]) -> String {
        if flows.is_empty() {
            return String::new();
        }
        let rows: Vec<_> = flows.iter().map(|flow| if self.wide { wide(flow) } else { narrow(flow) }).collect();
        self.columns.measure(&rows);
        let mut text = String::new();
        if !std::mem::replace(&mut self.begun, true) {
            text.push_str(&self.columns.header(self.paint));
        }
        for row in &rows {
            text.push_str(&self.columns.line(row, self.paint));
        }
        text
    }
}

fn narrow(flow: &FlowLine) -> Vec<Cell> {
    vec![
        Cell::new(stamp(flow.time)),
        verdict(flow),
        Cell::new(&flow.source),
        Cell::new(with_port(&flow.destination, flow.destination_port)),
        Cell::new(&flow.protocol),
        Cell::new(&flow.direction),
        Cell::new(deciders(flow)),
        Cell::new(&flow.reason),
    ]
}

fn wide(flow: &FlowLine) -> Vec<Cell> {
    vec![
        Cell::new(stamp(flow.time)),
        verdict(flow),
        Cell::new(flow.verdict_if_enforced.as_deref().unwrap_or("-")),
        Cell::new(&flow.disposition),
        Cell::new(&flow.source),
        Cell::new(with_port(&flow.source_ip, flow.source_port)),
        Cell::new(&flow.destination),
        Cell::new(with_port(&flow.destination_ip, flow.destination_port)),
        Cell::new(&flow.protocol),
        Cell::new(&flow.direction),
        Cell::new(&flow.node),
        Cell::new(flow.count.to_string()),
        Cell::new(&flow.reason),
        Cell::new(deciders(flow)),
        Cell::new(flow.near_miss.join("; ")),
    ]
}

fn verdict(flow: &FlowLine) -> Cell {
    match Verdict::from_name(&flow.verdict) {
        Some(Verdict::Allowed) => Cell::painted(&flow.verdict, |paint, text| paint.verdict(Verdict::Allowed, text)),
        Some(Verdict::Denied) => Cell::painted(&flow.verdict, |paint, text| paint.verdict(Verdict::Denied, text)),
        Some(Verdict::Unknown) => Cell::painted(&flow.verdict, |paint, text| paint.verdict(Verdict::Unknown, text)),
        None => Cell::new(&flow.verdict),
    }
}

fn deciders(flow: &FlowLine) -> String {
    if flow.decided_by.is_empty() { "-".to_owned() } else { flow.decided_by.join(",") }
}

fn with_port(end: &str, port: Option<u16>) -> String {
    match (port, end.parse()) {
        (None, _) => end.to_owned(),
        (Some(port), Ok(IpAddr::V6(_))) => format!("[{end}]:{port}"),
        (Some(port), _) => format!("{end}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(destination: &str, policy: &[&str]) -> FlowLine {
        FlowLine {
            time: "2026-05-01T12:00:00.25Z".parse().unwrap(),
            node: "n1".to_owned(),
            verdict: "denied".to_owned(),
            verdict_if_enforced: None,
            disposition: "dropped".to_owned(),
            direction: "ingress".to_owned(),
            reason: "isolated_no_match".to_owned(),
            source: "shop/web".to_owned(),
            source_ip: "2001:db8::1".to_owned(),
            source_port: Some(40_000),
            destination: destination.to_owned(),
            destination_ip: "2001:db8::2".to_owned(),
            destination_port: Some(5432),
            protocol: "TCP".to_owned(),
            decided_by: policy.iter().map(|name| (*name).to_owned()).collect(),
            near_miss: vec!["db/allow-api#0: pod label app=web is not app=api".to_owned()],
            count: 2,
        }
    }

    #[test]
    fn the_header_comes_once_and_columns_stay_wide() {
        let mut lines = Lines::new(false, Paint::default());
        assert_eq!(lines.next(&[]), "");
        assert_eq!(
            lines.next(&[flow("db/postgres", &["db/default-deny", "db/allow-api"])]),
            "\
TIME                      VERDICT  SOURCE    DESTINATION       PROTOCOL  DIRECTION  DECIDED BY                    REASON
2026-05-01T12:00:00.250Z  denied   shop/web  db/postgres:5432  TCP       ingress    db/default-deny,db/allow-api  isolated_no_match
"
        );
        assert_eq!(
            lines.next(&[flow("db/pg", &[])]),
            "\
2026-05-01T12:00:00.250Z  denied   shop/web  db/pg:5432        TCP       ingress    -                             isolated_no_match
"
        );
    }

    #[test]
    fn wide_has_addresses_and_near_misses() {
        let text = Lines::new(true, Paint::default()).next(&[flow("db/pg", &["db/default-deny"])]);
        assert!(text.contains("[2001:db8::1]:40000  db/pg"), "{text}");
        assert!(text.ends_with("db/default-deny  db/allow-api#0: pod label app=web is not app=api\n"), "{text}");
    }
}

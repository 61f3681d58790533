//! The record compared with probes: a denial with the right policies for each that was blocked, none for one that was not.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::probe::Probe;
use crate::cluster::Product;

/// When what a ring holds is in an answer at the latest, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// The port of queries for names.
const DNS: u16 = 53;
const PAUSE: Duration = Duration::from_millis(300);

/// Who, whom, port, protocol.
type Attempt = (String, String, u16, String);

/// The denials on record in a time: by direction, the policies that were named.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Denials(BTreeMap<Attempt, Vec<(String, BTreeSet<String>)>>);

impl Denials {
    /// Where the record and the probes of a time (in nanoseconds since 1970) differ. Events take a moment to be visible.
    pub(super) fn until_complete(product: &Product, began: i64, ended: i64, probes: &[Probe]) -> Result<Vec<String>> {
        let started = Instant::now();
        loop {
            let faults = Self::ask(product, began, ended)?.differences(probes);
            if faults.is_empty() || started.elapsed() > PATIENCE {
                return Ok(faults);
            }
            thread::sleep(PAUSE);
        }
    }

    fn ask(product: &Product, began: i64, ended: i64) -> Result<Self> {
        let statement = format!(
            "select distinct source_namespace || '/' || source_pod as source, \
             destination_namespace || '/' || destination_pod as destination, destination_port, protocol, direction, \
             to_json(decided_by) as decided_by from flows where verdict = 'denied' and disposition = 'dropped' \
             and last_time >= to_timestamp_nanos({began}) and first_time <= to_timestamp_nanos({ended})"
        );
        let answer = product.netverdict(&["sql", "-o", "json", &statement])?;
        let rows: Vec<Value> = serde_json::from_str(&answer).with_context(|| format!("no rows: {answer}"))?;
        rows.iter().map(read).collect::<Result<Vec<_>>>().map(Self::from_iter)
    }

    fn differences(&self, probes: &[Probe]) -> Vec<String> {
        let fault = |probe: &Probe| {
            let key = (probe.from.clone(), probe.to.clone(), probe.port, probe.protocol.clone());
            let found = self.0.get(&key).map(Vec::as_slice).unwrap_or_default();
            let found = if found.is_empty() { self.query_of(probe) } else { found };
            match (probe.denial(), found) {
                (None, []) => None,
                (Some(_), []) if probe.unserved => None,
                (None, [(direction, policies), ..]) => {
                    Some(format!("{probe} passed, and is on record as denied at {direction} by {policies:?}"))
                }
                (Some(_), []) => Some(format!("{probe} was blocked, and is not on record as denied")),
                (Some((direction, policies)), found) => {
                    let expected: BTreeSet<String> = policies.iter().cloned().collect();
                    let is_right = |(at, named): &(String, BTreeSet<String>)| at == direction && *named == expected;
                    (!found.iter().all(is_right))
                        .then(|| format!("{probe}: on record {found:?}, expected {direction} by {expected:?}"))
                }
            }
        };
        probes.iter().filter_map(fault).collect()
    }

    /// Where a policy denies DNS too, a probe to a name ends with the query for it.
    fn query_of(&self, probe: &Probe) -> &[(String, BTreeSet<String>)] {
        let is_name = probe.host.parse::<IpAddr>().is_err();
        let is_query = |(from, _, port, _): &Attempt| *from == probe.from && *port == DNS;
        let query = self.0.iter().find(|(attempt, _)| is_name && probe.denial().is_some() && is_query(attempt));
        query.map(|(_, denials)| denials.as_slice()).unwrap_or_default()
    }
}

impl FromIterator<(Attempt, String, BTreeSet<String>)> for Denials {
    fn from_iter<T: IntoIterator<Item = (Attempt, String, BTreeSet<String>)>>(rows: T) -> Self {
        let mut denials = Self::default();
        for (attempt, direction, policies) in rows {
            denials.0.entry(attempt).or_default().push((direction, policies));
        }
        denials
    }
}

fn read(row: &Value) -> Result<(Attempt, String, BTreeSet<String>)> {
    let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let protocol = match row["protocol"].as_u64() {
        Some(6) => "TCP",
        Some(17) => "UDP",
        Some(132) => "SCTP",
        _ => "other",
    };
    let port = row["destination_port"].as_u64().and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
    let deciders: Vec<Value> = serde_json::from_str(row["decided_by"].as_str().unwrap_or("[]"))?;
    let name = |decider: &Value| Some(format!("{}/{}", decider["namespace"].as_str()?, decider["name"].as_str()?));
    let policies = deciders.iter().filter_map(name).collect();
    Ok(((text("source"), text("destination"), port, protocol.to_owned()), text("direction"), policies))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn probe(egress: &[&str], ingress: &[&str]) -> Probe {
        let probe = json!({
            "from": "x/a", "to": "y/b", "host": "10.0.0.1", "port": 80, "protocol": "TCP",
            "expected": "blocked", "observed": "blocked", "egress": egress, "ingress": ingress,
        });
        serde_json::from_value(probe).unwrap()
    }

    fn row(direction: &str, policies: &str) -> Value {
        json!({
            "source": "x/a", "destination": "y/b", "destination_port": 80, "protocol": 6,
            "direction": direction, "decided_by": policies,
        })
    }

    fn differences(rows: &[Value], probe: Probe) -> Vec<String> {
        rows.iter().map(|row| read(row).unwrap()).collect::<Denials>().differences(&[probe])
    }

    #[test]
    fn a_blocked_probe_needs_a_denial_by_exactly_its_policies() {
        let named = r#"[{"namespace":"y","name":"p"}]"#;
        assert!(differences(&[row("ingress", named)], probe(&[], &["y/p"])).is_empty());
        assert_eq!(differences(&[], probe(&[], &["y/p"])).len(), 1, "nothing on record");
        assert_eq!(differences(&[row("ingress", named)], probe(&[], &["y/p", "y/q"])).len(), 1, "one is missing");
        assert_eq!(differences(&[row("ingress", named)], probe(&["x/e"], &["y/p"])).len(), 1, "egress comes first");
    }

    #[test]
    fn a_probe_to_a_name_may_end_with_the_query_for_it() {
        let query = json!({
            "source": "x/a", "destination": "kube-system/dns", "destination_port": 53, "protocol": 17,
            "direction": "egress", "decided_by": r#"[{"namespace":"x","name":"e"}]"#,
        });
        let to = |host: &str, egress: &[&str]| Probe { host: host.to_owned(), ..probe(egress, &[]) };
        let query = [query];
        assert!(differences(&query, to("b.y.svc", &["x/e"])).is_empty());
        assert_eq!(differences(&query, to("b.y.svc", &["x/e", "x/f"])).len(), 1, "by other policies");
        assert_eq!(differences(&query, to("10.0.0.1", &["x/e"])).len(), 1, "an address needs no query");
        assert!(differences(&query, to("b.y.svc", &[])).is_empty(), "allowed");
    }

    #[test]
    fn an_allowed_probe_needs_none() {
        assert!(differences(&[], probe(&[], &[])).is_empty());
        assert_eq!(differences(&[row("ingress", "[]")], probe(&[], &[])).len(), 1);
    }
}

//! `GET /v1/status`: of a collector, on the port where it serves fresh rows, and of the query service, which asks all
//! collectors. Fields that came later may be missing: the other side may be of an older version.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::manifest::Link;

/// Most problems of a part, and most names of a problem; the rest is counted.
pub const MOST_LISTED: usize = 20;

/// The state of a collector.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CollectorStatus {
    pub node: String,
    pub boot_id: String,
    pub version: String,
    pub mode: String,
    /// Now, by the collector's clock, as all times here.
    pub time: DateTime<Utc>,
    /// Since when it runs.
    #[serde(default)]
    pub started: Option<DateTime<Utc>>,
    /// Rows that are served here belong to this segment or a later one; files with a lower number are complete.
    pub segment: u64,
    /// Manifest of the newest segment in files; `None` while there is none.
    #[serde(default)]
    pub newest: Option<Link>,
    /// When rows were last written to files; `None`: not since its start.
    #[serde(default)]
    pub flushed: Option<DateTime<Utc>>,
    /// Number of the policy snapshot in force.
    pub snapshot: u64,
    #[serde(default)]
    pub policy: Option<PolicyStatus>,
    /// Objects that could not be read from the cluster source, and that the snapshot may lack. Empty when all is well.
    pub source_errors: Vec<String>,
    /// Why policy is not in force as it should be, for instance a full map. Empty when all is well.
    pub publish_errors: Vec<String>,
    /// Interfaces that are bound to a pod.
    pub endpoints: u64,
    /// Interfaces with programs that are not judged by policy: of no known pod, or without tables.
    #[serde(default)]
    pub unbound: Option<u64>,
    /// Interfaces of pods that no program covers.
    #[serde(default)]
    pub uncovered: Option<u64>,
    /// Present problems of all parts; `None` of a version that does not tell.
    #[serde(default)]
    pub problems: Option<Vec<Problem>>,
    #[serde(default)]
    pub events: Option<EventCounts>,
    /// Events known to be lost since the collector's start, by cause.
    #[serde(default)]
    pub losses: Vec<Loss>,
}

/// How far the policy in force is behind the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// When the snapshot came into force; `None`: none has since the collector's start, and the tables that an earlier
    /// run pinned decide, if there are any.
    #[serde(default)]
    pub in_force: Option<DateTime<Utc>>,
    /// Since when a source cannot see changes of the cluster; `None` while all can.
    #[serde(default)]
    pub stale: Option<DateTime<Utc>>,
    /// Since when newer states cannot be published; `None` while they can.
    #[serde(default)]
    pub unpublished: Option<DateTime<Utc>>,
}

/// A present problem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The part that has it, as `/readyz` names parts: `source`, `publish`, `attach`, `log`, …
    pub part: String,
    /// Whether the node or the service should not be relied on until it is gone.
    #[serde(default)]
    pub unready: bool,
    /// Since when the part has had problems.
    #[serde(default)]
    pub since: Option<DateTime<Utc>>,
    pub text: String,
    /// Empty where the text says it.
    #[serde(default)]
    pub remedy: String,
    /// Pods and interfaces that have it; the first ones.
    #[serde(default)]
    pub names: Vec<String>,
    /// Those beyond the names.
    #[serde(default)]
    pub more: u64,
}

/// Events since the collector's start, as it counts them. Repeats of a denial that are still being counted are read and
/// not recorded yet; events that the kernel numbered and the collector did not read are among the losses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCounts {
    /// Read from the rings, by lane; those that were on record already included.
    pub read: BTreeMap<String, u64>,
    /// Of these, those that were on record already.
    pub repeated: u64,
    /// Made part of rows; reports of other systems included.
    pub recorded: u64,
}

/// Events that were lost for one cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// As in the table `gaps`.
    pub cause: String,
    pub events: u64,
    /// When the last of them was lost, as far as it is known.
    #[serde(default)]
    pub last: Option<DateTime<Utc>>,
    /// The cause in words, with the remedy.
    #[serde(default)]
    pub detail: String,
}

impl CollectorStatus {
    /// Present problems, also of a collector whose version names only some.
    pub fn all_problems(&self) -> Vec<Problem> {
        let of_part = |part: &str, texts: &[String]| {
            let problem = |text: &String| Problem {
                part: part.to_owned(),
                text: text.clone(),
                remedy: "read /readyz of its collector, which is of an older version".to_owned(),
                ..Problem::default()
            };
            texts.iter().take(MOST_LISTED).map(problem).collect::<Vec<_>>()
        };
        let Self { source_errors, publish_errors, problems, .. } = self;
        problems
            .clone()
            .unwrap_or_else(|| [of_part("source", source_errors), of_part("publish", publish_errors)].concat())
    }

    /// Events known to be lost since the collector's start.
    pub fn lost(&self) -> u64 {
        self.losses.iter().map(|loss| loss.events).fold(0, u64::saturating_add)
    }
}

/// The state of the query service and of the collectors that it knows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub version: String,
    /// Newest format of files that it reads.
    pub format_version: u32,
    pub started: DateTime<Utc>,
    /// Now, by the service's clock; `None` of an older version.
    #[serde(default)]
    pub time: Option<DateTime<Utc>>,
    pub collectors: Vec<CollectorAnswer>,
    /// Copies of the collectors' files (`--mirror`); `None` without.
    #[serde(default)]
    pub mirror: Option<MirrorStatus>,
    /// Problems of the service itself.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// Files that cannot be read and are left out; the first ones.
    pub skipped_files: Vec<SkippedFile>,
    /// Why answers may be out of date.
    pub stale: Vec<String>,
}

/// A collector's status, or why it is not known.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct CollectorAnswer {
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<CollectorStatus>,
    /// Why there is no status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The node whose collector answered there last, and when: since the service's start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<CopyStatus>,
}

/// Copies of one collector's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyStatus {
    /// When all of its files were last here; `None`: not since the service's start.
    #[serde(default)]
    pub complete: Option<DateTime<Utc>>,
    /// Why the last round of copying failed.
    #[serde(default)]
    pub problem: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorStatus {
    /// Bytes that the copies may take.
    pub limit: u64,
    /// Flows of earlier hours were removed to stay below the limit.
    #[serde(default)]
    pub removed_until: Option<DateTime<Utc>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedFile {
    pub file: String,
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_of_an_older_collector_is_understood_and_its_errors_are_problems() {
        let old = r#"{"node":"n1","boot_id":"b","version":"0.0.9","mode":"enforce","time":"2026-05-01T12:00:00Z",
            "segment":3,"newest":null,"snapshot":7,"source_errors":["a.yaml is broken"],"publish_errors":["map full"],
            "endpoints":4}"#;
        let status: CollectorStatus = serde_json::from_str(old).unwrap();
        assert_eq!((status.started, status.unbound, status.lost()), (None, None, 0));
        let told: Vec<_> = status.all_problems().into_iter().map(|problem| (problem.part, problem.text)).collect();
        let expected = [("source", "a.yaml is broken"), ("publish", "map full")];
        assert_eq!(told, expected.map(|(part, text)| (part.to_owned(), text.to_owned())));
    }

    #[test]
    fn an_older_query_service_is_understood() {
        let old = r#"{"version":"0.0.9","format_version":2,"started":"2026-05-01T12:00:00Z","skipped_files":[],"stale":[],
            "collectors":[{"url":"http://10.0.0.1:9471/","problem":"nothing within 2s"}]}"#;
        let status: ServiceStatus = serde_json::from_str(old).unwrap();
        assert_eq!(status.collectors[0].problem.as_deref(), Some("nothing within 2s"));
        assert!(status.time.is_none() && status.problems.is_empty());
    }

    #[test]
    fn what_a_newer_version_adds_is_ignored() {
        let newer = r#"{"part":"source","text":"a.yaml is broken","colour":"red"}"#;
        let problem: Problem = serde_json::from_str(newer).unwrap();
        assert_eq!((problem.part.as_str(), problem.unready), ("source", false));
    }
}

//! Where a file of the record lies: `<table>/cluster=<c>/date=YYYY-MM-DD/hour=HH/<node>-<boot>-<segment>.parquet`, and
//! the manifest of its segment: `manifests/cluster=<c>/node=<node>/<boot>-<segment>.json`.
//!
//! Each path has one constructor and one parser; a path that either accepts, the other renders back byte for byte.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use chrono::{DateTime, Datelike, NaiveDate, Timelike, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::schema::Table;

/// Digits of a segment number, so that names sort as numbers do. Larger numbers have more.
const SEGMENT_DIGITS: usize = 10;
const BOOT_LENGTH: usize = 36;
const EXTENSION: &str = ".parquet";
const MANIFEST_EXTENSION: &str = ".json";
/// Folder of the manifests, beside the tables' folders.
pub const MANIFESTS: &str = "manifests";
const LONGEST_NAME: usize = 253;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    #[error(
        "{what} is {found:?}, expected 1 to {LONGEST_NAME} of letters, digits, '.', '_' and '-', and no '.' first: choose another name"
    )]
    Name { what: &'static str, found: String },
    #[error("boot id is {found:?}, expected a UUID in lower case as in /proc/sys/kernel/random/boot_id")]
    Boot { found: String },
    #[error(
        "path is {found:?}, expected <table>/cluster=<name>/date=YYYY-MM-DD/hour=HH/<node>-<boot>-<segment>.parquet"
    )]
    Shape { found: String },
    #[error("path is {found:?}, expected {MANIFESTS}/cluster=<name>/node=<node>/<boot>-<segment>{MANIFEST_EXTENSION}")]
    ManifestShape { found: String },
}

/// An hour, UTC, of the years 0 to 9999: the partition that a row's time falls in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hour {
    date: NaiveDate,
    hour: u32,
}

impl Hour {
    /// A time beyond those years goes to the nearest hour in them: a broken clock must not cost rows.
    pub fn of(time: DateTime<Utc>) -> Self {
        let date = time.date_naive();
        match date.year() {
            0..=9999 => Self { date, hour: time.hour() },
            ..0 => Self { date: NaiveDate::from_ymd_opt(0, 1, 1).unwrap_or(NaiveDate::MIN), hour: 0 },
            10_000.. => Self { date: NaiveDate::from_ymd_opt(9999, 12, 31).unwrap_or(NaiveDate::MAX), hour: 23 },
        }
    }

    pub fn start(self) -> DateTime<Utc> {
        let time = self.date.and_hms_opt(self.hour, 0, 0).unwrap_or_default();
        time.and_utc()
    }

    /// As column `date` holds it: `YYYY-MM-DD`.
    pub fn date(self) -> String {
        self.date.format("%Y-%m-%d").to_string()
    }

    /// As column `hour` holds it: `HH`.
    pub fn hour(self) -> String {
        format!("{:02}", self.hour)
    }

    fn parse(date: &str, hour: &str) -> Option<Self> {
        let parsed = Self { date: NaiveDate::parse_from_str(date, "%Y-%m-%d").ok()?, hour: hour.parse().ok()? };
        // Parsers take more spellings than one.
        (parsed.hour < 24 && parsed.date() == date && parsed.hour() == hour).then_some(parsed)
    }
}

/// Path of one file below the data directory. Ordered by time: hour, then segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SegmentPath {
    hour: Hour,
    segment: u64,
    cluster: String,
    node: String,
    boot: String,
    table: Table,
}

impl SegmentPath {
    /// Refuses names that the path around them would make ambiguous.
    pub fn new(
        table: Table,
        cluster: &str,
        hour: Hour,
        node: &str,
        boot: &str,
        segment: u64,
    ) -> Result<Self, PathError> {
        checked_name("cluster", cluster)?;
        checked_name("node", node)?;
        checked_boot(boot)?;
        Ok(Self { hour, segment, cluster: cluster.into(), node: node.into(), boot: boot.into(), table })
    }

    pub fn table(&self) -> Table {
        self.table
    }

    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    pub fn hour(&self) -> Hour {
        self.hour
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    /// The boot in which the file was written; rows that were recovered may be of an earlier one.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// The manifest of the file's segment.
    pub fn manifest(&self) -> ManifestPath {
        let Self { segment, cluster, node, boot, .. } = self;
        ManifestPath { cluster: cluster.clone(), node: node.clone(), segment: *segment, boot: boot.clone() }
    }

    /// The file itself.
    pub fn below(&self, data_dir: &Path) -> PathBuf {
        data_dir.join(self.to_string())
    }

    /// The segment that a file is, if it is one and lies below `data_dir`.
    pub fn of_file(data_dir: &Path, file: &Path) -> Option<Self> {
        file.strip_prefix(data_dir).ok()?.to_str()?.parse().ok()
    }
}

impl fmt::Display for SegmentPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hour, segment, cluster, node, boot, table } = self;
        let (date, hour) = (hour.date(), hour.hour());
        write!(f, "{table}/cluster={cluster}/date={date}/hour={hour}/")?;
        write!(f, "{node}-{boot}-{segment:0SEGMENT_DIGITS$}{EXTENSION}")
    }
}

impl FromStr for SegmentPath {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        let shape = || PathError::Shape { found: path.chars().take(300).collect() };
        let mut parts = path.split('/');
        let mut part = || parts.next().ok_or_else(shape);
        let table = Table::from_name(part()?).ok_or_else(shape)?;
        let cluster = part()?.strip_prefix("cluster=").ok_or_else(shape)?;
        let date = part()?.strip_prefix("date=").ok_or_else(shape)?;
        let hour = part()?.strip_prefix("hour=").ok_or_else(shape)?;
        let hour = Hour::parse(date, hour).ok_or_else(shape)?;
        let (node, boot, segment) = split_file_name(part()?).ok_or_else(shape)?;
        let parsed = Self::new(table, cluster, hour, node, boot, segment)?;
        if parsed.to_string() != path {
            return Err(shape());
        }
        Ok(parsed)
    }
}

/// Path of a segment's manifest below the data directory. Ordered by node, then segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ManifestPath {
    cluster: String,
    node: String,
    segment: u64,
    boot: String,
}

impl ManifestPath {
    /// Refuses names that the path around them would make ambiguous.
    pub fn new(cluster: &str, node: &str, boot: &str, segment: u64) -> Result<Self, PathError> {
        checked_name("cluster", cluster)?;
        checked_name("node", node)?;
        checked_boot(boot)?;
        Ok(Self { cluster: cluster.into(), node: node.into(), segment, boot: boot.into() })
    }

    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// The file itself.
    pub fn below(&self, data_dir: &Path) -> PathBuf {
        data_dir.join(self.to_string())
    }

    /// The folder that holds all manifests of a node.
    pub fn folder(data_dir: &Path, cluster: &str, node: &str) -> PathBuf {
        data_dir.join(format!("{MANIFESTS}/cluster={cluster}/node={node}"))
    }

    /// The manifest that a file is, if it is one and lies below `data_dir`.
    pub fn of_file(data_dir: &Path, file: &Path) -> Option<Self> {
        file.strip_prefix(data_dir).ok()?.to_str()?.parse().ok()
    }
}

impl fmt::Display for ManifestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, node, segment, boot } = self;
        write!(f, "{MANIFESTS}/cluster={cluster}/node={node}/{boot}-{segment:0SEGMENT_DIGITS$}{MANIFEST_EXTENSION}")
    }
}

impl FromStr for ManifestPath {
    type Err = PathError;

    fn from_str(path: &str) -> Result<Self, PathError> {
        let shape = || PathError::ManifestShape { found: path.chars().take(300).collect() };
        let rest = path.strip_prefix(MANIFESTS).and_then(|rest| rest.strip_prefix("/cluster=")).ok_or_else(shape)?;
        let (cluster, rest) = rest.split_once("/node=").ok_or_else(shape)?;
        let (node, name) = rest.split_once('/').ok_or_else(shape)?;
        let (boot, segment) =
            name.strip_suffix(MANIFEST_EXTENSION).and_then(|name| name.rsplit_once('-')).ok_or_else(shape)?;
        let parsed = Self::new(cluster, node, boot, segment.parse().map_err(|_| shape())?)?;
        if parsed.to_string() != path {
            return Err(shape());
        }
        Ok(parsed)
    }
}

impl From<SegmentPath> for String {
    fn from(path: SegmentPath) -> Self {
        path.to_string()
    }
}

impl TryFrom<String> for SegmentPath {
    type Error = PathError;

    fn try_from(path: String) -> Result<Self, PathError> {
        path.parse()
    }
}

impl From<ManifestPath> for String {
    fn from(path: ManifestPath) -> Self {
        path.to_string()
    }
}

impl TryFrom<String> for ManifestPath {
    type Error = PathError;

    fn try_from(path: String) -> Result<Self, PathError> {
        path.parse()
    }
}

/// From the right, because a node's name may hold dashes.
fn split_file_name(name: &str) -> Option<(&str, &str, u64)> {
    let (rest, segment) = name.strip_suffix(EXTENSION)?.rsplit_once('-')?;
    let (node, boot) = rest.split_at_checked(rest.len().checked_sub(BOOT_LENGTH)?)?;
    Some((node.strip_suffix('-')?, boot, segment.parse().ok()?))
}

fn checked_name(what: &'static str, name: &str) -> Result<(), PathError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    // A dot or underscore in front hides a file from many readers; `cluster=` makes either harmless there.
    let fine = (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with(['.', '_']);
    if fine { Ok(()) } else { Err(PathError::Name { what, found: name.chars().take(300).collect() }) }
}

fn checked_boot(boot: &str) -> Result<(), PathError> {
    let expected = |(index, byte): (usize, u8)| match index {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    };
    match boot.len() == BOOT_LENGTH && boot.bytes().enumerate().all(expected) {
        true => Ok(()),
        false => Err(PathError::Boot { found: boot.chars().take(300).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOOT: &str = "3f2b8c1e-5a77-4d09-9b1c-0123456789ab";

    fn hour(text: &str) -> Hour {
        Hour::of(text.parse().unwrap())
    }

    fn path(node: &str, time: &str, segment: u64) -> SegmentPath {
        SegmentPath::new(Table::Flows, "prod", hour(time), node, BOOT, segment).unwrap()
    }

    #[test]
    fn a_path_reads_like_the_manual_says() {
        assert_eq!(
            path("node-7.eu-west", "2026-11-19T08:59:59Z", 42).to_string(),
            format!("flows/cluster=prod/date=2026-11-19/hour=08/node-7.eu-west-{BOOT}-0000000042.parquet")
        );
    }

    #[test]
    fn a_manifest_lies_beside_the_tables_by_node() {
        let manifest = path("node-7.eu-west", "2026-11-19T08:59:59Z", 42).manifest();
        let text = format!("manifests/cluster=prod/node=node-7.eu-west/{BOOT}-0000000042.json");
        assert_eq!(manifest.to_string(), text);
        assert_eq!(text.parse::<ManifestPath>().unwrap(), manifest);
        for (from, to) in [("0000000042", "42"), ("manifests", "manifest"), (".json", ".json/x"), ("node=", "n=")] {
            assert!(text.replace(from, to).parse::<ManifestPath>().is_err(), "{from} as {to}");
        }
    }

    #[test]
    fn paths_sort_by_time_whatever_the_node() {
        let early = path("z", "2026-11-19T08:00:00Z", 9);
        let late = path("a", "2026-11-19T09:00:00Z", 10);
        let later = path("a", "2026-11-20T00:00:00Z", 2);
        let mut paths = vec![later.clone(), late.clone(), early.clone()];
        paths.sort();
        assert_eq!(paths, [early, late, later]);
    }

    #[test]
    fn names_that_would_leave_their_folder_are_refused() {
        for name in ["", "..", ".hidden", "a/b", "a=b", "a b", "é", &"a".repeat(254)] {
            assert!(SegmentPath::new(Table::Gaps, name, hour("2026-01-01T00:00:00Z"), "n", BOOT, 1).is_err(), "{name}");
            assert!(SegmentPath::new(Table::Gaps, "c", hour("2026-01-01T00:00:00Z"), name, BOOT, 1).is_err(), "{name}");
        }
        assert!(SegmentPath::new(Table::Gaps, "c", hour("2026-01-01T00:00:00Z"), "n", "boot", 1).is_err());
    }

    #[test]
    fn other_spellings_of_a_path_are_refused() {
        let good = path("n", "2026-11-19T08:00:00Z", 42).to_string();
        assert!(good.parse::<SegmentPath>().is_ok());
        for (from, to) in [
            ("flows", "Flows"),
            ("hour=08", "hour=8"),
            ("hour=08", "hour=24"),
            ("2026-11-19", "2026-11-31"),
            ("2026-11-19", "26-11-19"),
            ("0000000042", "42"),
            ("0000000042", "+000000042"),
            (".parquet", ".parquet.tmp"),
            ("/n-", "/-"),
            ("flows/", "/flows/"),
            (".parquet", ".parquet/x"),
        ] {
            let bad = good.replace(from, to);
            assert!(bad.parse::<SegmentPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_broken_clock_still_gives_a_partition() {
        assert_eq!(Hour::of(DateTime::<Utc>::MAX_UTC).date(), "9999-12-31");
        assert_eq!(Hour::of(DateTime::<Utc>::MIN_UTC).date(), "0000-01-01");
    }

    proptest! {
        #[test]
        fn parsing_gives_back_what_was_rendered(
            table in prop::sample::select(Table::ALL.to_vec()),
            cluster in "[a-zA-Z0-9][a-z0-9._-]{0,60}",
            node in "[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?",
            boot in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            seconds in any::<i64>(),
            segment in any::<u64>(),
        ) {
            let time = DateTime::from_timestamp(seconds % 8_000_000_000_000, 0).unwrap_or_default();
            let path = SegmentPath::new(table, &cluster, Hour::of(time), &node, &boot, segment).unwrap();
            prop_assert_eq!(path.to_string().parse::<SegmentPath>().unwrap(), path);
        }

        #[test]
        fn any_text_is_parsed_or_refused_and_what_is_parsed_renders_alike(text in ".{0,200}") {
            if let Ok(path) = text.parse::<SegmentPath>() {
                prop_assert_eq!(path.to_string(), text);
            } else if let Ok(path) = text.parse::<ManifestPath>() {
                prop_assert_eq!(path.to_string(), text);
            }
        }

        #[test]
        fn a_damaged_path_is_parsed_or_refused(at in 0usize..120, with in any::<char>()) {
            let mut text: Vec<char> = path("node-1", "2026-11-19T08:00:00Z", 7).to_string().chars().collect();
            let at = at % text.len();
            text[at] = with;
            let text: String = text.into_iter().collect();
            if let Ok(path) = text.parse::<SegmentPath>() {
                prop_assert_eq!(path.to_string(), text);
            }
        }
    }
}

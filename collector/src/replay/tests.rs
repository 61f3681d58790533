use std::{collections::BTreeMap, fs, path::PathBuf};

use arrow::{
    array::AsArray,
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use netverdict_abi::{ABI_VERSION, VerdictEvent};
use netverdict_flowlog::Table;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::{
    recording::{Header, Recorder},
    simulated_node::{SECOND, SimulatedNode, batch, session},
};

const BOOT: &str = "00000000-0000-4000-8000-000000000001";

struct Lab {
    root: tempfile::TempDir,
}

impl Lab {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn record(&self, name: &str, inputs: &[Input]) -> PathBuf {
        self.record_of(BOOT, name, inputs)
    }

    fn record_of(&self, boot: &str, name: &str, inputs: &[Input]) -> PathBuf {
        let header = Header {
            abi_version: ABI_VERSION,
            cluster: "c".into(),
            node: "n".into(),
            boot_id: boot.into(),
            clock_offset_ns: 0,
            collector_version: "0".into(),
        };
        let mut recorder = Recorder::create(&self.path(name), &header).unwrap();
        inputs.iter().for_each(|input| recorder.write(input).unwrap());
        recorder.finish().unwrap();
        self.path(name)
    }

    fn replay(&self, file: &Path) -> Result<Replayed, ReplayError> {
        replay(file, 10 * SECOND, |node, boot| {
            StoreOptions::new(self.path("data"), self.path("state"), "c", node, boot)
        })
    }

    /// Sums of a column of a table by another.
    fn sums(&self, table: Table, by: &str, column: &str) -> BTreeMap<String, i64> {
        let mut sums = BTreeMap::new();
        for path in files(&self.path("data").join(table.name())) {
            let file = fs::File::open(path).unwrap();
            for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
                let batch = batch.unwrap();
                let by = cast(batch.column_by_name(by).unwrap(), &DataType::Utf8).unwrap();
                let values = batch.column_by_name(column).unwrap().as_primitive::<Int64Type>();
                for (by, value) in by.as_string::<i32>().iter().zip(values) {
                    *sums.entry(by.unwrap().to_owned()).or_default() += value.unwrap();
                }
            }
        }
        sums
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(listed) = fs::read_dir(folder) else { return Vec::new() };
    let paths = listed.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn inputs(events: &[VerdictEvent], node: &SimulatedNode) -> Vec<Input> {
    let mut inputs = vec![Input::Session(session(BOOT, true)), node.meanings(), node.snapshot()];
    inputs.extend(events.chunks(3).map(batch));
    inputs
}

fn denials(node: &mut SimulatedNode, count: usize) -> Vec<VerdictEvent> {
    std::iter::repeat_with(|| node.denied()).take(count).collect()
}

#[test]
fn recorded_events_become_exactly_their_rows() {
    let (lab, mut node) = (Lab::new(), SimulatedNode::new());
    let mut events = denials(&mut node, 10);
    events.remove(4);
    events[6].kind = 99;
    let file = lab.record("file.nvr", &inputs(&events, &node));
    assert_eq!(lab.replay(&file).unwrap(), Replayed { inputs: 6, events: 9, whole: true });
    let counts = lab.sums(Table::Flows, "record_type", "count");
    assert_eq!(counts, [("verdict".to_owned(), 1), ("update".to_owned(), 7)].into());
    let losses = lab.sums(Table::Gaps, "cause", "lost_events");
    assert_eq!(losses, [("ring_full".to_owned(), 1), ("unreadable".to_owned(), 1)].into());
}

#[test]
fn replay_that_was_interrupted_goes_on_and_records_each_event_once() {
    let (lab, mut node) = (Lab::new(), SimulatedNode::new());
    let events = denials(&mut node, 30);
    let all = inputs(&events, &node);
    let (part, whole) = (lab.record("part.nvr", &all[..7]), lab.record("whole.nvr", &all));
    let mut cut = fs::read(&part).unwrap();
    cut.truncate(cut.len() - 20);
    fs::write(&part, cut).unwrap();
    assert!(!lab.replay(&part).unwrap().whole);
    for _ in 0..2 {
        lab.replay(&whole).unwrap();
        let count: i64 = lab.sums(Table::Flows, "direction", "count").values().sum();
        assert_eq!(count, 30);
        assert!(lab.sums(Table::Gaps, "cause", "lost_events").is_empty());
    }
}

#[test]
fn directory_of_another_record_is_refused() {
    let (lab, mut node) = (Lab::new(), SimulatedNode::new());
    let events = denials(&mut node, 3);
    lab.replay(&lab.record("a.nvr", &inputs(&events, &node))).unwrap();
    let other = lab.record_of("00000000-0000-4000-8000-000000000002", "b.nvr", &inputs(&events, &node));
    assert!(matches!(lab.replay(&other), Err(ReplayError::Used(_))));
    assert!(matches!(lab.replay(Path::new("/nowhere.nvr")), Err(ReplayError::Recording(_))));
}

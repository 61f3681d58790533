use std::fs;

use netverdict_flowlog::row::LaneName;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::batch::RingBatch;

fn record(number: u8, length: usize) -> LogRecord {
    LogRecord::Ring(RingBatch {
        lane: if number.is_multiple_of(2) { LaneName::Denied } else { LaneName::Flow },
        ingest_ns: 1_000 + i64::from(number),
        offset_ns: -7,
        bytes: vec![number; length],
    })
}

fn open(dir: &Path) -> (Wal, Replay) {
    Wal::open(dir, FsyncPolicy::None, None).unwrap()
}

/// Small files, so that a few records make many.
fn small(mut wal: Wal) -> Wal {
    wal.log = wal.log.with_segment_bytes(64);
    wal
}

fn replay(dir: &Path, after: Option<WalPosition>) -> Vec<Replayed> {
    Wal::open(dir, FsyncPolicy::None, after).unwrap().1.map(Result::unwrap).collect()
}

fn numbers(replayed: &[Replayed]) -> Vec<u8> {
    let number = |one: &Replayed| match one {
        Replayed::Record(_, LogRecord::Ring(batch)) => batch.bytes[0],
        Replayed::Record(_, other) => panic!("no batch of a ring: {other:?}"),
        Replayed::Damaged(..) => 0,
    };
    replayed.iter().map(number).collect()
}

fn newest(dir: &Path) -> PathBuf {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).max().unwrap()
}

#[test]
fn everything_appended_is_replayed_in_order() {
    let dir = TempDir::new().unwrap();
    let mut wal = small(open(dir.path()).0);
    let positions: Vec<_> = (1..=9).map(|n| wal.append(&record(n, 20)).unwrap()).collect();
    drop(wal);
    assert!(positions.is_sorted());
    assert!(fs::read_dir(dir.path()).unwrap().count() > 1);
    let replayed = replay(dir.path(), None);
    let expected: Vec<_> = (1..=9).zip(&positions).map(|(n, p)| Replayed::Record(*p, record(n, 20))).collect();
    assert_eq!(replayed, expected);
    assert_eq!(numbers(&replay(dir.path(), Some(positions[5]))), [7, 8, 9]);
    assert!(replay(dir.path(), Some(positions[8])).is_empty());
}

#[test]
fn log_of_the_former_version_is_replayed_after_an_upgrade() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("00000000000000000001.log");
    let session = br#"{"node":"n","boot_id":"b","mode":"enforce","fresh":false,"time_ns":5}"#;
    let payloads = [
        [&[1, 0xff][..], &5_i64.to_le_bytes(), &3_i64.to_le_bytes(), session].concat(),
        [&[1, 0][..], &1_002_i64.to_le_bytes(), &(-7_i64).to_le_bytes(), &[2; 20]].concat(),
        [&[1, 1][..], &1_003_i64.to_le_bytes(), &(-7_i64).to_le_bytes(), &[3; 20]].concat(),
    ];
    let mut bytes = [&b"NVLOG001"[..], &1_u64.to_le_bytes()].concat();
    for payload in &payloads {
        let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
        let sum = crc32fast::hash(&[&length, payload.as_slice()].concat());
        bytes.extend([&length[..], &sum.to_le_bytes(), payload].concat());
    }
    fs::write(&file, bytes).unwrap();
    let (mut wal, before) = open(dir.path());
    let records: Vec<_> = before
        .map(|replayed| match replayed.unwrap() {
            Replayed::Record(_, record) => record,
            Replayed::Damaged(position, bytes) => panic!("{bytes} bytes damaged at {position:?}"),
        })
        .collect();
    let LogRecord::Session(began) = &records[0] else { panic!("no session: {records:?}") };
    assert_eq!((&*began.node, began.fresh, began.time_ns), ("n", false, 5));
    assert_eq!(records[1..], [record(2, 20), record(3, 20)]);
    // And goes on in the present layout.
    wal.append(&record(4, 20)).unwrap();
    drop(wal);
    assert_eq!(replay(dir.path(), None).len(), 4);
}

#[test]
fn positions_grow_over_restarts_even_when_all_is_released() {
    let dir = TempDir::new().unwrap();
    let mut last = None;
    for n in 1..=4 {
        let (mut wal, mut replay) = Wal::open(dir.path(), FsyncPolicy::Batch, last).unwrap();
        assert!(replay.next().is_none());
        let position = wal.append(&record(n, 5)).unwrap();
        assert!(Some(position) > last);
        wal.release(position).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        last = Some(position);
    }
}

#[test]
fn releasing_keeps_what_comes_after() {
    let dir = TempDir::new().unwrap();
    let mut wal = small(open(dir.path()).0);
    let positions: Vec<_> = (1..=9).map(|n| wal.append(&record(n, 20)).unwrap()).collect();
    let before = wal.bytes();
    wal.release(positions[4]).unwrap();
    assert!(wal.bytes() < before);
    wal.append(&record(10, 20)).unwrap();
    drop(wal);
    assert_eq!(numbers(&replay(dir.path(), Some(positions[4]))), [6, 7, 8, 9, 10]);
}

#[test]
fn a_torn_tail_is_cut_and_counted() {
    let whole = {
        let dir = TempDir::new().unwrap();
        let mut wal = open(dir.path()).0;
        wal.append(&record(1, 10)).unwrap();
        let kept = wal.append(&record(2, 10)).unwrap();
        wal.append(&record(3, 10)).unwrap();
        drop(wal);
        (fs::read(newest(dir.path())).unwrap(), kept)
    };
    let (bytes, kept) = whole;
    let kept_length = usize::try_from(kept.offset).unwrap();
    for length in kept_length..bytes.len() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("00000000000000000001.log");
        fs::write(&file, &bytes[..length]).unwrap();
        let (mut wal, replay) = open(dir.path());
        assert_eq!(replay.recovered().torn_bytes, (length - kept_length) as u64);
        assert_eq!(numbers(&replay.map(Result::unwrap).collect::<Vec<_>>()), [1, 2], "cut at {length}");
        wal.append(&record(4, 10)).unwrap();
        drop(wal);
        assert_eq!(numbers(&self::replay(dir.path(), None)), [1, 2, 4], "cut at {length}");
    }
}

#[test]
fn damage_in_an_older_file_is_reported_and_the_rest_is_replayed() {
    let dir = TempDir::new().unwrap();
    let mut wal = small(open(dir.path()).0);
    for n in 1..=9 {
        wal.append(&record(n, 40)).unwrap();
    }
    drop(wal);
    let mut files: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut bytes = fs::read(&files[1]).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&files[1], &bytes).unwrap();
    let replayed = replay(dir.path(), None);
    let damaged = replayed.iter().filter(|one| matches!(one, Replayed::Damaged(..))).count();
    assert_eq!(damaged, 1);
    assert_eq!(replayed.len(), 9);
    assert_eq!(numbers(&replayed), [1, 0, 3, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn foreign_files_are_left_alone() {
    let dir = TempDir::new().unwrap();
    for name in ["notes.txt", "1.log", "x.log", ".log", "99999999999999999999999.log"] {
        fs::write(dir.path().join(name), b"mine").unwrap();
    }
    let mut wal = open(dir.path()).0;
    let position = wal.append(&record(1, 1)).unwrap();
    wal.release(position).unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
}

#[test]
fn a_record_that_no_reader_would_take_is_refused() {
    let dir = TempDir::new().unwrap();
    let mut wal = open(dir.path()).0;
    let error = wal.append(&record(1, MAX_RECORD_BYTES)).unwrap_err();
    assert!(matches!(error, WalError::TooLarge { .. }), "{error}");
    wal.append(&record(2, 1)).unwrap();
    drop(wal);
    assert_eq!(numbers(&replay(dir.path(), None)), [2]);
}

#[test]
fn what_was_cut_off_leaves_no_hole() {
    let dir = TempDir::new().unwrap();
    let mut wal = open(dir.path()).0;
    let kept = wal.append(&record(1, 10)).unwrap();
    wal.append(&record(2, 10)).unwrap();
    wal.log.cut(kept);
    wal.append(&record(3, 10)).unwrap();
    drop(wal);
    assert_eq!(numbers(&replay(dir.path(), None)), [1, 3]);
}

#[test]
fn a_full_disk_is_told_apart_and_costs_no_record() {
    let dir = TempDir::new().unwrap();
    let mut wal = open(dir.path()).0;
    wal.append(&record(1, 10)).unwrap();
    wal.log.fill_disk();
    let error = wal.append(&record(2, 10)).unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    drop(wal);
    assert_eq!(numbers(&replay(dir.path(), None)), [1]);
}

proptest! {
    #[test]
    fn whatever_lies_in_the_folder_opening_neither_fails_nor_invents(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        header in any::<bool>(),
    ) {
        let dir = TempDir::new().unwrap();
        let mut file = Vec::new();
        if header {
            file.extend_from_slice(b"NVLOG001");
            file.extend_from_slice(&1u64.to_le_bytes());
        }
        file.extend_from_slice(&bytes);
        fs::write(dir.path().join("00000000000000000001.log"), &file).unwrap();
        prop_assert_eq!(replay(dir.path(), None), vec![]);
    }

    #[test]
    fn one_flipped_bit_never_changes_a_record(bit in 0usize..(8 * 120)) {
        let dir = TempDir::new().unwrap();
        let mut wal = open(dir.path()).0;
        let written: Vec<_> = (1..=3).map(|n| {
            Replayed::Record(wal.append(&record(n, 10)).unwrap(), record(n, 10))
        }).collect();
        drop(wal);
        let file = newest(dir.path());
        let mut bytes = fs::read(&file).unwrap();
        let at = (bit / 8) % bytes.len();
        bytes[at] ^= 1 << (bit % 8);
        fs::write(&file, &bytes).unwrap();
        let replayed = replay(dir.path(), None);
        prop_assert!(replayed.len() < 3);
        prop_assert_eq!(&written[..replayed.len()], &replayed[..]);
    }
}

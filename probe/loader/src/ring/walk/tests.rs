//! Walks over files that are laid out as rings, with content that a kernel writes and content that it never would.

use std::{fs::File, os::fd::AsFd, os::unix::fs::FileExt};

use super::*;

const SIZE: u32 = 1 << 16;

/// A file laid out as the kernel maps a ring, with the data twice.
struct Ring {
    file: File,
}

impl Ring {
    fn new(consumer: u64, producer: u64, data: &[u8]) -> Self {
        let ring = Self { file: tempfile::tempfile().unwrap() };
        let page = Mapping::page_size() as u64;
        ring.file.set_len(2 * page + 2 * u64::from(SIZE)).unwrap();
        ring.file.write_all_at(&consumer.to_ne_bytes(), 0).unwrap();
        ring.file.write_all_at(&producer.to_ne_bytes(), page).unwrap();
        ring.file.write_all_at(data, 2 * page).unwrap();
        ring.file.write_all_at(data, 2 * page + u64::from(SIZE)).unwrap();
        ring
    }

    fn walk(&self) -> Walk {
        Walk::new(self.file.as_fd(), SIZE).unwrap()
    }
}

/// Every record that a walk finds, and whether it ended at invalid data.
fn records(walk: &mut Walk) -> (Vec<Vec<u8>>, bool) {
    let (mut records, end) = (Vec::new(), walk.end());
    for _ in 0..=SIZE / 8 {
        match walk.step(end) {
            None => return (records, false),
            Some(Step::Skip { next }) => walk.go_to(next),
            Some(Step::Record { at, length, next }) => {
                let mut bytes = Vec::new();
                assert!(walk.copy(at, length, &mut bytes), "a record lies in the ring");
                records.push(bytes);
                walk.go_to(next);
            }
            Some(Step::Broken) => return (records, true),
        }
    }
    panic!("a walk that does not end");
}

fn record(flags: u32, bytes: &[u8]) -> Vec<u8> {
    let head = u32::try_from(bytes.len()).unwrap() | flags;
    let mut record = [head.to_ne_bytes(), [0xee; 4]].concat();
    record.extend_from_slice(bytes);
    record.resize(record.len().next_multiple_of(8), 0xee);
    record
}

#[test]
fn records_are_read_up_to_one_that_is_not_finished() {
    let data = [record(0, b"one"), record(DISCARD, b"given up"), record(0, b"three"), record(BUSY, b"?")].concat();
    let ring = Ring::new(0, data.len() as u64, &data);
    let mut walk = ring.walk();
    assert_eq!(records(&mut walk), (vec![b"one".to_vec(), b"three".to_vec()], false));
    walk.commit();
    assert_eq!(ring.walk().next(), 16 + 16 + 16, "another reader goes on at what is not finished");
    assert_eq!(walk.fill(), (16, SIZE.into()));
}

#[test]
fn record_that_reaches_beyond_the_end_is_whole() {
    let bytes: Vec<u8> = (0..48).collect();
    let whole = record(0, &bytes);
    let start = SIZE as usize - 24;
    let mut data = vec![0; SIZE as usize];
    data[start..].copy_from_slice(&whole[..24]);
    data[..whole.len() - 24].copy_from_slice(&whole[24..]);
    let ring = Ring::new(start as u64, (start + whole.len()) as u64, &data);
    assert_eq!(records(&mut ring.walk()), (vec![bytes], false));
}

#[test]
fn impossible_positions_are_reported_not_followed() {
    let data = record(0, b"one");
    for (consumer, producer) in [(0, u64::from(SIZE) + 8), (8, 0), (4, 16), (0, 4), (u64::MAX - 7, 1 << 40)] {
        let ring = Ring::new(consumer, producer, &data);
        assert_eq!(records(&mut ring.walk()), (Vec::new(), true), "{consumer} to {producer}");
    }
}

#[test]
fn positions_may_wrap_around() {
    let mut data = vec![0; SIZE as usize];
    let whole = record(0, b"12345678");
    data[SIZE as usize - 16..].copy_from_slice(&whole);
    let ring = Ring::new(u64::MAX - 15, 0, &data);
    assert_eq!(records(&mut ring.walk()), (vec![b"12345678".to_vec()], false));
}

#[test]
fn garbage_is_never_followed_out_of_the_ring() {
    // xorshift: the same garbage every time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..200 {
        // Short lengths now and then, or every walk would end at its first record.
        let data: Vec<u8> = (0..SIZE / 8).flat_map(|_| (random() >> (random() % 64)).to_ne_bytes()).collect();
        let consumer = (random() % u64::from(SIZE)) & !7;
        let ring = Ring::new(consumer, consumer + random() % (u64::from(SIZE) + 64), &data);
        records(&mut ring.walk());
    }
}

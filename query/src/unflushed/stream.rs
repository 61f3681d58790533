//! The Arrow stream in which a collector sends rows. Its lengths are checked before it is read: the reader allocates what
//! they say, and a port that answers something else says gigabytes.

use std::io::Cursor;

use arrow::{
    array::RecordBatch,
    ipc::{reader::StreamReader, root_as_message},
};

/// Before each message.
const MARKER: [u8; 4] = [0xff; 4];

/// The batches of a stream.
///
/// # Errors
/// Says why it cannot be read.
pub(super) fn batches(bytes: Vec<u8>) -> Result<Vec<RecordBatch>, String> {
    check(&bytes)?;
    let read = StreamReader::try_new(Cursor::new(bytes), None).and_then(Iterator::collect);
    read.map_err(|error| format!("its rows cannot be read: {error}"))
}

/// Whether every message and its body lie inside the answer, uncompressed, as a collector sends them.
fn check(bytes: &[u8]) -> Result<(), String> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let not_arrow =
            || format!("its rows cannot be read: byte {} begins no Arrow message", bytes.len() - rest.len());
        let after = rest.strip_prefix(&MARKER).ok_or_else(not_arrow)?;
        let (length, after) = after.split_first_chunk().ok_or_else(not_arrow)?;
        let length = usize::try_from(i32::from_le_bytes(*length)).map_err(|_| not_arrow())?;
        if length == 0 {
            return Ok(());
        }
        let (metadata, after) = after.split_at_checked(length).ok_or_else(not_arrow)?;
        let message = root_as_message(metadata).map_err(|_| not_arrow())?;
        let batch = message.header_as_record_batch();
        let batch = batch.or_else(|| message.header_as_dictionary_batch().and_then(|dictionary| dictionary.data()));
        if batch.is_some_and(|batch| batch.compression().is_some()) {
            return Err("its rows cannot be read: they are compressed".to_owned());
        }
        let body = usize::try_from(message.bodyLength()).map_err(|_| not_arrow())?;
        (_, rest) = after.split_at_checked(body).ok_or_else(not_arrow)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{ArrayRef, Int64Array, StringArray},
        ipc::writer::StreamWriter,
    };

    use super::*;

    fn stream() -> Vec<u8> {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000));
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values((0..1_000).map(|number| number.to_string())));
        let batch = RecordBatch::try_from_iter([("number", numbers), ("text", texts)]).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch).unwrap();
        writer.into_inner().unwrap()
    }

    #[test]
    fn what_a_collector_writes_is_read_with_and_without_its_end() {
        let whole = stream();
        let rows = |bytes: Vec<u8>| batches(bytes).unwrap().iter().map(RecordBatch::num_rows).sum::<usize>();
        assert_eq!(rows(whole.clone()), 2_000);
        assert_eq!(rows(whole[..whole.len() - 8].to_vec()), 2_000);
    }

    #[test]
    fn another_answer_is_refused_before_memory_is_taken_for_it() {
        // As a length, `<htm` is 1.8 GB.
        for answer in [&b"<html>nginx</html>"[..], b"{}", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"\xff\xff\xff\xff\x01"]
        {
            let error = batches(answer.to_vec()).unwrap_err();
            assert!(error.contains("byte 0 begins no Arrow message"), "{error}");
        }
    }

    #[test]
    fn a_stream_that_is_cut_off_or_damaged_is_refused_or_read_and_never_takes_more_than_it_is() {
        let whole = stream();
        for end in (1..whole.len() - 8).step_by(97) {
            assert!(batches(whole[..end].to_vec()).is_err() || end < whole.len(), "{end}");
        }
        for at in (0..whole.len()).step_by(13) {
            let mut damaged = whole.clone();
            damaged[at] = 0xff;
            // Its lengths are checked; what is behind them is the reader's.
            let _ = check(&damaged);
        }
    }
}

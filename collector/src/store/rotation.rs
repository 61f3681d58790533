//! Rotation: what is held becomes the files of one segment.
//!
//! Write all files under names that no reader looks at; rename them; write the commit record; only then let go of the
//! rows. A failure before the commit record leaves everything as it was: the next rotation takes the same number, holds
//! the same rows and more, and so writes over whatever files the failed one had already renamed.

use std::{collections::BTreeMap, sync::PoisonError, time::Instant};

use netverdict_flowlog::{
    Table, columns,
    file::{self, Prepared},
    path::{Hour, SegmentPath},
    row::Row,
};

use super::{
    Rotation, Step, Store, StoreError, Writer,
    commit::{Commit, Saved},
    held::Chunk,
    retention::{self, LANES},
    tally::Tally,
};

impl Store {
    /// Writes everything held into files. On an error all of it is still held, and served, and will be tried again.
    /// With nothing to write it only sees to the cap on disk use.
    pub fn rotate(&self) -> Result<Rotation, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = self.held().seal();
        let mut rotation = match sealed {
            Some((segment, chunk)) => {
                let written = self.write(&mut writer, segment, &chunk);
                if written.is_err() {
                    self.held().failed(Instant::now());
                }
                written?
            }
            None => Rotation { segment: writer.commit.segment, ..Rotation::default() },
        };
        if let Err(error) = self.keep_below_cap(&mut writer.disk, &mut rotation) {
            // The segment is written all the same.
            tracing::error!(error = %error, "records over the cap on disk use could not be removed");
            rotation.over_cap = true;
        }
        Ok(rotation)
    }

    fn write(&self, writer: &mut Writer, segment: u64, chunk: &Chunk) -> Result<Rotation, StoreError> {
        let _entered = tracing::info_span!("rotate", segment).entered();
        let mut prepared = Vec::new();
        for ((table, hour), rows) in partitions(chunk.rows()) {
            self.step(Step::Preparing)?;
            prepared.push(self.prepare(table, hour, segment, rows)?);
        }
        let mut rotation = Rotation { segment, ..Rotation::default() };
        for file in prepared {
            self.step(Step::Publishing)?;
            let written = file.publish()?;
            rotation.rows += written.rows;
            rotation.bytes += written.bytes;
            rotation.files.push(written.path);
        }
        self.step(Step::Committing)?;
        let commit = Commit {
            segment,
            wal: chunk.wal.max(writer.commit.wal),
            journal: chunk.journal.max(writer.commit.journal),
            checkpoint: chunk.checkpoint.clone().or_else(|| writer.commit.checkpoint.clone()),
            ..Commit::default()
        };
        let saved = commit.save(&self.options.state_dir, &|_| self.step(Step::Committing))?;
        writer.commit = commit;
        writer.disk = writer.disk.saturating_add(rotation.bytes);
        // A reader that sees the next number finds these files; one that saw this number leaves them out.
        self.held().committed();
        if saved == Saved::Durable {
            rotation.wal = writer.commit.wal;
            self.after_commit(Step::Committed);
            if let Some(journal) = writer.commit.journal {
                self.held().release_journal(journal);
            }
            self.after_commit(Step::Released);
        }
        Ok(rotation)
    }

    /// What happens here can no longer fail the rotation.
    fn after_commit(&self, step: Step) {
        if let Err(error) = self.step(step) {
            tracing::debug!(error = %error, "step after the commit failed");
        }
    }

    fn prepare(&self, table: Table, hour: Hour, segment: u64, rows: Vec<&Row>) -> Result<Prepared, StoreError> {
        let path: SegmentPath = self.options.path(table, hour, segment)?;
        let mut extra = Vec::new();
        if table == Table::Flows {
            let mut tally = Tally::default();
            for row in &rows {
                if let Row::Flow(row) = row {
                    tally.add(row);
                }
            }
            extra.push((LANES, tally.to_json()));
        }
        let batches = columns::batches(table, rows)?;
        Ok(file::prepare(&self.options.data_dir, &path, &batches, &extra)?)
    }

    fn keep_below_cap(&self, disk: &mut u64, rotation: &mut Rotation) -> Result<(), StoreError> {
        let Some(cap) = self.options.disk_cap.filter(|cap| *disk > *cap) else {
            return Ok(());
        };
        let expired = retention::Files::scan(&self.options)?.expire(&self.options, cap, rotation.segment);
        rotation.over_cap = expired.left > cap;
        *disk = expired.left;
        if expired.paths.is_empty() {
            return Ok(());
        }
        // Said before it is done: a crash in between removes the files at the next opening.
        self.append_journalled(expired.gaps, &expired.paths)?;
        for path in &expired.paths {
            self.step(Step::Removing)?;
            retention::remove(&self.options.data_dir, path);
        }
        tracing::warn!(
            files = expired.paths.len(),
            bytes = expired.bytes,
            "oldest records removed to stay below the cap on disk use"
        );
        rotation.removed = expired.paths;
        Ok(())
    }
}

fn partitions<'a>(rows: impl Iterator<Item = &'a Row>) -> BTreeMap<(Table, Hour), Vec<&'a Row>> {
    let mut partitions = BTreeMap::<_, Vec<&Row>>::new();
    for row in rows {
        partitions.entry((Table::of(row), Hour::of(row.time()))).or_default().push(row);
    }
    partitions
}

//! Flush: the rows of the memtable become the files of one segment.
//!
//! Write all files under names that no reader looks at; rename them; put the manifest in place, which makes them count;
//! write the commit record; only then drop the rows. A failure before the commit record leaves everything as it
//! was: the next flush takes the same number, holds the same rows and more, and so writes over the files and the
//! manifest of the failed one.

use std::{collections::BTreeMap, sync::PoisonError, time::Instant};

use chrono::Utc;
use netverdict_flowlog::{
    Table, columns,
    file::{self, Prepared},
    manifest::{MANIFEST, Manifest, ManifestFile},
    path::{Hour, ManifestPath, SegmentPath},
    row::Row,
};

use super::{
    Flushed, Store, Writer,
    commit::{Commit, Saved},
    error::StoreError,
    memtable::Chunk,
    retention,
    step::Step,
    tally::Tally,
};

impl Store {
    /// Writes the memtable into files. On an error all rows stay in it, are served, and will be tried again.
    /// With nothing to write it only sees to the cap on disk use.
    pub fn flush(&self) -> Result<Flushed, StoreError> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let sealed = self.memtable().seal();
        let mut flushed = match sealed {
            Some((segment, chunk)) => {
                let written = self.write(&mut writer, segment, &chunk);
                if written.is_err() {
                    self.memtable().failed(Instant::now());
                }
                written?
            }
            None => Flushed { segment: writer.commit.segment, ..Flushed::default() },
        };
        if let Err(error) = self.keep_below_cap(&mut writer.disk, &mut flushed) {
            // The segment is written all the same.
            tracing::error!(error = %error, "records over the cap on disk use could not be removed");
            flushed.over_cap = true;
        }
        Ok(flushed)
    }

    fn write(&self, writer: &mut Writer, segment: u64, chunk: &Chunk) -> Result<Flushed, StoreError> {
        let _entered = tracing::info_span!("flush", segment).entered();
        let manifest_path = self.options.manifest_path(segment)?;
        let mut prepared = Vec::new();
        for ((table, hour), rows) in partitions(chunk.rows()) {
            self.step(Step::Preparing)?;
            let lanes = Tally::of(rows.iter().copied()).into_iter().collect();
            prepared.push((self.prepare(table, hour, &manifest_path, rows)?, lanes));
        }
        let mut flushed = Flushed { segment, ..Flushed::default() };
        let mut files = Vec::new();
        for (file, lanes) in prepared {
            self.step(Step::Publishing)?;
            let written = file.publish()?;
            flushed.rows += written.rows;
            flushed.bytes += written.bytes;
            files.push(ManifestFile::new(&written, lanes));
            flushed.files.push(written.path);
        }
        let mut newest = writer.commit.manifest.clone();
        if !files.is_empty() {
            self.step(Step::Sealing)?;
            let manifest = Manifest::new(manifest_path, Utc::now(), files, newest, Vec::new());
            flushed.bytes += manifest.publish(&self.options.data_dir)?;
            newest = Some(manifest.link());
        }
        self.step(Step::Committing)?;
        let commit = Commit {
            segment,
            wal: chunk.wal.max(writer.commit.wal),
            journal: chunk.journal.max(writer.commit.journal),
            checkpoint: chunk.checkpoint.clone().or_else(|| writer.commit.checkpoint.clone()),
            manifest: newest,
            ..Commit::default()
        };
        let saved = commit.save(&self.options.state_dir, &|_| self.step(Step::Committing))?;
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&commit.manifest);
        writer.commit = commit;
        writer.disk = writer.disk.saturating_add(flushed.bytes);
        // A reader that gets the next number finds these files; a reader that got this number leaves them out.
        self.memtable().committed();
        if saved == Saved::Durable {
            flushed.wal = writer.commit.wal;
            self.after_commit(Step::Committed);
            if let Some(journal) = writer.commit.journal {
                self.memtable().release_journal(journal);
            }
            self.after_commit(Step::Released);
        }
        Ok(flushed)
    }

    /// Errors here can no longer fail the flush.
    fn after_commit(&self, step: Step) {
        if let Err(error) = self.step(step) {
            tracing::debug!(error = %error, "step after the commit failed");
        }
    }

    fn prepare(
        &self,
        table: Table,
        hour: Hour,
        manifest: &ManifestPath,
        rows: Vec<&Row>,
    ) -> Result<Prepared, StoreError> {
        let path: SegmentPath = self.options.path(table, hour, manifest.segment())?;
        let batches = columns::batches(table, rows)?;
        Ok(file::prepare(&self.options.data_dir, &path, &batches, &[(MANIFEST, manifest.to_string())])?)
    }

    fn keep_below_cap(&self, disk: &mut u64, flushed: &mut Flushed) -> Result<(), StoreError> {
        let Some(cap) = self.options.disk_cap.filter(|cap| *disk > *cap) else {
            return Ok(());
        };
        let expired = retention::Files::scan(&self.options)?.expire(&self.options, cap, flushed.segment);
        flushed.over_cap = expired.left > cap;
        *disk = expired.left;
        if expired.paths.is_empty() {
            return Ok(());
        }
        // The note comes before the removal: a crash in between removes the files at the next opening.
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
        flushed.removed = expired.paths;
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

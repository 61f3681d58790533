//! The oldest flows go when the copies take more space than they may. Everything else stays: past moments are judged with
//! it, and it is small.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};
use netverdict_flowlog::{Table, path::SegmentPath};
use serde::{Deserialize, Serialize};

/// In the data directory, next to the folders of the tables.
const FILE: &str = "mirror.json";

/// Until when flows were removed; kept on disk, so that answers can report it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Removed {
    /// Flows of earlier hours are not here.
    until: Option<DateTime<Utc>>,
}

impl Removed {
    /// Reads what is known of a directory of copies, or makes one of an empty directory.
    ///
    /// # Errors
    /// The directory cannot be used, or holds something else: old files are removed from copies, and from nothing else.
    pub(super) fn open(data_dir: &Path) -> io::Result<Self> {
        match fs::read(data_dir.join(FILE)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if Table::ALL.iter().any(|table| data_dir.join(table.name()).exists()) {
                    return Err(io::Error::other("it holds a record that is no copy: name an empty directory"));
                }
                let removed = Self::default();
                removed.save(data_dir)?;
                Ok(removed)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn until(&self) -> Option<DateTime<Utc>> {
        self.until
    }

    fn save(&self, data_dir: &Path) -> io::Result<()> {
        let beside = data_dir.join(format!(".{FILE}.tmp"));
        fs::write(&beside, serde_json::to_vec(self)?)?;
        fs::rename(beside, data_dir.join(FILE))
    }
}

/// Removes the oldest hours of flows until all files together are below the limit.
pub(super) fn keep_below(data_dir: &Path, limit: u64, removed: &Mutex<Removed>) {
    if let Err(error) = try_keep_below(data_dir, limit, removed) {
        tracing::error!(%error, "space of the copies cannot be freed");
    }
}

fn try_keep_below(data_dir: &Path, limit: u64, removed: &Mutex<Removed>) -> io::Result<()> {
    let mut flows = Vec::new();
    let mut used = 0;
    for (path, bytes) in files(data_dir)? {
        used += bytes;
        if let Some(segment) = SegmentPath::of_file(data_dir, &path).filter(|path| path.table() == Table::Flows) {
            flows.push((segment, bytes));
        }
    }
    if used <= limit {
        return Ok(());
    }
    flows.sort();
    let mut chosen = Vec::new();
    let mut last = None;
    for (segment, bytes) in flows {
        // Hours go as a whole: an answer says until when there is nothing.
        if used <= limit && last != Some(segment.hour()) {
            break;
        }
        used -= bytes;
        last = Some(segment.hour());
        chosen.push(segment);
    }
    let Some(last) = last else { return Ok(()) };
    let mut removed = removed.lock().unwrap_or_else(PoisonError::into_inner);
    removed.until = removed.until.max(Some(last.start() + TimeDelta::hours(1)));
    // Said before it is done.
    removed.save(data_dir)?;
    tracing::warn!(files = chosen.len(), until = ?removed.until, "oldest flows removed: the copies take more than --mirror-limit");
    for segment in chosen {
        match fs::remove_file(segment.below(data_dir)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// All files below a folder, with their sizes.
fn files(folder: &Path) -> io::Result<Vec<(PathBuf, u64)>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            // A file may go at any time.
            match entry.metadata() {
                Ok(data) if data.is_dir() => folders.push(entry.path()),
                Ok(data) => found.push((entry.path(), data.len())),
                Err(_) => {}
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use netverdict_flowlog::path::Hour;

    use super::*;

    const BOOT: &str = "3f2b8c1e-5a77-4d09-9b1c-0123456789ab";

    #[test]
    fn a_directory_that_a_collector_writes_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("flows")).unwrap();
        assert!(Removed::open(dir.path()).unwrap_err().to_string().contains("name an empty directory"));
    }

    #[test]
    fn the_oldest_hours_of_flows_go_and_answers_can_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let put = |table, hour: &str, segment| {
            let hour = Hour::of(format!("2026-11-19T{hour}:00:00Z").parse().unwrap());
            let path = SegmentPath::new(table, "prod", hour, "n1", BOOT, segment).unwrap().below(dir.path());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, [0; 100]).unwrap();
            path
        };
        let removed = Mutex::new(Removed::open(dir.path()).unwrap());
        let own = fs::metadata(dir.path().join(FILE)).unwrap().len();
        let oldest = [put(Table::Flows, "08", 1), put(Table::Flows, "08", 2)];
        let (kept, policies) = (put(Table::Flows, "09", 3), put(Table::Policies, "07", 1));
        keep_below(dir.path(), own + 400, &removed);
        assert!(oldest[0].exists() && removed.lock().unwrap().until().is_none(), "there is space");
        keep_below(dir.path(), own + 399, &removed);
        assert!(oldest.iter().all(|file| !file.exists()), "an hour goes as a whole");
        assert!(kept.exists() && policies.exists());
        let until = Removed::open(dir.path()).unwrap().until();
        assert_eq!(until, Some("2026-11-19T09:00:00Z".parse().unwrap()));
    }
}

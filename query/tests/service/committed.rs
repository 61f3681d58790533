//! Files count once their segment's manifest is in place, and no longer when a newer segment supersedes them.

use std::{
    fs::File,
    time::{Duration, SystemTime},
};

use netverdict_flowlog::{
    columns,
    file::{self, Written},
    manifest::{MANIFEST, Manifest, ManifestFile},
    path::{Hour, SegmentPath},
    row::Row,
    schema::Table,
};
use serde_json::json;

use crate::world::{BOOT, NODE, Served, World, ago};

/// Writes flows of one hour into a file that needs a manifest.
fn written(world: &World, segment: u64, rows: &[Row]) -> Written {
    let path = SegmentPath::new(Table::Flows, "demo", Hour::of(rows[0].time()), NODE, BOOT, segment).expect("a path");
    let batches = columns::batches(Table::Flows, rows).expect("batches");
    file::write(&world.data(), &path, &batches, &[(MANIFEST, path.manifest().to_string())]).expect("written")
}

fn manifest(written: &Written, supersedes: &[SegmentPath]) -> Manifest {
    let file = ManifestFile::new(written, Vec::new());
    Manifest::new(written.path.manifest(), ago(0), vec![file], None, supersedes.to_vec())
}

async fn counted(served: &Served) -> (serde_json::Value, Vec<String>) {
    let (status, body) = served.sql("select count(*) from flows").await;
    assert_eq!(status, 200, "{body}");
    let stale = body["stale"].as_array().into_iter().flatten();
    (body["rows"][0][0].clone(), stale.filter_map(|text| text.as_str().map(str::to_owned)).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_counts_from_its_manifest_on() {
    let mut world = World::new().await;
    let rows = world.attempt("shop/web", "db/pg", 5432, ago(60));
    world.collector.next_segment();
    let served = world.serve().await;
    let first = written(&world, 1, &rows);
    assert_eq!(counted(&served).await, (json!(0), Vec::new()), "not committed, and nothing to complain of yet");
    manifest(&first, &[]).publish(&world.data()).expect("published");
    assert_eq!(counted(&served).await, (json!(2), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn superseded_files_are_left_out_in_the_instant_in_which_the_newer_segment_counts() {
    let mut world = World::new().await;
    let (early, late) =
        (world.attempt("shop/web", "db/pg", 5432, ago(60)), world.attempt("shop/api", "db/pg", 5432, ago(60)));
    let all = json!(early.len() + late.len());
    (0..4).for_each(|_| world.collector.next_segment());
    let served = world.serve().await;
    let (first, second) = (written(&world, 1, &early), written(&world, 2, &late));
    manifest(&first, &[]).publish(&world.data()).expect("published");
    manifest(&second, &[]).publish(&world.data()).expect("published");
    assert_eq!(counted(&served).await, (all.clone(), Vec::new()));
    let both = [early, late].concat();
    let compacted = written(&world, 3, &both);
    assert_eq!(counted(&served).await, (all.clone(), Vec::new()));
    manifest(&compacted, &[first.path, second.path]).publish(&world.data()).expect("published");
    assert_eq!(counted(&served).await, (all, Vec::new()));
    // Its rows are read from the newer file: those of the others may go.
    std::fs::remove_file(compacted.path.below(&world.data())).expect("removed");
    assert_ne!(counted(&served).await.0, json!(0), "without the newer file nothing is superseded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_fit_its_manifest_is_left_out_and_told() {
    let mut world = World::new().await;
    let rows = world.attempt("shop/web", "db/pg", 5432, ago(60));
    (0..4).for_each(|_| world.collector.next_segment());
    let served = world.serve().await;
    let first = written(&world, 1, &rows);
    let other = Written { bytes: first.bytes + 1, ..first.clone() };
    manifest(&other, &[]).publish(&world.data()).expect("published");
    let (count, stale) = counted(&served).await;
    assert_eq!(count, json!(0));
    assert!(stale[0].contains("its manifest says"), "{stale:?}");
    // Written again under the same name, as after a crash: no stale copy of the manifest is believed.
    manifest(&first, &[]).publish(&world.data()).expect("published");
    assert_eq!(counted(&served).await, (json!(2), Vec::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_stays_missing_is_told() {
    let mut world = World::new().await;
    let rows = world.attempt("shop/web", "db/pg", 5432, ago(60));
    (0..4).for_each(|_| world.collector.next_segment());
    let served = world.serve().await;
    let first = written(&world, 1, &rows);
    let file = File::options().write(true).open(first.path.below(&world.data())).expect("opened");
    file.set_modified(SystemTime::now() - Duration::from_secs(600)).expect("dated");
    let (count, stale) = counted(&served).await;
    assert_eq!(count, json!(0));
    assert!(stale[0].contains("is missing"), "{stale:?}");
}

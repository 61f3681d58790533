//! Broken parts are reported, and nothing else is lost.

use std::{fs, process::Command};

use xtask::services::wait;

use crate::node::{NODE, Node, PATIENCE};

#[test]
fn one_broken_manifest_stops_nothing_and_shows_in_the_answer() {
    let node = Node::started("enforce");
    node.write_manifest("broken.yaml", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: [\n");
    wait("the answer says that a manifest is broken", PATIENCE, || {
        let answer = node.why("shop/web", "db/pg:5432");
        Ok(answer["stale"].to_string().contains("broken.yaml"))
    })
    .expect("the answer tells");
    // The rest goes on: a change of another file still takes effect.
    node.write_manifest("policies.yaml", "# open\n");
    node.wait_for(0, "select count(*) from policies where valid_to is null");
}

#[test]
fn a_corrupt_file_among_good_ones_is_skipped_and_told() {
    let mut node = Node::started("enforce");
    node.send_from_ports("shop/jobs", "db/pg", 5432, 25_000..25_050);
    node.wait_for(50, "select count(*) from flows where lane = 'denied' and source_port >= 25000");
    node.stop_collector();
    let before = node.number("select count(*) from flows");
    let good = first_file(&node.place.data().join("flows")).expect("a file of flows");
    let name = good.file_name().and_then(|name| name.to_str()).expect("a name").replace(NODE, "other-node");
    fs::write(good.with_file_name(&name), b"PAR1 not Parquet PAR1").expect("written");
    assert_eq!(node.number("select count(*) from flows"), before);
    let output = node.netverdict(&["sql", "select count(*) from flows"]).output().expect("an answer");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains(&name), "the skipped file is not told: {text}");
}

#[test]
fn a_full_disk_is_told_and_nothing_is_lost_once_there_is_room() {
    let mut node = Node::new();
    let disk = node.place.data();
    fs::create_dir_all(&disk).expect("a folder");
    let mount = |options: &str| {
        let status = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&disk).status();
        assert!(status.is_ok_and(|status| status.success()), "could not mount a small disk");
    };
    mount("size=16k");
    let unmount = Unmount(disk.clone());
    node.start_collector("enforce", &["--flush-after", "1s"]);
    node.start_query();
    node.wait_until_attached();
    node.send_from_ports("shop/jobs", "db/pg", 5432, 26_000..26_400);
    let ready = format!("http://{}/readyz", node.admin());
    // The text of problems is for clients with the token, because it may hold paths.
    let token = fs::read_to_string(node.place.state().join("collector.token")).expect("a token");
    let authorization = format!("Authorization: Bearer {}", token.trim());
    let said = |more: &[&str]| {
        let output = Command::new("curl").args(["-s", &ready]).args(more).output()?;
        anyhow::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    wait("the collector says that the disk is full", PATIENCE, || Ok(said(&["-H", &authorization])?.contains("disk")))
        .expect("readyz tells");
    let outside = said(&[]).expect("an answer");
    assert!(
        outside.contains(r#""part":"store","unready":true"#) && !outside.contains(&*disk.to_string_lossy()),
        "{outside}"
    );
    mount("remount,size=64m");
    node.wait_for(
        400,
        "select sum(count) from flows where lane = 'denied' and source_port >= 26000 and source_port < 26400",
    );
    node.stop_collector();
    node.wait_for(
        400,
        "select sum(count) from flows where lane = 'denied' and source_port >= 26000 and source_port < 26400",
    );
    node.query.take();
    drop(unmount);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn first_file(folder: &std::path::Path) -> Option<std::path::PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.into_iter().find_map(|path| match path.is_dir() {
        true => first_file(&path),
        false => path.extension().is_some_and(|extension| extension == "parquet").then_some(path),
    })
}

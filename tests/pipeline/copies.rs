//! A query service that keeps copies of the collectors' files (`--mirror`), in a directory that no collector writes.

use std::{fs, path::Path, process::Command};

use xtask::services::{Serving, wait};

use crate::node::{Node, PATIENCE};

const DENIED: &str =
    "select coalesce(sum(count), 0) from flows where lane = 'denied' and source_port between 26000 and 26099";

#[test]
fn copies_hold_the_record_of_a_node_that_is_gone_and_each_row_once() {
    let mut node = Node::new();
    node.start_collector("enforce", &[]);
    node.query = Some(mirror(&node, "copies"));
    node.wait_until_attached();
    node.send_from_ports("shop/jobs", "db/pg", 5432, 26_000..26_050);
    // Not in files yet.
    node.wait_for(50, DENIED);
    node.stop_collector();
    node.start_collector("enforce", &[]);
    // In files of the collector now: a question waits until they are copied.
    assert_eq!(node.number(DENIED), 50, "no row is missing while files are copied");
    node.send_from_ports("shop/jobs", "db/pg", 5432, 26_050..26_100);
    node.wait_for(100, DENIED);
    node.stop_collector();
    node.start_collector("enforce", &[]);
    assert_eq!(node.number(DENIED), 100);
    node.kill_collector();
    fs::remove_dir_all(node.place.data()).expect("the node's disk is gone");
    assert_eq!(node.number(DENIED), 100);
    let answer = node.why("shop/jobs", "db/pg:5432/UDP");
    assert_eq!(answer["verdict"], "denied", "{answer}");
    assert!(answer["stale"].to_string().contains("does not answer"), "{answer}");
}

#[test]
fn a_file_that_was_changed_on_its_node_is_not_copied_and_answers_say_so() {
    let mut node = Node::new();
    node.start_collector("enforce", &[]);
    node.wait_until_attached();
    node.send_from_ports("shop/jobs", "db/pg", 5432, 26_000..26_010);
    node.stop_collector();
    let flows = first_file(&node.place.data().join("flows")).expect("flows are in files");
    let mut bytes = fs::read(&flows).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&flows, bytes).expect("written");
    node.start_collector("enforce", &[]);
    node.query = Some(mirror(&node, "copies-of-changed"));
    let mut said = String::new();
    wait("the answer says that a file was changed", PATIENCE, || {
        let output = node.netverdict(&["sql", DENIED]).output()?;
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(said.contains("it was changed or damaged"))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {said}"));
    assert_eq!(node.number(DENIED), 0, "what cannot be trusted is not shown");
}

/// An authority is replaced, as a certificate's renewal does it, and the services go on.
#[test]
fn rows_come_over_tls_from_collectors_of_the_named_authority_and_from_no_other() {
    let mut node = Node::new();
    let file = |name: &str| node.place.root.join(name).display().to_string();
    let [authority, certificate, key] = ["rows-ca.crt", "rows.crt", "rows.key"].map(file);
    issue([&authority, &certificate, &key]);
    node.start_collector("enforce", &["--rows-tls-cert", &certificate, "--rows-tls-key", &key]);
    let port = node.rows().rsplit(':').next().expect("a port").to_owned();
    let serve = |node: &Node, folder: &str, options: &[&str]| {
        let collector = format!("dns+https://localhost:{port}");
        let mut command: Command = node.place.query(Some(&collector), "127.0.0.1:0", "127.0.0.1:0");
        command.arg("--mirror").arg("--data-dir").arg(node.place.root.join(folder)).args(options);
        Serving::start(&node.place, "query", command).expect("the query service serves")
    };
    node.query = Some(serve(&node, "copies-tls", &["--collector-ca-file", &authority]));
    node.wait_until_attached();
    node.send_from_ports("shop/jobs", "db/pg", 5432, 26_000..26_050);
    node.wait_for(50, DENIED);

    issue([&authority, &certificate, &key]);
    node.send_from_ports("shop/jobs", "db/pg", 5432, 26_050..26_100);
    node.wait_for(100, DENIED);

    // Authorities of the system have not signed it.
    node.query = Some(serve(&node, "copies-untrusted", &[]));
    let output = node.netverdict(&["sql", DENIED]).output().expect("an answer");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("does not answer (invalid peer certificate"), "{said}");
    assert_eq!(node.number(DENIED), 0);
}

/// An authority, and a certificate of it for `localhost`.
fn issue([authority, certificate, key]: [&String; 3]) {
    let openssl = |arguments: &[&str]| {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        let output = openssl.args(["-days", "2"]).args(arguments).output().expect("openssl starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let authority_key = format!("{authority}.key");
    openssl(&["-subj", "/CN=authority", "-keyout", &authority_key, "-out", authority]);
    openssl(&[
        "-subj",
        "/CN=collector",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-CA",
        authority,
        "-CAkey",
        &authority_key,
        "-keyout",
        key,
        "-out",
        certificate,
    ]);
}

fn mirror(node: &Node, folder: &str) -> Serving {
    let port = node.rows().rsplit(':').next().expect("a port");
    let collector = format!("dns+http://localhost:{port}");
    let mut command: Command = node.place.query(Some(&collector), "127.0.0.1:0", "127.0.0.1:0");
    command.arg("--mirror").arg("--data-dir").arg(node.place.root.join(folder));
    Serving::start(&node.place, "query", command).expect("the query service serves")
}

fn first_file(folder: &Path) -> Option<std::path::PathBuf> {
    let mut entries: Vec<_> = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.into_iter().find_map(|path| if path.is_dir() { first_file(&path) } else { Some(path) })
}

//! Impossible settings are refused at once, with the remedy.

use std::{net::TcpListener, process::Command};

use crate::node::{NODE, Node};

#[test]
fn a_port_in_use_is_named() {
    let node = Node::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let text = failure(&mut node.place.collector(NODE, "observe", &address, "127.0.0.1:0"));
    assert!(text.contains(&address), "the address is not named: {text}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let node = Node::new();
    let mut command = node.place.program("netverdict-collector");
    command.args(["--node", NODE, "--data-dir", "/proc/nowhere", "--admin-address", "127.0.0.1:0"]);
    command.args(["--rows-address", "127.0.0.1:0", "--manifests"]).arg(node.place.manifests());
    command.arg("--state-dir").arg(node.place.state()).arg("--pin-root").arg(node.place.pins());
    let text = failure(&mut command);
    assert!(text.contains("/proc/nowhere"), "the folder is not named: {text}");
}

#[test]
fn an_unknown_pod_is_answered_with_those_that_there_are() {
    let node = Node::started("observe");
    node.wait_for(3, "select count(distinct name) from endpoints where kind = 'pod'");
    let output = node.netverdict(&["why", "shop/wep", "db/pg:5432"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("shop/wep") && text.contains("shop/web"), "no suggestion: {text}");
}

#[test]
fn a_stopped_service_is_named_with_the_remedy() {
    let node = Node::new();
    let mut command = node.place.program("netverdict");
    let token = node.place.root.join("token");
    std::fs::write(&token, "a-token").expect("written");
    command.args(["flows", "--server", "http://127.0.0.1:1", "--token-file"]).arg(token);
    let text = failure(&mut command);
    assert!(text.contains("127.0.0.1:1") && text.contains("netverdict-query"), "no remedy: {text}");
}

/// Output of a command that must fail.
fn failure(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(!output.status.success(), "it should have failed");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

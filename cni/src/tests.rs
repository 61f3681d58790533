use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use super::*;

/// The answer to a call with these variables, as `NAME=value`.
fn call(variables: &[&str], configuration: &Value) -> Result<Value, (u32, String)> {
    let variables: BTreeMap<_, _> = variables.iter().map(|pair| pair.split_once('=').unwrap()).collect();
    let variable = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    let text = configuration.to_string();
    match answer(Ok(text.as_bytes()), &variable) {
        Ok(text) if text.is_empty() => Ok(Value::Null),
        Ok(text) => Ok(serde_json::from_str(&text).unwrap()),
        Err(error) => {
            let json: Value = serde_json::from_str(&error.to_json()).unwrap();
            assert!(json["cniVersion"].is_string() && json["code"] == error.code, "{json}");
            Err((error.code, format!("{} {}", error.message, error.details)))
        }
    }
}

fn code_of(variables: &[&str], configuration: &Value) -> u32 {
    call(variables, configuration).expect_err("an error").0
}

const ADD: [&str; 4] = ["CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=/nowhere"];

#[test]
fn versions_are_negotiated() {
    let answer = call(&["CNI_COMMAND=VERSION"], &json!({ "cniVersion": "0.4.0" })).unwrap();
    assert_eq!(answer["cniVersion"], "0.4.0");
    assert_eq!(answer["supportedVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    for version in [json!("0.2.0"), json!("2.0.0"), json!("")] {
        assert_eq!(code_of(&ADD, &json!({ "cniVersion": version })), 1);
    }
    assert_eq!(code_of(&ADD, &json!({})), 1);
    assert_eq!(code_of(&["CNI_COMMAND=STATUS"], &json!({ "cniVersion": "1.0.0" })), 1, "STATUS is of 1.1.0");
    let check = ["CNI_COMMAND=CHECK", ADD[1], ADD[2], ADD[3]];
    assert_eq!(code_of(&check, &json!({ "cniVersion": "0.3.1" })), 1, "CHECK is of 0.4.0");
}

#[test]
fn environment_that_could_name_another_file_is_refused() {
    let configuration = json!({ "cniVersion": "1.1.0", "prevResult": {} });
    for (place, value) in [
        (0, "CNI_COMMAND=REMOVE"),
        (1, "CNI_CONTAINERID=../../etc/x"),
        (1, "CNI_CONTAINERID="),
        (2, "CNI_IFNAME=a/b"),
        (2, "CNI_IFNAME=an-interface-too-long"),
        (3, "CNI_NETNS="),
    ] {
        let mut variables = ADD;
        variables[place] = value;
        assert_eq!(code_of(&variables, &configuration), 4, "{value}");
    }
    assert_eq!(code_of(&[], &configuration), 4);
}

#[test]
fn plugin_that_is_not_chained_says_where_to_put_it() {
    let error = call(&ADD, &json!({ "cniVersion": "1.1.0" })).unwrap_err();
    assert!(error.0 == 7 && error.1.contains("prevResult"), "{error:?}");
}

#[test]
fn what_is_no_configuration_is_an_error_and_no_panic() {
    let variable = |name: &str| (name == "CNI_COMMAND").then(|| "ADD".to_owned());
    let deep = "[".repeat(100_000);
    for text in ["", "{", "null", "{\"cniVersion\":7}", deep.as_str()] {
        assert_eq!(answer(Ok(text.as_bytes()), &variable).unwrap_err().code, 6, "{}", &text[..text.len().min(20)]);
    }
    let large = vec![b' '; usize::try_from(LARGEST_CONFIGURATION).unwrap() + 1];
    assert_eq!(answer(Ok(&large), &variable).unwrap_err().code, 6);
    assert_eq!(answer(Err(io::Error::other("closed")), &variable).unwrap_err().code, 5);
}

#[test]
fn container_that_is_no_pod_passes_through_with_the_result_as_it_was() {
    let before = json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": "veth1" }], "ips": [], "dns": {} });
    let answer = call(&ADD, &json!({ "cniVersion": "1.0.0", "prevResult": before })).unwrap();
    assert_eq!(answer, before);
}

#[test]
fn deletion_and_collection_succeed_where_nothing_is_left() {
    let place = tempfile::tempdir().unwrap();
    let configuration = json!({ "cniVersion": "1.1.0", "runDir": place.path() });
    let del = ["CNI_COMMAND=DEL", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0"];
    assert_eq!(call(&del, &configuration), Ok(Value::Null));
    assert_eq!(call(&del, &configuration), Ok(Value::Null), "twice");
    let claims = place.path().join("claims");
    fs::create_dir(&claims).unwrap();
    for name in ["c1@eth0", "c2@eth0", "c2@net1"] {
        fs::write(claims.join(name), "{}").unwrap();
    }
    assert_eq!(
        call(&["CNI_COMMAND=GC"], &configuration),
        Ok(Value::Null),
        "without a list nothing is known to be gone"
    );
    assert_eq!(fs::read_dir(&claims).unwrap().count(), 3);
    let mut listed = configuration.clone();
    listed["cni.dev/valid-attachments"] = json!([{ "containerID": "c2", "ifname": "eth0" }]);
    assert_eq!(call(&["CNI_COMMAND=GC"], &listed), Ok(Value::Null));
    assert_eq!(fs::read_dir(&claims).unwrap().count(), 1);
    assert_eq!(call(&["CNI_COMMAND=DEL", "CNI_CONTAINERID=c2", "CNI_IFNAME=eth0"], &configuration), Ok(Value::Null));
    assert_eq!(fs::read_dir(&claims).unwrap().count(), 0);
}

#[test]
fn status_says_whether_a_new_pod_would_be_judged() {
    let place = tempfile::tempdir().unwrap();
    let mut configuration =
        json!({ "cniVersion": "1.1.0", "runDir": place.path(), "pinRoot": place.path().join("pins") });
    assert_eq!(code_of(&["CNI_COMMAND=STATUS"], &configuration), 50);
    let listener = std::os::unix::net::UnixListener::bind(place.path().join("collector.sock")).unwrap();
    assert_eq!(call(&["CNI_COMMAND=STATUS"], &configuration), Ok(Value::Null));
    drop(listener);
    assert_eq!(code_of(&["CNI_COMMAND=STATUS"], &configuration), 50, "a socket without a collector");
    configuration["onUnavailable"] = json!("allow");
    assert_eq!(call(&["CNI_COMMAND=STATUS"], &configuration), Ok(Value::Null));
    configuration["onUnavailable"] = json!("maybe");
    assert_eq!(code_of(&["CNI_COMMAND=STATUS"], &configuration), 6);
}

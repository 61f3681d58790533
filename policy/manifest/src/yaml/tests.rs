use super::*;

/// Spelling, JSON value and JSON key, by tabs; `refused` where kubectl refuses the document.
const KUBECTL: &str = include_str!("kubectl.tsv");

fn read(text: &str) -> Result<Value, String> {
    document(text, 1).map(|document| document.value).map_err(|broken| broken.message)
}

fn json(text: &str) -> Value {
    crate::json_value(text.as_bytes()).unwrap()
}

#[test]
fn scalars_have_the_types_that_kubectl_gives_them() {
    let rows: Vec<Vec<&str>> =
        KUBECTL.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect()).collect();
    assert!(rows.len() > 200);
    let mut wrong = Vec::new();
    for row in rows {
        let [spelling, value, key] = row.as_slice() else { panic!("{row:?}: three columns") };
        // Nothing that we evaluate can be binary; kubectl decodes it.
        let (value, key) = if spelling.starts_with("!!binary") { ("refused", "refused") } else { (*value, *key) };
        let expected = (value != "refused").then(|| json(&format!("{{\"v\":{value}}}")));
        let found = read(&format!("v: {spelling}\n")).ok();
        if found != expected {
            wrong.push(format!("{spelling} as a value: expected {expected:?}, found {found:?}"));
        }
        let expected = (key != "refused").then(|| json(&format!("{{{key}:\"v\"}}")));
        let found = read(&format!("{spelling}: v\n")).ok();
        if found != expected {
            wrong.push(format!("{spelling} as a key: expected {expected:?}, found {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_merge_key_sets_its_entries_where_it_stands() {
    for (text, expected) in [
        ("a: &a {x: 1, z: 2}\nb: {<<: *a, x: 3}\n", r#"{"a":{"x":1,"z":2},"b":{"x":3,"z":2}}"#),
        ("a: &a {x: 1, z: 2}\nb: {x: 3, <<: *a}\n", r#"{"a":{"x":1,"z":2},"b":{"x":1,"z":2}}"#),
        ("b: {<<: [{x: 1}, {x: 2, w: 3}]}\n", r#"{"b":{"x":1,"w":3}}"#),
        ("b: {'<<': {x: 1}}\n", r#"{"b":{"<<":{"x":1}}}"#),
        ("b: {!!str <<: {x: 1}}\n", r#"{"b":{"<<":{"x":1}}}"#),
        ("b: {!!merge <<: {x: 1}}\n", r#"{"b":{"x":1}}"#),
        ("b: {<<: {x: 1}, <<: {w: 1}}\n", r#"{"b":{"x":1,"w":1}}"#),
        ("a: &a 1\nb: *a\n*a : 3\n", r#"{"a":1,"b":1,"1":3}"#),
    ] {
        assert_eq!(read(text), Ok(json(expected)), "{text}");
    }
    for text in ["b: {<<: 1}\n", "b: {<<: [1]}\n", "b: {<<: null}\n", "b: {<<: }\n"] {
        assert!(read(text).unwrap_err().starts_with("a merge key << needs a mapping"), "{text}");
    }
}

#[test]
fn what_cannot_be_a_document_is_refused_with_its_place() {
    for (text, expected) in [
        ("a: 1\nb: .inf\n", ".inf has no form in JSON at line 2, column 4"),
        ("~: 1\n", "null cannot be a key at line 1, column 1"),
        ("? [a]\n: b\n", "a key must be text at line 1, column 3"),
        ("a: &a [*a]\n", "the alias is inside its own anchor at line 1, column 8"),
        ("b: &a {<<: *a}\n", "the alias is inside its own anchor at line 1, column 12"),
        ("a: !!int x\n", "\"x\" does not fit its tag !!int at line 1, column 10"),
        ("1: a\n'1': b\n", "duplicate mapping key: 1 at line 2, column 1"),
        ("on: a\ntrue: b\n", "duplicate mapping key: true at line 2, column 1"),
    ] {
        assert_eq!(read(text).unwrap_err(), expected, "{text}");
    }
}

#[test]
fn lines_are_those_of_the_file() {
    let broken = document("---\na: 1\na: 2\n", 10).unwrap_err();
    assert_eq!(broken.message, "duplicate mapping key: a at line 12, column 1");
}

#[test]
fn what_aliases_repeat_is_bounded() {
    let long = "x".repeat(1 << 20);
    let text = format!("a: &a {long}\nb: [{}]\n", "*a, ".repeat(20));
    assert!(read(&text).unwrap_err().starts_with("aliases repeat more than"));
    let text = format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(1_000), "*a, ".repeat(200));
    assert!(read(&text).unwrap_err().starts_with("aliases repeat more than"));
    let nested = format!("{}x{}", "[".repeat(60), "]".repeat(60));
    assert!(read(&nested).is_ok());
    let text = format!("- &b {nested}\n- [[[[[[*b]]]]]]\n");
    assert!(read(&text).unwrap_err().starts_with("more than 64 levels of nesting"));
}

#[test]
fn spellings_are_kept_where_json_has_others() {
    let document = document("a: [0x1F, 31, {yes: ~}]\nb: text\non: 1\n", 1).unwrap();
    let list = document.spelling.child("a").unwrap();
    assert_eq!(list.item(0).and_then(Spelling::text), Some("0x1F"));
    assert!(list.item(1).is_none());
    assert_eq!(list.item(2).and_then(|item| item.child("true")).and_then(Spelling::text), Some("~"));
    assert!(document.spelling.child("b").is_none());
    let keys = document.spelling.misread_keys(10);
    assert_eq!(keys, [(vec!["a", "2", "true"], "yes"), (vec!["true"], "on")]);
    // A merge replaces the spelling of the keys that it replaces.
    let document = super::document("a: {x: 0x1, <<: {x: 1}}\n", 1).unwrap();
    assert_eq!(document.spelling, Spelling::default());
}

#[test]
fn a_second_document_is_not_read_and_its_line_is_reported() {
    let document = document("a: 1\n...\nb: 1\n", 4).unwrap();
    assert_eq!((document.value, document.next_at), (json(r#"{"a":1}"#), Some(6)));
    assert_eq!(super::document("a: 1\n...\n", 1).unwrap().next_at, None);
    assert_eq!(super::document("a: 1\rb: 2\r", 1).unwrap().value, json(r#"{"a":1,"b":2}"#));
}

use super::*;
use crate::{json_value, text};

fn names(text: &str) -> Vec<String> {
    let (objects, findings) = read(text, "f");
    assert_eq!(findings, [], "{text}");
    objects
        .into_iter()
        .map(|object| format!("{}/{}/{}@{}", object.kind, object.namespace, object.name, object.origin))
        .collect()
}

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n")
}

#[test]
fn documents_are_separated_by_lines_of_three_dashes() {
    for text in [
        format!("{}---\n{}", pod("a"), pod("b")),
        format!("---\n{}---\n---\n# nothing\n---\n{}---\n", pod("a"), pod("b")),
        format!("# head\n%YAML 1.2\n---\n{}--- # tail\n{}...\n", pod("a"), pod("b")),
        format!("\u{feff}{}---\r\n{}", pod("a").replace('\n', "\r\n"), pod("b")),
        "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\"}}\n{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"b\"}}".into(),
    ] {
        assert_eq!(names(&text), ["Pod/default/a@f#1", "Pod/default/b@f#2"], "{text}");
    }
}

#[test]
fn names_and_labels_that_are_no_text_to_kubectl_are_refused_as_they_are_written() {
    for (written, read_as) in [
        ("y", "true"),
        ("n", "false"),
        ("yes", "true"),
        ("No", "false"),
        ("on", "true"),
        ("OFF", "false"),
        ("08080", "8080"),
        ("017620", "8080"),
        ("0x1F90", "8080"),
        ("1_000", "1000"),
        ("1e3", "1000"),
    ] {
        let (objects, findings) = read(&pod(written), "f");
        assert_eq!((objects.len(), findings.len()), (0, 1), "{written}");
        assert_eq!((findings[0].code, findings[0].field.as_str()), (code::INVALID_OBJECT, "metadata.name"));
        let found = format!("found {written}, which kubectl reads as {read_as}");
        assert!(findings[0].message.contains(&found), "{findings:?}");
        assert_eq!(findings[0].remedy, "put the value in quotes");
        assert_eq!(names(&pod(&format!("'{}'", written.to_lowercase()))).len(), 1);
        let (_, findings) = read(&format!("{}  labels: {{x: {written}}}\n", pod("a")), "f");
        assert_eq!(findings[0].field, "metadata.labels", "{written}");
        assert!(findings[0].message.contains(&found), "{findings:?}");
    }
}

#[test]
fn a_byte_order_mark_before_a_later_document_loses_no_document() {
    let mark = '\u{feff}';
    for (text, warnings) in [
        (format!("{mark}{}---\n{mark}{}", pod("a"), pod("b")), 0),
        (format!("{}---\n{mark}---\n{}", pod("a"), pod("b")), 0),
        (format!("{}{mark}---\n{}", pod("a"), pod("b")), 1),
        (format!("{}{mark}{}", pod("a"), pod("b")), 1),
        (format!("{mark}{}{mark}# head\n{}", pod("a"), pod("b")).replace('\n', "\r\n"), 1),
    ] {
        let (objects, findings) = read(&text, "f");
        assert_eq!(objects.iter().map(|object| &object.name).collect::<Vec<_>>(), ["a", "b"], "{text:?}");
        assert_eq!(findings.len(), warnings, "{text:?}: {findings:?}");
        for finding in findings {
            assert_eq!((finding.severity, finding.origin.as_deref()), (Severity::Warning, Some("f#2")), "{finding}");
            assert!(finding.message.contains("byte order mark") && finding.remedy.contains("---"), "{finding}");
        }
    }
}

#[test]
fn a_document_that_kubectl_does_not_reach_is_reported_with_its_line() {
    let next = format!("{}...\n{}", pod("a"), pod("b"));
    let lone_returns = format!("{}---\n{}", pod("a"), pod("b")).replace('\n', "\r");
    for (text, line, remedy) in [(next, 6, "a line of ---"), (lone_returns, 5, "with LF")] {
        let (objects, findings) = read(&text, "f");
        assert_eq!(objects.iter().map(|object| &object.name).collect::<Vec<_>>(), ["a"], "{text:?}");
        assert_eq!((findings.len(), findings[0].code), (1, code::BROKEN_DOCUMENT), "{text:?}: {findings:?}");
        assert!(findings[0].message.contains(&format!("from line {line} on")), "{findings:?}");
        assert!(findings[0].remedy.contains(remedy), "{findings:?}");
    }
    for text in [pod("a").replace('\n', "\r"), format!("{}...\n", pod("a")), format!("{}... # end\n---\n", pod("a"))] {
        assert_eq!(names(&text), ["Pod/default/a@f#1"], "{text:?}");
    }
}

#[test]
fn many_separators_after_a_directive_are_read_in_one_pass() {
    let text = format!("%YAML 1.2\n{}{}", "---\n".repeat(200_000), pod("a"));
    assert_eq!(names(&text), ["Pod/default/a@f#1"]);
}

#[test]
fn an_infinite_number_is_refused_with_the_remedy() {
    let (objects, findings) = read(&format!("{}  annotations: {{x: .inf}}\n", pod("a")), "f");
    assert_eq!((objects.len(), findings.len()), (0, 1));
    assert_eq!(findings[0].message, ".inf has no form in JSON at line 5, column 20");
    assert!(findings[0].remedy.starts_with("put it in quotes"), "{findings:?}");
}

#[test]
fn what_is_stored_reads_back_whatever_kubectl_would_make_of_it_without_quotes() {
    for text_value in
        ["yes", "y", "On", "08080", "0o17", "0x1F", "0b1", "1_0", "~", ".inf", "<<", "=", "2001-01-01", "1:30"]
    {
        let value = serde_json::json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "labels": {"x": text_value, text_value: "x"}}});
        let object = crate::object_from_value(value.clone(), Origin::Api).unwrap();
        let stored = text(&object);
        let (again, findings) = read(&stored, "f");
        assert_eq!(findings, [], "{stored}");
        assert_eq!(again[0].value, value, "{stored}");
    }
}

#[test]
fn dashes_inside_a_document_separate_nothing() {
    let text = format!("{}  annotations:\n    a: |\n      ---\n      b\n    c: ----\n", pod("a"));
    assert_eq!(names(&text), ["Pod/default/a@f#1"]);
}

#[test]
fn lists_are_expanded_and_items_of_api_lists_get_their_kind() {
    let list = "{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod, metadata: {name: a}}, {apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Pod, metadata: {name: b}}]}]}";
    assert_eq!(names(list), ["Pod/default/a@f#1[0]", "Pod/default/b@f#1[2]"]);
    let list = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicyList, items: [{metadata: {name: a}}]}";
    let (objects, _) = read(list, "f");
    assert_eq!((objects[0].kind.as_str(), objects[0].api_version.as_str()), ("NetworkPolicy", "networking.k8s.io/v1"));
    assert_eq!(names("{apiVersion: v1, kind: List, items: null}"), Vec::<String>::new());
}

#[test]
fn a_broken_document_does_not_affect_others() {
    for broken in [
        "a: [1",
        "a: b: c",
        "- 1",
        "text",
        "a: 1\na: 2",
        "*x",
        "kind: Pod",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: 1}",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a/b}",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {x: 1}}",
        "apiVersion: v1\nkind: [Pod]\nmetadata: {name: a}",
        "apiVersion: v1\nkind: Pod\nmetadata: [a]",
        "{kind: List, items: 1}",
        "\u{0}",
        "\t",
        "{{{{",
        "!!binary x: y",
        "? [a]: b",
    ] {
        let text = format!("{}---\n{broken}\n---\n{}", pod("a"), pod("b"));
        let (objects, findings) = read(&text, "f");
        let names: Vec<_> = objects.iter().map(|object| object.name.as_str()).collect();
        assert_eq!(names, ["a", "b"], "{broken:?}");
        if broken.trim() != "" {
            assert_eq!(findings.len(), 1, "{broken:?}: {findings:?}");
            assert_eq!(findings[0].origin.as_deref(), Some("f#2"), "{broken:?}");
        }
    }
}

#[test]
fn a_key_that_stands_twice_breaks_json_as_it_does_yaml() {
    let whole = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"a\"}}";
    let twice = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"kind\":\"Node\",\"metadata\":{\"name\":\"a\"}}";
    let (objects, findings) = read(&format!("{whole}\n{twice}\n{whole}\n"), "f");
    assert_eq!((objects.len(), findings.len()), (2, 1));
    assert_eq!(findings[0].code, code::BROKEN_DOCUMENT);
}

#[test]
fn bombs_are_refused() {
    let mut billion = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let previous = format!("*a{}, ", level - 1).repeat(10);
        billion.push_str(&format!("a{level}: &a{level} [{previous}]\n"));
    }
    let deep_flow = format!("a: {}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_json = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_block: String = (0..2_000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    for bomb in [billion, deep_flow, deep_json, deep_block] {
        let (objects, findings) = read(&bomb, "f");
        assert_eq!((objects.len(), findings.len()), (0, 1), "{}", &bomb[..40]);
        assert!(findings[0].message.len() < 2_000);
    }
}

#[test]
fn what_a_text_does_not_say_is_derived_and_stays_the_same() {
    let (objects, _) = read(&pod("a"), "f");
    let (again, _) = read(&format!("{}\nspec: {{}}\n", pod("a")), "g");
    assert_eq!(objects[0].uid, again[0].uid);
    assert_eq!(objects[0].uid, "0e68669b-fd72-5f2c-b6c6-0748ee4ef89d");
    assert_eq!((objects[0].generation, objects[0].resource_version.as_str()), (0, ""));
    let api = "{apiVersion: v1, kind: Pod, metadata: {name: a, uid: u, generation: 3, resourceVersion: '9'}}";
    let (objects, _) = read(api, "f");
    let object = &objects[0];
    assert_eq!((object.uid.as_str(), object.generation, object.resource_version.as_str()), ("u", 3, "9"));
}

#[test]
fn the_hash_changes_with_what_matters_and_with_nothing_else() {
    let hash = |yaml: &str| read(yaml, "f").0.remove(0).content_hash;
    let base = hash("{apiVersion: v1, kind: X, metadata: {name: a, namespace: 'n'}, spec: {a: 1, b: [2]}}");
    for same in [
        "{spec: {b: [2], a: 1}, kind: X, metadata: {namespace: 'n', name: a}, apiVersion: v1}",
        "{apiVersion: v1, kind: X, metadata: {name: a, namespace: 'n', uid: u, generation: 4, labels: {l: m}, annotations: {other: x}}, spec: {a: 1, b: [2]}, status: {}}",
        "{apiVersion: v1, kind: X, metadata: {name: a, namespace: 'n'}, spec: {a: 1.0, b: [2]}}",
    ] {
        assert_eq!(hash(same), base, "{same}");
    }
    for other in [
        "{apiVersion: v2, kind: X, metadata: {name: a, namespace: 'n'}, spec: {a: 1, b: [2]}}",
        "{apiVersion: v1, kind: X, metadata: {name: a, namespace: 'n'}, spec: {a: 1, b: [3]}}",
        "{apiVersion: v1, kind: X, metadata: {name: b, namespace: 'n'}, spec: {a: 1, b: [2]}}",
        "{apiVersion: v1, kind: X, metadata: {name: a, namespace: 'n', annotations: {netverdict.io/mode: audit}}, spec: {a: 1, b: [2]}}",
    ] {
        assert_ne!(hash(other), base, "{other}");
    }
}

#[test]
fn stored_text_reads_back_as_the_same_object() {
    let yaml = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: 'on'\n  uid: u\n  managedFields: [{manager: kubectl}]\n  annotations:\n    a: \"line\\nline: '#'\\n\"\n    b: '007'\n    c: 'no'\n    d: '1e3'\n    e: ' x '\n    f: '~'\nspec: {podSelector: {matchLabels: {v: 'true', w: '12'}}, ingress: [{ports: [{port: 80}]}]}\n";
    let (objects, findings) = read(yaml, "f");
    assert_eq!(findings, []);
    let stored = text(&objects[0]);
    assert!(!stored.contains("managedFields") && stored.contains("kind: NetworkPolicy"), "{stored}");
    let (again, findings) = read(&stored, "g");
    assert_eq!(findings, []);
    assert_eq!(again[0].content_hash, objects[0].content_hash);
    assert_eq!(
        crate::policy(&again[0]),
        crate::policy(&Object { origin: again[0].origin.clone(), ..objects[0].clone() })
    );
    let mut expected = objects[0].value.clone();
    expected["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(again[0].value, expected);
}

#[test]
fn a_key_that_stands_twice_is_refused_without_advice_for_programmers() {
    let (objects, findings) = read("apiVersion: v1\nkind: Pod\nkind: Node\nmetadata: {name: a}\n", "f");
    assert_eq!((objects.len(), findings.len()), (0, 1));
    let message = &findings[0].message;
    assert!(message.starts_with("duplicate mapping key: kind at line 3"), "{message}");
    assert!(json_value(b"{\"a\": [{\"b\": 1, \"b\": 1}]}").unwrap_err().to_string().contains("\"b\" stands twice"));
    assert_eq!(json_value(b"{\"a\": [{\"b\": 1}]}").unwrap(), serde_json::json!({"a": [{"b": 1}]}));
}

#[test]
fn a_template_is_called_one() {
    let (_, findings) = read("apiVersion: v1\nkind: Pod\nmetadata: {name: {{ .Release.Name }}}\n", "f");
    assert!(findings[0].remedy.starts_with("render the template first"), "{findings:?}");
}

#[test]
fn values_are_called_by_their_name() {
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}}, 7]});
    let (objects, findings) = objects_from_value(list, "objects[3]");
    assert_eq!(objects[0].origin.to_string(), "objects[3].items[0]");
    assert_eq!(findings[0].origin.as_deref(), Some("objects[3].items[1]"));
}

use kube::api::GroupVersionKind;

use super::*;

fn decoder() -> Decoder {
    let scope = Scope::Kind { group: "".into(), kind: "Pod".into() };
    Decoder::new(ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod")), scope)
}

fn names(page: &Page) -> Vec<(String, bool)> {
    let read = |decoded: &Decoded| (name_of(&decoded.key), matches!(decoded.change, Change::Put(..)));
    page.objects.iter().map(read).collect()
}

#[test]
fn a_bad_object_is_a_fault_at_its_key_and_the_others_are_read() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!(
        r#"{{"kind": "PodList", "metadata": {{"resourceVersion": "5", "continue": ""}}, "items": [
            {{"metadata": {{"namespace": "a", "name": "good"}}}},
            {{"metadata": {{"namespace": "a", "name": "labels", "labels": {{"x": 7}}}}}},
            {{"metadata": {{"namespace": "a", "name": "deep"}}, "status": {deep}}},
            {{"metadata": {{"namespace": "a", "name": "twice", "name": "twice"}}}},
            {{"metadata": {{"namespace": ["a"], "name": "no-namespace"}}}},
            {{"metadata": 7}}, 7, null,
            {{"metadata": {{"namespace": "a", "name": "last"}}}}
        ]}}"#
    );
    let page = decoder().page(body.as_bytes()).unwrap();
    assert_eq!((&*page.version, page.next.as_deref()), ("5", None));
    let read = names(&page);
    assert_eq!(read.len(), 9);
    let named = |name: &str| read.iter().find(|(of, _)| of == name).map(|(_, is_put)| *is_put);
    assert_eq!([named("a/good"), named("a/last")], [Some(true); 2]);
    assert_eq!([named("a/labels"), named("a/deep"), named("no-namespace")], [Some(false); 3]);
}

#[test]
fn events_of_a_watch_are_told_apart() {
    let event = |line: &str| decoder().event(line.as_bytes()).unwrap();
    let object = r#"{"metadata": {"namespace": "a", "name": "b", "resourceVersion": "9"}}"#;
    match event(&format!(r#"{{"type": "MODIFIED", "object": {object}}}"#)) {
        Event::Put(decoded) => assert_eq!((name_of(&decoded.key), &*decoded.version), ("a/b".to_owned(), "9")),
        other => panic!("{other:?}"),
    }
    match event(&format!(r#"{{"type": "DELETED", "object": {object}}}"#)) {
        Event::Delete(key, version) => assert_eq!((name_of(&key), &*version), ("a/b".to_owned(), "9")),
        other => panic!("{other:?}"),
    }
    let mark = r#"{"kind": "Pod", "metadata": {"resourceVersion": "12", "annotations": {"k8s.io/initial-events-end": "true"}}}"#;
    let bookmark = event(&format!(r#"{{"type": "BOOKMARK", "object": {mark}}}"#));
    assert!(
        matches!(&bookmark, Event::Bookmark { version, ends_initial_events: true } if version == "12"),
        "{bookmark:?}"
    );
    let expired = event(r#"{"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}"#);
    assert!(matches!(&expired, Event::Error(status) if status.code == 410), "{expired:?}");
    assert!(matches!(event(r#"{"type": "NEW", "object": {}}"#), Event::Other));
    assert!(decoder().event(b"{}").is_err() && decoder().event(b"\xff").is_err());
}

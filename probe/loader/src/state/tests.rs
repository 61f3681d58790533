//! The state file over restarts, reboots and cuts.

use netverdict_policy::{Confidence, ObjectKey, Reason, Verdict};

use super::*;

const BOOT: &str = "5f2a8d5e-0000-4000-8000-000000000001";

fn some_lines() -> Vec<Line> {
    let decision = Decision {
        verdict: Verdict::Allowed,
        verdict_if_enforced: None,
        reason: Reason::NoPolicy,
        tier: None,
        confidence: Confidence::Exact,
        references: Vec::new(),
    };
    let pod = ObjectKey::new("shop", "web");
    vec![
        Line::Attribution(AttributionId(7), decision),
        Line::Owner(OwnerId(3), Owner::Pod { key: pod.clone(), uid: "u-1".to_owned() }),
        Line::Floor(IdFloor { owner: 4, ..IdFloor::default() }),
        Line::Revision { revision: 1, snapshot: 40 },
        Line::Bound(BoundEndpoint {
            ifindex: 12,
            netns_cookie: 99,
            pod,
            pod_uid: "u-1".to_owned(),
            own_addresses: vec!["10.0.0.1".parse().unwrap()],
        }),
    ]
}

fn reopened(folder: &Path) -> State {
    StateFile::open_in_boot(folder, BOOT).unwrap().1
}

#[test]
fn appended_lines_are_read_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, empty) = StateFile::open_in_boot(folder.path(), BOOT).unwrap();
    assert_eq!(empty, State::default());
    file.append(&some_lines()).unwrap();
    drop(file);

    let state = reopened(folder.path());
    assert_eq!(state.attributions.keys().copied().collect::<Vec<_>>(), [AttributionId(7)]);
    assert_eq!(state.owners.len(), 1);
    assert_eq!(state.floor.owner, 4);
    assert_eq!(state.snapshots, BTreeMap::from([(1, 40)]));
    assert_eq!(state.bindings[&12].netns_cookie, 99);
    assert_eq!(reopened(folder.path()), state, "compaction loses nothing");
}

#[test]
fn ids_of_another_boot_mean_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = StateFile::open_in_boot(folder.path(), "another boot").unwrap();
    file.append(&some_lines()).unwrap();
    assert_eq!(reopened(folder.path()), State::default());
}

#[test]
fn truncated_last_line_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = StateFile::open_in_boot(folder.path(), BOOT).unwrap();
    file.append(&some_lines()[..1]).unwrap();
    let path = folder.path().join(FILE);
    let whole = fs::read(&path).unwrap();
    file.append(&some_lines()[1..2]).unwrap();
    let longer = fs::read(&path).unwrap();
    for end in whole.len()..longer.len() {
        fs::write(&path, &longer[..end]).unwrap();
        let state = reopened(folder.path());
        assert_eq!((state.attributions.len(), state.owners.len()), (1, 0), "cut at {end}");
    }
}

#[test]
fn invalid_line_of_this_boot_is_an_error_with_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = StateFile::open_in_boot(folder.path(), BOOT).unwrap();
    file.append(&some_lines()).unwrap();
    let path = folder.path().join(FILE);
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str("{\"riddle\":1}\n");
    fs::write(&path, text).unwrap();
    let error = StateFile::open_in_boot(folder.path(), BOOT).map(|_| ()).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("line 8"), "{source}");
}

#[test]
fn unbound_interface_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (mut file, _) = StateFile::open_in_boot(folder.path(), BOOT).unwrap();
    file.append(&some_lines()).unwrap();
    file.append(&[Line::Unbound { ifindex: 12 }]).unwrap();
    assert!(reopened(folder.path()).bindings.is_empty());
}

#[test]
fn floor_never_sinks() {
    let low = IdFloor::default();
    let high = IdFloor { identity: 100, class: 1, column: 50, owner: 1 };
    let other = IdFloor { identity: 20, class: 9, column: 1, owner: 9 };
    assert_eq!(higher(high, other), IdFloor { identity: 100, class: 9, column: 50, owner: 9 });
    assert_eq!(higher(low, high), IdFloor { class: 1, owner: 1, ..high });
}

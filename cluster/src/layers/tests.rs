use std::{collections::BTreeSet, path::Path};

use netverdict_manifest::Origin;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const CLUSTER: Layer = Layer(0);
const FILES: Layer = Layer(1);

fn object(name: &str, version: &str) -> Object {
    let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a", "labels": {"v": version}}});
    netverdict_manifest::object_from_value(value, Origin::Api).unwrap()
}

fn pods() -> Scope {
    Scope::Kind { group: "".into(), kind: "Pod".into() }
}

fn key(name: &str) -> Key {
    Key::Name { namespace: "a".into(), name: name.into() }
}

fn put(name: &str, version: &str) -> Change {
    Change::Put(Location::new(&pods(), key(name)), object(name, version))
}

fn file(name: &str, objects: Vec<Object>) -> Vec<Change> {
    Change::replace(&Scope::File(Path::new(name).into()), objects)
}

/// Version of the object that counts.
fn counts(layers: &Layers, name: &str) -> Option<String> {
    let object = layers.get(&ObjectIdentity::of(&object(name, "")))?;
    Some(object.whole().value["metadata"]["labels"]["v"].as_str().unwrap().to_owned())
}

#[test]
fn object_of_the_highest_layer_counts_and_the_one_below_counts_again() {
    let mut layers = Layers::default();
    layers.apply(CLUSTER, vec![put("web", "cluster"), put("pg", "cluster")]);
    let touched = layers.apply(FILES, file("a.yaml", vec![object("web", "file")]));
    assert_eq!(touched.len(), 1);
    assert_eq!([counts(&layers, "web"), counts(&layers, "pg")], [Some("file".into()), Some("cluster".into())]);
    layers.apply(CLUSTER, vec![put("web", "later")]);
    assert_eq!(counts(&layers, "web"), Some("file".into()));
    layers.apply(FILES, file("a.yaml", Vec::new()));
    assert_eq!(counts(&layers, "web"), Some("later".into()));
}

#[test]
fn object_that_vanished_during_an_outage_is_gone_after_the_list() {
    let mut layers = Layers::default();
    layers.apply(CLUSTER, vec![put("web", "1"), put("pg", "1"), put("jobs", "1")]);
    // The watch broke. It lists again: one is the same, one has changed, one is not there.
    let keys = BTreeSet::from([key("web"), key("pg")]);
    let touched = layers.apply(CLUSTER, vec![put("web", "1"), put("pg", "2"), Change::Retain(pods(), keys)]);
    let names: BTreeSet<&str> = touched.iter().map(|identity| identity.name.as_str()).collect();
    assert_eq!(names, BTreeSet::from(["jobs", "pg"]));
    assert_eq!([counts(&layers, "web"), counts(&layers, "jobs")], [Some("1".into()), None]);
}

#[test]
fn object_that_cannot_be_read_keeps_its_last_state_until_it_can_or_is_gone() {
    let mut layers = Layers::default();
    let fault = || Change::Fault(pods(), Some(key("web")), vec![Fault::Unreadable("web nests too deep".into())]);
    layers.apply(CLUSTER, vec![put("web", "1")]);
    let ends: [fn() -> Change; 3] = [
        || put("web", "1"),
        || Change::Delete(Location::new(&pods(), key("web"))),
        || Change::Retain(pods(), BTreeSet::new()),
    ];
    for end in ends {
        layers.apply(CLUSTER, vec![put("web", "1"), fault(), put("pg", "1")]);
        assert_eq!(counts(&layers, "web"), Some("1".into()));
        assert_eq!(layers.faults().count(), 1);
        layers.apply(CLUSTER, vec![end()]);
        assert_eq!(layers.faults().count(), 0);
    }
}

#[test]
fn objects_come_in_order_and_twice_only_from_one_layer() {
    let mut layers = Layers::default();
    layers.apply(CLUSTER, vec![put("web", "cluster"), put("pg", "cluster")]);
    layers.apply(FILES, file("-f", vec![object("web", "first"), object("jobs", "file"), object("web", "second")]));
    let objects = layers.into_objects();
    let names: Vec<&str> = objects.iter().map(|object| object.name.as_str()).collect();
    assert_eq!(names, ["pg", "web", "jobs", "web"]);
}

proptest! {
    /// For any reports of a source, in any pieces, the object that counts is the one that plain maps have.
    #[test]
    fn layers_are_as_plain_maps_would_be(
        steps in prop::collection::vec((0_usize..3, 0_usize..4, prop::option::of(0_u8..3), any::<bool>()), 1..40),
    ) {
        let names = ["web", "pg", "jobs", "api"];
        let mut layers = Layers::default();
        let mut plain: [BTreeMap<&str, String>; 3] = Default::default();
        for (layer, name, version, lists) in steps {
            let name = names[name];
            let mut changes = Vec::new();
            match version {
                Some(version) => {
                    changes.push(put(name, &version.to_string()));
                    plain[layer].insert(name, version.to_string());
                }
                None => {
                    changes.push(Change::Delete(Location::new(&pods(), key(name))));
                    plain[layer].remove(name);
                }
            }
            if lists {
                plain[layer].retain(|known, _| known <= &name);
                changes.push(Change::Retain(pods(), plain[layer].keys().map(|name| key(name)).collect()));
            }
            layers.apply(Layer(layer), changes);
            for name in names {
                let expected = plain.iter().rev().find_map(|objects| objects.get(name).cloned());
                prop_assert_eq!(counts(&layers, name), expected);
            }
        }
    }
}

//! The identity of an object, as a key of maps.

use netverdict_manifest::Object;

/// [`Object::identity`], owned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectIdentity {
    pub group: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl ObjectIdentity {
    pub(crate) fn of(object: &Object) -> Self {
        let (group, kind, namespace, name) = object.identity();
        Self { group: group.into(), kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }

    pub(crate) fn of_namespace(name: &str) -> Self {
        Self { group: String::new(), kind: "Namespace".into(), namespace: String::new(), name: name.to_owned() }
    }
}

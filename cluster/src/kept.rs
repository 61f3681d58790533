//! An object as it is kept while it is only compared: one of an API as its text, which takes a tenth of the memory that its
//! value takes. Maps of JSON values are large, and a cluster has ten thousand pods.

use netverdict_manifest::{Object, Origin};

#[derive(Debug)]
pub(crate) struct KeptObject {
    /// Without its value where there is a text.
    object: Object,
    text: Option<Box<str>>,
}

impl KeptObject {
    pub(crate) fn new(mut object: Object) -> Self {
        // An object of a file also has the spellings of its text, and there are few of them.
        let is_packed = object.origin == Origin::Api;
        let text = is_packed.then(|| std::mem::take(&mut object.value).to_string().into_boxed_str());
        Self { object, text }
    }

    /// All fields except the value, which may not be there.
    pub(crate) fn head(&self) -> &Object {
        &self.object
    }

    /// The object as it was.
    pub(crate) fn whole(&self) -> Object {
        let mut object = self.object.clone();
        if let Some(text) = &self.text {
            // It was written from a value.
            object.value = serde_json::from_str(text).unwrap_or_default();
        }
        object
    }

    /// The origin is named in findings and in rows of policies, so it counts.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        self.object.origin == other.object.origin && self.object.value == other.object.value && self.text == other.text
    }
}

#[cfg(test)]
mod tests {
    use netverdict_manifest::object_from_value;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_comes_back_as_it_was() {
        let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"x": "é\n\u{7f}"}},
                           "spec": {"big": 18_446_744_073_709_551_615_u64, "ratio": 0.1, "none": null, "list": [[], {}]}});
        for origin in [Origin::Api, Origin::Value { name: "a".into(), item: None }] {
            let object = object_from_value(value.clone(), origin).unwrap();
            let kept = KeptObject::new(object.clone());
            assert_eq!(kept.whole(), object);
            assert!(kept.says_the_same(&KeptObject::new(object)));
        }
    }
}

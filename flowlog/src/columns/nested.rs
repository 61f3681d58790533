//! Columns that hold lists of structures, lists of text, and maps.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{
        ArrayRef, Int32Builder, Int64Builder, ListArray, ListBuilder, MapBuilder, MapFieldNames, StringBuilder,
        StructArray,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, Fields},
};
use netverdict_policy::{NearMiss, Reference};

use super::small_from;

// As the Parquet specification names the parts of a map.
pub(crate) const MAP_ENTRY: &str = "key_value";
pub(crate) const MAP_KEY: &str = "key";
pub(crate) const MAP_VALUE: &str = "value";

/// Text to `value`.
pub(super) fn map(value: DataType) -> DataType {
    let entry = Fields::from(vec![Field::new(MAP_KEY, DataType::Utf8, false), Field::new(MAP_VALUE, value, true)]);
    DataType::Map(Arc::new(Field::new(MAP_ENTRY, DataType::Struct(entry), false)), false)
}

fn map_names() -> Option<MapFieldNames> {
    Some(MapFieldNames { entry: MAP_ENTRY.into(), key: MAP_KEY.into(), value: MAP_VALUE.into() })
}

pub(super) fn fill_map<'a>(maps: impl Iterator<Item = &'a BTreeMap<String, String>>) -> ArrayRef {
    let mut builder = MapBuilder::new(map_names(), StringBuilder::new(), StringBuilder::new());
    for map in maps {
        let (keys, values) = builder.entries();
        for (key, value) in map {
            keys.append_value(key);
            values.append_value(value);
        }
        // As many keys as values were appended, the only way in which this fails.
        builder.append(true).unwrap_or_default();
    }
    Arc::new(builder.finish())
}

pub(super) fn fill_number_map<'a>(maps: impl Iterator<Item = &'a BTreeMap<String, i64>>) -> ArrayRef {
    let mut builder = MapBuilder::new(map_names(), StringBuilder::new(), Int64Builder::new());
    for map in maps {
        let (keys, values) = builder.entries();
        for (key, value) in map {
            keys.append_value(key);
            values.append_value(*value);
        }
        builder.append(true).unwrap_or_default();
    }
    Arc::new(builder.finish())
}

pub(super) fn map_weight(map: &BTreeMap<String, String>) -> usize {
    map.iter().map(|(key, value)| key.len() + value.len()).sum()
}

pub(super) fn texts() -> DataType {
    DataType::new_list(DataType::Utf8, true)
}

pub(super) fn fill_texts(lists: impl Iterator<Item = Vec<String>>) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for list in lists {
        for text in list {
            builder.values().append_value(text);
        }
        builder.append(true);
    }
    Arc::new(builder.finish())
}

fn decider_fields() -> Fields {
    Fields::from(vec![
        Field::new("kind", DataType::Utf8, true),
        Field::new("namespace", DataType::Utf8, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("uid", DataType::Utf8, true),
        Field::new("generation", DataType::Int64, true),
        Field::new("content_hash", DataType::Utf8, true),
        Field::new("tier", DataType::Utf8, true),
        Field::new("rule_index", DataType::Int32, true),
        Field::new("rule_name", DataType::Utf8, true),
        Field::new("action", DataType::Utf8, true),
        Field::new("role", DataType::Utf8, true),
    ])
}

/// The type of `decided_by`.
pub(super) fn deciders() -> DataType {
    DataType::List(Arc::new(Field::new(LIST_ITEM, DataType::Struct(decider_fields()), true)))
}

/// As Arrow names it by default, so that other writers' lists have the same type.
const LIST_ITEM: &str = "item";

pub(super) fn fill_deciders<'a>(lists: impl Iterator<Item = &'a [Reference]>) -> ArrayRef {
    let [mut kind, mut namespace, mut name, mut uid, mut hash, mut tier, mut rule_name, mut action, mut role] =
        std::array::from_fn(|_| StringBuilder::new());
    let (mut generation, mut rule_index) = (Int64Builder::new(), Int32Builder::new());
    let mut lengths = Vec::new();
    for list in lists {
        lengths.push(list.len());
        for reference in list {
            let Reference { role: part, policy, uid: id, generation: count, content_hash, .. } = reference;
            kind.append_option(present(&policy.kind));
            namespace.append_option(present(&policy.namespace));
            name.append_option(present(&policy.name));
            uid.append_option(present(id));
            generation.append_value(*count);
            hash.append_option(present(content_hash));
            tier.append_value(reference.tier.as_str());
            rule_index.append_option(reference.rule_index.map(small_from));
            rule_name.append_option(present(&reference.rule_name));
            action.append_option(reference.action.map(|action| action.as_str()));
            role.append_value(part.as_str());
        }
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(kind.finish()),
        Arc::new(namespace.finish()),
        Arc::new(name.finish()),
        Arc::new(uid.finish()),
        Arc::new(generation.finish()),
        Arc::new(hash.finish()),
        Arc::new(tier.finish()),
        Arc::new(rule_index.finish()),
        Arc::new(rule_name.finish()),
        Arc::new(action.finish()),
        Arc::new(role.finish()),
    ];
    list(decider_fields(), lengths, columns)
}

fn near_miss_fields() -> Fields {
    Fields::from(vec![
        Field::new("kind", DataType::Utf8, true),
        Field::new("namespace", DataType::Utf8, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("rule_index", DataType::Int32, true),
        Field::new("failed", DataType::Utf8, true),
        Field::new("detail", DataType::Utf8, true),
    ])
}

/// The type of `near_miss`.
pub(super) fn near_misses() -> DataType {
    DataType::List(Arc::new(Field::new(LIST_ITEM, DataType::Struct(near_miss_fields()), true)))
}

pub(super) fn fill_near_misses<'a>(lists: impl Iterator<Item = &'a [NearMiss]>) -> ArrayRef {
    let [mut kind, mut namespace, mut name, mut failed, mut detail] = std::array::from_fn(|_| StringBuilder::new());
    let mut rule_index = Int32Builder::new();
    let mut lengths = Vec::new();
    for list in lists {
        lengths.push(list.len());
        for miss in list {
            kind.append_option(present(&miss.policy.kind));
            namespace.append_option(present(&miss.policy.namespace));
            name.append_option(present(&miss.policy.name));
            rule_index.append_option(miss.rule_index.map(small_from));
            failed.append_value(miss.failed.as_str());
            detail.append_option(present(&miss.detail));
        }
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(kind.finish()),
        Arc::new(namespace.finish()),
        Arc::new(name.finish()),
        Arc::new(rule_index.finish()),
        Arc::new(failed.finish()),
        Arc::new(detail.finish()),
    ];
    list(near_miss_fields(), lengths, columns)
}

pub(super) fn deciders_weight(references: &[Reference]) -> usize {
    let one = |reference: &Reference| {
        let Reference { policy, uid, content_hash, rule_name, .. } = reference;
        // The words of closed lists are short.
        policy.kind.len()
            + policy.namespace.len()
            + policy.name.len()
            + uid.len()
            + content_hash.len()
            + rule_name.len()
            + 32
    };
    references.iter().map(one).sum()
}

pub(super) fn near_misses_weight(misses: &[NearMiss]) -> usize {
    let one = |miss: &NearMiss| miss.policy.namespace.len() + miss.policy.name.len() + miss.detail.len() + 32;
    misses.iter().map(one).sum()
}

fn list(fields: Fields, lengths: Vec<usize>, columns: Vec<ArrayRef>) -> ArrayRef {
    let item = Arc::new(Field::new(LIST_ITEM, DataType::Struct(fields.clone()), true));
    let items = Arc::new(StructArray::new(fields, columns, None));
    Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths), items, None))
}

fn present(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

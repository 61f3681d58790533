//! Columns that hold lists of structures, lists of text, and maps.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, Int32Builder, Int64Builder, ListArray, ListBuilder, MapBuilder, MapFieldNames,
        StringBuilder, StructArray,
    },
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, Fields, Int32Type, Int64Type},
};
use netverdict_policy::{FailedDimension, NearMiss, Reference, model::PolicyKey};

use super::{
    Cells, Codec, Column, Named, TooLarge, Wrong,
    cells::{Cell, text_of},
    shared::gather,
    within_bounds,
};

// As the Parquet specification names the parts of a map.
const MAP_ENTRY: &str = "key_value";
const MAP_KEY: &str = "key";
const MAP_VALUE: &str = "value";
/// As Arrow names it by default, so that other writers' lists have the same type.
const LIST_ITEM: &str = "item";

/// Text to values; an empty map is an empty map, not null.
pub(crate) struct Map;

fn map_type(value: DataType) -> DataType {
    let entry = Fields::from(vec![Field::new(MAP_KEY, DataType::Utf8, false), Field::new(MAP_VALUE, value, true)]);
    DataType::Map(Arc::new(Field::new(MAP_ENTRY, DataType::Struct(entry), false)), false)
}

fn map_names() -> Option<MapFieldNames> {
    Some(MapFieldNames { entry: MAP_ENTRY.into(), key: MAP_KEY.into(), value: MAP_VALUE.into() })
}

fn map_entries(cell: Cell<'_>) -> (ArrayRef, ArrayRef) {
    let entries = cell.column.as_map().value(cell.row);
    (entries.column(0).clone(), entries.column(1).clone())
}

fn map_weight(map: &BTreeMap<String, String>) -> usize {
    map.iter().map(|(key, value)| key.len() + value.len()).sum()
}

impl Codec<BTreeMap<String, String>> for Map {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(map_type(DataType::Utf8))]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a BTreeMap<String, String>>) -> Result<Vec<ArrayRef>, TooLarge> {
        let maps: Vec<_> = values.collect();
        within_bounds(maps.len(), maps.iter().map(|map| map_weight(map)).fold(0, usize::saturating_add))?;
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
        Ok(vec![Arc::new(builder.finish())])
    }

    fn read(cells: &mut Cells<'_>) -> Result<BTreeMap<String, String>, Wrong> {
        let (keys, values) = map_entries(cells.take());
        let entry = |entry| (text_of(&keys, entry).to_owned(), text_of(&values, entry).to_owned());
        Ok((0..keys.len()).map(entry).collect())
    }

    fn weight(map: &BTreeMap<String, String>) -> usize {
        map_weight(map)
    }
}

impl Codec<BTreeMap<String, i64>> for Map {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(map_type(DataType::Int64))]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a BTreeMap<String, i64>>) -> Result<Vec<ArrayRef>, TooLarge> {
        let mut builder = MapBuilder::new(map_names(), StringBuilder::new(), Int64Builder::new());
        for map in values {
            let (keys, values) = builder.entries();
            for (key, value) in map {
                keys.append_value(key);
                values.append_value(*value);
            }
            builder.append(true).unwrap_or_default();
        }
        Ok(vec![Arc::new(builder.finish())])
    }

    fn read(cells: &mut Cells<'_>) -> Result<BTreeMap<String, i64>, Wrong> {
        let (keys, values) = map_entries(cells.take());
        let values = values.as_primitive::<Int64Type>();
        Ok((0..keys.len()).map(|entry| (text_of(&keys, entry).to_owned(), values.value(entry))).collect())
    }
}

/// A list of texts.
pub(crate) struct Texts;

fn texts_type() -> DataType {
    DataType::new_list(DataType::Utf8, true)
}

fn fill_texts<'a, T: AsRef<str>>(lists: impl Iterator<Item = impl Iterator<Item = T> + 'a>) -> Vec<ArrayRef> {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for list in lists {
        for text in list {
            builder.values().append_value(text);
        }
        builder.append(true);
    }
    vec![Arc::new(builder.finish())]
}

fn read_texts(cell: Cell<'_>) -> Vec<String> {
    let texts = cell.column.as_list::<i32>().value(cell.row);
    (0..texts.len()).map(|item| text_of(&texts, item).to_owned()).collect()
}

impl Codec<Vec<String>> for Texts {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(texts_type())]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a Vec<String>>) -> Result<Vec<ArrayRef>, TooLarge> {
        Ok(fill_texts(values.map(|list| list.iter())))
    }

    fn read(cells: &mut Cells<'_>) -> Result<Vec<String>, Wrong> {
        Ok(read_texts(cells.take()))
    }
}

/// A list of addresses, each as canonical text.
pub(crate) struct Addresses;

impl Codec<Vec<IpAddr>> for Addresses {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(texts_type())]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a Vec<IpAddr>>) -> Result<Vec<ArrayRef>, TooLarge> {
        Ok(fill_texts(values.map(|list| list.iter().map(IpAddr::to_string))))
    }

    fn read(cells: &mut Cells<'_>) -> Result<Vec<IpAddr>, Wrong> {
        let cell = cells.take();
        let parse = |text: String| text.parse().map_err(|_| cell.wrong(text, "an address"));
        read_texts(cell).into_iter().map(parse).collect()
    }
}

/// The policies of a decision.
pub(crate) struct Deciders;

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

impl Codec<Vec<Reference>> for Deciders {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(list_type(decider_fields()))]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a Vec<Reference>>) -> Result<Vec<ArrayRef>, TooLarge> {
        let lists: Vec<_> = values.collect();
        within_bounds(lists.len(), lists.iter().map(|list| Self::weight(list)).fold(0, usize::saturating_add))?;
        let [mut kind, mut namespace, mut name, mut uid, mut hash, mut tier, mut rule_name, mut action, mut role] =
            std::array::from_fn(|_| StringBuilder::new());
        let (mut generation, mut rule_index) = (Int64Builder::new(), Int32Builder::new());
        for reference in lists.iter().flat_map(|list| list.iter()) {
            let Reference { role: part, policy, uid: id, generation: count, content_hash, .. } = reference;
            kind.append_option(present(&policy.kind));
            namespace.append_option(present(&policy.namespace));
            name.append_option(present(&policy.name));
            uid.append_option(present(id));
            generation.append_value(*count);
            hash.append_option(present(content_hash));
            tier.append_value(reference.tier.name());
            rule_index.append_option(reference.rule_index.map(index));
            rule_name.append_option(present(&reference.rule_name));
            action.append_option(reference.action.map(Named::name));
            role.append_value(part.name());
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
        Ok(vec![list(decider_fields(), lists.iter().map(|list| list.len()), columns)])
    }

    fn read(cells: &mut Cells<'_>) -> Result<Vec<Reference>, Wrong> {
        let cell = cells.take();
        if cell.is_null() {
            return Ok(Vec::new());
        }
        Items::of(cell).each(|items, item| {
            Ok(Reference {
                role: items.word("role", item)?,
                policy: items.policy(item),
                uid: items.text("uid", item).into(),
                generation: items.number("generation", item).unwrap_or(0),
                content_hash: items.text("content_hash", item).into(),
                tier: items.word("tier", item)?,
                rule_index: items.index("rule_index", item)?,
                rule_name: items.text("rule_name", item).into(),
                action: match items.text("action", item) {
                    "" => None,
                    _ => Some(items.word("action", item)?),
                },
            })
        })
    }

    fn weight(references: &Vec<Reference>) -> usize {
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
}

/// Where policies came nearest to a match: lists that many rows share.
pub(crate) struct NearMisses;

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

impl Codec<Arc<[NearMiss]>> for NearMisses {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(list_type(near_miss_fields()))]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a Arc<[NearMiss]>>) -> Result<Vec<ArrayRef>, TooLarge> {
        // Every empty list is the same one.
        let address = |list: &[NearMiss]| if list.is_empty() { 0 } else { list.as_ptr().addr() };
        let weight = |misses: &[NearMiss]| {
            misses
                .iter()
                .map(|miss| miss.policy.namespace.len() + miss.policy.name.len() + miss.detail.len() + 32)
                .sum()
        };
        gather(values.map(|list| Some(&**list)), address, weight, |lists| Ok(vec![fill_near_misses(lists)]))
    }

    fn read(cells: &mut Cells<'_>) -> Result<Arc<[NearMiss]>, Wrong> {
        let misses: Vec<NearMiss> = Items::of(cells.take()).each(|items, item| {
            Ok(NearMiss {
                policy: items.policy(item),
                rule_index: items.index("rule_index", item)?,
                failed: items.word::<FailedDimension>("failed", item)?,
                detail: items.text("detail", item).into(),
            })
        })?;
        Ok(cells.known().share(misses.as_slice(), || Arc::from(misses.as_slice())))
    }
}

fn fill_near_misses(lists: &[&[NearMiss]]) -> ArrayRef {
    let [mut kind, mut namespace, mut name, mut failed, mut detail] = std::array::from_fn(|_| StringBuilder::new());
    let mut rule_index = Int32Builder::new();
    for miss in lists.iter().copied().flatten() {
        kind.append_option(present(&miss.policy.kind));
        namespace.append_option(present(&miss.policy.namespace));
        name.append_option(present(&miss.policy.name));
        rule_index.append_option(miss.rule_index.map(index));
        failed.append_value(miss.failed.name());
        detail.append_option(present(&miss.detail));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(kind.finish()),
        Arc::new(namespace.finish()),
        Arc::new(name.finish()),
        Arc::new(rule_index.finish()),
        Arc::new(failed.finish()),
        Arc::new(detail.finish()),
    ];
    list(near_miss_fields(), lists.iter().map(|list| list.len()), columns)
}

fn list_type(fields: Fields) -> DataType {
    DataType::List(Arc::new(Field::new(LIST_ITEM, DataType::Struct(fields), true)))
}

fn list(fields: Fields, lengths: impl Iterator<Item = usize>, columns: Vec<ArrayRef>) -> ArrayRef {
    let item = Arc::new(Field::new(LIST_ITEM, DataType::Struct(fields.clone()), true));
    let items = Arc::new(StructArray::new(fields, columns, None));
    Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths), items, None))
}

fn present(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn index(index: u32) -> i32 {
    i32::try_from(index).unwrap_or(i32::MAX)
}

/// Structures in one row's list.
struct Items<'a> {
    cell: Cell<'a>,
    items: StructArray,
}

impl<'a> Items<'a> {
    fn of(cell: Cell<'a>) -> Self {
        Self { cell, items: cell.column.as_list::<i32>().value(cell.row).as_struct().clone() }
    }

    fn each<T>(&self, read: impl Fn(&Self, usize) -> Result<T, Wrong>) -> Result<Vec<T>, Wrong> {
        (0..self.items.len()).map(|item| read(self, item)).collect()
    }

    fn text(&self, field: &str, item: usize) -> &str {
        self.items.column_by_name(field).map_or("", |column| text_of(column, item))
    }

    fn number(&self, field: &str, item: usize) -> Option<i64> {
        let column = self.items.column_by_name(field)?;
        column.is_valid(item).then(|| match column.as_primitive_opt::<Int32Type>() {
            Some(column) => i64::from(column.value(item)),
            None => column.as_primitive_opt::<Int64Type>().map_or(0, |column| column.value(item)),
        })
    }

    fn index(&self, field: &str, item: usize) -> Result<Option<u32>, Wrong> {
        let fitting =
            |number: i64| u32::try_from(number).map_err(|_| self.cell.wrong(number, "a number in the column's range"));
        self.number(field, item).map(fitting).transpose()
    }

    fn word<T: Named>(&self, field: &str, item: usize) -> Result<T, Wrong> {
        let text = self.text(field, item);
        T::of_name(text).ok_or_else(|| self.cell.wrong(text, "a word of this version's list"))
    }

    fn policy(&self, item: usize) -> PolicyKey {
        PolicyKey {
            kind: self.text("kind", item).into(),
            namespace: self.text("namespace", item).into(),
            name: self.text("name", item).into(),
        }
    }
}

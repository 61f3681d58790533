//! Values of a batch by column and row. The batch has its table's schema, so that types need no second look.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StructArray},
    datatypes::{Int32Type, Int64Type, TimestampMicrosecondType},
};
use chrono::{DateTime, Utc};
use netverdict_policy::{
    NearMiss, Reference,
    model::{Action, PolicyKey, Tier},
};

use super::ReadError;
use crate::schema::Table;

/// What a value must be for [`ReadError::Value`]; the column's own words would be no help without the list of them.
const KNOWN_WORD: &str = "a word of this version's list";

#[derive(Clone, Copy)]
pub(super) struct Columns<'a> {
    table: Table,
    batch: &'a RecordBatch,
}

type Read<T> = Result<T, ReadError>;

impl<'a> Columns<'a> {
    pub(super) fn new(table: Table, batch: &'a RecordBatch) -> Self {
        Self { table, batch }
    }

    pub(super) fn rows(self) -> usize {
        self.batch.num_rows()
    }

    fn column(self, name: &str) -> Read<&'a ArrayRef> {
        self.batch.column_by_name(name).ok_or_else(|| ReadError::Column { table: self.table, column: name.into() })
    }

    pub(super) fn wrong(self, column: &'static str, row: usize, found: &str, expected: &'static str) -> ReadError {
        let found = found.chars().take(100).collect();
        ReadError::Value { table: self.table, column, row, found, expected }
    }

    /// Empty where null. Plain text or by dictionary.
    pub(super) fn text(self, name: &str, row: usize) -> Read<&'a str> {
        let column = self.column(name)?;
        if let Some(words) = column.as_dictionary_opt::<Int32Type>() {
            let text = words.key(row).filter(|key| words.values().is_valid(*key));
            return Ok(text.map_or("", |key| words.values().as_string::<i32>().value(key)));
        }
        Ok(text_of(column, row))
    }

    pub(super) fn shared(self, name: &str, row: usize) -> Read<Arc<str>> {
        self.text(name, row).map(Arc::from)
    }

    pub(super) fn owned(self, name: &str, row: usize) -> Read<String> {
        self.text(name, row).map(str::to_owned)
    }

    /// A word of a closed list.
    pub(super) fn word<T>(self, name: &'static str, row: usize, from: impl Fn(&str) -> Option<T>) -> Read<T> {
        let text = self.text(name, row)?;
        from(text).ok_or_else(|| self.wrong(name, row, text, KNOWN_WORD))
    }

    /// `None` where null.
    pub(super) fn optional_word<T>(
        self,
        name: &'static str,
        row: usize,
        from: impl Fn(&str) -> Option<T>,
    ) -> Read<Option<T>> {
        if self.text(name, row)?.is_empty() { Ok(None) } else { self.word(name, row, from).map(Some) }
    }

    pub(super) fn address(self, name: &'static str, row: usize) -> Read<Option<IpAddr>> {
        match self.text(name, row)? {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| self.wrong(name, row, text, "an address")),
        }
    }

    pub(super) fn optional_number(self, name: &str, row: usize) -> Read<Option<i64>> {
        let column = self.column(name)?;
        Ok(column.is_valid(row).then(|| match column.as_primitive_opt::<Int32Type>() {
            Some(column) => i64::from(column.value(row)),
            None => column.as_primitive::<Int64Type>().value(row),
        }))
    }

    /// 0 where null; an error where it does not fit.
    pub(super) fn number<T: TryFrom<i64>>(self, name: &'static str, row: usize) -> Read<T> {
        let value = self.optional_number(name, row)?.unwrap_or(0);
        self.fitting(name, row, value)
    }

    pub(super) fn fitting<T: TryFrom<i64>>(self, name: &'static str, row: usize, value: i64) -> Read<T> {
        T::try_from(value).map_err(|_| self.wrong(name, row, &value.to_string(), "a number in the column's range"))
    }

    pub(super) fn flag(self, name: &str, row: usize) -> Read<bool> {
        let column = self.column(name)?;
        Ok(column.is_valid(row) && column.as_boolean().value(row))
    }

    pub(super) fn time(self, name: &'static str, row: usize) -> Read<DateTime<Utc>> {
        let micros = self.column(name)?.as_primitive::<TimestampMicrosecondType>().value(row);
        DateTime::from_timestamp_micros(micros)
            .ok_or_else(|| self.wrong(name, row, &micros.to_string(), "microseconds of a year that exists"))
    }

    fn entries(self, name: &str, row: usize) -> Read<(ArrayRef, ArrayRef)> {
        let entries = self.column(name)?.as_map().value(row);
        Ok((entries.column(0).clone(), entries.column(1).clone()))
    }

    pub(super) fn map(self, name: &str, row: usize) -> Read<BTreeMap<String, String>> {
        let (keys, values) = self.entries(name, row)?;
        Ok((0..keys.len())
            .map(|entry| (text_of(&keys, entry).to_owned(), text_of(&values, entry).to_owned()))
            .collect())
    }

    pub(super) fn number_map(self, name: &str, row: usize) -> Read<BTreeMap<String, i64>> {
        let (keys, values) = self.entries(name, row)?;
        let values = values.as_primitive::<Int64Type>();
        Ok((0..keys.len()).map(|entry| (text_of(&keys, entry).to_owned(), values.value(entry))).collect())
    }

    pub(super) fn texts(self, name: &str, row: usize) -> Read<Vec<String>> {
        let texts = self.column(name)?.as_list::<i32>().value(row);
        Ok((0..texts.len()).map(|item| text_of(&texts, item).to_owned()).collect())
    }

    pub(super) fn addresses(self, name: &'static str, row: usize) -> Read<Vec<IpAddr>> {
        let parse = |text: String| text.parse().map_err(|_| self.wrong(name, row, &text, "an address"));
        self.texts(name, row)?.into_iter().map(parse).collect()
    }

    /// `None` where null.
    pub(super) fn deciders(self, name: &'static str, row: usize) -> Read<Option<Vec<Reference>>> {
        let column = self.column(name)?;
        if column.is_null(row) {
            return Ok(None);
        }
        let items = column.as_list::<i32>().value(row);
        let items = Items { columns: self, name, row, items: items.as_struct() };
        let one = |item| {
            Ok(Reference {
                role: items.word("role", item, netverdict_policy::Role::from_name)?,
                policy: items.policy(item),
                uid: items.text("uid", item).into(),
                generation: items.number::<Int64Type>("generation", item).unwrap_or(0),
                content_hash: items.text("content_hash", item).into(),
                tier: items.word("tier", item, tier)?,
                rule_index: items.index("rule_index", item)?,
                rule_name: items.text("rule_name", item).into(),
                action: match items.text("action", item) {
                    "" => None,
                    _ => Some(items.word("action", item, action)?),
                },
            })
        };
        (0..items.items.len()).map(one).collect::<Read<_>>().map(Some)
    }

    pub(super) fn near_misses(self, name: &'static str, row: usize) -> Read<Vec<NearMiss>> {
        let column = self.column(name)?;
        let items = column.as_list::<i32>().value(row);
        let items = Items { columns: self, name, row, items: items.as_struct() };
        let one = |item| {
            Ok(NearMiss {
                policy: items.policy(item),
                rule_index: items.index("rule_index", item)?,
                failed: items.word("failed", item, netverdict_policy::FailedDimension::from_name)?,
                detail: items.text("detail", item).into(),
            })
        };
        (0..items.items.len()).map(one).collect()
    }
}

/// Structures in one row's list.
struct Items<'a> {
    columns: Columns<'a>,
    name: &'static str,
    row: usize,
    items: &'a StructArray,
}

impl Items<'_> {
    fn text(&self, field: &str, item: usize) -> &str {
        self.items.column_by_name(field).map_or("", |column| text_of(column, item))
    }

    fn number<T: arrow::datatypes::ArrowPrimitiveType>(&self, field: &str, item: usize) -> Option<T::Native> {
        let column = self.items.column_by_name(field)?.as_primitive_opt::<T>()?;
        column.is_valid(item).then(|| column.value(item))
    }

    fn index(&self, field: &str, item: usize) -> Read<Option<u32>> {
        let value = self.number::<Int32Type>(field, item);
        value.map(|value| self.columns.fitting(self.name, self.row, value.into())).transpose()
    }

    fn word<T>(&self, field: &str, item: usize, from: impl Fn(&str) -> Option<T>) -> Read<T> {
        let text = self.text(field, item);
        from(text).ok_or_else(|| self.columns.wrong(self.name, self.row, text, KNOWN_WORD))
    }

    fn policy(&self, item: usize) -> PolicyKey {
        PolicyKey {
            kind: self.text("kind", item).into(),
            namespace: self.text("namespace", item).into(),
            name: self.text("name", item).into(),
        }
    }
}

/// Empty where null.
fn text_of(column: &ArrayRef, row: usize) -> &str {
    match column.as_string_opt::<i32>() {
        Some(texts) if texts.is_valid(row) => texts.value(row),
        _ => "",
    }
}

pub(super) fn tier(name: &str) -> Option<Tier> {
    [Tier::Admin, Tier::NetworkPolicy, Tier::Baseline].into_iter().find(|tier| tier.as_str() == name)
}

fn action(name: &str) -> Option<Action> {
    [Action::Accept, Action::Deny, Action::Pass].into_iter().find(|action| action.as_str() == name)
}

//! Text: words of closed lists, names, addresses by dictionary; long text as it is. In a column, empty text is null.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use arrow::{
    array::{ArrayRef, DictionaryArray, Int32Array, StringArray},
    datatypes::{DataType, Int32Type},
};

use super::{Cells, Codec, Column, TooLarge, Wrong, within_bounds};

/// Expected value in errors, for closed lists; the list itself would be long, and is in the column's documentation.
const KNOWN_WORD: &str = "a word of this version's list";
const ADDRESS: &str = "an address";

/// Text by dictionary: the type of most columns.
fn words() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// A value of a closed list.
pub(crate) trait Named: Copy {
    fn name(self) -> &'static str;
    fn of_name(name: &str) -> Option<Self>;
}

/// A word of a closed list.
pub(crate) struct Word;

impl<T: Named> Codec<T> for Word {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(words())]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a T>) -> Result<Vec<ArrayRef>, TooLarge>
    where
        T: 'a,
    {
        Ok(vec![fill_words(values.map(|value| value.name()))])
    }

    fn read(cells: &mut Cells<'_>) -> Result<T, Wrong> {
        let cell = cells.take();
        T::of_name(cell.text()).ok_or_else(|| cell.wrong(cell.text(), KNOWN_WORD))
    }
}

impl<T: Named> Codec<Option<T>> for Word {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(words()).nullable(true)]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a Option<T>>) -> Result<Vec<ArrayRef>, TooLarge>
    where
        T: 'a,
    {
        Ok(vec![fill_words(values.map(|value| value.map_or("", Named::name)))])
    }

    fn read(cells: &mut Cells<'_>) -> Result<Option<T>, Wrong> {
        let cell = cells.take();
        match cell.text() {
            "" => Ok(None),
            text => T::of_name(text).map(Some).ok_or_else(|| cell.wrong(text, KNOWN_WORD)),
        }
    }
}

/// A name that many rows share.
pub(crate) struct Name;

impl Codec<Arc<str>> for Name {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(words())]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a Arc<str>>) -> Result<Vec<ArrayRef>, TooLarge> {
        Ok(vec![fill_words(values.map(|value| &**value))])
    }

    fn read(cells: &mut Cells<'_>) -> Result<Arc<str>, Wrong> {
        let text = cells.take().text();
        Ok(cells.known().share(text, || Arc::from(text)))
    }
}

impl Codec<Option<Arc<str>>> for Name {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(words()).nullable(true)]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a Option<Arc<str>>>) -> Result<Vec<ArrayRef>, TooLarge> {
        Ok(vec![fill_words(values.map(|value| value.as_deref().unwrap_or("")))])
    }

    fn read(cells: &mut Cells<'_>) -> Result<Option<Arc<str>>, Wrong> {
        let text = cells.take().text();
        Ok((!text.is_empty()).then(|| cells.known().share(text, || Arc::from(text))))
    }
}

/// Text that repeats.
pub(crate) struct Text;

impl Codec<String> for Text {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(words()).nullable(true)]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a String>) -> Result<Vec<ArrayRef>, TooLarge> {
        Ok(vec![fill_words(values.map(String::as_str))])
    }

    fn read(cells: &mut Cells<'_>) -> Result<String, Wrong> {
        Ok(cells.take().text().to_owned())
    }
}

/// Text that hardly repeats.
pub(crate) struct LongText;

impl Codec<String> for LongText {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(DataType::Utf8).nullable(true).plain()]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a String>) -> Result<Vec<ArrayRef>, TooLarge> {
        let texts: Vec<Option<&str>> = values.map(|text| Some(text.as_str()).filter(|text| !text.is_empty())).collect();
        within_bounds(texts.len(), texts.iter().flatten().map(|text| text.len()).sum())?;
        Ok(vec![Arc::new(StringArray::from(texts))])
    }

    fn read(cells: &mut Cells<'_>) -> Result<String, Wrong> {
        Ok(cells.take().text().to_owned())
    }

    fn weight(value: &String) -> usize {
        value.len()
    }
}

/// An address as canonical text.
pub(crate) struct Address;

impl Codec<IpAddr> for Address {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(words())]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a IpAddr>) -> Result<Vec<ArrayRef>, TooLarge> {
        Ok(vec![fill_addresses(values.map(|value| Some(*value)))])
    }

    fn read(cells: &mut Cells<'_>) -> Result<IpAddr, Wrong> {
        let cell = cells.take();
        cell.text().parse().map_err(|_| cell.wrong(cell.text(), ADDRESS))
    }
}

impl Codec<Option<IpAddr>> for Address {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(words()).nullable(true)]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a Option<IpAddr>>) -> Result<Vec<ArrayRef>, TooLarge> {
        Ok(vec![fill_addresses(values.copied())])
    }

    fn read(cells: &mut Cells<'_>) -> Result<Option<IpAddr>, Wrong> {
        let cell = cells.take();
        match cell.text() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| cell.wrong(text, ADDRESS)),
        }
    }
}

/// Neighbours that share their text (by the pointer) cost no look-up.
fn fill_words<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    let mut keys = Vec::with_capacity(values.size_hint().0);
    let mut index = HashMap::<&str, i32>::new();
    let mut distinct = Vec::new();
    let mut last: (&str, Option<i32>) = ("", None);
    for value in values {
        if !std::ptr::eq(value, last.0) {
            let key = (!value.is_empty()).then(|| {
                *index.entry(value).or_insert_with(|| {
                    distinct.push(value);
                    number_of(distinct.len())
                })
            });
            last = (value, key);
        }
        keys.push(last.1);
    }
    dictionary(keys.into_iter().collect(), distinct)
}

fn fill_addresses(values: impl Iterator<Item = Option<IpAddr>>) -> ArrayRef {
    let mut index = HashMap::<IpAddr, i32>::new();
    let mut distinct = Vec::new();
    let mut key = |address: IpAddr| {
        *index.entry(address).or_insert_with(|| {
            distinct.push(address.to_string());
            number_of(distinct.len())
        })
    };
    let keys: Int32Array = values.map(|value| value.map(&mut key)).collect();
    dictionary(keys, distinct)
}

/// Of the last of so many values. A batch holds fewer rows than there are numbers.
fn number_of(values: usize) -> i32 {
    i32::try_from(values - 1).unwrap_or(i32::MAX)
}

/// `keys` must be below the number of `distinct` values, or null.
fn dictionary<S: AsRef<str>>(keys: Int32Array, distinct: Vec<S>) -> ArrayRef {
    let values = StringArray::from_iter_values(distinct);
    Arc::new(DictionaryArray::<Int32Type>::new(keys, Arc::new(values)))
}

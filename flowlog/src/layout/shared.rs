//! Values that many rows share. Each distinct value is encoded once, and rows gather theirs with `take`. Two rows share a
//! value if they point to the same one: comparing contents would cost more than it saves.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use arrow::{
    array::{ArrayRef, UInt32Array},
    compute::take,
};

use super::{Cells, Codec, Column, Columns, TooLarge, Wrong, within_bounds};

/// The columns of a struct, under their own names.
pub(crate) struct Group;

impl<T: Columns> Codec<T> for Group {
    fn columns(_field: Column) -> Vec<Column> {
        T::columns()
    }

    fn fill<'a>(values: impl Iterator<Item = &'a T>) -> Result<Vec<ArrayRef>, TooLarge>
    where
        T: 'a,
    {
        T::fill(&values.collect::<Vec<_>>())
    }

    fn read(cells: &mut Cells<'_>) -> Result<T, Wrong> {
        T::read(cells)
    }

    fn weight(value: &T) -> usize {
        value.weight()
    }
}

/// The columns of a shared struct, their names prefixed with the field's.
pub(crate) struct Shared;

impl<T: Columns + Clone + Eq + Hash> Codec<Arc<T>> for Shared {
    fn columns(field: Column) -> Vec<Column> {
        let prefixed = |column: Column| {
            let name = format!("{}_{}", field.name, column.name);
            column.named(&name)
        };
        T::columns().into_iter().map(prefixed).collect()
    }

    fn fill<'a>(values: impl Iterator<Item = &'a Arc<T>>) -> Result<Vec<ArrayRef>, TooLarge>
    where
        T: 'a,
    {
        let address = |value: &T| std::ptr::from_ref(value).addr();
        gather(values.map(|value| Some(&**value)), address, T::weight, T::fill)
    }

    fn read(cells: &mut Cells<'_>) -> Result<Arc<T>, Wrong> {
        let value = T::read(cells)?;
        Ok(cells.known().share(&value, || Arc::new(value.clone())))
    }
}

/// Columns of values of which many are the same: of each distinct one (by `address`) what `fill` makes of it; null for
/// `None`.
pub(crate) fn gather<'a, T: ?Sized + 'a>(
    values: impl Iterator<Item = Option<&'a T>>,
    address: impl Fn(&T) -> usize,
    weight: impl Fn(&T) -> usize,
    fill: impl FnOnce(&[&'a T]) -> Result<Vec<ArrayRef>, TooLarge>,
) -> Result<Vec<ArrayRef>, TooLarge> {
    let mut index = HashMap::<usize, u32>::new();
    let (mut distinct, mut uses) = (Vec::new(), Vec::<usize>::new());
    let mut key = |value: &'a T| {
        let next = index.len();
        let key = *index.entry(address(value)).or_insert_with(|| {
            distinct.push(value);
            uses.push(0);
            u32::try_from(next).unwrap_or(u32::MAX)
        });
        uses[key as usize] += 1;
        key
    };
    let keys: UInt32Array = values.map(|value| value.map(&mut key)).collect();
    let weighed = distinct.iter().zip(&uses);
    let bytes = weighed.fold(0, |sum: usize, (value, uses)| sum.saturating_add(weight(value).saturating_mul(*uses)));
    within_bounds(keys.len(), bytes)?;
    // Every key is that of a distinct value, the only way in which this fails.
    let too_large = |_| TooLarge { rows: keys.len(), bytes };
    fill(&distinct)?.iter().map(|column| take(column, &keys, None).map_err(too_large)).collect()
}

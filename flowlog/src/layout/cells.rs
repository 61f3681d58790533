//! The cells of one row, taken one after another in the order in which the columns are declared.

use std::{
    any::{Any, TypeId},
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{Int32Type, Int64Type},
};

/// A cell that holds nothing that its field can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// Its number in the batch.
    pub(crate) column: usize,
    pub(crate) row: usize,
    pub(crate) found: String,
    pub(crate) expected: &'static str,
}

/// A row of a batch that has its table's schema, so that types need no second look.
pub(crate) struct Cells<'a> {
    batch: &'a RecordBatch,
    row: usize,
    next: usize,
    known: &'a mut Known,
}

/// One value of a column.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'a> {
    pub(crate) column: &'a ArrayRef,
    number: usize,
    pub(crate) row: usize,
}

/// Values of the rows read so far that others may share, as they were shared before they were columns.
#[derive(Default)]
pub(crate) struct Known(HashMap<TypeId, Box<dyn Any>>);

impl Known {
    /// The value as it is known, or as it is made and known from now on.
    pub(crate) fn share<T: ?Sized + Eq + Hash + 'static>(
        &mut self,
        value: &T,
        make: impl FnOnce() -> Arc<T>,
    ) -> Arc<T> {
        let new = || Box::new(HashSet::<Arc<T>>::new()) as Box<dyn Any>;
        let known = self.0.entry(TypeId::of::<T>()).or_insert_with(new);
        let Some(known) = known.downcast_mut::<HashSet<Arc<T>>>() else { return make() };
        if let Some(known) = known.get(value) {
            return known.clone();
        }
        let value = make();
        known.insert(value.clone());
        value
    }
}

impl<'a> Cells<'a> {
    pub(crate) fn of(batch: &'a RecordBatch, row: usize, known: &'a mut Known) -> Self {
        Self { batch, row, next: 0, known }
    }

    pub(crate) fn take(&mut self) -> Cell<'a> {
        let number = self.next;
        self.next += 1;
        Cell { column: self.batch.column(number), number, row: self.row }
    }

    /// The cell so many behind the next, without taking it.
    pub(crate) fn peek(&self, behind: usize) -> Cell<'a> {
        let number = self.next + behind;
        Cell { column: self.batch.column(number), number, row: self.row }
    }

    /// Reads a value from a column of the row that is not next.
    pub(crate) fn at<T>(
        &mut self,
        column: &str,
        read: impl FnOnce(&mut Cells<'_>) -> Result<T, Wrong>,
    ) -> Result<T, Wrong> {
        let next = self.batch.schema_ref().index_of(column).map_err(|_| Wrong {
            column: self.next,
            row: self.row,
            found: String::new(),
            expected: "a table that has the columns of a decision",
        })?;
        read(&mut Cells { batch: self.batch, row: self.row, next, known: self.known })
    }

    pub(crate) fn known(&mut self) -> &mut Known {
        self.known
    }
}

impl<'a> Cell<'a> {
    pub(crate) fn wrong(&self, found: impl ToString, expected: &'static str) -> Wrong {
        let found = found.to_string().chars().take(100).collect();
        Wrong { column: self.number, row: self.row, found, expected }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.column.is_null(self.row)
    }

    /// Empty where null. Plain text or by dictionary.
    pub(crate) fn text(&self) -> &'a str {
        if let Some(words) = self.column.as_dictionary_opt::<Int32Type>() {
            let text = words.key(self.row).filter(|key| words.values().is_valid(*key));
            return text.map_or("", |key| words.values().as_string::<i32>().value(key));
        }
        text_of(self.column, self.row)
    }

    /// `None` where null.
    pub(crate) fn number(&self) -> Option<i64> {
        (!self.is_null()).then(|| match self.column.as_primitive_opt::<Int32Type>() {
            Some(column) => i64::from(column.value(self.row)),
            None => self.column.as_primitive::<Int64Type>().value(self.row),
        })
    }
}

/// Empty where null.
pub(crate) fn text_of(column: &ArrayRef, row: usize) -> &str {
    match column.as_string_opt::<i32>() {
        Some(texts) if texts.is_valid(row) => texts.value(row),
        _ => "",
    }
}

//! How the fields of a row lie in the columns of a table.
//!
//! [`columns!`] takes one declaration of a row and gives its struct, its columns with their meaning, the code that fills
//! them and reads them back, and their Parquet encoding. The codecs (`Word`, `Number`, `Shared`, …) are in the files below;
//! each knows one form of column. Nothing here knows a table.

mod cells;
mod nested;
mod scalar;
mod shared;
mod text;

use arrow::{array::ArrayRef, datatypes::DataType};

pub(crate) use self::{
    cells::{Cells, Known, Wrong},
    nested::{Addresses, Deciders, Map, NearMisses, Texts},
    scalar::{Flag, Number, Port, Small, Time},
    shared::{Group, Shared, gather},
    text::{Address, LongText, Name, Named, Text, Word},
};

/// Rows in one batch at most.
pub const MAX_BATCH_ROWS: usize = 1 << 20;

/// Bytes of text that one batch expands to at most: half of the range of 32-bit offsets, so that estimates may be
/// off.
pub const MAX_BATCH_BYTES: usize = 1 << 30;

/// A column as declared.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    /// Its meaning, for people.
    pub doc: &'static str,
    pub data_type: DataType,
    pub nullable: bool,
    pub storage: Storage,
    /// The format version that it came with. Files before it do not have it, and their rows read as null.
    pub since: u32,
    /// The name that it had in format 1, where that was another.
    pub was: Option<&'static str>,
}

/// How Parquet stores a column, beyond the settings of all columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Storage {
    /// Of each page, in a table that has statistics only where questions prune by them.
    pub statistics: bool,
    /// A bloom filter for each row group.
    pub filter: bool,
    pub encoding: Pages,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pages {
    /// By dictionary.
    #[default]
    Dictionary,
    /// As differences: for numbers that ascend or hardly repeat.
    Delta,
    /// As it is, without statistics: for long text.
    Plain,
}

impl Column {
    pub(crate) fn new(name: &str, doc: &'static str) -> Self {
        let (data_type, storage) = (DataType::Null, Storage::default());
        Self { name: name.to_owned(), doc, data_type, nullable: false, storage, since: 1, was: None }
    }

    // Properties that a codec sets.

    pub(crate) fn of(self, data_type: DataType) -> Self {
        Self { data_type, ..self }
    }

    pub(crate) fn nullable(self, nullable: bool) -> Self {
        Self { nullable, ..self }
    }

    // The attributes of a declaration.

    pub(crate) fn statistics(mut self) -> Self {
        self.storage.statistics = true;
        self
    }

    pub(crate) fn filter(mut self) -> Self {
        self.storage.filter = true;
        self
    }

    pub(crate) fn delta(mut self) -> Self {
        self.storage.encoding = Pages::Delta;
        self
    }

    pub(crate) fn plain(mut self) -> Self {
        self.storage.encoding = Pages::Plain;
        self
    }

    pub(crate) fn since(self, since: u32) -> Self {
        Self { since, ..self }
    }

    pub(crate) fn was(self, was: &'static str) -> Self {
        Self { was: Some(was), ..self }
    }

    /// Under another name than the field's.
    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }
}

/// More rows or text than one batch holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

/// # Errors
/// When so much does not fit into one batch.
pub(crate) fn within_bounds(rows: usize, bytes: usize) -> Result<(), TooLarge> {
    if rows > MAX_BATCH_ROWS || bytes > MAX_BATCH_BYTES { Err(TooLarge { rows, bytes }) } else { Ok(()) }
}

/// One form of column, or several columns of one field, for values of type `T`.
pub(crate) trait Codec<T> {
    /// The columns of a field, in the order in which they are filled and read.
    fn columns(field: Column) -> Vec<Column>;

    /// # Errors
    /// When the text of all values together exceeds 32-bit offsets.
    fn fill<'a>(values: impl Iterator<Item = &'a T>) -> Result<Vec<ArrayRef>, TooLarge>
    where
        T: 'a;

    /// The value of one row; takes as many cells as there are columns.
    ///
    /// # Errors
    /// When a cell is nothing that the type can hold.
    fn read(cells: &mut Cells<'_>) -> Result<T, Wrong>;

    /// Bytes that one value adds to 32-bit offsets; 0 where its columns have none.
    fn weight(_value: &T) -> usize {
        0
    }
}

/// A struct whose fields are columns. [`columns!`] implements it.
pub(crate) trait Columns: Sized + 'static {
    fn columns() -> Vec<Column>;

    /// # Errors
    /// See [`Codec::fill`].
    fn fill(rows: &[&Self]) -> Result<Vec<ArrayRef>, TooLarge>;

    /// # Errors
    /// See [`Codec::read`].
    fn read(cells: &mut Cells<'_>) -> Result<Self, Wrong>;

    /// The most that any of its columns adds to 32-bit offsets.
    fn weight(&self) -> usize;
}

/// Declares a row: `field: Type as Codec [attributes] = default`, with the column's meaning as its doc comment.
///
/// Attributes are methods of [`Column`]: `statistics`, `filter`, `delta`, `plain`, `named "other"`, `since 2`,
/// `was "former"`. Without `= default` the type's own is taken; rows are made with `..Default::default()`, so that a new
/// column concerns only code that knows its value.
macro_rules! columns {
    (
        $(#[$meta:meta])*
        $visibility:vis struct $row:ident {
            $(
                $(#[doc = $doc:literal])+
                $(#[serde($($serde:tt)*)])?
                $field:ident: $type:ty as $codec:ty
                $([$($attribute:ident $($argument:literal)?),+])?
                $(= $default:expr)?
            ),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        $visibility struct $row {
            $($(#[doc = $doc])+ $(#[serde($($serde)*)])? $visibility $field: $type),+
        }

        impl Default for $row {
            fn default() -> Self {
                Self { $($field: $crate::layout::columns!(@default $($default)?)),+ }
            }
        }

        impl $crate::layout::Columns for $row {
            fn columns() -> Vec<$crate::layout::Column> {
                let mut columns = Vec::new();
                $(
                    let column = $crate::layout::Column::new(stringify!($field), concat!($($doc),+).trim_ascii());
                    $($(let column = column.$attribute($($argument)?);)+)?
                    columns.extend(<$codec as $crate::layout::Codec<$type>>::columns(column));
                )+
                columns
            }

            fn fill(rows: &[&Self]) -> Result<Vec<::arrow::array::ArrayRef>, $crate::layout::TooLarge> {
                let mut columns = Vec::new();
                $(
                    let values = rows.iter().map(|row| &row.$field);
                    columns.extend(<$codec as $crate::layout::Codec<$type>>::fill(values)?);
                )+
                Ok(columns)
            }

            fn read(cells: &mut $crate::layout::Cells<'_>) -> Result<Self, $crate::layout::Wrong> {
                Ok(Self { $($field: <$codec as $crate::layout::Codec<$type>>::read(cells)?),+ })
            }

            fn weight(&self) -> usize {
                [$(<$codec as $crate::layout::Codec<$type>>::weight(&self.$field)),+].into_iter().fold(0, usize::max)
            }
        }
    };
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
}
pub(crate) use columns;

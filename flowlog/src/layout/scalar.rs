//! Numbers, times and flags. Numbers wider than their column saturate: a counter that no longer fits is at its end anyway.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, TimestampMicrosecondArray},
    datatypes::{DataType, TimeUnit, TimestampMicrosecondType},
};
use chrono::{DateTime, Utc};
use netverdict_policy::AttributionId;

use super::{Cells, Codec, Column, TooLarge, Wrong, cells::Cell};

const UTC: &str = "UTC";
const IN_RANGE: &str = "a number in the column's range";

/// Microseconds since 1970 in UTC, as PostgreSQL and DuckDB keep them.
fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
}

/// An integer type of a column.
pub(crate) trait Integer: Copy {
    fn to_number(self) -> i64;
    fn from_number(number: i64) -> Option<Self>;
}

macro_rules! integers {
    ($($type:ty),+) => {
        $(impl Integer for $type {
            fn to_number(self) -> i64 {
                i64::try_from(self).unwrap_or(i64::MAX)
            }

            fn from_number(number: i64) -> Option<Self> {
                number.try_into().ok()
            }
        })+
    };
}
integers!(u8, u16, u32, u64, i64);

/// 63 bits, so that the sign has no meaning.
impl Integer for AttributionId {
    fn to_number(self) -> i64 {
        self.0.cast_signed()
    }

    fn from_number(number: i64) -> Option<Self> {
        Some(Self(number.cast_unsigned()))
    }
}

fn small(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// 0 where null.
fn integer<T: Integer>(cell: Cell<'_>) -> Result<T, Wrong> {
    let number = cell.number().unwrap_or(0);
    T::from_number(number).ok_or_else(|| cell.wrong(number, IN_RANGE))
}

fn optional_integer<T: Integer>(cell: Cell<'_>) -> Result<Option<T>, Wrong> {
    if cell.is_null() { Ok(None) } else { integer(cell).map(Some) }
}

/// A counter or an id, in 64 bits.
pub(crate) struct Number;

impl<T: Integer> Codec<T> for Number {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(DataType::Int64)]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a T>) -> Result<Vec<ArrayRef>, TooLarge>
    where
        T: 'a,
    {
        Ok(vec![Arc::new(Int64Array::from_iter_values(values.map(|value| value.to_number())))])
    }

    fn read(cells: &mut Cells<'_>) -> Result<T, Wrong> {
        integer(cells.take())
    }
}

impl<T: Integer> Codec<Option<T>> for Number {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(DataType::Int64).nullable(true)]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a Option<T>>) -> Result<Vec<ArrayRef>, TooLarge>
    where
        T: 'a,
    {
        Ok(vec![Arc::new(values.map(|value| value.map(Integer::to_number)).collect::<Int64Array>())])
    }

    fn read(cells: &mut Cells<'_>) -> Result<Option<T>, Wrong> {
        optional_integer(cells.take())
    }
}

/// A protocol number, a flag byte, a CPU, in 32 bits.
pub(crate) struct Small;

impl<T: Integer> Codec<T> for Small {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(DataType::Int32)]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a T>) -> Result<Vec<ArrayRef>, TooLarge>
    where
        T: 'a,
    {
        Ok(vec![Arc::new(Int32Array::from_iter_values(values.map(|value| small(value.to_number()))))])
    }

    fn read(cells: &mut Cells<'_>) -> Result<T, Wrong> {
        integer(cells.take())
    }
}

impl<T: Integer> Codec<Option<T>> for Small {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(DataType::Int32).nullable(true)]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a Option<T>>) -> Result<Vec<ArrayRef>, TooLarge>
    where
        T: 'a,
    {
        Ok(vec![Arc::new(values.map(|value| value.map(|value| small(value.to_number()))).collect::<Int32Array>())])
    }

    fn read(cells: &mut Cells<'_>) -> Result<Option<T>, Wrong> {
        optional_integer(cells.take())
    }
}

/// A port; 0 (null in the column) where the protocol has none.
pub(crate) struct Port;

impl Codec<u16> for Port {
    fn columns(field: Column) -> Vec<Column> {
        <Small as Codec<Option<u16>>>::columns(field)
    }

    fn fill<'a>(values: impl Iterator<Item = &'a u16>) -> Result<Vec<ArrayRef>, TooLarge> {
        let port = |port: &u16| (*port != 0).then_some(i32::from(*port));
        Ok(vec![Arc::new(values.map(port).collect::<Int32Array>())])
    }

    fn read(cells: &mut Cells<'_>) -> Result<u16, Wrong> {
        integer(cells.take())
    }
}

/// A moment.
pub(crate) struct Time;

impl Codec<DateTime<Utc>> for Time {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(instant())]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a DateTime<Utc>>) -> Result<Vec<ArrayRef>, TooLarge> {
        let micros = values.map(DateTime::timestamp_micros);
        Ok(vec![Arc::new(TimestampMicrosecondArray::from_iter_values(micros).with_timezone(UTC))])
    }

    fn read(cells: &mut Cells<'_>) -> Result<DateTime<Utc>, Wrong> {
        moment(cells.take())
    }
}

impl Codec<Option<DateTime<Utc>>> for Time {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(instant()).nullable(true)]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a Option<DateTime<Utc>>>) -> Result<Vec<ArrayRef>, TooLarge> {
        let micros = values.map(|value| value.as_ref().map(DateTime::timestamp_micros));
        Ok(vec![Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone(UTC))])
    }

    fn read(cells: &mut Cells<'_>) -> Result<Option<DateTime<Utc>>, Wrong> {
        let cell = cells.take();
        if cell.is_null() { Ok(None) } else { moment(cell).map(Some) }
    }
}

fn moment(cell: Cell<'_>) -> Result<DateTime<Utc>, Wrong> {
    let micros = cell.column.as_primitive::<TimestampMicrosecondType>().value(cell.row);
    DateTime::from_timestamp_micros(micros).ok_or_else(|| cell.wrong(micros, "microseconds of a year that exists"))
}

/// Yes or no.
pub(crate) struct Flag;

impl Codec<bool> for Flag {
    fn columns(field: Column) -> Vec<Column> {
        vec![field.of(DataType::Boolean)]
    }

    fn fill<'a>(values: impl Iterator<Item = &'a bool>) -> Result<Vec<ArrayRef>, TooLarge> {
        Ok(vec![Arc::new(values.map(|value| Some(*value)).collect::<BooleanArray>())])
    }

    fn read(cells: &mut Cells<'_>) -> Result<bool, Wrong> {
        let cell = cells.take();
        Ok(!cell.is_null() && cell.column.as_boolean().value(cell.row))
    }
}

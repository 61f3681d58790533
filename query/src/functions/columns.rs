//! Arguments and results of functions as columns.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, StringArray},
    compute::cast,
    datatypes::DataType,
};
use datafusion::{
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs},
};

/// The arguments as columns of one length.
pub(super) fn columns(args: &ScalarFunctionArgs) -> Result<Vec<ArrayRef>> {
    args.args.iter().map(|arg| arg.to_array(args.number_rows)).collect()
}

/// A column as text, from any encoding.
pub(super) fn texts(column: &ArrayRef) -> Result<StringArray> {
    let column = cast(column, &DataType::Utf8)?;
    Ok(StringArray::from(column.to_data()))
}

/// A column as a function's result.
pub(super) fn answer(column: impl arrow::array::Array + 'static) -> Result<ColumnarValue> {
    Ok(ColumnarValue::Array(Arc::new(column)))
}

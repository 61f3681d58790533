//! SQL functions of our own, and the few of PostgreSQL that dashboards ask for. All are pure.

mod addresses;
mod names;
mod postgres;

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, StringArray},
    compute::cast,
    datatypes::DataType,
};
use datafusion::{
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF},
    prelude::SessionContext,
};

pub(crate) use names::to_json;

/// Makes all functions known to a session.
pub(crate) fn register(context: &SessionContext) {
    let functions: [ScalarUDF; 9] = [
        addresses::cidr_contains(),
        addresses::protocol_name(),
        addresses::flow_id(),
        names::policy_names(),
        names::near_misses(),
        to_json(),
        postgres::current_setting(),
        postgres::time_bucket(),
        postgres::version(),
    ];
    for function in functions {
        context.register_udf(function);
    }
}

/// The arguments as columns of one length.
fn columns(args: &ScalarFunctionArgs) -> Result<Vec<ArrayRef>> {
    args.args.iter().map(|arg| arg.to_array(args.number_rows)).collect()
}

/// A column as text, whatever its encoding.
fn texts(column: &ArrayRef) -> Result<StringArray> {
    let column = cast(column, &DataType::Utf8)?;
    Ok(StringArray::from(column.to_data()))
}

fn answer(column: impl arrow::array::Array + 'static) -> Result<ColumnarValue> {
    Ok(ColumnarValue::Array(Arc::new(column)))
}

//! Arrow values as JSON: for clients without nested columns, and to read small results into our own types.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, RecordBatch, StringBuilder},
    compute::cast,
    datatypes::{DataType, Field, FieldRef, Fields},
    error::ArrowError,
    json::writer::{EncoderOptions, NullableEncoder, make_encoder},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Whether a column holds lists, structs or maps, which most PostgreSQL and CSV clients cannot take.
pub fn is_nested(data_type: &DataType) -> bool {
    match data_type {
        DataType::Struct(_) | DataType::Map(..) | DataType::Union(..) => true,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => {
            // Plain lists are arrays to PostgreSQL.
            is_nested(item.data_type()) || matches!(item.data_type(), DataType::Dictionary(..))
        }
        DataType::Dictionary(_, value) => is_nested(value),
        _ => false,
    }
}

/// The type without dictionaries at any depth, which the JSON encoder can write.
fn plain(data_type: &DataType) -> DataType {
    let field = |field: &FieldRef| -> FieldRef {
        Arc::new(Field::new(field.name(), plain(field.data_type()), field.is_nullable()))
    };
    match data_type {
        DataType::Dictionary(_, value) => plain(value),
        DataType::List(item) => DataType::List(field(item)),
        DataType::LargeList(item) => DataType::LargeList(field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect::<Fields>()),
        DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
        other => other.clone(),
    }
}

/// The column without dictionaries at any depth.
///
/// # Errors
/// When Arrow cannot cast it.
pub fn plain_column(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let wanted = plain(column.data_type());
    if &wanted == column.data_type() { Ok(Arc::clone(column)) } else { cast(column, &wanted) }
}

/// Nested values as JSON text, null as null.
///
/// # Errors
/// When the type has no form in JSON.
pub fn json_text(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let column = plain_column(column)?;
    let field: FieldRef = Arc::new(Field::new("value", column.data_type().clone(), true));
    let options = EncoderOptions::default().with_explicit_nulls(false);
    let mut encoder = make_encoder(&field, column.as_ref(), &options)?;
    let mut texts = StringBuilder::with_capacity(column.len(), column.len() * 64);
    let mut bytes = Vec::new();
    for row in 0..column.len() {
        if encoder.is_null(row) {
            texts.append_null();
            continue;
        }
        bytes.clear();
        encoder.encode(row, &mut bytes);
        texts.append_value(String::from_utf8_lossy(&bytes));
    }
    Ok(Arc::new(texts.finish()))
}

/// Rows as JSON values, in the order of the columns. Times are RFC 3339 in UTC.
///
/// # Errors
/// When a type has no form in JSON.
pub fn json_rows(batch: &RecordBatch) -> Result<Vec<Vec<Value>>, ArrowError> {
    let columns = batch.columns().iter().map(plain_column).collect::<Result<Vec<_>, _>>()?;
    let fields: Vec<FieldRef> =
        columns.iter().map(|column| Arc::new(Field::new("value", column.data_type().clone(), true))).collect();
    let options = EncoderOptions::default().with_explicit_nulls(false);
    let mut encoders = fields
        .iter()
        .zip(&columns)
        .map(|(field, column)| make_encoder(field, column.as_ref(), &options))
        .collect::<Result<Vec<_>, _>>()?;
    let mut bytes = Vec::new();
    let mut value = |encoder: &mut NullableEncoder<'_>, row| {
        if encoder.is_null(row) {
            return Ok(Value::Null);
        }
        bytes.clear();
        encoder.encode(row, &mut bytes);
        // The encoder writes NaN and infinity without quotes, which is not JSON.
        serde_json::from_slice(&bytes)
            .or_else(|_| Ok(Value::String(String::from_utf8_lossy(&bytes).trim_matches('"').to_owned())))
    };
    (0..batch.num_rows()).map(|row| encoders.iter_mut().map(|encoder| value(encoder, row)).collect()).collect()
}

/// Rows as values of a type whose fields are named as the columns. Null columns are left out, so such fields need a
/// default.
///
/// # Errors
/// When a row is not of that type.
pub fn typed_rows<T: DeserializeOwned>(batches: &[RecordBatch]) -> Result<Vec<T>, ArrowError> {
    let mut rows = Vec::new();
    for batch in batches {
        let names: Vec<String> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        for row in json_rows(batch)? {
            let object = names.iter().cloned().zip(row).filter(|(_, value)| !value.is_null()).collect();
            let row = serde_json::from_value(Value::Object(object))
                .map_err(|error| ArrowError::JsonError(format!("a row is not as expected: {error}")))?;
            rows.push(row);
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{DictionaryArray, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray},
        datatypes::Int32Type,
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn values_keep_their_meaning() {
        let names: DictionaryArray<Int32Type> = [Some("a\"b"), None].into_iter().collect();
        let batch = RecordBatch::try_from_iter([
            ("name", Arc::new(names) as ArrayRef),
            ("number", Arc::new(Int64Array::from(vec![9_007_199_254_740_993, -1]))),
            ("ratio", Arc::new(Float64Array::from(vec![f64::NAN, 0.5]))),
            ("time", Arc::new(TimestampMicrosecondArray::from(vec![1_500_000, 0]).with_timezone("UTC"))),
        ])
        .expect("a batch");
        let rows = json_rows(&batch).expect("rows");
        assert_eq!(rows[0][..2], [json!("a\"b"), json!(9_007_199_254_740_993_i64)]);
        assert_eq!(rows[0][3], json!("1970-01-01T00:00:01.500Z"));
        assert_eq!(rows[1][..3], [Value::Null, json!(-1), json!(0.5)]);
    }

    #[test]
    fn a_typed_row_leaves_out_nulls() {
        #[derive(serde::Deserialize)]
        struct Row {
            #[serde(default)]
            name: String,
        }
        let batch =
            RecordBatch::try_from_iter([("name", Arc::new(StringArray::from(vec![Some("x"), None])) as ArrayRef)])
                .expect("a batch");
        let rows: Vec<Row> = typed_rows(&[batch]).expect("rows");
        assert_eq!(rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["x", ""]);
    }
}

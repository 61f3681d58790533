//! PostgreSQL functions that Grafana and psql use and DataFusion lacks.

use std::sync::Arc;

use arrow::{
    array::{Array, StringArray, TimestampMicrosecondArray},
    compute::cast,
    datatypes::{DataType, IntervalUnit, TimeUnit},
};
use datafusion::{
    common::{cast::as_timestamp_microsecond_array, exec_err, scalar::ScalarValue},
    error::Result,
    logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility},
};

use super::columns::{answer, columns, texts};

/// The PostgreSQL version reported to clients.
const SERVER_VERSION: &str = "16.6";
const SERVER_VERSION_NUMBER: &str = "160006";

/// `current_setting(name [, missing_ok])`.
pub(super) fn current_setting() -> ScalarUDF {
    CurrentSetting { signature: Signature::variadic_any(Volatility::Stable) }.into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CurrentSetting {
    signature: Signature,
}

impl ScalarUDFImpl for CurrentSetting {
    fn name(&self) -> &str {
        "current_setting"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = columns(&args)?;
        let Some(names) = columns.first() else { return exec_err!("current_setting expects the name of a setting") };
        let mut values = Vec::with_capacity(names.len());
        for name in &texts(names)? {
            values.push(match name.map(str::to_lowercase).as_deref() {
                Some("server_version") => Some(SERVER_VERSION),
                Some("server_version_num") => Some(SERVER_VERSION_NUMBER),
                Some("search_path") => Some("public"),
                Some("server_encoding" | "client_encoding") => Some("UTF8"),
                Some("timezone") => Some("UTC"),
                Some("datestyle") => Some("ISO, MDY"),
                Some("default_transaction_read_only" | "transaction_read_only") => Some("on"),
                Some("max_index_keys") => Some("32"),
                None => None,
                // With the second argument an unknown setting is null.
                Some(_) if columns.len() > 1 => None,
                Some(other) => return exec_err!("unrecognized configuration parameter \"{other}\""),
            });
        }
        answer(StringArray::from(values))
    }
}

/// `time_bucket(width, time)`, as TimescaleDB has it: the beginning of the bucket, counted from 2000-01-03. The width
/// is an interval or a text such as `60.000s`, `5 minutes`.
pub(super) fn time_bucket() -> ScalarUDF {
    TimeBucket { signature: Signature::any(2, Volatility::Immutable) }.into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeBucket {
    signature: Signature,
}

/// A Monday, so that buckets of a week begin on Mondays.
const BUCKET_ORIGIN: i64 = 946_857_600_000_000;

impl ScalarUDFImpl for TimeBucket {
    fn name(&self) -> &str {
        "time_bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ColumnarValue::Scalar(width) = &args.args[0] else {
            return exec_err!("time_bucket expects a width that is the same for all rows");
        };
        let width = width_of(width)?;
        let times = args.args[1].to_array(args.number_rows)?;
        let times = cast(&times, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?;
        let times = as_timestamp_microsecond_array(&times)?;
        let begin = |time: i64| time.saturating_sub((time.saturating_sub(BUCKET_ORIGIN)).rem_euclid(width));
        let buckets: TimestampMicrosecondArray = times.iter().map(|time| time.map(begin)).collect();
        Ok(ColumnarValue::Array(Arc::new(buckets.with_timezone("UTC"))))
    }
}

/// In microseconds.
fn width_of(width: &ScalarValue) -> Result<i64> {
    let interval = match width.data_type() {
        DataType::Interval(_) => width.clone(),
        // Grafana writes fractions of a second, which the interval parser takes only with the unit spelled out.
        _ => {
            let text = width.cast_to(&DataType::Utf8)?.to_string();
            let seconds = text.strip_suffix('s').and_then(|seconds| seconds.trim().parse::<f64>().ok());
            let text = seconds.map_or(text, |seconds| format!("{seconds} seconds"));
            ScalarValue::Utf8(Some(text))
        }
    };
    let ScalarValue::IntervalMonthDayNano(Some(interval)) =
        interval.cast_to(&DataType::Interval(IntervalUnit::MonthDayNano))?
    else {
        return exec_err!("time_bucket expects a width, found null");
    };
    let micros = i64::from(interval.days) * 86_400_000_000 + interval.nanoseconds / 1_000;
    if interval.months != 0 || micros <= 0 {
        return exec_err!("time_bucket expects a positive width without months");
    }
    Ok(micros)
}

/// `version()`.
pub(super) fn version() -> ScalarUDF {
    Version { signature: Signature::nullary(Volatility::Stable) }.into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Version {
    signature: Signature,
}

impl ScalarUDFImpl for Version {
    fn name(&self) -> &str {
        "version"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let text = format!("PostgreSQL {SERVER_VERSION} (netverdict-query {})", env!("CARGO_PKG_VERSION"));
        Ok(ColumnarValue::Scalar(ScalarValue::Utf8(Some(text))))
    }
}

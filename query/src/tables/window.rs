//! The time that a query asks about, read from its conditions, so that folders and collectors outside it are not asked.

use chrono::{DateTime, Utc};
use datafusion::{
    common::{Column, ScalarValue},
    logical_expr::{BinaryExpr, Expr, Operator, expr::Between},
};

/// From and to, both included, in microseconds since 1970; `None` is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Window {
    pub from: Option<i64>,
    pub to: Option<i64>,
}

impl Window {
    pub fn between(from: DateTime<Utc>, to: DateTime<Utc>) -> Self {
        Self { from: Some(from.timestamp_micros()), to: Some(to.timestamp_micros()) }
    }

    /// Values of a column that all of the conditions together allow. Conditions of other forms leave it open.
    pub fn of(filters: &[Expr], column: &str) -> Self {
        filters.iter().fold(Self::default(), |window, filter| window.intersection(Self::of_one(filter, column)))
    }

    fn of_one(filter: &Expr, column: &str) -> Self {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
                Self::of_one(left, column).intersection(Self::of_one(right, column))
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (op, value) = match (is_column(left, column), is_column(right, column)) {
                    (true, false) => (Some(*op), micros(right)),
                    (false, true) => (op.swap(), micros(left)),
                    _ => return Self::default(),
                };
                let Some(value) = value else { return Self::default() };
                match op {
                    Some(Operator::Eq) => Self { from: Some(value), to: Some(value) },
                    Some(Operator::Gt | Operator::GtEq) => Self { from: Some(value), to: None },
                    Some(Operator::Lt | Operator::LtEq) => Self { from: None, to: Some(value) },
                    _ => Self::default(),
                }
            }
            Expr::Between(Between { expr, negated: false, low, high }) if is_column(expr, column) => {
                Self { from: micros(low), to: micros(high) }
            }
            _ => Self::default(),
        }
    }

    /// The values that are in both.
    pub fn intersection(self, other: Self) -> Self {
        let both = |a: Option<i64>, b: Option<i64>, choose: fn(i64, i64) -> i64| match (a, b) {
            (Some(a), Some(b)) => Some(choose(a, b)),
            (a, b) => a.or(b),
        };
        Self { from: both(self.from, other.from, i64::max), to: both(self.to, other.to, i64::min) }
    }

    /// The smallest that holds both.
    pub fn union(self, other: Self) -> Self {
        Self {
            from: self.from.zip(other.from).map(|(a, b)| a.min(b)),
            to: self.to.zip(other.to).map(|(a, b)| a.max(b)),
        }
    }

    /// Whether a time from `from` up to but without `to`, in microseconds, has a part in it.
    pub fn touches(self, from: i64, to: i64) -> bool {
        self.from.is_none_or(|begin| to > begin) && self.to.is_none_or(|end| from <= end)
    }

    pub fn from_time(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.from?)
    }

    pub fn to_time(self) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp_micros(self.to?)
    }
}

fn is_column(expr: &Expr, name: &str) -> bool {
    match expr {
        Expr::Column(Column { name: found, .. }) => found == name,
        // A view or a comparison of precisions may have put a cast around it, which keeps the order of times.
        Expr::Cast(cast) => cast.field.data_type().is_temporal() && is_column(&cast.expr, name),
        _ => false,
    }
}

/// A literal time in microseconds. Rounded, so a bound may be a microsecond too wide, never too narrow: the
/// comparison itself is made again on each row.
fn micros(expr: &Expr) -> Option<i64> {
    let value = match expr {
        Expr::Literal(value, _) => value,
        Expr::Cast(cast) => return micros(&cast.expr),
        _ => return None,
    };
    match value {
        ScalarValue::TimestampSecond(value, _) => value.and_then(|value| value.checked_mul(1_000_000)),
        ScalarValue::TimestampMillisecond(value, _) => value.and_then(|value| value.checked_mul(1_000)),
        ScalarValue::TimestampMicrosecond(value, _) => *value,
        ScalarValue::TimestampNanosecond(value, _) => value.map(|value| value.div_euclid(1_000)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::prelude::{col, lit};

    use super::*;

    fn at(micros: i64) -> Expr {
        lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())))
    }

    fn check(filters: &[Expr], from: Option<i64>, to: Option<i64>) {
        assert_eq!(Window::of(filters, "time"), Window { from, to }, "{filters:?}");
    }

    #[test]
    fn conditions_on_the_time_narrow_the_window() {
        check(&[], None, None);
        check(&[col("time").gt_eq(at(5)), at(9).gt(col("time"))], Some(5), Some(9));
        check(&[col("time").between(at(5), at(9)).and(col("time").lt(at(7)))], Some(5), Some(7));
        check(&[col("time").eq(at(5))], Some(5), Some(5));
    }

    #[test]
    fn other_conditions_leave_it_open() {
        check(&[col("time").gt(at(5)).or(col("verdict").eq(lit("denied")))], None, None);
        check(&[col("ingest_time").gt(at(5))], None, None);
        check(&[col("time").not_between(at(5), at(9))], None, None);
        check(&[col("time").not_eq(at(5))], None, None);
    }

    #[test]
    fn an_hour_is_touched_by_its_first_instant_and_not_by_the_next_hours() {
        let window = Window { from: Some(100), to: Some(200) };
        assert!(window.touches(0, 101) && window.touches(200, 300) && window.touches(120, 130));
        assert!(!window.touches(0, 100) && !window.touches(201, 300));
    }

    #[test]
    fn a_union_with_something_open_is_open() {
        let window = Window { from: Some(1), to: Some(2) };
        assert_eq!(window.union(Window { from: Some(5), to: None }), Window { from: Some(1), to: None });
        assert_eq!(window.union(Window::default()), Window::default());
    }
}

//! SQL functions of our own, and the few of PostgreSQL that dashboards ask for. All are pure.

mod addresses;
mod columns;
mod names;
mod postgres;

use datafusion::{logical_expr::ScalarUDF, prelude::SessionContext};

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

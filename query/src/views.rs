//! The views that people query, over the tables on disk. They add columns that are not stored: begin and end of a state,
//! flow ids, attributions as names.

use netverdict_flowlog::{Table, schema::hive_fields};

use crate::tables::file_schema;

/// Names and texts of the views. A view comes after the views that it uses.
pub(crate) fn definitions() -> Vec<(String, String)> {
    let mut views = vec![("flows".to_owned(), flows())];
    for table in Table::ALL {
        match key(table) {
            Some(key) => {
                views.push((format!("{table}_log"), format!("SELECT * FROM record.{table}")));
                views.push((table.name().to_owned(), states(table, key)));
            }
            None if table == Table::Flows => {}
            None => views.push((table.name().to_owned(), format!("SELECT * FROM record.{table}"))),
        }
    }
    views.push(("denials".to_owned(), DENIALS.to_owned()));
    views
}

/// The columns that identify an object in a change log; `None` for other tables.
fn key(table: Table) -> Option<&'static str> {
    match table {
        Table::Policies => Some("api_version, kind, namespace, name"),
        Table::Endpoints => Some("kind, namespace, name"),
        Table::Namespaces => Some("name"),
        Table::Services => Some("namespace, name"),
        Table::Flows | Table::Attributions | Table::Snapshots | Table::Gaps | Table::Collectors | Table::Settings => {
            None
        }
    }
}

fn flows() -> String {
    let id = "flow_id(protocol, source_ip, source_port, destination_ip, destination_port) AS flow_id";
    format!("SELECT *, {id} FROM record.flows")
}

/// States of a change log: each lasts until the next change of the same object on the same node. Within one snapshot a
/// deletion comes before the object that replaces it. `valid_to` is null for a state that still holds. An object that is
/// put again with its first time, as after a boot, begins no new state.
fn states(table: Table, key: &str) -> String {
    let schema = file_schema(table);
    let own =
        schema.fields().iter().map(|field| field.name().as_str()).filter(|name| !matches!(*name, "change" | "time"));
    let hive = hive_fields();
    let columns: Vec<&str> = own.chain(hive.iter().map(|field| field.name().as_str())).collect();
    let columns = columns.join(", ");
    format!(
        "SELECT time AS valid_from, valid_to, {columns} FROM (SELECT *, LEAD(time) OVER (PARTITION BY cluster, node, \
         {key} ORDER BY time, snapshot, CASE WHEN change = 'delete' THEN 0 ELSE 1 END) AS valid_to FROM record.{table}) \
         AS changes WHERE change = 'put' AND (valid_to IS NULL OR valid_to > time)"
    )
}

/// Denied flows with everything as plain text and numbers, for psql and dashboards.
const DENIALS: &str = "SELECT time, direction, \
     CASE WHEN source_pod IS NOT NULL THEN concat(source_namespace, '/', source_pod) ELSE source_ip END AS source, \
     CASE WHEN destination_pod IS NOT NULL THEN concat(destination_namespace, '/', destination_pod) ELSE destination_ip END \
     AS destination, \
     destination_port AS port, protocol_name(protocol) AS protocol, policy_names(decided_by) AS policies, \
     near_misses(near_miss) AS nearest, reason, disposition, mode, count, source_ip, source_port, destination_ip, \
     source_namespace, source_workload, destination_namespace, destination_workload, node, snapshot \
     FROM record.flows WHERE verdict = 'denied'";

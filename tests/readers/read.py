"""Prints what DuckDB and pyarrow find in a data directory."""
import pathlib
import sys

import duckdb
import pyarrow.parquet

folder = pathlib.Path(sys.argv[1])
flows = f"read_parquet('{folder}/flows/**/*.parquet', hive_partitioning = true, hive_types_autocast = false)"
gaps = f"read_parquet('{folder}/gaps/**/*.parquet')"


def one(statement):
    return duckdb.sql(statement).fetchall()[0]


duckdb.sql("set timezone = 'UTC'")
print("duckdb flows", one(f"select count(*) from {flows}")[0])
print("duckdb first time", one(f"select strftime(min(time), '%Y-%m-%d %H:%M:%S.%f') from {flows}")[0])
print("duckdb partitions", *one(f"select distinct cluster, date, hour from {flows}"))
deciders = one(f"select decided_by from {flows} where destination_pod = 'pg' limit 1")[0]
print("duckdb deciders", ", ".join(f"{d['namespace']}/{d['name']} {d['role']} {d['rule_index']}" for d in deciders))
near = one(f"select near_miss from {flows} limit 1")[0][0]
print("duckdb near miss", f"{near['namespace']}/{near['name']} {near['failed']}")
print("duckdb label", "app=" + one(f"select source_labels['app'] from {flows} limit 1")[0])
print("duckdb gaps", *one(f"select cause, lost_events from {gaps}"))

# The file alone, without the partitions in its path.
table = pyarrow.parquet.ParquetFile(next(folder.glob("flows/**/*.parquet"))).read()
row = table.slice(0, 1).to_pylist()[0]
print("pyarrow flows", table.num_rows)
print("pyarrow destination", f"{row['destination_namespace']}/{row['destination_pod']}", row["destination_ip"])
print("pyarrow deciders", len(row["decided_by"]))

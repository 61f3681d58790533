//! The service as its users meet it: over HTTP and the PostgreSQL protocol, on files as the collector writes them and a
//! rows port as the collector serves it.

#[path = "service/access.rs"]
mod access;
#[path = "service/answers.rs"]
mod answers;
#[path = "service/collector.rs"]
mod collector;
#[path = "service/committed.rs"]
mod committed;
#[path = "service/depth.rs"]
mod depth;
#[path = "service/ending.rs"]
mod ending;
#[path = "service/format_1.rs"]
mod format_1;
#[path = "service/limits.rs"]
mod limits;
#[path = "service/login.rs"]
mod login;
#[path = "service/postgres.rs"]
mod postgres;
#[path = "service/sql.rs"]
mod sql;
#[path = "service/status.rs"]
mod status;
#[path = "service/tables.rs"]
mod tables;
#[path = "service/why.rs"]
mod why;
#[path = "service/world.rs"]
mod world;

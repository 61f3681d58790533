//! The SQL session: tables of the record in schema `record`, views over them in schema `public`, functions, limits.

use std::{num::NonZeroUsize, sync::Arc};

use datafusion::{
    catalog::MemorySchemaProvider,
    config::Dialect,
    datasource::ViewTable,
    execution::{
        disk_manager::{DiskManagerBuilder, DiskManagerMode},
        memory_pool::{FairSpillPool, TrackConsumersPool},
        runtime_env::RuntimeEnvBuilder,
    },
    prelude::{SessionConfig, SessionContext},
};
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::{context::EmptyContextProvider, setup_pg_catalog};
use netverdict_flowlog::Table;
use object_store::ObjectStore;

use crate::{
    error::QueryError,
    functions,
    options::LimitOptions,
    tables::{RecordTable, Store},
    views,
};

/// The only database.
pub const DATABASE: &str = "netverdict";
const MIB: u64 = 1 << 20;

/// The session that every statement starts from.
///
/// # Errors
/// When a view or a limit cannot be set up.
pub async fn build(store: &Arc<Store>, limits: &LimitOptions) -> Result<SessionContext, QueryError> {
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(TrackConsumersPool::new(
            FairSpillPool::new(bytes(limits.memory_limit)),
            NonZeroUsize::MIN.saturating_add(2),
        )))
        .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::OsTmpDirectory))
        .with_max_temp_directory_size(limits.spill_limit.saturating_mul(MIB))
        // Files are listed for each scan: a cached list would hide new ones.
        .with_object_list_cache_limit(0)
        .build_arc()?;
    let objects: Arc<dyn ObjectStore> = Arc::clone(store.objects());
    runtime.register_object_store(store.url().as_ref(), objects);

    let mut config = SessionConfig::new()
        .with_information_schema(true)
        .with_default_catalog_and_schema(DATABASE, "public")
        .with_target_partitions(partitions(limits.query_threads));
    let options = config.options_mut();
    options.sql_parser.dialect = Dialect::PostgreSQL;
    options.execution.time_zone = Some("UTC".into());
    let context = SessionContext::new_with_config_rt(config, runtime);

    functions::register(&context);
    let catalog = context.catalog(DATABASE).ok_or_else(|| QueryError::Internal("the session has no catalog".into()))?;
    let record = Arc::new(MemorySchemaProvider::new());
    catalog.register_schema("record", record)?;
    for table in Table::ALL {
        let provider = Arc::new(RecordTable::new(table, Arc::clone(store)));
        context.register_table(format!("record.{table}"), provider)?;
    }
    for (name, definition) in views::definitions() {
        let plan = context.state().create_logical_plan(&definition).await?;
        context.register_table(name, Arc::new(ViewTable::new(plan, Some(definition))))?;
    }
    setup_pg_catalog(&context, DATABASE, EmptyContextProvider)
        .map_err(|error| QueryError::Internal(error.to_string()))?;
    // Again: `setup_pg_catalog` has replaced some of them.
    functions::register(&context);
    Ok(context)
}

fn bytes(mebibytes: u64) -> usize {
    usize::try_from(mebibytes.saturating_mul(MIB)).unwrap_or(usize::MAX)
}

fn partitions(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(2, NonZeroUsize::get),
        threads => threads,
    }
}

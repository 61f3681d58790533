//! What an answer cannot know, said to clients as warnings: psql shows them, and none is a row.

use std::sync::Arc;

use datafusion_postgres::{
    hooks::HookClient,
    pgwire::{
        error::{ErrorInfo, PgWireResult},
        messages::PgWireBackendMessage,
    },
};
use netverdict_flowlog::answer::merged;

use tokio::time::{Instant, timeout};

use crate::{Executor, execute::Limit, gaps, notes::Notes, tables::Window};

/// Gaps that are told one by one: the newest.
const TOLD: usize = 5;
/// `warning`, of PostgreSQL.
const STATE: &str = "01000";

/// Says what is missing or out of date in what a statement reads. It is known once its first rows are. The rows come
/// first: it takes no more than half of the time that is left for them.
pub(super) async fn tell(
    executor: &Executor,
    notes: &Arc<Notes>,
    limit: Limit,
    client: &mut dyn HookClient,
) -> PgWireResult<()> {
    // What has no times has no gaps either.
    let Some(window) = notes.window() else { return Ok(()) };
    let left = limit.deadline.saturating_duration_since(Instant::now()) / 2;
    let found = timeout(left, find(executor, window, notes)).await;
    let late = || vec![("there was no time to tell what is missing".to_owned(), "select * from gaps")];
    for (message, hint) in found.unwrap_or_else(|_| late()) {
        let mut info = ErrorInfo::new("WARNING".into(), STATE.into(), message);
        info.hint = Some(hint.to_owned()).filter(|hint| !hint.is_empty());
        client.send_message(PgWireBackendMessage::NoticeResponse(info.into())).await?;
    }
    Ok(())
}

/// Messages with their hints.
async fn find(executor: &Executor, window: Window, notes: &Arc<Notes>) -> Vec<(String, &'static str)> {
    let mut warnings = Vec::new();
    for reason in gaps::stale(executor, notes).await {
        warnings.push((format!("the answer may be out of date: {reason}"), ""));
    }
    match gaps::touching(executor, window, notes).await {
        Ok(gaps) => {
            let gaps = merged(&gaps);
            let more = gaps.len().saturating_sub(TOLD);
            if more > 0 {
                warnings.push((format!("{more} older gaps touch this time"), "select * from gaps"));
            }
            warnings.extend(gaps.iter().skip(more).map(|gap| (format!("known to be missing: {gap}"), "")));
        }
        Err(error) => warnings.push((format!("what is missing cannot be told: {error}"), "")),
    }
    warnings
}

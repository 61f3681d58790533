//! Gaps and stale data as PostgreSQL warnings beside the rows: psql shows them.

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

use crate::{Executor, deadline::Deadline, gaps, notes::Notes, tables::Window};

/// Gaps that get a warning each: the newest. The others are counted.
const MAX_GAPS: usize = 5;
/// `warning`, of PostgreSQL.
const STATE: &str = "01000";

/// Warns of gaps and stale data in the time that a statement reads, which is known once its first rows are. The rows have
/// priority: looking for gaps takes at most half of the time that is left.
pub(super) async fn send(
    executor: &Executor,
    notes: &Arc<Notes>,
    deadline: Deadline,
    client: &mut dyn HookClient,
) -> PgWireResult<()> {
    // No table with times was read.
    let Some(window) = notes.window() else { return Ok(()) };
    let left = deadline.at.saturating_duration_since(Instant::now()) / 2;
    let found = timeout(left, find(executor, window, notes)).await;
    let late = || vec![("there was no time left to look for gaps".to_owned(), "select * from gaps")];
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
            let more = gaps.len().saturating_sub(MAX_GAPS);
            if more > 0 {
                warnings.push((format!("{more} older gaps touch this time"), "select * from gaps"));
            }
            warnings.extend(gaps.iter().skip(more).map(|gap| (format!("known to be missing: {gap}"), "")));
        }
        Err(error) => {
            let reason = error.answer().message;
            warnings.push((format!("the gaps of this time are not known: {reason}"), "select * from gaps"));
        }
    }
    warnings
}

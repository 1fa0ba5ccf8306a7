//! The part of a pass that has money given back, as rows of asynchronous tasks say: page by page, all of them.
//!
//! What is given back is decided in `domain::task_refunds`.

use std::collections::BTreeSet;

use super::pass::Pass;
use crate::domain::ids::RemoteKeyId;
use crate::domain::log_snapshot::{NumberedRow, TaskMark};
use crate::storage::StoreError;
use crate::storage::log::TaskPage;
use crate::telemetry::metrics;

impl Pass {
    /// Gives back what rows of tasks say, of these tokens or of all. How many stay open.
    pub(super) async fn settle_refunds(&mut self, tokens: Option<Vec<RemoteKeyId>>) -> Result<u64, StoreError> {
        let mut page = TaskPage { tokens, after: None };
        let mut still_open = 0;
        loop {
            let settled = match self.store.settle_refunds(page.clone()).await {
                Err(StoreError::Refused(reason)) => {
                    tracing::error!(%reason, "what tasks give back cannot be booked: their rows stay open");
                    return Ok(still_open);
                }
                settled => settled?,
            };
            self.report.refunded += settled.refunded;
            self.report.credits_given_back += settled.credits;
            if settled.refunded > 0 {
                metrics::rows_settled("refunded", settled.refunded);
                metrics::credits_moved("REFUND", settled.credits.unsigned_abs());
            }
            still_open += settled.still_open;
            match settled.next {
                Some(next) => page.after = Some(next),
                None => return Ok(still_open),
            }
        }
    }
}

/// Tokens of which these rows bring something that a task's charge is looked for.
pub(super) fn tokens_of_tasks(rows: &[NumberedRow]) -> Vec<RemoteKeyId> {
    let tokens: BTreeSet<RemoteKeyId> = rows.iter().filter_map(TaskMark::of).map(|mark| mark.token).collect();
    tokens.into_iter().collect()
}

//! What a pass does beside reading: with what became known, it goes on with sides, refunds and rows that waited for it.

use std::collections::BTreeSet;

use super::gaps::Gap;
use super::pass::{Pass, PassError};
use super::rows;
use crate::domain::ids::RemoteKeyId;
use crate::domain::log_snapshot::{NumberedRow, TaskMark};
use crate::domain::settlement::Purpose;
use crate::storage::StoreError;
use crate::storage::log::{SourceFilter, TaskPage};
use crate::telemetry::metrics;

/// Tokens whose waiting sides are looked at in one transaction.
const REVISITED_TOKENS: usize = 64;

/// Tokens that got a key, whose earlier rows one pass reads.
const MOST_OWNED_MEANWHILE: usize = 100;

/// Rows of tokens whose ambiguity ended, which one pass settles.
const MOST_WOKEN_ROWS: usize = 10_000;

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
            }
            still_open += settled.still_open;
            match settled.next {
                Some(next) => page.after = Some(next),
                None => return Ok(still_open),
            }
        }
    }

    /// Sides that wait for their partner, now that more is known of it.
    pub(super) async fn revisit(&mut self, covered_until_second: i64) -> Result<(), StoreError> {
        let mut after: Option<RemoteKeyId> = None;
        loop {
            let tokens = self.store.tokens_with_waiting_sides(after, REVISITED_TOKENS).await?;
            let Some(last) = tokens.last().copied() else { return Ok(()) };
            let is_last = tokens.len() < REVISITED_TOKENS;
            self.report.disputed += self.store.revisit(tokens, Some(covered_until_second)).await?;
            if is_last {
                return Ok(());
            }
            after = Some(last);
        }
    }

    /// Rows whose token had several users, and has one owner now.
    pub(super) async fn settle_woken(&mut self) -> Result<(), StoreError> {
        let rows = self.store.woken_rows(MOST_WOKEN_ROWS).await?;
        if !rows.is_empty() {
            let tally = rows::settle(self.store.as_ref(), rows, Purpose::Retry).await?;
            self.report.tally.add(tally);
        }
        Ok(())
    }

    /// Tokens that got a key after their rows were read: those rows are read again.
    pub(super) async fn read_owned_meanwhile(&mut self, of: &SourceFilter, coverable: i64) -> Result<(), PassError> {
        let spans = self.store.owned_meanwhile(of, self.key_grace_secs, MOST_OWNED_MEANWHILE).await?;
        for (from_second, until_second) in spans {
            self.read(of, Gap { from_second, until_second: until_second.min(coverable) }, coverable).await?;
        }
        Ok(())
    }
}

/// Tokens of which these rows bring something that a task's charge is looked for.
pub(super) fn tokens_of_tasks(rows: &[NumberedRow]) -> Vec<RemoteKeyId> {
    let tokens: BTreeSet<RemoteKeyId> = rows.iter().filter_map(TaskMark::of).map(|mark| mark.token).collect();
    tokens.into_iter().collect()
}

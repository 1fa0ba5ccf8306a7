//! What a pass does beside reading: with what became known, it goes on with sides and rows that waited for it.

use super::gaps::Gap;
use super::pass::{Pass, PassError};
use super::rows;
use crate::domain::ids::RemoteKeyId;
use crate::domain::settlement::Purpose;
use crate::storage::StoreError;
use crate::storage::log::SourceFilter;

/// Tokens whose waiting sides are looked at in one transaction.
const REVISITED_TOKENS: usize = 64;

/// Tokens that got a key, whose earlier rows one pass reads.
pub(super) const MOST_OWNED_MEANWHILE: usize = 100;

/// Rows of tokens whose ambiguity ended, which one pass settles.
pub(super) const MOST_WOKEN_ROWS: usize = 10_000;

impl Pass {
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

//! Rows that are decided and not written: how many would be charged, and how much that comes to.
//!
//! Each transaction is rolled back, so none sees what another one decided. So the rows of a token are tried together, as
//! far as their number allows.

use std::collections::{BTreeSet, HashSet};

use futures_util::future::BoxFuture;

use super::pass::{Pass, PassError};
use super::rows::{HELD_PAUSE, MOST_TRIES_OF_HELD};
use super::sync::SyncPlan;
use crate::domain::ids::RemoteKeyId;
use crate::domain::log_row::RowIdentity;
use crate::domain::log_snapshot::{NumberedRow, RowOutcome};
use crate::storage::StoreError;
use crate::storage::log::{TaskPage, Trial};

/// Rows of one transaction, which holds up the others' for some hundred milliseconds.
const TOGETHER: usize = 2048;

/// Rows that are held in memory before they are tried.
const MOST_HELD: usize = 50_000;

/// Rows that were read and are to be tried.
#[derive(Debug, Default)]
pub(super) struct TrialRows {
    rows: Vec<NumberedRow>,
    known: HashSet<RowIdentity>,
}

impl TrialRows {
    /// A row that is there already stays one.
    pub(super) fn hold(&mut self, rows: Vec<NumberedRow>) {
        let known = &mut self.known;
        self.rows.extend(rows.into_iter().filter(|row| known.insert(row.identity.clone())));
    }

    pub(super) fn is_full(&self) -> bool {
        self.rows.len() >= MOST_HELD
    }

    /// All of them, those of a token side by side and in the order of their seconds, in parts of `together` at most.
    fn take(&mut self, together: usize) -> Vec<Vec<NumberedRow>> {
        self.known.clear();
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by_key(|row| (row.row.token, row.row.second));
        let mut parts: Vec<Vec<NumberedRow>> = Vec::new();
        for of_token in rows.chunk_by(|one, other| one.row.token == other.row.token) {
            for rows in of_token.chunks(together) {
                match parts.last_mut() {
                    Some(part) if part.len() + rows.len() <= together => part.extend_from_slice(rows),
                    _ => parts.push(rows.to_vec()),
                }
            }
        }
        parts
    }
}

impl Pass {
    /// Tries what is held; what it would come to is added to `report`.
    pub(super) async fn try_rows(&mut self, held: &mut TrialRows, plan: &SyncPlan) -> Result<(), PassError> {
        for rows in held.take(TOGETHER) {
            for part in self.store.row_parts(rows).await {
                self.try_part(part.lane, part.rows, plan).await?;
            }
        }
        Ok(())
    }

    /// If the database refuses the data, the part is halved until the offender stands alone.
    fn try_part<'a>(
        &'a mut self,
        lane: usize,
        rows: Vec<NumberedRow>,
        plan: &'a SyncPlan,
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let tokens: BTreeSet<RemoteKeyId> = rows.iter().map(|row| row.row.token).collect();
            let trial = Trial {
                leave: plan.leave,
                covered_until_second: Some(plan.coverable),
                refunds_of: TaskPage { tokens: Some(tokens.into_iter().collect()), after: None },
            };
            for _ in 0..MOST_TRIES_OF_HELD {
                let tried = match self.store.try_rows(lane, rows.clone(), trial.clone()).await {
                    Ok(tried) => tried,
                    Err(StoreError::Refused(_)) if rows.len() == 1 => {
                        self.report.tally.failed += 1;
                        return Ok(());
                    }
                    Err(StoreError::Refused(_)) => {
                        let (left, right) = rows.split_at(rows.len() / 2);
                        self.try_part(lane, left.to_vec(), plan).await?;
                        return self.try_part(lane, right.to_vec(), plan).await;
                    }
                    Err(error) => return Err(error),
                };
                if tried.outcomes.iter().all(|outcome| *outcome != RowOutcome::Deferred) {
                    tried.outcomes.iter().for_each(|outcome| self.report.tally.count(outcome));
                    self.report.disputed += tried.disputed;
                    self.report.refunded += tried.refunds.refunded;
                    self.report.credits_given_back += tried.refunds.credits;
                    self.report.refunds_open += tried.refunds.still_open;
                    return Ok(());
                }
                tokio::time::sleep(HELD_PAUSE).await;
            }
            Err(StoreError::Contended("another program holds users of these rows".to_owned()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::log_row::{LogRow, RowKind, number_rows};
    use std::sync::Arc;

    fn rows(token: i64, count: i64) -> Vec<NumberedRow> {
        let row = |second| LogRow {
            second,
            kind: RowKind::Consumption,
            token: RemoteKeyId::new(token).unwrap(),
            token_name: "k".into(),
            model: "m".into(),
            prompt_tokens: 1,
            completion_tokens: 1,
            quota_units: 1,
            request_id: None,
            log_id: None,
            task: None,
        };
        let numbered = number_rows(&Arc::from("default"), (0..count).rev().map(row).collect());
        numbered.into_iter().map(|(identity, row)| NumberedRow { identity, row }).collect()
    }

    #[test]
    fn rows_of_a_token_stay_together_as_far_as_they_may() {
        let mut held = TrialRows::default();
        held.hold(rows(2, 3));
        held.hold(rows(1, 4));
        held.hold(rows(2, 3));
        held.hold(rows(3, 7));
        let parts = held.take(5);
        let tokens =
            |part: &Vec<NumberedRow>| part.iter().map(|row| (row.row.token.get(), row.row.second)).collect::<Vec<_>>();
        let of = |token, seconds: std::ops::Range<i64>| seconds.map(|second| (token, second)).collect::<Vec<_>>();
        let expected = [of(1, 0..4), of(2, 0..3), of(3, 0..5), of(3, 5..7)];
        assert_eq!(parts.iter().map(tokens).collect::<Vec<_>>(), expected);
        assert!(held.take(5).is_empty());
    }
}

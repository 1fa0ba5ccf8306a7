//! What a reading of the log hands out at a time: every row of some whole seconds, calls and refunds.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::gaps::Gap;
use super::pass::{Pass, PassError};
use crate::domain::ids::RemoteKeyId;
use crate::domain::log_row::{LogRow, RowKind, number_rows};
use crate::domain::log_snapshot::NumberedRow;
use crate::failpoint;
use crate::gateway::{Reading, UnreadableRow};
use crate::storage::StoreError;
use crate::storage::log::{Proof, SourceFilter};

/// Seconds that were read completely.
pub(super) struct WholePiece {
    pub seconds: Gap,
    /// By second.
    pub rows: Vec<LogRow>,
    pub unreadable: Vec<UnreadableRow>,
}

impl Pass {
    /// The next piece of a reading of calls, with the refunds of its seconds.
    pub(super) async fn next_piece(&mut self, reading: &mut Reading) -> Result<Option<WholePiece>, PassError> {
        let Some(piece) = reading.next_piece().await? else { return Ok(None) };
        failpoint::hit("polling.piece.read").map_err(StoreError::from)?;
        self.learn_ids(piece.ids, &piece.rows).await?;
        let mut rows = piece.rows;
        let mut unreadable = piece.unreadable;
        let mut refunds = Reading::new(self.gateway.clone(), piece.window, RowKind::Refund, piece.ids);
        while let Some(piece) = refunds.next_piece().await? {
            rows.extend(piece.rows);
            unreadable.extend(piece.unreadable);
        }
        rows.sort_by_key(|row| row.second);
        let seconds = Gap { from_second: piece.window.from_second(), until_second: piece.window.to_second() };
        Ok(Some(WholePiece { seconds, rows, unreadable }))
    }

    /// Of seconds that are read again, rows that nobody pays for are counted anew. Should that end in the middle, the
    /// next pass reads them once more, since they are open until they are covered again.
    pub(super) async fn count_anew(
        &self,
        of: &SourceFilter,
        seconds: Gap,
        token: Option<RemoteKeyId>,
    ) -> Result<(), StoreError> {
        let Gap { from_second, until_second } = seconds;
        if token.is_none() {
            for span in self.store.spans(of).await?.iter().filter(|span| span.proof != Proof::Reopened) {
                let from_second = span.from_second.max(from_second);
                let until_second = span.until_second.min(until_second);
                if from_second <= until_second {
                    self.cover(of, Gap { from_second, until_second }, Proof::Reopened).await?;
                }
            }
        }
        self.store.forget_unowned(&of.source, from_second, until_second, token).await
    }

    /// What was read and settled counts as read, up to what can be covered. A row that nobody can read may be a call: its
    /// second stays open, and holds up no other.
    pub(super) async fn cover_readable(
        &mut self,
        of: &SourceFilter,
        seconds: Gap,
        unreadable: &[UnreadableRow],
        coverable: i64,
    ) -> Result<(), StoreError> {
        let until_second = seconds.until_second.min(coverable);
        for part in readable(Gap { until_second, ..seconds }, unreadable) {
            self.cover(of, part, Proof::Read).await?;
        }
        self.note_unreadable(unreadable);
        Ok(())
    }

    pub(super) fn note_unreadable(&mut self, unreadable: &[UnreadableRow]) {
        if let Some(first) = unreadable.first() {
            let (count, _) = self.report.unreadable.get_or_insert_with(|| (0, first.reason.clone()));
            *count += unreadable.len();
        }
    }
}

/// The span without the seconds of such rows: nothing, if one of them does not even tell its second.
fn readable(seconds: Gap, unreadable: &[UnreadableRow]) -> Vec<Gap> {
    let open: Option<BTreeSet<i64>> = unreadable.iter().map(|row| row.second).collect();
    let Some(open) = open else { return Vec::new() };
    let mut parts = Vec::new();
    let mut from_second = seconds.from_second;
    for second in open.into_iter().chain([seconds.until_second.saturating_add(1)]) {
        let until_second = seconds.until_second.min(second - 1);
        parts.extend((from_second <= until_second).then_some(Gap { from_second, until_second }));
        from_second = from_second.max(second + 1);
    }
    parts
}

/// Each row with its number among equal ones of its second: all rows of a second have to be there.
pub(super) fn numbered(of: &SourceFilter, rows: Vec<LogRow>) -> Vec<NumberedRow> {
    let source: Arc<str> = Arc::from(of.source.as_str());
    number_rows(&source, rows).into_iter().map(|(identity, row)| NumberedRow { identity, row }).collect()
}

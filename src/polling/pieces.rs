//! What a reading of the log hands out at a time: every row of some whole seconds, calls and refunds.

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
    /// next pass reads them once more, since they are open until they are covered again. What nobody can read is left
    /// as it is: once opened, it would hold up every pass.
    pub(super) async fn count_anew(
        &self,
        of: &SourceFilter,
        seconds: Gap,
        token: Option<RemoteKeyId>,
        unreadable: &[UnreadableRow],
    ) -> Result<(), StoreError> {
        let Gap { from_second, until_second } = seconds;
        if token.is_none() && unreadable.is_empty() {
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
}

/// Each row with its number among equal ones of its second: all rows of a second have to be there.
pub(super) fn numbered(of: &SourceFilter, rows: Vec<LogRow>) -> Vec<NumberedRow> {
    let source: Arc<str> = Arc::from(of.source.as_str());
    number_rows(&source, rows).into_iter().map(|(identity, row)| NumberedRow { identity, row }).collect()
}

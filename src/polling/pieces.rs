//! What a reading of the log hands out at a time: every row of some whole seconds, calls and refunds.

use std::sync::Arc;

use super::gaps::Gap;
use super::pass::{Pass, PassError};
use crate::domain::log_row::{LogRow, RowKind, number_rows};
use crate::domain::log_snapshot::NumberedRow;
use crate::failpoint;
use crate::gateway::{Reading, UnreadableRow};
use crate::storage::StoreError;
use crate::storage::log::SourceFilter;

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
}

/// Each row with its number among equal ones of its second: all rows of a second have to be there.
pub(super) fn numbered(of: &SourceFilter, rows: Vec<LogRow>) -> Vec<NumberedRow> {
    let source: Arc<str> = Arc::from(of.source.as_str());
    number_rows(&source, rows).into_iter().map(|(identity, row)| NumberedRow { identity, row }).collect()
}

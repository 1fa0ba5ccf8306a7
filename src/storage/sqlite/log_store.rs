//! What whoever reads the log asks of the embedded database.

use async_trait::async_trait;

use super::writer::{Command, LogCommand};
use super::{SqliteStore, coverage};
use crate::domain::ids::RemoteKeyId;
use crate::domain::log_snapshot::{NumberedRow, RowOutcome};
use crate::domain::settlement::{Batch, Purpose};
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::log::{BookFigures, LogStore, RowLoss, SourceFilter, Span};

#[async_trait]
impl LogStore for SqliteStore {
    async fn settle_rows(
        &self,
        _lane: usize,
        rows: Vec<NumberedRow>,
        purpose: Purpose,
    ) -> Result<Vec<RowOutcome>, StoreError> {
        let batch = Batch { rows, ..Batch::default() };
        Ok(self.write(|reply| Command::Settle(batch, purpose, reply)).await?.row_outcomes)
    }

    async fn revisit(&self, tokens: Vec<RemoteKeyId>, covered_until_second: Option<i64>) -> Result<u64, StoreError> {
        let batch = Batch { revisited: tokens.into_iter().collect(), covered_until_second, ..Batch::default() };
        Ok(self.write(|reply| Command::Settle(batch, Purpose::Retry, reply)).await?.disputed)
    }

    async fn tokens_with_waiting_sides(
        &self,
        after: Option<RemoteKeyId>,
        limit: usize,
    ) -> Result<Vec<RemoteKeyId>, StoreError> {
        coverage::tokens_with_waiting_sides(&self.readers, after, limit).await
    }

    async fn forget_unowned(&self, source: &str, from_second: i64, until_second: i64) -> Result<(), StoreError> {
        let source = source.to_owned();
        self.write(|reply| Command::Log(LogCommand::ForgetUnowned(source, from_second, until_second, reply))).await
    }

    async fn spans(&self, of: &SourceFilter) -> Result<Vec<Span>, StoreError> {
        coverage::spans(&self.readers, of).await
    }

    async fn cover(&self, of: &SourceFilter, span: Span) -> Result<(), StoreError> {
        let of = of.clone();
        self.write(|reply| Command::Log(LogCommand::Cover(of, span, reply))).await
    }

    async fn begin_coverage(&self, of: &SourceFilter, from_second: i64) -> Result<i64, StoreError> {
        let of = of.clone();
        self.write(|reply| Command::Log(LogCommand::BeginCoverage(of, from_second, reply))).await
    }

    async fn set_row_aside(&self, row: NumberedRow, reason: String) -> Result<(), StoreError> {
        self.write(|reply| Command::Log(LogCommand::SetRowAside(Box::new(row), reason, reply))).await
    }

    async fn figures(&self, of: &SourceFilter, from_second: i64, until_second: i64) -> Result<BookFigures, StoreError> {
        coverage::figures(&self.readers, of, from_second, until_second).await
    }

    async fn event_seconds(&self, from_second: i64, until_second: i64) -> Result<Vec<i64>, StoreError> {
        coverage::event_seconds(&self.readers, from_second, until_second).await
    }

    async fn row_loss(&self, of: &SourceFilter, from_second: i64, until_second: i64) -> Result<RowLoss, StoreError> {
        coverage::row_loss(&self.readers, of, from_second, until_second).await
    }

    async fn owned_meanwhile(
        &self,
        of: &SourceFilter,
        grace_secs: i64,
        limit: usize,
    ) -> Result<Vec<(i64, i64)>, StoreError> {
        coverage::owned_meanwhile(&self.readers, of, grace_secs, limit).await
    }

    async fn reopen(&self, of: &SourceFilter, proved_before: UnixMillis) -> Result<(), StoreError> {
        let of = of.clone();
        self.write(|reply| Command::Log(LogCommand::Reopen(of, proved_before, reply))).await
    }

    async fn woken_rows(&self, limit: usize) -> Result<Vec<NumberedRow>, StoreError> {
        coverage::woken_rows(&self.readers, limit).await
    }
}

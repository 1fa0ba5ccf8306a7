//! What whoever reads the log asks of the embedded database.

use async_trait::async_trait;

use super::command::{Command, Forgotten, LogCommand};
use super::{SqliteStore, coverage, source_looks, task_refunds};
use crate::domain::ids::RemoteKeyId;
use crate::domain::log_snapshot::{NumberedRow, RowOutcome};
use crate::domain::settlement::{Batch, Plan, Purpose};
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::agreed::{self, AgreedSpan};
use crate::storage::log::{
    Agreement, BookFigures, KnownRow, LogStore, NewestId, RefundsSettled, RowLoss, SourceFilter, Span, TaskPage, Trial,
    Tried,
};
use crate::storage::noticed::{Noticed, Notices};
use crate::storage::rows::parameter;

impl SqliteStore {
    pub(super) async fn settle_batch(&self, batch: Batch, purpose: Purpose) -> Result<Plan, StoreError> {
        let plan = self.write(|reply| Command::Settle(batch, purpose, reply)).await?;
        self.noticed.committed(&plan, purpose);
        Ok(plan)
    }
}

impl Notices for SqliteStore {
    fn noticed(&self) -> &Noticed {
        &self.noticed
    }
}

#[async_trait]
impl LogStore for SqliteStore {
    async fn settle_rows(
        &self,
        _lane: usize,
        rows: Vec<NumberedRow>,
        purpose: Purpose,
    ) -> Result<Vec<RowOutcome>, StoreError> {
        Ok(self.settle_batch(Batch { rows, ..Batch::default() }, purpose).await?.row_outcomes)
    }

    async fn settle_refunds(&self, page: TaskPage) -> Result<RefundsSettled, StoreError> {
        let places = task_refunds::places(&self.readers, &page).await?;
        if places.is_empty() {
            return Ok(RefundsSettled::default());
        }
        self.write(|reply| Command::Log(LogCommand::SettleRefunds(places, reply))).await
    }

    async fn revisit(&self, tokens: Vec<RemoteKeyId>, covered_until_second: Option<i64>) -> Result<u64, StoreError> {
        let batch = Batch { revisited: tokens.into_iter().collect(), covered_until_second, ..Batch::default() };
        Ok(self.settle_batch(batch, Purpose::Retry).await?.disputed)
    }

    async fn tokens_with_waiting_sides(
        &self,
        after: Option<RemoteKeyId>,
        limit: usize,
    ) -> Result<Vec<RemoteKeyId>, StoreError> {
        coverage::tokens_with_waiting_sides(&self.readers, after, limit).await
    }

    async fn forget_unowned(
        &self,
        source: &str,
        from_second: i64,
        until_second: i64,
        token: Option<RemoteKeyId>,
    ) -> Result<(), StoreError> {
        let forgotten = Forgotten { source: source.to_owned(), from_second, until_second, token };
        self.write(|reply| Command::Log(LogCommand::ForgetUnowned(forgotten, reply))).await
    }

    async fn try_rows(&self, _lane: usize, rows: Vec<NumberedRow>, trial: Trial) -> Result<Tried, StoreError> {
        let batch = Batch { rows, covered_until_second: trial.covered_until_second, ..Batch::default() };
        self.write(|reply| Command::Log(LogCommand::TryRows(batch, trial, reply))).await
    }

    async fn oldest_unpaid_row(&self, of: &SourceFilter, token: RemoteKeyId) -> Result<Option<i64>, StoreError> {
        coverage::oldest_unpaid_row(&self.readers, of, token).await
    }

    async fn spans(&self, of: &SourceFilter) -> Result<Vec<Span>, StoreError> {
        coverage::spans(&self.readers, of).await
    }

    async fn cover(&self, of: &SourceFilter, span: Span, proved_at: UnixMillis) -> Result<(), StoreError> {
        let of = of.clone();
        self.write(|reply| Command::Log(LogCommand::Cover(of, span, proved_at, reply))).await
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

    async fn reopen(&self, of: &SourceFilter, spans: &[AgreedSpan]) -> Result<(), StoreError> {
        if spans.is_empty() {
            return Ok(());
        }
        let (of, spans) = (of.clone(), parameter(&spans)?);
        self.write(|reply| Command::Log(LogCommand::Reopen(of, spans, reply))).await
    }

    async fn take_back(&self, of: &SourceFilter, after_second: i64) -> Result<(), StoreError> {
        let of = of.clone();
        self.write(|reply| Command::Log(LogCommand::TakeBack(of, after_second, reply))).await
    }

    async fn stale_spans(
        &self,
        of: &SourceFilter,
        proved_before: UnixMillis,
        now: UnixMillis,
    ) -> Result<Vec<AgreedSpan>, StoreError> {
        agreed::stale(&coverage::Looks(&self.readers), &self.checked_spans, of, proved_before, now).await
    }

    async fn agreement(&self, from_second: i64, until_second: i64) -> Result<Agreement, StoreError> {
        source_looks::agreement(&self.readers, from_second, until_second).await
    }

    async fn newest_row(&self, of: &SourceFilter, until_second: i64) -> Result<Option<KnownRow>, StoreError> {
        source_looks::newest_row(&self.readers, of, until_second).await
    }

    async fn newest_id(&self, source: &str) -> Result<Option<NewestId>, StoreError> {
        source_looks::newest_id(&self.readers, source).await
    }

    async fn token_of(&self, key: &str) -> Result<Option<RemoteKeyId>, StoreError> {
        source_looks::token_of(&self.readers, key).await
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        source_looks::note(&self.readers, name).await
    }

    async fn set_note(&self, name: &str, value: String) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(|reply| Command::Log(LogCommand::SetNote(name, value, reply))).await
    }

    async fn woken_rows(&self, limit: usize) -> Result<Vec<NumberedRow>, StoreError> {
        coverage::woken_rows(&self.readers, limit).await
    }
}

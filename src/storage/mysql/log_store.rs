//! What whoever reads the log asks of a server.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sqlx::MySqlConnection;

use super::context::Context;
use super::shard::End;
use super::{MysqlStore, coverage, route, settle, source_looks, task_refunds};
use crate::domain::ids::RemoteKeyId;
use crate::domain::log_snapshot::{NumberedRow, RowOutcome};
use crate::domain::settlement::{Batch, Plan, Purpose};
use crate::domain::time::UnixMillis;
use crate::failpoint;
use crate::storage::StoreError;
use crate::storage::agreed::{self, AgreedSpan};
use crate::storage::log::{
    Agreement, BookFigures, KnownRow, LogStore, NewestId, RefundsSettled, RowLoss, RowPart, SourceFilter, Span,
    TaskPage, Trial, Tried,
};
use crate::storage::noticed::{Noticed, Notices};
use crate::storage::rows::parameter;

impl MysqlStore {
    pub(super) async fn settle_batch(&self, lane: usize, batch: Batch, purpose: Purpose) -> Result<Plan, StoreError> {
        let plan = self.shards[lane % self.shards.len()].transact(settle_work(batch, purpose)).await?;
        self.noticed.committed(&plan, purpose);
        if !purpose.is_dry_run() {
            self.context.skew.committed(&plan, self.context.clock.now());
        }
        failpoint::hit("store.settle.committed")?;
        Ok(plan)
    }
}

type SettleWork = Box<
    dyn for<'a> Fn(&'a mut MySqlConnection, &'a Context) -> BoxFuture<'a, Result<End<Plan>, StoreError>> + Send + Sync,
>;

fn settle_work(batch: Batch, purpose: Purpose) -> SettleWork {
    let batch = Arc::new(batch);
    Box::new(move |connection, context| {
        let batch = batch.clone();
        Box::pin(async move { settle::settle(connection, context, &batch, purpose).await })
    })
}

/// Rows wait while our state and the platform's tables are apart.
fn apart() -> StoreError {
    StoreError::Unavailable("our state and the platform's tables are apart: `hookledger repair`".to_owned())
}

impl Notices for MysqlStore {
    fn noticed(&self) -> &Noticed {
        &self.noticed
    }
}

#[async_trait]
impl LogStore for MysqlStore {
    async fn row_parts(&self, rows: Vec<NumberedRow>) -> Vec<RowPart> {
        route::rows_by_user(&self.readers, &self.context.names, rows, self.shards.len()).await
    }

    async fn settle_rows(
        &self,
        lane: usize,
        rows: Vec<NumberedRow>,
        purpose: Purpose,
    ) -> Result<Vec<RowOutcome>, StoreError> {
        if self.is_apart() {
            return Err(apart());
        }
        let batch = Batch { rows, ..Batch::default() };
        Ok(self.settle_batch(lane, batch, purpose).await?.row_outcomes)
    }

    async fn settle_refunds(&self, page: TaskPage) -> Result<RefundsSettled, StoreError> {
        if self.is_apart() {
            return Err(apart());
        }
        let places = task_refunds::places(&self.readers, &self.context.names, &page).await?;
        if places.is_empty() {
            return Ok(RefundsSettled::default());
        }
        let settled = self
            .write(move |connection, context| {
                let places = places.clone();
                Box::pin(async move { task_refunds::settle(connection, context, places).await })
            })
            .await?;
        failpoint::hit("store.task_refunds.committed")?;
        Ok(settled)
    }

    async fn revisit(&self, tokens: Vec<RemoteKeyId>, covered_until_second: Option<i64>) -> Result<u64, StoreError> {
        if self.is_apart() {
            return Err(apart());
        }
        let batch = Batch { revisited: tokens.into_iter().collect(), covered_until_second, ..Batch::default() };
        Ok(self.settle_batch(0, batch, Purpose::Retry).await?.disputed)
    }

    async fn tokens_with_waiting_sides(
        &self,
        after: Option<RemoteKeyId>,
        limit: usize,
    ) -> Result<Vec<RemoteKeyId>, StoreError> {
        coverage::tokens_with_waiting_sides(&self.readers, &self.context.names, after, limit).await
    }

    async fn try_rows(&self, lane: usize, rows: Vec<NumberedRow>, trial: Trial) -> Result<Tried, StoreError> {
        if self.is_apart() {
            return Err(apart());
        }
        let batch = Batch { rows, covered_until_second: trial.covered_until_second, ..Batch::default() };
        let work = Arc::new((batch, trial));
        self.shards[lane % self.shards.len()]
            .transact(move |connection, context| {
                let work = work.clone();
                Box::pin(async move { settle::try_rows(connection, context, &work.0, &work.1).await })
            })
            .await
    }

    async fn oldest_unpaid_row(&self, of: &SourceFilter, token: RemoteKeyId) -> Result<Option<i64>, StoreError> {
        coverage::oldest_unpaid_row(&self.readers, &self.context.names, of, token).await
    }

    async fn forget_unowned(
        &self,
        source: &str,
        from_second: i64,
        until_second: i64,
        token: Option<RemoteKeyId>,
    ) -> Result<(), StoreError> {
        let source: Arc<str> = Arc::from(source);
        self.write(move |connection, context| {
            let source = source.clone();
            Box::pin(async move {
                coverage::forget_unowned(connection, context, &source, from_second, until_second, token).await?;
                Ok::<_, StoreError>(End::Commit(()))
            })
        })
        .await
    }

    async fn spans(&self, of: &SourceFilter) -> Result<Vec<Span>, StoreError> {
        coverage::spans(&self.readers, &self.context.names, of).await
    }

    async fn cover(&self, of: &SourceFilter, span: Span, proved_at: UnixMillis) -> Result<(), StoreError> {
        let of = Arc::new(of.clone());
        self.write(move |connection, context| {
            let of = of.clone();
            Box::pin(async move {
                coverage::cover(connection, context, &of, span, proved_at).await?;
                Ok::<_, StoreError>(End::Commit(()))
            })
        })
        .await
    }

    async fn begin_coverage(&self, of: &SourceFilter, from_second: i64) -> Result<i64, StoreError> {
        let of = Arc::new(of.clone());
        self.write(move |connection, context| {
            let of = of.clone();
            Box::pin(async move {
                let begins = coverage::begin(connection, context, &of, from_second).await?;
                Ok::<_, StoreError>(End::Commit(begins))
            })
        })
        .await
    }

    async fn set_row_aside(&self, row: NumberedRow, reason: String) -> Result<(), StoreError> {
        let aside = Arc::new((row, reason));
        self.write(move |connection, context| {
            let aside = aside.clone();
            Box::pin(async move {
                coverage::set_row_aside(connection, context, &aside.0, &aside.1).await?;
                Ok::<_, StoreError>(End::Commit(()))
            })
        })
        .await
    }

    async fn figures(&self, of: &SourceFilter, from_second: i64, until_second: i64) -> Result<BookFigures, StoreError> {
        coverage::figures(&self.readers, &self.context.names, of, from_second, until_second).await
    }

    async fn event_seconds(&self, from_second: i64, until_second: i64) -> Result<Vec<i64>, StoreError> {
        coverage::event_seconds(&self.readers, &self.context.names, from_second, until_second).await
    }

    async fn row_loss(&self, of: &SourceFilter, from_second: i64, until_second: i64) -> Result<RowLoss, StoreError> {
        coverage::row_loss(&self.readers, &self.context.names, of, from_second, until_second).await
    }

    async fn owned_meanwhile(
        &self,
        of: &SourceFilter,
        grace_secs: i64,
        limit: usize,
    ) -> Result<Vec<(i64, i64)>, StoreError> {
        coverage::owned_meanwhile(&self.readers, &self.context.names, of, grace_secs, limit).await
    }

    async fn reopen(&self, of: &SourceFilter, spans: &[AgreedSpan]) -> Result<(), StoreError> {
        if spans.is_empty() {
            return Ok(());
        }
        let list = Arc::new((of.clone(), parameter(&spans)?));
        self.write(move |connection, context| {
            let list = list.clone();
            Box::pin(async move {
                coverage::reopen(connection, context, &list.0, &list.1).await?;
                Ok::<_, StoreError>(End::Commit(()))
            })
        })
        .await
    }

    async fn take_back(&self, of: &SourceFilter, after_second: i64) -> Result<(), StoreError> {
        let of = Arc::new(of.clone());
        self.write(move |connection, context| {
            let of = of.clone();
            Box::pin(async move {
                coverage::take_back(connection, context, &of, after_second).await?;
                Ok::<_, StoreError>(End::Commit(()))
            })
        })
        .await
    }

    async fn stale_spans(
        &self,
        of: &SourceFilter,
        proved_before: UnixMillis,
        now: UnixMillis,
    ) -> Result<Vec<AgreedSpan>, StoreError> {
        let looks = coverage::Looks(&self.readers, &self.context.names);
        agreed::stale(&looks, &self.checked_spans, of, proved_before, now).await
    }

    async fn agreement(&self, from_second: i64, until_second: i64) -> Result<Agreement, StoreError> {
        source_looks::agreement(&self.readers, &self.context.names, from_second, until_second).await
    }

    async fn newest_row(&self, of: &SourceFilter, until_second: i64) -> Result<Option<KnownRow>, StoreError> {
        source_looks::newest_row(&self.readers, &self.context.names, of, until_second).await
    }

    async fn newest_id(&self, source: &str) -> Result<Option<NewestId>, StoreError> {
        source_looks::newest_id(&self.readers, &self.context.names, source).await
    }

    async fn token_of(&self, key: &str) -> Result<Option<RemoteKeyId>, StoreError> {
        source_looks::token_of(&self.readers, key).await
    }

    async fn note(&self, name: &str) -> Result<Option<String>, StoreError> {
        source_looks::note(&self.readers, &self.context.names, name).await
    }

    async fn set_note(&self, name: &str, value: String) -> Result<(), StoreError> {
        let note = Arc::new((name.to_owned(), value));
        self.write(move |connection, context| {
            let note = note.clone();
            Box::pin(async move {
                source_looks::set_note(connection, context, &note.0, &note.1).await?;
                Ok::<_, StoreError>(End::Commit(()))
            })
        })
        .await
    }

    async fn woken_rows(&self, limit: usize) -> Result<Vec<NumberedRow>, StoreError> {
        coverage::woken_rows(&self.readers, &self.context.names, limit).await
    }
}

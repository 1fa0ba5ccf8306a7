//! The dated lists of rates and of quota per dollar, and the proof that a commit works.

use async_trait::async_trait;
use sqlx::{Connection, SqliteConnection, SqlitePool};

use super::command::Command;
use super::writer::Context;
use super::{SqliteStore, source_looks};
use crate::domain::pricing::PriceBook;
use crate::domain::time::UnixMillis;
use crate::failpoint;
use crate::storage::books::BooksError;
use crate::storage::price_list::{Comparison, HEARD_NOTE, PriceRow, QUOTA, book, compare_lists, price_rows};
use crate::storage::prices::{HoldRow, NewQuotaChange, Prices, PricesView, QuotaChange, change_at};
use crate::storage::{ConfiguredPrices, PriceLook, StoreError};

const LIST: &str = price_rows!();

const LOOK: &str = concat!(
    price_rows!(),
    " UNION ALL SELECT 'quota_heard', 0, CAST(value AS INTEGER) FROM hookledger_meta WHERE name = 'quota_heard_second'"
);

/// Both lists, as of the last commit.
pub async fn read(readers: &SqlitePool) -> Result<PriceBook, StoreError> {
    book(sqlx::query_as(LIST).fetch_all(readers).await?)
}

async fn compare(
    connection: &mut SqliteConnection,
    configured: ConfiguredPrices,
    now: UnixMillis,
) -> Result<Comparison, StoreError> {
    let option = sqlx::query_scalar::<_, String>("SELECT value FROM options WHERE key = 'UsdToCreditsRate'")
        .fetch_optional(&mut *connection)
        .await?;
    let rows = sqlx::query_as::<_, PriceRow>(LOOK).fetch_all(connection).await?;
    compare_lists(option, rows, configured, now)
}

/// Looks without writing; `None` if something has to be stored.
pub async fn look(
    readers: &SqlitePool,
    configured: ConfiguredPrices,
    now: UnixMillis,
) -> Result<Option<PriceLook>, StoreError> {
    let mut connection = readers.acquire().await?;
    let found = compare(&mut connection, configured, now).await?;
    Ok(found.is_settled().then(|| found.told()))
}

// What was to count from later on is overtaken: a clock that was set back left it there.
const OVERTAKE: &str = "DELETE FROM hookledger_prices WHERE kind = ?1 AND from_second > ?2";

// A second change within the same minute replaces the first, which has not begun to count.
const DATE: &str = "INSERT INTO hookledger_prices (kind, from_second, value) VALUES (?1, ?2, ?3) \
     ON CONFLICT (kind, from_second) DO UPDATE SET value = excluded.value";

/// Stores what changed, to count from when the comparison says; the very first values count from the beginning.
pub async fn store(
    connection: &mut SqliteConnection,
    context: &Context,
    configured: ConfiguredPrices,
) -> Result<PriceLook, StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let found = compare(&mut transaction, configured, context.clock.now()).await?;
    for (kind, from_second, value) in found.new_values() {
        sqlx::query(OVERTAKE).bind(kind).bind(from_second).execute(&mut *transaction).await?;
        sqlx::query(DATE).bind(kind).bind(from_second).bind(value).execute(&mut *transaction).await?;
    }
    if let Some((hold, before, after)) = found.new_hold {
        sqlx::query(
            "INSERT INTO hookledger_quota_holds (from_second, until_second, quota_before, quota_after) \
             VALUES (?1, ?2, ?3, ?4) ON CONFLICT (from_second) DO UPDATE SET until_second = excluded.until_second, \
               quota_after = excluded.quota_after, named_second = NULL",
        )
        .bind(hold.from_second)
        .bind(hold.until_second)
        .bind(before.get())
        .bind(after.get())
        .execute(&mut *transaction)
        .await?;
    }
    if let Some(second) = found.heard_second {
        source_looks::set_note(&mut transaction, HEARD_NOTE, &second.to_string()).await?;
    }
    failpoint::hit("store.rates.written")?;
    transaction.commit().await?;
    Ok(found.told())
}

const HOLDS: &str = "SELECT from_second, until_second, quota_before, quota_after, named_second, \
       (SELECT COUNT(*) FROM hookledger_inbox WHERE reason = 'quota_unknown' \
          AND called_at_ms BETWEEN from_second * 1000 AND until_second * 1000 + 999) \
       + (SELECT COUNT(*) FROM hookledger_rows WHERE open_token > 0 AND state = 'held' \
          AND row_second BETWEEN from_second AND until_second), \
       (SELECT COUNT(*) FROM hookledger_claims WHERE call_second BETWEEN from_second AND until_second \
          AND price_units IS NOT NULL AND quota_per_unit = quota_before), \
       (SELECT COALESCE(SUM(credits_moved), 0) FROM hookledger_claims \
          WHERE call_second BETWEEN from_second AND until_second AND price_units IS NOT NULL \
          AND quota_per_unit = quota_before) \
     FROM hookledger_quota_holds ORDER BY from_second";

/// Names the second of a change.
pub async fn name_change(connection: &mut SqliteConnection, change: NewQuotaChange) -> Result<QuotaChange, BooksError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(StoreError::from)?;
    let rows: Vec<HoldRow> = sqlx::query_as(HOLDS).fetch_all(&mut *transaction).await.map_err(StoreError::from)?;
    let mut row = change_at(&rows, change.at_second)?;
    let after = row.3;
    sqlx::query(DATE)
        .bind(QUOTA)
        .bind(change.at_second)
        .bind(after)
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::from)?;
    sqlx::query("UPDATE hookledger_quota_holds SET named_second = ?1 WHERE from_second = ?2")
        .bind(change.at_second)
        .bind(row.0)
        .execute(&mut *transaction)
        .await
        .map_err(StoreError::from)?;
    transaction.commit().await.map_err(StoreError::from)?;
    row.4 = Some(change.at_second);
    Ok(QuotaChange::of(row))
}

#[async_trait]
impl Prices for SqliteStore {
    async fn prices(&self) -> Result<PricesView, BooksError> {
        let prices = sqlx::query_as("SELECT kind, from_second, value FROM hookledger_prices").fetch_all(&self.readers);
        let prices = prices.await.map_err(StoreError::from)?;
        let holds = sqlx::query_as(HOLDS).fetch_all(&self.readers).await.map_err(StoreError::from)?;
        Ok(PricesView::of(prices, holds))
    }

    async fn name_quota_change(&self, change: NewQuotaChange) -> Result<QuotaChange, BooksError> {
        self.write(|reply| Command::NameQuotaChange(change, reply)).await
    }
}

/// A commit of a single small row.
pub async fn probe(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO hookledger_meta (name, value) VALUES ('probe', '1') \
         ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + 1",
    )
    .execute(connection)
    .await?;
    Ok(())
}

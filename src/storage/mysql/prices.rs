//! The dated lists of rates and of quota per dollar, and the proof that a commit works.

use async_trait::async_trait;
use sqlx::{MySqlConnection, MySqlPool};

use super::context::{Context, Names};
use super::shard::End;
use super::{MysqlStore, locked_out, source_looks};
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
    " UNION ALL SELECT 'quota_heard', 0, CAST(value AS SIGNED) FROM hookledger_meta WHERE name = 'quota_heard_second'"
);

/// Both lists.
pub async fn read(connection: &mut MySqlConnection, context: &Context) -> Result<PriceBook, StoreError> {
    book(sqlx::query_as(context.sql(LIST)).fetch_all(connection).await?)
}

/// Both lists, as of the last commit.
pub async fn read_committed(readers: &MySqlPool, names: &Names) -> Result<PriceBook, StoreError> {
    book(sqlx::query_as(names.sql(LIST)).fetch_all(readers).await?)
}

async fn compare(
    connection: &mut MySqlConnection,
    names: &Names,
    configured: ConfiguredPrices,
    now: UnixMillis,
) -> Result<Comparison, StoreError> {
    let option = sqlx::query_scalar::<_, String>("SELECT value FROM options WHERE `key` = 'UsdToCreditsRate'")
        .fetch_optional(&mut *connection)
        .await?;
    let rows = sqlx::query_as::<_, PriceRow>(names.sql(LOOK)).fetch_all(connection).await?;
    compare_lists(option, rows, configured, now)
}

/// Looks without writing; `None` if something has to be stored.
pub async fn look(
    readers: &MySqlPool,
    names: &Names,
    configured: ConfiguredPrices,
    now: UnixMillis,
) -> Result<Option<PriceLook>, StoreError> {
    let mut connection = readers.acquire().await?;
    let found = compare(&mut connection, names, configured, now).await?;
    Ok(found.is_settled().then(|| found.told()))
}

// What was to count from later on is overtaken: a clock that was set back left it there.
const OVERTAKE: &str = "DELETE FROM hookledger_prices WHERE kind = ? AND from_second > ?";

// A second change within the same minute replaces the first, which has not begun to count.
const DATE: &str = "INSERT INTO hookledger_prices (kind, from_second, value) VALUES (?, ?, ?) \
     ON DUPLICATE KEY UPDATE value = VALUES(value)";

/// One row to wait at: two programs must not store the same change at two instants.
async fn wait_for_others(connection: &mut MySqlConnection, context: &Context) -> Result<(), StoreError> {
    sqlx::query(context.sql(
        "INSERT INTO hookledger_meta (name, value) VALUES ('prices_touched', '1') \
         ON DUPLICATE KEY UPDATE value = value + 1",
    ))
    .execute(connection)
    .await?;
    Ok(())
}

/// Stores what changed, to count from when the comparison says; the very first values count from the beginning.
pub async fn store(
    connection: &mut MySqlConnection,
    context: &Context,
    configured: ConfiguredPrices,
) -> Result<End<PriceLook>, StoreError> {
    wait_for_others(connection, context).await?;
    let found = compare(connection, &context.names, configured, context.clock.now()).await?;
    for (kind, from_second, value) in found.new_values() {
        sqlx::query(context.sql(OVERTAKE)).bind(kind).bind(from_second).execute(&mut *connection).await?;
        sqlx::query(context.sql(DATE)).bind(kind).bind(from_second).bind(value).execute(&mut *connection).await?;
    }
    if let Some((hold, before, after)) = found.new_hold {
        sqlx::query(context.sql(
            "INSERT INTO hookledger_quota_holds (from_second, until_second, quota_before, quota_after) \
             VALUES (?, ?, ?, ?) ON DUPLICATE KEY UPDATE until_second = VALUES(until_second), \
               quota_after = VALUES(quota_after), named_second = NULL",
        ))
        .bind(hold.from_second)
        .bind(hold.until_second)
        .bind(before.get())
        .bind(after.get())
        .execute(&mut *connection)
        .await?;
    }
    if let Some(second) = found.heard_second {
        source_looks::set_note(connection, context, HEARD_NOTE, &second.to_string()).await?;
    }
    failpoint::hit("store.rates.written")?;
    Ok(End::Commit(found.told()))
}

const HOLDS: &str = "SELECT from_second, until_second, quota_before, quota_after, named_second, \
       (SELECT COUNT(*) FROM hookledger_inbox AS i WHERE i.reason = 'quota_unknown' \
          AND i.called_at_ms BETWEEN h.from_second * 1000 AND h.until_second * 1000 + 999) \
       + (SELECT COUNT(*) FROM hookledger_rows AS r WHERE r.open_token > 0 AND r.state = 'held' \
          AND r.row_second BETWEEN h.from_second AND h.until_second), \
       (SELECT COUNT(*) FROM hookledger_claims AS c WHERE c.call_second BETWEEN h.from_second AND h.until_second \
          AND c.price_units IS NOT NULL AND c.quota_per_unit = h.quota_before), \
       CAST((SELECT COALESCE(SUM(c.credits_moved), 0) FROM hookledger_claims AS c \
          WHERE c.call_second BETWEEN h.from_second AND h.until_second AND c.price_units IS NOT NULL \
          AND c.quota_per_unit = h.quota_before) AS SIGNED) \
     FROM hookledger_quota_holds AS h ORDER BY h.from_second";

/// Names the second of a change.
async fn name_change(
    connection: &mut MySqlConnection,
    context: &Context,
    change: NewQuotaChange,
) -> Result<End<QuotaChange>, BooksError> {
    wait_for_others(connection, context).await?;
    let rows: Vec<HoldRow> =
        sqlx::query_as(context.sql(HOLDS)).fetch_all(&mut *connection).await.map_err(StoreError::from)?;
    let mut row = change_at(&rows, change.at_second)?;
    let date = sqlx::query(context.sql(DATE)).bind(QUOTA).bind(change.at_second).bind(row.3);
    date.execute(&mut *connection).await.map_err(StoreError::from)?;
    sqlx::query(context.sql("UPDATE hookledger_quota_holds SET named_second = ? WHERE from_second = ?"))
        .bind(change.at_second)
        .bind(row.0)
        .execute(connection)
        .await
        .map_err(StoreError::from)?;
    row.4 = Some(change.at_second);
    Ok(End::Commit(QuotaChange::of(row)))
}

#[async_trait]
impl Prices for MysqlStore {
    async fn prices(&self) -> Result<PricesView, BooksError> {
        let names = &self.context.names;
        let list = names.sql("SELECT kind, from_second, value FROM hookledger_prices");
        let prices = sqlx::query_as(list).fetch_all(&self.readers).await.map_err(StoreError::from)?;
        let holds = sqlx::query_as(names.sql(HOLDS)).fetch_all(&self.readers).await.map_err(StoreError::from)?;
        Ok(PricesView::of(prices, holds))
    }

    async fn name_quota_change(&self, change: NewQuotaChange) -> Result<QuotaChange, BooksError> {
        self.write(move |connection, context| Box::pin(name_change(connection, context, change))).await
    }
}

/// A commit of a single small row, where the platform's tables can be written as well.
pub async fn probe(connection: &mut MySqlConnection, context: &Context) -> Result<End<()>, StoreError> {
    locked_out::look(connection).await?;
    sqlx::query(context.sql(
        "INSERT INTO hookledger_meta (name, value) VALUES ('probe', '1') ON DUPLICATE KEY UPDATE value = value + 1",
    ))
    .execute(connection)
    .await?;
    Ok(End::Commit(()))
}

//! The dated lists of rates and of quota per dollar, and the proof that a commit works.

use sqlx::{Connection, SqliteConnection, SqlitePool};

use super::writer::Context;
use crate::domain::pricing::PriceBook;
use crate::domain::time::UnixMillis;
use crate::failpoint;
use crate::storage::price_list::{Comparison, PriceRow, book, compare_lists};
use crate::storage::{ConfiguredPrices, PriceLook, StoreError};

/// Both lists, as of the last commit.
pub async fn read(readers: &SqlitePool) -> Result<PriceBook, StoreError> {
    let rows = sqlx::query_as("SELECT kind, from_second, value FROM hookledger_prices").fetch_all(readers).await?;
    book(rows)
}

async fn compare(
    connection: &mut SqliteConnection,
    configured: ConfiguredPrices,
    now: UnixMillis,
) -> Result<Comparison, StoreError> {
    let option = sqlx::query_scalar::<_, String>("SELECT value FROM options WHERE key = 'UsdToCreditsRate'")
        .fetch_optional(&mut *connection)
        .await?;
    let rows = sqlx::query_as::<_, PriceRow>("SELECT kind, from_second, value FROM hookledger_prices")
        .fetch_all(connection)
        .await?;
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
    Ok(found.is_settled().then_some(PriceLook {
        changed_from_second: None,
        quota_change: None,
        invalid_rate: found.invalid_rate,
    }))
}

/// Stores what changed, to count from the next whole minute; the very first values count from the beginning.
pub async fn store(
    connection: &mut SqliteConnection,
    context: &Context,
    configured: ConfiguredPrices,
) -> Result<PriceLook, StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let found = compare(&mut transaction, configured, context.clock.now()).await?;
    let from_second = found.from_second;
    let new = found.new_values();
    let mut changed_from_second = None;
    for (kind, value) in new.into_iter().filter_map(|(kind, value)| Some((kind, value?))) {
        // What was to count from later on is overtaken: a clock that was set back left it there.
        sqlx::query("DELETE FROM hookledger_prices WHERE kind = ?1 AND from_second > ?2")
            .bind(kind)
            .bind(from_second)
            .execute(&mut *transaction)
            .await?;
        // A second change within the same minute replaces the first, which has not begun to count.
        sqlx::query(
            "INSERT INTO hookledger_prices (kind, from_second, value) VALUES (?1, ?2, ?3) \
             ON CONFLICT (kind, from_second) DO UPDATE SET value = excluded.value",
        )
        .bind(kind)
        .bind(from_second)
        .bind(value)
        .execute(&mut *transaction)
        .await?;
        changed_from_second = Some(from_second);
    }
    failpoint::hit("store.rates.written")?;
    transaction.commit().await?;
    Ok(PriceLook { changed_from_second, quota_change: found.quota_change(), invalid_rate: found.invalid_rate })
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

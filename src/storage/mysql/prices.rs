//! The dated lists of rates and of quota per dollar, and the proof that a commit works.

use sqlx::{MySqlConnection, MySqlPool};

use super::context::{Context, Names};
use super::locked_out;
use super::shard::End;
use crate::domain::pricing::PriceBook;
use crate::domain::time::UnixMillis;
use crate::failpoint;
use crate::storage::price_list::{Comparison, PriceRow, book, compare_lists};
use crate::storage::{ConfiguredPrices, PriceLook, StoreError};

const LIST: &str = "SELECT kind, from_second, value FROM hookledger_prices";

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
    let rows = sqlx::query_as::<_, PriceRow>(names.sql(LIST)).fetch_all(connection).await?;
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
    Ok(found.is_settled().then_some(PriceLook {
        changed_from_second: None,
        quota_change: None,
        invalid_rate: found.invalid_rate,
    }))
}

/// Stores what changed, to count from the next whole minute; the very first values count from the beginning.
pub async fn store(
    connection: &mut MySqlConnection,
    context: &Context,
    configured: ConfiguredPrices,
) -> Result<End<PriceLook>, StoreError> {
    // One row to wait at: two programs must not store the same change at two instants.
    sqlx::query(context.sql(
        "INSERT INTO hookledger_meta (name, value) VALUES ('prices_touched', '1') \
         ON DUPLICATE KEY UPDATE value = value + 1",
    ))
    .execute(&mut *connection)
    .await?;
    let found = compare(connection, &context.names, configured, context.clock.now()).await?;
    let from_second = found.from_second;
    let mut changed_from_second = None;
    for (kind, value) in found.new_values().into_iter().filter_map(|(kind, value)| Some((kind, value?))) {
        // What was to count from later on is overtaken: a clock that was set back left it there.
        sqlx::query(context.sql("DELETE FROM hookledger_prices WHERE kind = ? AND from_second > ?"))
            .bind(kind)
            .bind(from_second)
            .execute(&mut *connection)
            .await?;
        // A second change within the same minute replaces the first, which has not begun to count.
        sqlx::query(context.sql(
            "INSERT INTO hookledger_prices (kind, from_second, value) VALUES (?, ?, ?) \
             ON DUPLICATE KEY UPDATE value = VALUES(value)",
        ))
        .bind(kind)
        .bind(from_second)
        .bind(value)
        .execute(&mut *connection)
        .await?;
        changed_from_second = Some(from_second);
    }
    failpoint::hit("store.rates.written")?;
    let quota_change = found.quota_change();
    Ok(End::Commit(PriceLook { changed_from_second, quota_change, invalid_rate: found.invalid_rate }))
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

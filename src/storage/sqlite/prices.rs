//! The dated lists of rates and of quota per dollar, and the proof that a commit works.

use sqlx::{Connection, SqliteConnection, SqlitePool};

use super::writer::Context;
use crate::domain::money::{QuotaPerUnit, Rate};
use crate::domain::pricing::{Dated, PriceBook, effective_second};
use crate::domain::time::UnixMillis;
use crate::failpoint;
use crate::storage::{ConfiguredPrices, PriceLook, StoreError};

const RATE: &str = "usd_to_credits_micros";
const QUOTA: &str = "quota_per_unit";

/// Kind, second from which it counts, value: a row of `hookledger_prices`.
pub type PriceRow = (String, i64, i64);

type Lists = (Vec<Dated<Rate>>, Vec<Dated<QuotaPerUnit>>);

/// Both lists, from their rows.
pub fn book(rows: Vec<PriceRow>) -> Result<PriceBook, StoreError> {
    let (rates, quotas) = lists(rows)?;
    PriceBook::new(rates, quotas).ok_or(StoreError::NoPrices)
}

/// Both lists, as of the last commit.
pub async fn read(readers: &SqlitePool) -> Result<PriceBook, StoreError> {
    let rows = sqlx::query_as("SELECT kind, from_second, value FROM hookledger_prices").fetch_all(readers).await?;
    book(rows)
}

/// In the order of their seconds.
fn lists(mut rows: Vec<PriceRow>) -> Result<Lists, StoreError> {
    rows.sort_by_key(|(_, from_second, _)| *from_second);
    let (mut rates, mut quotas) = (Vec::new(), Vec::new());
    for (kind, from_second, value) in rows {
        // Without prices nothing can be booked: this is no single event's fault.
        let odd = || StoreError::Unavailable(format!("hookledger_prices holds {value}: was it changed by hand?"));
        if kind == RATE {
            rates.push(Dated { from_second, value: Rate::from_micros(value).ok_or_else(odd)? });
        } else {
            quotas.push(Dated { from_second, value: QuotaPerUnit::new(value).ok_or_else(odd)? });
        }
    }
    Ok((rates, quotas))
}

/// What holds now and what is to hold.
struct Comparison {
    new_rate: Option<Rate>,
    new_quota: Option<QuotaPerUnit>,
    /// The second from which a new value counts.
    from_second: i64,
    invalid_rate: Option<String>,
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
    let (rates, quotas) = lists(rows)?;
    let from_second = if rates.is_empty() || quotas.is_empty() { 0 } else { effective_second(now) };
    let (last_rate, last_quota) = (value_from(&rates, from_second), value_from(&quotas, from_second));
    let (wanted_rate, invalid_rate) = match option {
        None => (configured.usd_to_credits, None),
        Some(text) => match Rate::parse(&text) {
            Ok(rate) => (rate, None),
            // The last good one holds.
            Err(_) => (last_rate.unwrap_or(configured.usd_to_credits), Some(text)),
        },
    };
    Ok(Comparison {
        new_rate: (last_rate != Some(wanted_rate)).then_some(wanted_rate),
        new_quota: (last_quota != Some(configured.quota_per_unit)).then_some(configured.quota_per_unit),
        from_second,
        invalid_rate,
    })
}

/// The value that will hold at that second as the list stands.
fn value_from<T: Copy>(list: &[Dated<T>], second: i64) -> Option<T> {
    list.iter().rev().find(|entry| entry.from_second <= second).or(list.first()).map(|entry| entry.value)
}

/// Looks without writing; `None` if something has to be stored.
pub async fn look(
    readers: &SqlitePool,
    configured: ConfiguredPrices,
    now: UnixMillis,
) -> Result<Option<PriceLook>, StoreError> {
    let mut connection = readers.acquire().await?;
    let found = compare(&mut connection, configured, now).await?;
    let is_settled = found.new_rate.is_none() && found.new_quota.is_none();
    Ok(is_settled.then_some(PriceLook { changed_from_second: None, invalid_rate: found.invalid_rate }))
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
    let new = [(RATE, found.new_rate.map(Rate::micros)), (QUOTA, found.new_quota.map(QuotaPerUnit::get))];
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
    Ok(PriceLook { changed_from_second, invalid_rate: found.invalid_rate })
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

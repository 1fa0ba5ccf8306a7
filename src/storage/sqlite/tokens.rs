//! Tokens that no key has: looks at them, what waits for them, and which of them are ignored; and who owned a token.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use sqlx::{Connection, SqliteConnection, SqlitePool};

use super::snapshot;
use super::writer::Context;
use super::{prices, write};
use crate::domain::ids::RemoteKeyId;
use crate::domain::outcome::Failure;
use crate::domain::ownership::Owner;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::books::{BooksError, Ignored, NewIgnore, UnmatchedToken};
use crate::storage::parked::{self, Parked};
use crate::storage::rows::parameter as json;

/// Changes that one look takes up; more come with the next.
const MAX_CHANGES: i64 = 1000;

/// What a look saw that has to be written down.
#[derive(Debug, Default)]
pub struct Seen {
    /// When the look began: no key that it did not see was there before.
    pub at: UnixMillis,
    /// Open tokens that have a key now.
    found: Vec<i64>,
    /// Tokens whose owner is not the one that was seen last.
    moved: Vec<i64>,
}

const FOUND_SQL: &str = "SELECT t.remote_key_id FROM hookledger_unknown_tokens AS t WHERE t.is_open = 1 AND EXISTS \
       (SELECT 1 FROM api_keys AS k WHERE k.remoteKeyId = CAST(t.remote_key_id AS TEXT)) LIMIT ?1";

const MOVED_SQL: &str = "SELECT l.remote_key_id FROM \
       (SELECT remote_key_id, user_id, MAX(from_ms) FROM hookledger_token_owners GROUP BY remote_key_id) AS l \
     JOIN api_keys AS k ON k.remoteKeyId = CAST(l.remote_key_id AS TEXT) \
     GROUP BY l.remote_key_id HAVING COUNT(DISTINCT k.userId) = 1 AND MIN(k.userId) <> l.user_id LIMIT ?1";

/// Looks without writing, so that a look over many tokens holds up nobody.
pub async fn see(readers: &SqlitePool, now: UnixMillis) -> Result<Seen, StoreError> {
    let found = sqlx::query_scalar(FOUND_SQL).bind(MAX_CHANGES).fetch_all(readers).await?;
    let moved = sqlx::query_scalar(MOVED_SQL).bind(MAX_CHANGES).fetch_all(readers).await?;
    Ok(Seen { at: now, found, moved })
}

/// Writes down what a look saw: nearly always that nothing has changed until then.
pub async fn note(connection: &mut SqliteConnection, context: &Context, seen: &Seen) -> Result<(), StoreError> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    if !seen.found.is_empty() {
        // They had none at the look before this one.
        sqlx::query(
            "UPDATE hookledger_unknown_tokens SET is_open = 0, last_look_ms = max(last_look_ms, COALESCE( \
               (SELECT CAST(value AS INTEGER) FROM hookledger_meta WHERE name = 'tokens_looked_at_ms'), 0)) \
             WHERE is_open = 1 AND remote_key_id IN (SELECT value FROM jsonb_each(?1))",
        )
        .bind(json(&seen.found)?)
        .execute(&mut *transaction)
        .await?;
    }
    if !seen.moved.is_empty() {
        note_owners(&mut transaction, &seen.moved, context.clock.now()).await?;
    }
    sqlx::query(
        "INSERT INTO hookledger_meta (name, value) VALUES ('tokens_looked_at_ms', ?1) \
         ON CONFLICT (name) DO UPDATE SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))",
    )
    .bind(seen.at.as_millis())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(())
}

async fn note_owners(connection: &mut SqliteConnection, tokens: &[i64], now: UnixMillis) -> Result<(), StoreError> {
    let tokens: Vec<RemoteKeyId> = tokens.iter().copied().filter_map(RemoteKeyId::new).collect();
    let (owners, histories) = snapshot::ownership(&mut *connection, &tokens).await?;
    let mut changes = BTreeMap::new();
    for token in tokens {
        let history = histories.get(&token).cloned().unwrap_or_default();
        if let Some(Owner::One(holder)) = owners.get(&token)
            && let Some(from) = history.change_to(holder, now)
        {
            changes.insert(token, (from, holder.clone()));
        }
    }
    write::owners(connection, &changes).await
}

/// Ignores a token, or ends that; and closes one page of the events that wait for its key.
pub async fn ignore(
    connection: &mut SqliteConnection,
    context: &Context,
    ignore: &NewIgnore,
) -> Result<Ignored, BooksError> {
    let token = RemoteKeyId::new(ignore.remote_id)
        .filter(|id| !id.is_nobody())
        .ok_or_else(|| BooksError::Invalid("the remote id must be above 0: new-api's token id".to_owned()))?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    if ignore.undo {
        sqlx::query("DELETE FROM hookledger_ignored_tokens WHERE remote_key_id = ?1")
            .bind(token.get())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        return Ok(Ignored { remote_id: token.get(), is_ignored: false, closed_events: 0 });
    }
    let key = sqlx::query_scalar::<_, String>("SELECT id FROM api_keys WHERE remoteKeyId = ?1 LIMIT 1")
        .bind(token.to_string())
        .fetch_optional(&mut *transaction)
        .await?;
    if let Some(key) = key {
        let message = format!("remote id {token} is the key {key}: its calls are charged, and cannot be ignored");
        return Err(BooksError::Invalid(message));
    }
    let now = context.clock.now();
    sqlx::query(
        "INSERT INTO hookledger_ignored_tokens (remote_key_id, ignored_at_ms) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
    )
    .bind(token.get())
    .bind(now.as_millis())
    .execute(&mut *transaction)
    .await?;
    let waiting: Vec<String> = sqlx::query_scalar(
        "SELECT inbox_id FROM hookledger_inbox WHERE reason IN ('unknown_key', 'beyond_grace') \
           AND remote_key_id = ?1 LIMIT ?2",
    )
    .bind(token.get())
    .bind(parked::CLOSED_PAGE)
    .fetch_all(&mut *transaction)
    .await?;
    if !waiting.is_empty() {
        sqlx::query(
            "UPDATE webhook_logs SET status = 'processed', errorMsg = ?2, processedAt = ?3 \
             WHERE id IN (SELECT value FROM jsonb_each(?1)); \
             DELETE FROM hookledger_inbox WHERE inbox_id IN (SELECT value FROM jsonb_each(?1))",
        )
        .bind(json(&waiting)?)
        .bind(Failure::IgnoredKey(token).message())
        .bind(now.to_column())
        .bind(json(&waiting)?)
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    Ok(Ignored { remote_id: token.get(), is_ignored: true, closed_events: waiting.len() as u64 })
}

/// The ignored tokens, smallest first.
pub async fn ignored(readers: &SqlitePool, limit: u32) -> Result<Vec<Ignored>, StoreError> {
    let tokens = sqlx::query_scalar::<_, i64>(
        "SELECT remote_key_id FROM hookledger_ignored_tokens ORDER BY remote_key_id LIMIT ?1",
    )
    .bind(limit)
    .fetch_all(readers)
    .await?;
    let token = |remote_id| Ignored { remote_id, is_ignored: true, closed_events: 0 };
    Ok(tokens.into_iter().map(token).collect())
}

/// Tokens that no key has and events wait for, most calls first.
///
/// The waiting events are read one after the other, so that many of them fill no memory.
pub async fn unmatched(readers: &SqlitePool, limit: u32) -> Result<Vec<UnmatchedToken>, StoreError> {
    let prices = prices::read(readers).await?;
    let mut rows = sqlx::query_as::<_, (i64, i64, String)>(
        "SELECT i.remote_key_id, i.called_at_ms, CAST(w.payload AS TEXT) FROM hookledger_inbox AS i \
         CROSS JOIN webhook_logs AS w ON w.id = i.inbox_id WHERE i.reason = 'unknown_key' AND i.remote_key_id > 0",
    )
    .fetch(readers);
    let mut tokens: BTreeMap<i64, Parked> = BTreeMap::new();
    while let Some((token, called_at_ms, payload)) = rows.try_next().await? {
        tokens.entry(token).or_default().add(UnixMillis::new(called_at_ms), &payload, &prices);
    }
    Ok(parked::most_calls_first(tokens, limit, ""))
}

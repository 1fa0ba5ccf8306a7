//! Tokens that no key has: looks at them, what waits for them, and which of them are ignored; and who owned a token.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use sqlx::{MySqlConnection, MySqlPool};

use super::context::{Context, Names};
use super::shard::End;
use super::{prices, snapshot, write};
use crate::domain::ids::RemoteKeyId;
use crate::domain::outcome::Failure;
use crate::domain::ownership::Owner;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::books::{BooksError, Ignored, NewIgnore, UnmatchedToken};
use crate::storage::parked::{self, Parked};
use crate::storage::rows::parameter;

/// Changes that one look takes up; more come with the next.
const MAX_CHANGES: i64 = 1000;

/// What a look saw that has to be written down.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// When the look began: no key that it did not see was there before.
    at: UnixMillis,
    /// Open tokens that have a key now.
    found: Vec<i64>,
    /// Tokens whose owner is not the one that was seen last.
    moved: Vec<i64>,
}

const FOUND: &str = "SELECT t.remote_key_id FROM hookledger_unknown_tokens AS t WHERE t.is_open = 1 AND EXISTS \
       (SELECT 1 FROM api_keys AS k WHERE k.remoteKeyId = CAST(t.remote_key_id AS CHAR) COLLATE {collation}) LIMIT ?";

const MOVED: &str = "SELECT l.remote_key_id FROM hookledger_token_owners AS l \
     JOIN api_keys AS k ON k.remoteKeyId = CAST(l.remote_key_id AS CHAR) COLLATE {collation} \
     WHERE l.from_ms = (SELECT MAX(n.from_ms) FROM hookledger_token_owners AS n WHERE n.remote_key_id = l.remote_key_id) \
     GROUP BY l.remote_key_id, l.user_id \
     HAVING COUNT(DISTINCT k.userId) = 1 AND MIN(k.userId) COLLATE utf8mb4_bin <> l.user_id LIMIT ?";

/// Looks without writing, so that a look over many tokens holds up nobody.
pub async fn see(readers: &MySqlPool, names: &Names, now: UnixMillis) -> Result<Seen, StoreError> {
    let found = sqlx::query_scalar(names.sql(FOUND)).bind(MAX_CHANGES).fetch_all(readers).await?;
    let moved = sqlx::query_scalar(names.sql(MOVED)).bind(MAX_CHANGES).fetch_all(readers).await?;
    Ok(Seen { at: now, found, moved })
}

/// Writes down what a look saw: nearly always that nothing has changed until then.
pub async fn note(connection: &mut MySqlConnection, context: &Context, seen: &Seen) -> Result<End<()>, StoreError> {
    if !seen.found.is_empty() {
        // They had none at the look before this one.
        sqlx::query(context.sql(
            "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (v BIGINT PATH '$')) AS e \
             STRAIGHT_JOIN hookledger_unknown_tokens AS t FORCE INDEX (PRIMARY) ON t.remote_key_id = e.v SET t.is_open = 0, t.last_look_ms = GREATEST(t.last_look_ms, COALESCE( \
               (SELECT CAST(value AS SIGNED) FROM hookledger_meta WHERE name = 'tokens_looked_at_ms'), 0)) \
             WHERE t.is_open = 1",
        ))
        .bind(parameter(&seen.found)?)
        .execute(&mut *connection)
        .await?;
    }
    if !seen.moved.is_empty() {
        note_owners(connection, context, &seen.moved, context.clock.now()).await?;
    }
    sqlx::query(context.sql(
        "INSERT INTO hookledger_meta (name, value) VALUES ('tokens_looked_at_ms', ?) ON DUPLICATE KEY UPDATE \
           value = GREATEST(CAST(value AS SIGNED), CAST(VALUES(value) AS SIGNED))",
    ))
    .bind(seen.at.as_millis().to_string())
    .execute(connection)
    .await?;
    Ok(End::Commit(()))
}

async fn note_owners(
    connection: &mut MySqlConnection,
    context: &Context,
    tokens: &[i64],
    now: UnixMillis,
) -> Result<(), StoreError> {
    let tokens: Vec<RemoteKeyId> = tokens.iter().copied().filter_map(RemoteKeyId::new).collect();
    let (owners, histories) = snapshot::ownership(connection, context, &tokens).await?;
    let mut changes = BTreeMap::new();
    for token in tokens {
        let history = histories.get(&token).cloned().unwrap_or_default();
        if let Some(Owner::One(holder)) = owners.get(&token)
            && let Some(from) = history.change_to(holder, now)
        {
            changes.insert(token, (from, holder.clone()));
        }
    }
    write::owners(connection, context, &changes).await
}

/// Ignores a token, or ends that; and closes one page of the events that wait for its key.
pub async fn ignore(
    connection: &mut MySqlConnection,
    context: &Context,
    ignore: &NewIgnore,
) -> Result<End<Ignored>, BooksError> {
    let token = RemoteKeyId::new(ignore.remote_id)
        .filter(|id| !id.is_nobody())
        .ok_or_else(|| BooksError::Invalid("the remote id must be above 0: new-api's token id".to_owned()))?;
    if ignore.undo {
        sqlx::query(context.sql("DELETE FROM hookledger_ignored_tokens WHERE remote_key_id = ?"))
            .bind(token.get())
            .execute(connection)
            .await?;
        return Ok(End::Commit(Ignored { remote_id: token.get(), is_ignored: false, closed_events: 0 }));
    }
    let keys: Vec<(String, String)> = sqlx::query_as("SELECT id, remoteKeyId FROM api_keys WHERE remoteKeyId = ?")
        .bind(token.to_string())
        .fetch_all(&mut *connection)
        .await?;
    // The column's collation takes more for equal than is.
    if let Some((key, _)) = keys.into_iter().find(|(_, remote_id)| *remote_id == token.to_string()) {
        let message = format!("remote id {token} is the key {key}: its calls are charged, and cannot be ignored");
        return Err(BooksError::Invalid(message));
    }
    let now = context.clock.now();
    sqlx::query(
        context.sql("INSERT IGNORE INTO hookledger_ignored_tokens (remote_key_id, ignored_at_ms) VALUES (?, ?)"),
    )
    .bind(token.get())
    .bind(now.as_millis())
    .execute(&mut *connection)
    .await?;
    let waiting: Vec<String> = sqlx::query_scalar(context.sql(
        "SELECT inbox_id FROM hookledger_inbox WHERE reason IN ('unknown_key', 'beyond_grace') AND remote_key_id = ? \
         LIMIT ? FOR UPDATE",
    ))
    .bind(token.get())
    .bind(parked::CLOSED_PAGE)
    .fetch_all(&mut *connection)
    .await?;
    let ids = parameter(&waiting)?;
    sqlx::query(context.sql(
        "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$')) AS e \
         STRAIGHT_JOIN webhook_logs AS w FORCE INDEX (PRIMARY) ON w.id = e.v COLLATE {collation} SET w.status = 'processed', w.errorMsg = ?, w.processedAt = ?",
    ))
    .bind(&ids)
    .bind(Failure::IgnoredKey(token).message())
    .bind(now.to_column())
    .execute(&mut *connection)
    .await?;
    write::each(connection, context, write::UNCLAIMED_LOGS, &[], ids.clone(), &[]).await?;
    sqlx::query(context.sql(
        "DELETE i FROM JSON_TABLE(?, '$[*]' COLUMNS (v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$')) AS e \
         STRAIGHT_JOIN hookledger_inbox AS i FORCE INDEX (PRIMARY) ON i.inbox_id = e.v COLLATE utf8mb4_bin",
    ))
    .bind(&ids)
    .execute(connection)
    .await?;
    Ok(End::Commit(Ignored { remote_id: token.get(), is_ignored: true, closed_events: waiting.len() as u64 }))
}

/// The ignored tokens, smallest first.
pub async fn ignored(readers: &MySqlPool, names: &Names, limit: u32) -> Result<Vec<Ignored>, StoreError> {
    let sql = names.sql("SELECT remote_key_id FROM hookledger_ignored_tokens ORDER BY remote_key_id LIMIT ?");
    let tokens = sqlx::query_scalar::<_, i64>(sql).bind(limit).fetch_all(readers).await?;
    let token = |remote_id| Ignored { remote_id, is_ignored: true, closed_events: 0 };
    Ok(tokens.into_iter().map(token).collect())
}

/// Tokens that no key has and events wait for, most calls first.
///
/// The waiting events are read one after the other, so that many of them fill no memory.
pub async fn unmatched(readers: &MySqlPool, names: &Names, limit: u32) -> Result<Vec<UnmatchedToken>, StoreError> {
    let prices = prices::read_committed(readers, names).await?;
    let sql = names.sql(
        "SELECT i.remote_key_id, i.called_at_ms, w.payload FROM hookledger_inbox AS i \
         STRAIGHT_JOIN webhook_logs AS w ON w.id = i.inbox_id COLLATE {collation} \
         WHERE i.reason = 'unknown_key' AND i.remote_key_id > 0",
    );
    let mut rows = sqlx::query_as::<_, (i64, i64, String)>(sql).fetch(readers);
    let mut tokens: BTreeMap<i64, Parked> = BTreeMap::new();
    while let Some((token, called_at_ms, payload)) = rows.try_next().await? {
        tokens.entry(token).or_default().add(UnixMillis::new(called_at_ms), &payload, &prices);
    }
    Ok(parked::most_calls_first(tokens, limit, parked::ON_A_PLATFORM))
}

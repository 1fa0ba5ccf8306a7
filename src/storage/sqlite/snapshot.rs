//! Reads, under the write lock, everything that a batch touches: a constant number of statements, whatever its size.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sqlx::SqliteConnection;

use super::error::unreadable;
use super::prices;
use crate::domain::event::UsageEvent;
use crate::domain::ids::{EventId, KeyId, RecordId, RemoteKeyId, UserId};
use crate::domain::known::KnownEvents;
use crate::domain::money::{Credits, Remainder};
use crate::domain::settlement::{Account, NewestTransaction, Owner, Snapshot};
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::stored::{self, ClaimKey, KeyRow, LoggedRow, LoggedRows};

/// Everything that settling `events` depends on.
pub async fn read(connection: &mut SqliteConnection, events: &[Arc<UsageEvent>]) -> Result<Snapshot, StoreError> {
    let ids = events.iter().map(|event| &event.event_id);
    let claim_keys = events.iter().map(|event| stored::claim_key(&event.event_id, &event.content));
    let known = known(&mut *connection, ids, claim_keys).await?;
    let tokens: BTreeSet<RemoteKeyId> = events.iter().map(|event| event.content.remote_key_id).collect();
    let owners = owners(&mut *connection, &tokens).await?;
    let users: BTreeSet<&UserId> = owners
        .values()
        .filter_map(|owner| match owner {
            Owner::One { user_id, .. } => Some(user_id),
            Owner::Several => None,
        })
        .collect();
    let accounts = accounts(&mut *connection, &users).await?;
    let prices = prices::book(&mut *connection).await?;
    Ok(Snapshot { known, owners, accounts, prices })
}

/// What is stored under the given ids, claims included.
pub async fn known<'a>(
    connection: &mut SqliteConnection,
    ids: impl Iterator<Item = &'a EventId>,
    claim_keys: impl Iterator<Item = ClaimKey>,
) -> Result<KnownEvents, StoreError> {
    let ids: BTreeSet<&str> = ids.map(EventId::as_str).collect();
    let rows = sqlx::query_as::<_, (String, String, String, Option<String>, String, bool)>(
        "SELECT w.eventId, w.id, w.status, w.errorMsg, w.payload, i.inbox_id IS NOT NULL \
         FROM json_each(?1) AS e CROSS JOIN webhook_logs AS w ON w.eventId = e.value \
         LEFT JOIN hookledger_inbox AS i ON i.inbox_id = w.id",
    )
    .bind(json(&ids)?)
    .fetch_all(&mut *connection)
    .await?;
    let rows = rows.into_iter().map(|(event_id, inbox_id, status, message, payload, is_open)| {
        Ok(LoggedRow {
            event_id: EventId::parse(&event_id).map_err(|_| unreadable("webhook_logs.eventId", event_id))?,
            inbox_id: RecordId::parse(&inbox_id).map_err(|_| unreadable("webhook_logs.id", inbox_id))?,
            status,
            message,
            payload,
            is_open,
        })
    });
    let rows = LoggedRows::new(rows.collect::<Result<_, StoreError>>()?);
    let wanted: HashSet<ClaimKey> = claim_keys.chain(rows.claim_keys()).collect();
    let claims = claims(connection, &wanted).await?;
    Ok(rows.into_known(&claims))
}

async fn claims(
    connection: &mut SqliteConnection,
    wanted: &HashSet<ClaimKey>,
) -> Result<HashSet<ClaimKey>, StoreError> {
    let pairs: BTreeSet<(i64, &str)> = wanted.iter().map(|(at, id)| (at.as_millis(), id.as_str())).collect();
    if pairs.is_empty() {
        return Ok(HashSet::new());
    }
    let found = sqlx::query_as::<_, (i64, String)>(
        "SELECT c.event_at_ms, c.event_id FROM json_each(?1) AS e CROSS JOIN hookledger_claims AS c \
         ON c.event_at_ms = (e.value ->> 0) AND c.event_id = (e.value ->> 1)",
    )
    .bind(json(&pairs)?)
    .fetch_all(connection)
    .await?;
    let keys = found.into_iter().map(|(at, id)| {
        let event_id = EventId::parse(&id).map_err(|_| unreadable("hookledger_claims.event_id", id))?;
        Ok((UnixMillis::new(at), event_id))
    });
    keys.collect()
}

async fn owners(
    connection: &mut SqliteConnection,
    tokens: &BTreeSet<RemoteKeyId>,
) -> Result<HashMap<RemoteKeyId, Owner>, StoreError> {
    // As text: a number would match `042` as well, and by a scan of the whole table.
    let texts: Vec<String> = tokens.iter().map(RemoteKeyId::to_string).collect();
    let rows = sqlx::query_as::<_, (String, String, String, bool)>(
        "SELECT k.remoteKeyId, k.id, k.userId, k.status = 'ACTIVE' \
         FROM json_each(?1) AS e CROSS JOIN api_keys AS k ON k.remoteKeyId = e.value",
    )
    .bind(json(&texts)?)
    .fetch_all(connection)
    .await?;
    let rows = rows.into_iter().map(|(remote_key_id, key_id, user_id, is_active)| {
        Ok(KeyRow {
            remote_key_id,
            key_id: KeyId::parse(&key_id).map_err(|_| unreadable("api_keys.id", key_id))?,
            user_id: UserId::parse(&user_id).map_err(|_| unreadable("api_keys.userId", user_id))?,
            is_active,
        })
    });
    Ok(stored::owners(rows.collect::<Result<_, StoreError>>()?))
}

type AccountRow = (String, Option<i64>, Option<i64>, Option<i64>, Option<String>, Option<String>);

/// The books of the given users, each with the end of his history.
pub async fn accounts(
    connection: &mut SqliteConnection,
    users: &BTreeSet<&UserId>,
) -> Result<HashMap<UserId, Account>, StoreError> {
    if users.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
    let rows = sqlx::query_as::<_, AccountRow>(
        "SELECT e.value, b.currentCredits, a.remainder_femtos, a.unpaid_credits, t.createdAt, t.id \
         FROM json_each(?1) AS e \
         LEFT JOIN user_credit_balances AS b ON b.userId = e.value \
         LEFT JOIN hookledger_accounts AS a ON a.user_id = e.value \
         LEFT JOIN credit_transactions AS t ON t.id = \
           (SELECT n.id FROM credit_transactions AS n WHERE n.userId = e.value \
            ORDER BY n.createdAt DESC, n.id DESC LIMIT 1)",
    )
    .bind(json(&ids)?)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(account).collect()
}

fn account(row: AccountRow) -> Result<(UserId, Account), StoreError> {
    let (user_id, balance, remainder, unpaid, created_at, transaction_id) = row;
    let user_id = UserId::parse(&user_id).map_err(|_| unreadable("users.id", user_id))?;
    let remainder = match remainder {
        Some(femtos) => {
            Remainder::new(femtos).ok_or_else(|| unreadable("hookledger_accounts.remainder_femtos", femtos))?
        }
        None => Remainder::ZERO,
    };
    let newest_transaction = created_at.map(|created_at| NewestTransaction {
        // Another program's odd date is taken for long ago: it only bounds the next stamp from below.
        created_at: UnixMillis::from_column(&created_at).unwrap_or(UnixMillis::ZERO),
        id: transaction_id.and_then(|id| RecordId::parse(&id).ok()),
    });
    let account = Account {
        balance: balance.map(Credits::new),
        remainder,
        unpaid: Credits::new(unpaid.unwrap_or_default()),
        newest_transaction,
    };
    Ok((user_id, account))
}

/// One parameter for a whole list, so that a statement's text does not depend on the batch's size.
pub fn json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Refused(error.to_string()))
}

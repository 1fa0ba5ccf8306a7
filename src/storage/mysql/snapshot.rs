//! Reads everything that a batch touches, after the locks were taken: a constant number of statements, whatever its size.
//!
//! The order is fixed: our own rows of the tokens, then of the users, are written; then the platform's `users`,
//! `api_keys` and balances are locked, each in the order of its ids, and what another session holds is passed over.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};

use super::context::Context;
use super::prices;
use crate::domain::accounts::{Account, NewestTransaction};
use crate::domain::event::UsageEvent;
use crate::domain::ids::{EventId, KeyId, RecordId, RemoteKeyId, UserId};
use crate::domain::known::KnownEvents;
use crate::domain::money::{Credits, Remainder};
use crate::domain::ownership::{Owner, PastOwner, TokenHistory};
use crate::domain::settlement::Snapshot;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::rows::parameter;
use crate::storage::stored::{self, ClaimKey, KeyRow, LoggedRow, LoggedRows, unreadable};

/// A list of texts as a table with the column `v`.
macro_rules! texts {
    () => {
        "JSON_TABLE(?, '$[*]' COLUMNS (v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$')) AS e"
    };
}

/// A list of numbers as a table with the column `v`.
macro_rules! numbers {
    () => {
        "JSON_TABLE(?, '$[*]' COLUMNS (v BIGINT PATH '$')) AS e"
    };
}

pub(super) use texts;

const TOUCH_TOKENS: &str = concat!(
    "INSERT INTO hookledger_tokens (remote_key_id, touched) SELECT e.v, 1 FROM ",
    numbers!(),
    " WHERE true ON DUPLICATE KEY UPDATE touched = touched + 1"
);

const TOUCH_ACCOUNTS: &str = concat!(
    "INSERT INTO hookledger_accounts (user_id, remainder_femtos, unpaid_credits, touched) SELECT e.v, 0, 0, 1 FROM ",
    texts!(),
    " WHERE true ON DUPLICATE KEY UPDATE touched = touched + 1"
);

const KEYS: &str = concat!(
    "SELECT k.remoteKeyId, k.id, k.userId, k.status = 'ACTIVE', CAST(k.createdAt AS CHAR) FROM ",
    texts!(),
    " STRAIGHT_JOIN api_keys AS k ON k.remoteKeyId = e.v COLLATE {collation}"
);

// Whatever takes locks goes by the primary key: over few rows the server would rather walk, and hold all that it saw.
const LOCK_USERS: &str = concat!(
    "SELECT u.id FROM ",
    texts!(),
    " STRAIGHT_JOIN users AS u FORCE INDEX (PRIMARY) ON u.id = e.v COLLATE {collation} FOR UPDATE SKIP LOCKED"
);

const LOCK_KEYS: &str = concat!(
    "SELECT k.remoteKeyId, k.id, k.userId, k.status = 'ACTIVE', CAST(k.createdAt AS CHAR) FROM ",
    texts!(),
    " STRAIGHT_JOIN api_keys AS k FORCE INDEX (PRIMARY) ON k.id = e.v COLLATE {collation} FOR UPDATE SKIP LOCKED"
);

const LOCK_BALANCES: &str = concat!(
    "SELECT b.userId, b.currentCredits FROM ",
    texts!(),
    " STRAIGHT_JOIN user_credit_balances AS b FORCE INDEX (PRIMARY) ON b.id = e.v COLLATE {collation} FOR UPDATE SKIP LOCKED"
);

const HAVE_BALANCES: &str = concat!(
    "SELECT b.id, b.userId FROM ",
    texts!(),
    " STRAIGHT_JOIN user_credit_balances AS b ON b.userId = e.v COLLATE {collation}"
);

const ACCOUNTS: &str = concat!(
    "SELECT a.user_id, a.remainder_femtos, a.unpaid_credits, CAST(t.createdAt AS CHAR), t.id FROM ",
    texts!(),
    " STRAIGHT_JOIN hookledger_accounts AS a ON a.user_id = e.v COLLATE utf8mb4_bin \
     LEFT JOIN credit_transactions AS t ON t.id = (SELECT n.id FROM credit_transactions AS n \
       WHERE n.userId = e.v COLLATE {collation} ORDER BY n.createdAt DESC, n.id DESC LIMIT 1)"
);

const LOGGED: &str = concat!(
    "SELECT e.v, w.eventId, w.id, w.status, w.errorMsg, w.payload, i.attempts FROM ",
    texts!(),
    " STRAIGHT_JOIN webhook_logs AS w ON w.eventId = e.v COLLATE {collation} \
     LEFT JOIN hookledger_inbox AS i ON i.inbox_id = w.id COLLATE utf8mb4_bin"
);

const CLAIMS: &str = "SELECT c.event_at_ms, CONVERT(c.event_id USING utf8mb4) FROM \
     JSON_TABLE(?, '$[*]' COLUMNS (a BIGINT PATH '$[0]', v VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]')) AS e \
     STRAIGHT_JOIN hookledger_claims AS c ON c.event_at_ms = e.a AND c.event_id = CAST(e.v AS BINARY)";

const UNKNOWN_TOKENS: &str = concat!(
    "SELECT t.remote_key_id, CASE WHEN t.is_open = 1 THEN GREATEST(t.last_look_ms, COALESCE( \
       (SELECT CAST(value AS SIGNED) FROM hookledger_meta WHERE name = 'tokens_looked_at_ms'), 0)) \
       ELSE t.last_look_ms END FROM ",
    numbers!(),
    " STRAIGHT_JOIN hookledger_unknown_tokens AS t ON t.remote_key_id = e.v"
);

const IGNORED_TOKENS: &str = concat!(
    "SELECT t.remote_key_id FROM ",
    numbers!(),
    " STRAIGHT_JOIN hookledger_ignored_tokens AS t ON t.remote_key_id = e.v"
);

const TOKEN_OWNERS: &str = concat!(
    "SELECT o.remote_key_id, o.from_ms, o.user_id, o.key_id, k.id IS NOT NULL FROM ",
    numbers!(),
    " STRAIGHT_JOIN hookledger_token_owners AS o ON o.remote_key_id = e.v \
     LEFT JOIN api_keys AS k ON k.id = o.key_id COLLATE {collation} AND k.userId = o.user_id COLLATE {collation}"
);

const MEMORY: &str = "SELECT CAST(value AS SIGNED) FROM hookledger_meta WHERE name = 'claims_remembered_from_second'";

/// Everything that settling `events` depends on, its locks held.
pub async fn read(
    connection: &mut MySqlConnection,
    context: &Context,
    events: &[Arc<UsageEvent>],
) -> Result<(Snapshot, Taken), StoreError> {
    let tokens: BTreeSet<RemoteKeyId> = events.iter().map(|event| event.content.remote_key_id).collect();
    touch_tokens(connection, context, &tokens).await?;
    let (keys, mut histories) = ownership_rows(connection, context, &tokens).await?;
    let past = histories.values().flat_map(|history| &history.owners).filter(|owner| owner.has_key);
    let mut key_ids: BTreeSet<KeyId> = past.clone().map(|owner| owner.key_id.clone()).collect();
    let mut users: BTreeSet<UserId> = past.map(|owner| owner.user_id.clone()).collect();
    key_ids.extend(keys.iter().map(|key| key.key_id.clone()));
    users.extend(keys.iter().map(|key| key.user_id.clone()));
    let mut locked = lock(connection, context, &users, &key_ids).await?;
    // A key that another session holds is its user's: a usage record would wait for it.
    let busy: Vec<UserId> =
        keys.iter().filter(|key| !locked.keys.contains_key(&key.key_id)).map(|key| key.user_id.clone()).collect();
    locked.busy_users.extend(busy);
    if keys.iter().any(|key| locked.keys.get(&key.key_id).is_some_and(|now| !is_same(now, key))) {
        return Err(StoreError::Contended("a key has changed hands meanwhile".to_owned()));
    }
    let ids = events.iter().map(|event| &event.event_id);
    let claim_keys = events.iter().map(|event| stored::claim_key(&event.event_id, &event.content));
    let (known, taken) = known(connection, context, ids, claim_keys).await?;
    let numbers = token_numbers(&tokens)?;
    for row in sqlx::query(context.sql(UNKNOWN_TOKENS)).bind(&numbers).fetch_all(&mut *connection).await? {
        history(&mut histories, row.try_get(0)?)?.last_unknown_at = Some(UnixMillis::new(row.try_get(1)?));
    }
    for row in sqlx::query(context.sql(IGNORED_TOKENS)).bind(&numbers).fetch_all(&mut *connection).await? {
        history(&mut histories, row.try_get(0)?)?.is_ignored = true;
    }
    let memory: Option<Option<i64>> = sqlx::query_scalar(context.sql(MEMORY)).fetch_optional(&mut *connection).await?;
    let snapshot = Snapshot {
        known,
        owners: stored::owners(keys),
        tokens: histories,
        accounts: locked.accounts,
        busy_users: locked.busy_users,
        prices: prices::read(connection, context).await?,
        memory_from_second: memory.flatten(),
    };
    Ok((snapshot, taken))
}

fn is_same(one: &KeyRow, other: &KeyRow) -> bool {
    one.user_id == other.user_id && one.remote_key_id == other.remote_key_id
}

fn token_numbers(tokens: &BTreeSet<RemoteKeyId>) -> Result<String, StoreError> {
    parameter(&tokens.iter().map(|token| token.get()).collect::<Vec<_>>())
}

async fn touch_tokens(
    connection: &mut MySqlConnection,
    context: &Context,
    tokens: &BTreeSet<RemoteKeyId>,
) -> Result<(), StoreError> {
    sqlx::query(context.sql(TOUCH_TOKENS)).bind(token_numbers(tokens)?).execute(connection).await?;
    Ok(())
}

/// The keys and former owners of some tokens, no locks taken.
async fn ownership_rows(
    connection: &mut MySqlConnection,
    context: &Context,
    tokens: &BTreeSet<RemoteKeyId>,
) -> Result<(Vec<KeyRow>, HashMap<RemoteKeyId, TokenHistory>), StoreError> {
    let texts = parameter(&tokens.iter().map(RemoteKeyId::to_string).collect::<Vec<_>>())?;
    let keys = sqlx::query(context.sql(KEYS)).bind(texts).fetch_all(&mut *connection).await?;
    let keys = keys.iter().map(key_row).collect::<Result<Vec<_>, _>>()?;
    let mut histories = HashMap::new();
    for row in sqlx::query(context.sql(TOKEN_OWNERS)).bind(token_numbers(tokens)?).fetch_all(connection).await? {
        let owner = owner_row(&row)?;
        history(&mut histories, row.try_get(0)?)?.owners.push(owner);
    }
    let histories = histories.into_iter().map(|(token, history)| (token, history.oldest_first()));
    Ok((keys, histories.collect()))
}

/// Whose some tokens are, and whose they were.
pub async fn ownership(
    connection: &mut MySqlConnection,
    context: &Context,
    tokens: &[RemoteKeyId],
) -> Result<(HashMap<RemoteKeyId, Owner>, HashMap<RemoteKeyId, TokenHistory>), StoreError> {
    let tokens: BTreeSet<RemoteKeyId> = tokens.iter().copied().collect();
    touch_tokens(connection, context, &tokens).await?;
    let (keys, histories) = ownership_rows(connection, context, &tokens).await?;
    Ok((stored::owners(keys), histories))
}

/// What of the platform's rows is ours until the commit.
#[derive(Debug, Default)]
pub struct Locked {
    pub accounts: HashMap<UserId, Account>,
    /// Another session holds one of their rows.
    pub busy_users: HashSet<UserId>,
    keys: HashMap<KeyId, KeyRow>,
}

/// Locks the books of users and the rows of keys, and reads the former.
pub async fn lock(
    connection: &mut MySqlConnection,
    context: &Context,
    users: &BTreeSet<UserId>,
    keys: &BTreeSet<KeyId>,
) -> Result<Locked, StoreError> {
    let mut locked = Locked::default();
    if users.is_empty() {
        return Ok(locked);
    }
    let names = parameter(&users.iter().map(UserId::as_str).collect::<Vec<_>>())?;
    sqlx::query(context.sql(TOUCH_ACCOUNTS)).bind(&names).execute(&mut *connection).await?;
    let held: Vec<String> =
        sqlx::query_scalar(context.sql(LOCK_USERS)).bind(&names).fetch_all(&mut *connection).await?;
    let held: HashSet<String> = held.into_iter().collect();
    locked.busy_users.extend(users.iter().filter(|user| !held.contains(user.as_str())).cloned());
    let ids = parameter(&keys.iter().map(KeyId::as_str).collect::<Vec<_>>())?;
    for row in sqlx::query(context.sql(LOCK_KEYS)).bind(ids).fetch_all(&mut *connection).await? {
        let key = key_row(&row)?;
        locked.keys.insert(key.key_id.clone(), key);
    }
    // A balance that is not there yet cannot come either: it would need its user's row.
    let have: Vec<(String, String)> =
        sqlx::query_as(context.sql(HAVE_BALANCES)).bind(&names).fetch_all(&mut *connection).await?;
    let balances: Vec<(String, i64)> = sqlx::query(context.sql(LOCK_BALANCES))
        .bind(parameter(&have.iter().map(|(id, _)| id).collect::<Vec<_>>())?)
        .fetch_all(&mut *connection)
        .await?
        .iter()
        .map(|row| Ok((row.try_get(0)?, i64::from(row.try_get::<i32, _>(1)?))))
        .collect::<Result<_, sqlx::Error>>()?;
    let balances: HashMap<String, i64> = balances.into_iter().collect();
    for (_, user) in have.into_iter().filter(|(_, user)| !balances.contains_key(user)) {
        locked.busy_users.insert(user_id(user)?);
    }
    for row in sqlx::query(context.sql(ACCOUNTS)).bind(&names).fetch_all(connection).await? {
        let (user, mut account) = account_row(&row)?;
        account.balance = balances.get(user.as_str()).copied().map(Credits::new);
        locked.accounts.insert(user, account);
    }
    Ok(locked)
}

/// Event ids beside which `webhook_logs` holds one that its collation takes for equal.
pub type Taken = HashSet<EventId>;

/// What is stored under the given ids, claims included.
pub async fn known<'a>(
    connection: &mut MySqlConnection,
    context: &Context,
    ids: impl Iterator<Item = &'a EventId>,
    claim_keys: impl Iterator<Item = ClaimKey>,
) -> Result<(KnownEvents, Taken), StoreError> {
    let ids: BTreeSet<&EventId> = ids.collect();
    let set_apart: Vec<String> = ids.iter().map(|id| id.set_apart()).collect();
    let names: Vec<&str> = ids.iter().map(|id| id.as_str()).chain(set_apart.iter().map(String::as_str)).collect();
    let mut taken = Taken::new();
    let mut logged: HashMap<String, LoggedRow> = HashMap::new();
    for row in sqlx::query(context.sql(LOGGED)).bind(parameter(&names)?).fetch_all(&mut *connection).await? {
        let (asked, row) = logged_row(&row)?;
        match row {
            Some(row) if ids.contains(&row.event_id) => {
                logged.insert(row.inbox_id.to_string(), row);
            }
            _ => {
                // What lies there is another event's: the asked one needs a name of its own.
                taken.extend(ids.get(&asked).map(|id| (*id).clone()));
            }
        }
    }
    let claim_keys: HashSet<ClaimKey> = claim_keys.collect();
    let mut claims = claims(connection, context, &claim_keys).await?;
    let rows = LoggedRows::new(logged.into_values().collect());
    let missing: HashSet<ClaimKey> = rows.claim_keys().filter(|key| !claim_keys.contains(key)).collect();
    if !missing.is_empty() {
        claims.extend(self::claims(connection, context, &missing).await?);
    }
    Ok((rows.into_known(&claims), taken))
}

async fn claims(
    connection: &mut MySqlConnection,
    context: &Context,
    keys: &HashSet<ClaimKey>,
) -> Result<HashSet<ClaimKey>, StoreError> {
    let pairs: BTreeSet<(i64, &str)> = keys.iter().map(|(at, id)| (at.as_millis(), id.as_str())).collect();
    let rows = sqlx::query(context.sql(CLAIMS)).bind(parameter(&pairs)?).fetch_all(connection).await?;
    let claim = |row: &MySqlRow| -> Result<ClaimKey, StoreError> {
        let event_id: String = row.try_get(1)?;
        let event_id = EventId::parse(&event_id).map_err(|_| unreadable("hookledger_claims.event_id", event_id))?;
        Ok((UnixMillis::new(row.try_get(0)?), event_id))
    };
    rows.iter().map(claim).collect()
}

fn history(histories: &mut HashMap<RemoteKeyId, TokenHistory>, token: i64) -> Result<&mut TokenHistory, StoreError> {
    let token = RemoteKeyId::new(token).ok_or_else(|| unreadable("remote_key_id", token))?;
    Ok(histories.entry(token).or_default())
}

/// The id that was asked for, and the row under its own id; none where that is no id.
fn logged_row(row: &MySqlRow) -> Result<(EventId, Option<LoggedRow>), StoreError> {
    let (asked, stored_id): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let asked = EventId::parse(&asked).map_err(|_| unreadable("an event id", asked))?;
    let inbox_id: String = row.try_get(2)?;
    let payload: String = row.try_get(5)?;
    let Some(event_id) = stored::own_event_id(&stored_id, &payload) else { return Ok((asked, None)) };
    let logged = LoggedRow {
        event_id,
        inbox_id: RecordId::parse(&inbox_id).map_err(|_| unreadable("webhook_logs.id", inbox_id))?,
        status: row.try_get(3)?,
        message: row.try_get(4)?,
        payload,
        open_attempts: row.try_get::<Option<i64>, _>(6)?.and_then(|attempts| u32::try_from(attempts).ok()),
    };
    Ok((asked, Some(logged)))
}

fn key_row(row: &MySqlRow) -> Result<KeyRow, StoreError> {
    let (key_id, owner): (String, String) = (row.try_get(1)?, row.try_get(2)?);
    Ok(KeyRow {
        remote_key_id: row.try_get::<Option<String>, _>(0)?.unwrap_or_default(),
        key_id: KeyId::parse(&key_id).map_err(|_| unreadable("api_keys.id", key_id))?,
        user_id: user_id(owner)?,
        is_active: row.try_get::<i64, _>(3)? != 0,
        created_at: UnixMillis::from_column(row.try_get(4)?).unwrap_or(UnixMillis::ZERO),
    })
}

fn user_id(id: String) -> Result<UserId, StoreError> {
    UserId::parse(&id).map_err(|_| unreadable("users.id", id))
}

fn owner_row(row: &MySqlRow) -> Result<PastOwner, StoreError> {
    let (owner, key_id): (String, String) = (row.try_get(2)?, row.try_get(3)?);
    Ok(PastOwner {
        from: UnixMillis::new(row.try_get(1)?),
        user_id: user_id(owner)?,
        key_id: KeyId::parse(&key_id).map_err(|_| unreadable("hookledger_token_owners.key_id", key_id))?,
        has_key: row.try_get::<i64, _>(4)? != 0,
    })
}

/// The own part of an account; its balance comes from the locked row.
fn account_row(row: &MySqlRow) -> Result<(UserId, Account), StoreError> {
    let user = user_id(row.try_get(0)?)?;
    let femtos: i64 = row.try_get(1)?;
    let (created_at, id): (Option<String>, Option<String>) = (row.try_get(3)?, row.try_get(4)?);
    let account = Account {
        balance: None,
        remainder: Remainder::new(femtos).ok_or_else(|| unreadable("hookledger_accounts.remainder_femtos", femtos))?,
        unpaid: Credits::new(row.try_get(2)?),
        newest_transaction: created_at.map(|created_at| NewestTransaction {
            // Another program's odd date is taken for long ago: it only bounds the next stamp from below.
            created_at: UnixMillis::from_column(&created_at).unwrap_or(UnixMillis::ZERO),
            id: id.and_then(|id| RecordId::parse(&id).ok()),
        }),
    };
    Ok((user, account))
}

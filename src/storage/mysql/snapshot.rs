//! Reads everything that a batch touches, after the locks were taken: a constant number of statements, whatever its size.
//!
//! The order is fixed: our own rows of the tokens, then of the users, are written; then the platform's `users`,
//! `api_keys` and balances are locked, each in the order of its ids, and what another session holds is passed over.

use std::collections::{BTreeSet, HashMap, HashSet};

use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};

use super::context::Context;
use super::lock::lock;
use super::prices;
use crate::domain::adoption::ForeignRecords;
use crate::domain::ids::{EventId, KeyId, RecordId, RemoteKeyId, UserId};
use crate::domain::known::KnownEvents;
use crate::domain::ownership::{Owner, PastOwner, TokenHistory};
use crate::domain::settlement::{Batch, Snapshot};
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

const KEYS: &str = concat!(
    "SELECT k.remoteKeyId, k.id, k.userId, k.status = 'ACTIVE', CAST(k.createdAt AS CHAR) FROM ",
    texts!(),
    " STRAIGHT_JOIN api_keys AS k ON k.remoteKeyId = e.v COLLATE {collation}"
);

const LOGGED: &str = concat!(
    "SELECT e.v, w.eventId, w.id, w.status, w.errorMsg, w.payload, i.attempts, i.reason FROM ",
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

/// What settling a batch depends on, but for the log and the records of other programs.
pub struct Read {
    pub snapshot: Snapshot,
    pub taken: Taken,
    /// Present and former keys of each token of which some user can be charged now.
    pub keys_of_tokens: BTreeSet<(RemoteKeyId, KeyId)>,
}

/// Takes the locks of `batch`, and reads under them.
pub async fn read(connection: &mut MySqlConnection, context: &Context, batch: &Batch) -> Result<Read, StoreError> {
    let tokens = batch.tokens();
    touch_tokens(connection, context, &tokens).await?;
    let (keys, mut histories) = ownership_rows(connection, context, &tokens).await?;
    let past = histories.values().flat_map(|history| &history.owners).filter(|owner| owner.has_key);
    let mut key_ids: BTreeSet<KeyId> = past.clone().map(|owner| owner.key_id.clone()).collect();
    let mut users: BTreeSet<UserId> = past.map(|owner| owner.user_id.clone()).collect();
    key_ids.extend(keys.iter().map(|key| key.key_id.clone()));
    users.extend(keys.iter().map(|key| key.user_id.clone()));
    let mut locked = lock(connection, context, &users, &key_ids).await?;
    let held = holders(&keys, &histories);
    locked.busy_users.extend(held_back(&held, &locked.keys));
    let keys_of_tokens = chargeable(&held, &locked.busy_users);
    if keys.iter().any(|key| locked.keys.get(&key.key_id).is_some_and(|now| !is_same(now, key))) {
        return Err(StoreError::Contended("a key has changed hands meanwhile".to_owned()));
    }
    let ids = batch.all_events().map(|event| &event.event_id);
    let claim_keys = batch.all_events().map(|event| stored::claim_key(&event.event_id, &event.content));
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
        foreign: ForeignRecords::default(),
        log: None,
    };
    Ok(Read { snapshot, taken, keys_of_tokens })
}

/// The keys of each token with their users, present and former.
fn holders(keys: &[KeyRow], histories: &HashMap<RemoteKeyId, TokenHistory>) -> BTreeSet<(RemoteKeyId, KeyId, UserId)> {
    let present = keys
        .iter()
        .filter_map(|key| Some((RemoteKeyId::parse(&key.remote_key_id)?, key.key_id.clone(), key.user_id.clone())));
    let former = histories.iter().flat_map(|(token, history)| {
        let owners = history.owners.iter().filter(|owner| owner.has_key);
        owners.map(|owner| (*token, owner.key_id.clone(), owner.user_id.clone()))
    });
    present.chain(former).collect()
}

/// Users of tokens of which another session holds a key: it may be writing a usage record there, which is that session's
/// until it ends, and may be of a call that is to be charged here.
fn held_back(holders: &BTreeSet<(RemoteKeyId, KeyId, UserId)>, locked: &HashMap<KeyId, KeyRow>) -> HashSet<UserId> {
    let held = holders.iter().filter(|(_, key, _)| !locked.contains_key(key));
    let held: BTreeSet<RemoteKeyId> = held.map(|(token, ..)| *token).collect();
    let users = holders.iter().filter(|(token, ..)| held.contains(token));
    users.map(|(.., user)| user.clone()).collect()
}

/// The keys of tokens of which some user can be charged now.
fn chargeable(
    holders: &BTreeSet<(RemoteKeyId, KeyId, UserId)>,
    busy_users: &HashSet<UserId>,
) -> BTreeSet<(RemoteKeyId, KeyId)> {
    let free = holders.iter().filter(|(.., user)| !busy_users.contains(user));
    let free: BTreeSet<RemoteKeyId> = free.map(|(token, ..)| *token).collect();
    let keys = holders.iter().filter(|(token, ..)| free.contains(token));
    keys.map(|(token, key, _)| (*token, key.clone())).collect()
}

fn is_same(one: &KeyRow, other: &KeyRow) -> bool {
    one.user_id == other.user_id && one.remote_key_id == other.remote_key_id
}

fn token_numbers(tokens: &BTreeSet<RemoteKeyId>) -> Result<String, StoreError> {
    parameter(&tokens.iter().map(|token| token.get()).collect::<Vec<_>>())
}

pub(super) async fn touch_tokens(
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

/// Whose some tokens are, as of the last commit.
pub async fn owners(
    connection: &mut MySqlConnection,
    context: &Context,
    tokens: &BTreeSet<RemoteKeyId>,
) -> Result<HashMap<RemoteKeyId, Owner>, StoreError> {
    Ok(stored::owners(ownership_rows(connection, context, tokens).await?.0))
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

/// Which of these events have a claim.
pub(super) async fn claims(
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
    let asked: String = row.try_get(0)?;
    let asked = EventId::parse(&asked).map_err(|_| unreadable("an event id", asked))?;
    Ok((asked, logged(row, 1)?))
}

/// A row of `webhook_logs` with its place in the inbox, its columns from `first` on; none where its id is no id.
pub(super) fn logged(row: &MySqlRow, first: usize) -> Result<Option<LoggedRow>, StoreError> {
    let stored_id: String = row.try_get(first)?;
    let inbox_id: String = row.try_get(first + 1)?;
    let payload: String = row.try_get(first + 4)?;
    let Some(event_id) = stored::own_event_id(&stored_id, &payload) else { return Ok(None) };
    Ok(Some(LoggedRow {
        event_id,
        inbox_id: RecordId::parse(&inbox_id).map_err(|_| unreadable("webhook_logs.id", inbox_id))?,
        status: row.try_get(first + 2)?,
        message: row.try_get(first + 3)?,
        payload,
        open_attempts: row.try_get::<Option<i64>, _>(first + 5)?.and_then(|attempts| u32::try_from(attempts).ok()),
        open_reason: row.try_get(first + 6)?,
    }))
}

pub(super) fn key_row(row: &MySqlRow) -> Result<KeyRow, StoreError> {
    let (key_id, owner): (String, String) = (row.try_get(1)?, row.try_get(2)?);
    Ok(KeyRow {
        remote_key_id: row.try_get::<Option<String>, _>(0)?.unwrap_or_default(),
        key_id: KeyId::parse(&key_id).map_err(|_| unreadable("api_keys.id", key_id))?,
        user_id: user_id(owner)?,
        is_active: row.try_get::<i64, _>(3)? != 0,
        created_at: UnixMillis::from_column(row.try_get(4)?).unwrap_or(UnixMillis::ZERO),
    })
}

pub(super) fn user_id(id: String) -> Result<UserId, StoreError> {
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

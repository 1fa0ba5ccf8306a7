//! Reads, under the write lock, everything that a batch touches: one round trip, whatever its size.
//!
//! The looks go to the database's thread together, since each hand-over costs more than a look. Every row begins
//! with the number of the look that it answers.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use crate::domain::accounts::{Account, NewestTransaction};
use crate::domain::adoption::ForeignRecords;
use crate::domain::ids::{EventId, KeyId, RecordId, RemoteKeyId, UserId};
use crate::domain::known::KnownEvents;
use crate::domain::money::{Credits, Remainder};
use crate::domain::ownership::{Owner, PastOwner, TokenHistory};
use crate::domain::settlement::{Batch, Snapshot};
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::price_list;
use crate::storage::rows::parameter as json;
use crate::storage::stored::{self, ClaimKey, KeyRow, LoggedRow, LoggedRows, unreadable};

const LOGGED: i64 = 1;
const LOGGED_SQL: &str = "SELECT 1, w.eventId, w.id, CAST(w.status AS TEXT), CAST(w.errorMsg AS TEXT), CAST(w.payload AS TEXT), \
       i.attempts, i.reason \
     FROM jsonb_each(?) AS e CROSS JOIN webhook_logs AS w ON w.eventId = e.value \
     LEFT JOIN hookledger_inbox AS i ON i.inbox_id = w.id";

const CLAIM: i64 = 2;
const CLAIM_SQL: &str = "SELECT 2, c.event_at_ms, c.event_id \
     FROM jsonb_each(?) AS e CROSS JOIN hookledger_claims AS c \
     ON c.event_at_ms = (e.value ->> 0) AND c.event_id = (e.value ->> 1)";

// Tokens are compared as text: a number would match `042` as well, and by a scan of the whole table.
const KEY: i64 = 3;
const KEY_SQL: &str = "SELECT 3, k.remoteKeyId, k.id, k.userId, k.status = 'ACTIVE', k.createdAt \
     FROM jsonb_each(?) AS e CROSS JOIN api_keys AS k ON k.remoteKeyId = e.value";

const ACCOUNT: i64 = 4;
const ACCOUNTS_OF_TOKENS_SQL: &str = "SELECT 4, u.id, b.currentCredits, a.remainder_femtos, a.unpaid_credits, \
       t.createdAt, t.id \
     FROM (SELECT k.userId AS id FROM jsonb_each(?) AS e CROSS JOIN api_keys AS k ON k.remoteKeyId = e.value \
           UNION \
           SELECT k.userId FROM jsonb_each(?) AS e CROSS JOIN hookledger_token_owners AS o \
             ON o.remote_key_id = CAST(e.value AS INTEGER) \
           CROSS JOIN api_keys AS k ON k.id = o.key_id AND k.userId = o.user_id) AS u \
     LEFT JOIN user_credit_balances AS b ON b.userId = u.id \
     LEFT JOIN hookledger_accounts AS a ON a.user_id = u.id \
     LEFT JOIN credit_transactions AS t ON t.id = \
       (SELECT n.id FROM credit_transactions AS n WHERE n.userId = u.id ORDER BY n.createdAt DESC, n.id DESC LIMIT 1)";

const ACCOUNTS_SQL: &str = "SELECT 4, e.value, b.currentCredits, a.remainder_femtos, a.unpaid_credits, t.createdAt, t.id \
     FROM jsonb_each(?) AS e \
     LEFT JOIN user_credit_balances AS b ON b.userId = e.value \
     LEFT JOIN hookledger_accounts AS a ON a.user_id = e.value \
     LEFT JOIN credit_transactions AS t ON t.id = \
       (SELECT n.id FROM credit_transactions AS n WHERE n.userId = e.value ORDER BY n.createdAt DESC, n.id DESC LIMIT 1)";

const PRICE: i64 = 5;
const PRICE_SQL: &str = concat!("SELECT 5, p.* FROM (", price_list::price_rows!(), ") AS p");

// An open token had no key at the last look of all open ones either.
const UNKNOWN_TOKEN: i64 = 6;
const UNKNOWN_TOKEN_SQL: &str = "SELECT 6, t.remote_key_id, CASE WHEN t.is_open = 1 \
       THEN max(t.last_look_ms, COALESCE((SELECT CAST(value AS INTEGER) FROM hookledger_meta \
                                          WHERE name = 'tokens_looked_at_ms'), 0)) \
       ELSE t.last_look_ms END \
     FROM jsonb_each(?) AS e CROSS JOIN hookledger_unknown_tokens AS t ON t.remote_key_id = CAST(e.value AS INTEGER)";

const IGNORED_TOKEN: i64 = 7;
const IGNORED_TOKEN_SQL: &str = "SELECT 7, t.remote_key_id \
     FROM jsonb_each(?) AS e CROSS JOIN hookledger_ignored_tokens AS t ON t.remote_key_id = CAST(e.value AS INTEGER)";

const TOKEN_OWNER: i64 = 8;
const TOKEN_OWNER_SQL: &str = "SELECT 8, o.remote_key_id, o.from_ms, o.user_id, o.key_id, \
       EXISTS (SELECT 1 FROM api_keys AS k WHERE k.id = o.key_id AND k.userId = o.user_id) \
     FROM jsonb_each(?) AS e CROSS JOIN hookledger_token_owners AS o ON o.remote_key_id = CAST(e.value AS INTEGER)";

const MEMORY: i64 = 9;
const MEMORY_SQL: &str =
    "SELECT 9, CAST(value AS INTEGER) FROM hookledger_meta WHERE name = 'claims_remembered_from_second'";

static KNOWN_SQL: LazyLock<String> = LazyLock::new(|| [LOGGED_SQL, CLAIM_SQL].join(";\n"));
static ALL_SQL: LazyLock<String> = LazyLock::new(|| ALL.join(";\n"));
const ALL: [&str; 9] = [
    LOGGED_SQL,
    CLAIM_SQL,
    KEY_SQL,
    ACCOUNTS_OF_TOKENS_SQL,
    UNKNOWN_TOKEN_SQL,
    IGNORED_TOKEN_SQL,
    TOKEN_OWNER_SQL,
    PRICE_SQL,
    MEMORY_SQL,
];

/// Everything that settling `batch` depends on, but for the log.
pub async fn read(connection: &mut SqliteConnection, batch: &Batch) -> Result<Snapshot, StoreError> {
    let ids: BTreeSet<&str> = batch.all_events().map(|event| event.event_id.as_str()).collect();
    let claim_keys: HashSet<ClaimKey> =
        batch.all_events().map(|event| stored::claim_key(&event.event_id, &event.content)).collect();
    let tokens = json(&batch.tokens().iter().map(RemoteKeyId::to_string).collect::<Vec<_>>())?;
    let rows = sqlx::query(ALL_SQL.as_str())
        .bind(json(&ids)?)
        .bind(claim_keys_json(&claim_keys)?)
        .bind(&tokens)
        .bind(&tokens)
        .bind(&tokens)
        .bind(&tokens)
        .bind(&tokens)
        .bind(&tokens)
        .fetch_all(&mut *connection)
        .await?;
    let mut found = Found::default();
    for row in &rows {
        found.take(row)?;
    }
    let known = found.known(connection, claim_keys).await?;
    Ok(Snapshot {
        known,
        owners: stored::owners(found.keys),
        tokens: found.tokens.into_iter().map(|(token, history)| (token, history.oldest_first())).collect(),
        accounts: found.accounts,
        // One writer at a time: nobody holds a row beside it.
        busy_users: HashSet::new(),
        prices: price_list::book(found.prices)?,
        memory_from_second: found.memory_from_second,
        // Nobody else charges here.
        foreign: ForeignRecords::default(),
        log: None,
    })
}

/// Whose some tokens are, and whose they were.
pub async fn ownership(
    connection: &mut SqliteConnection,
    tokens: &[RemoteKeyId],
) -> Result<(HashMap<RemoteKeyId, Owner>, HashMap<RemoteKeyId, TokenHistory>), StoreError> {
    let tokens = json(&tokens.iter().map(RemoteKeyId::to_string).collect::<Vec<_>>())?;
    let sql = AssertSqlSafe([KEY_SQL, TOKEN_OWNER_SQL].join(";\n"));
    let mut found = Found::default();
    for row in sqlx::query(sql).bind(&tokens).bind(&tokens).fetch_all(connection).await? {
        found.take(&row)?;
    }
    let histories = found.tokens.into_iter().map(|(token, history)| (token, history.oldest_first()));
    Ok((stored::owners(found.keys), histories.collect()))
}

/// What is stored under the given ids, claims included.
pub async fn known<'a>(
    connection: &mut SqliteConnection,
    ids: impl Iterator<Item = &'a EventId>,
    claim_keys: impl Iterator<Item = ClaimKey>,
) -> Result<KnownEvents, StoreError> {
    let ids: BTreeSet<&str> = ids.map(EventId::as_str).collect();
    let claim_keys: HashSet<ClaimKey> = claim_keys.collect();
    let rows = sqlx::query(KNOWN_SQL.as_str())
        .bind(json(&ids)?)
        .bind(claim_keys_json(&claim_keys)?)
        .fetch_all(&mut *connection)
        .await?;
    let mut found = Found::default();
    for row in &rows {
        found.take(row)?;
    }
    found.known(connection, claim_keys).await
}

/// The books of one user, with the end of his history.
pub async fn account(connection: &mut SqliteConnection, user_id: &UserId) -> Result<Account, StoreError> {
    Ok(accounts(connection, [user_id]).await?.remove(user_id).unwrap_or_default())
}

/// The books of some users.
pub async fn accounts<'a>(
    connection: &mut SqliteConnection,
    users: impl IntoIterator<Item = &'a UserId>,
) -> Result<HashMap<UserId, Account>, StoreError> {
    let users: BTreeSet<&str> = users.into_iter().map(UserId::as_str).collect();
    let rows = sqlx::query(ACCOUNTS_SQL).bind(json(&users)?).fetch_all(connection).await?;
    rows.iter().map(account_row).collect()
}

/// Rows of all looks, sorted by what they answer.
#[derive(Default)]
struct Found {
    logged: Vec<LoggedRow>,
    claims: HashSet<ClaimKey>,
    keys: Vec<KeyRow>,
    accounts: HashMap<UserId, Account>,
    prices: Vec<price_list::PriceRow>,
    tokens: HashMap<RemoteKeyId, TokenHistory>,
    memory_from_second: Option<i64>,
}

impl Found {
    fn take(&mut self, row: &SqliteRow) -> Result<(), StoreError> {
        match row.try_get::<i64, _>(0)? {
            LOGGED => self.logged.push(logged_row(row, 1)?),
            CLAIM => {
                self.claims.insert(claim_row(row)?);
            }
            KEY => self.keys.push(key_row(row)?),
            ACCOUNT => {
                let (user_id, account) = account_row(row)?;
                self.accounts.insert(user_id, account);
            }
            PRICE => self.prices.push((row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)),
            UNKNOWN_TOKEN => self.token(row)?.last_unknown_at = Some(UnixMillis::new(row.try_get(2)?)),
            IGNORED_TOKEN => self.token(row)?.is_ignored = true,
            TOKEN_OWNER => {
                let owner = owner_row(row)?;
                self.token(row)?.owners.push(owner);
            }
            MEMORY => self.memory_from_second = row.try_get(1)?,
            other => return Err(unreadable("the number of a look", other)),
        }
        Ok(())
    }

    fn token(&mut self, row: &SqliteRow) -> Result<&mut TokenHistory, StoreError> {
        let token: i64 = row.try_get(1)?;
        let token = RemoteKeyId::new(token).ok_or_else(|| unreadable("remote_key_id", token))?;
        Ok(self.tokens.entry(token).or_default())
    }

    /// Joins logged rows and claims. A row that tells of another time than its delivery does may have its claim
    /// there: only then a second look is needed.
    async fn known(
        &mut self,
        connection: &mut SqliteConnection,
        looked_up: HashSet<ClaimKey>,
    ) -> Result<KnownEvents, StoreError> {
        let rows = LoggedRows::new(std::mem::take(&mut self.logged));
        let missing: HashSet<ClaimKey> = rows.claim_keys().filter(|key| !looked_up.contains(key)).collect();
        if !missing.is_empty() {
            let found = sqlx::query(CLAIM_SQL).bind(claim_keys_json(&missing)?).fetch_all(&mut *connection).await?;
            for row in &found {
                self.claims.insert(claim_row(row)?);
            }
        }
        Ok(rows.into_known(&self.claims))
    }
}

/// A row of `webhook_logs` with its place in the inbox, its columns from `first` on.
pub fn logged_row(row: &SqliteRow, first: usize) -> Result<LoggedRow, StoreError> {
    let (event_id, inbox_id): (String, String) = (row.try_get(first)?, row.try_get(first + 1)?);
    Ok(LoggedRow {
        event_id: EventId::parse(&event_id).map_err(|_| unreadable("webhook_logs.eventId", event_id))?,
        inbox_id: RecordId::parse(&inbox_id).map_err(|_| unreadable("webhook_logs.id", inbox_id))?,
        status: row.try_get(first + 2)?,
        message: row.try_get(first + 3)?,
        payload: row.try_get(first + 4)?,
        open_attempts: row.try_get(first + 5)?,
        open_reason: row.try_get(first + 6)?,
    })
}

fn claim_row(row: &SqliteRow) -> Result<ClaimKey, StoreError> {
    let event_id: String = row.try_get(2)?;
    let event_id = EventId::parse(&event_id).map_err(|_| unreadable("hookledger_claims.event_id", event_id))?;
    Ok((UnixMillis::new(row.try_get(1)?), event_id))
}

fn key_row(row: &SqliteRow) -> Result<KeyRow, StoreError> {
    let (key_id, user_id): (String, String) = (row.try_get(2)?, row.try_get(3)?);
    Ok(KeyRow {
        remote_key_id: row.try_get(1)?,
        key_id: KeyId::parse(&key_id).map_err(|_| unreadable("api_keys.id", key_id))?,
        user_id: UserId::parse(&user_id).map_err(|_| unreadable("api_keys.userId", user_id))?,
        is_active: row.try_get(4)?,
        // Another program's odd date: the key counts as old, and its token's looks decide.
        created_at: UnixMillis::from_column(row.try_get(5)?).unwrap_or(UnixMillis::ZERO),
    })
}

fn owner_row(row: &SqliteRow) -> Result<PastOwner, StoreError> {
    let (user_id, key_id): (String, String) = (row.try_get(3)?, row.try_get(4)?);
    Ok(PastOwner {
        from: UnixMillis::new(row.try_get(2)?),
        user_id: UserId::parse(&user_id).map_err(|_| unreadable("hookledger_token_owners.user_id", user_id))?,
        key_id: KeyId::parse(&key_id).map_err(|_| unreadable("hookledger_token_owners.key_id", key_id))?,
        has_key: row.try_get(5)?,
    })
}

fn account_row(row: &SqliteRow) -> Result<(UserId, Account), StoreError> {
    let user_id: String = row.try_get(1)?;
    let user_id = UserId::parse(&user_id).map_err(|_| unreadable("users.id", user_id))?;
    let remainder = match row.try_get::<Option<i64>, _>(3)? {
        Some(femtos) => {
            Remainder::new(femtos).ok_or_else(|| unreadable("hookledger_accounts.remainder_femtos", femtos))?
        }
        None => Remainder::ZERO,
    };
    let (created_at, id): (Option<String>, Option<String>) = (row.try_get(5)?, row.try_get(6)?);
    let newest_transaction = created_at.map(|created_at| NewestTransaction {
        // Another program's odd date is taken for long ago: it only bounds the next stamp from below.
        created_at: UnixMillis::from_column(&created_at).unwrap_or(UnixMillis::ZERO),
        id: id.and_then(|id| RecordId::parse(&id).ok()),
    });
    let account = Account {
        balance: row.try_get::<Option<i64>, _>(2)?.map(Credits::new),
        remainder,
        unpaid: Credits::new(row.try_get::<Option<i64>, _>(4)?.unwrap_or_default()),
        newest_transaction,
    };
    Ok((user_id, account))
}

fn claim_keys_json(keys: &HashSet<ClaimKey>) -> Result<String, StoreError> {
    // In order, so that the look walks the index once.
    let pairs: BTreeSet<(i64, &str)> = keys.iter().map(|(at, id)| (at.as_millis(), id.as_str())).collect();
    json(&pairs)
}

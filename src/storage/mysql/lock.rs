//! Locks the platform's rows that a settlement touches, and passes over what another session holds.
//!
//! Our own rows of the users are written first: whoever of our own works on the same users waits there, and finds theirs
//! free afterwards.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};

use super::context::Context;
use super::snapshot::{key_row, texts, user_id};
use crate::domain::accounts::{Account, NewestTransaction};
use crate::domain::ids::{KeyId, RecordId, UserId};
use crate::domain::money::{Credits, Remainder};
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::rows::parameter;
use crate::storage::stored::{KeyRow, unreadable};

const TOUCH_ACCOUNTS: &str = concat!(
    "INSERT INTO hookledger_accounts (user_id, remainder_femtos, unpaid_credits, touched) SELECT e.v, 0, 0, 1 FROM ",
    texts!(),
    " WHERE true ON DUPLICATE KEY UPDATE touched = touched + 1"
);

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
    " STRAIGHT_JOIN user_credit_balances AS b FORCE INDEX (PRIMARY) ON b.id = e.v COLLATE {collation} \
     FOR UPDATE SKIP LOCKED"
);

/// What a lock was passed over for is told from what is not there by a look that takes none.
const THERE: &str = concat!(
    "SELECT u.id, b.id FROM ",
    texts!(),
    " STRAIGHT_JOIN users AS u ON u.id = e.v COLLATE {collation} \
     LEFT JOIN user_credit_balances AS b ON b.userId = u.id"
);

const ACCOUNTS: &str = concat!(
    "SELECT a.user_id, a.remainder_femtos, a.unpaid_credits, CAST(t.createdAt AS CHAR), t.id FROM ",
    texts!(),
    " STRAIGHT_JOIN hookledger_accounts AS a ON a.user_id = e.v COLLATE utf8mb4_bin \
     LEFT JOIN credit_transactions AS t ON t.id = (SELECT n.id FROM credit_transactions AS n \
       WHERE n.userId = e.v COLLATE {collation} ORDER BY n.createdAt DESC, n.id DESC LIMIT 1)"
);

/// What of the platform's rows is ours until the commit.
#[derive(Debug, Default)]
pub struct Locked {
    pub accounts: HashMap<UserId, Account>,
    /// Another session holds one of their rows.
    pub busy_users: HashSet<UserId>,
    /// Those of the asked keys that are ours.
    pub keys: HashMap<KeyId, KeyRow>,
}

/// After which pauses another look is taken at rows that were held. A server lets a transaction's rows go one after the
/// other, so that one of our own which has just committed may still seem to hold some.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(4)];

/// Locks the books of users and the rows of keys, and reads the former.
pub async fn lock(
    connection: &mut MySqlConnection,
    context: &Context,
    users: &BTreeSet<UserId>,
    keys: &BTreeSet<KeyId>,
) -> Result<Locked, StoreError> {
    if users.is_empty() {
        return Ok(Locked::default());
    }
    let names = parameter(&users.iter().map(UserId::as_str).collect::<Vec<_>>())?;
    sqlx::query(context.sql(TOUCH_ACCOUNTS)).bind(&names).execute(&mut *connection).await?;
    let mut locked = lock_free(connection, context, &names, keys).await?;
    for pause in PAUSES {
        if locked.busy_users.is_empty() && locked.keys.len() == keys.len() {
            break;
        }
        tokio::time::sleep(pause).await;
        locked = lock_free(connection, context, &names, keys).await?;
    }
    Ok(locked)
}

/// Locks what no other session holds; `names` are the users' as JSON.
async fn lock_free(
    connection: &mut MySqlConnection,
    context: &Context,
    names: &str,
    keys: &BTreeSet<KeyId>,
) -> Result<Locked, StoreError> {
    let mut locked = Locked::default();
    let held: Vec<String> = sqlx::query_scalar(context.sql(LOCK_USERS)).bind(names).fetch_all(&mut *connection).await?;
    let held: HashSet<String> = held.into_iter().collect();
    let ids = parameter(&keys.iter().map(KeyId::as_str).collect::<Vec<_>>())?;
    for row in sqlx::query(context.sql(LOCK_KEYS)).bind(ids).fetch_all(&mut *connection).await? {
        let key = key_row(&row)?;
        locked.keys.insert(key.key_id.clone(), key);
    }
    let there: Vec<(String, Option<String>)> =
        sqlx::query_as(context.sql(THERE)).bind(names).fetch_all(&mut *connection).await?;
    // By their primary key, as all rows here: a small table is searched whole for any other, and locked as it is.
    let balance_ids: Vec<&str> = there.iter().filter_map(|(_, balance_id)| balance_id.as_deref()).collect();
    let balances: Vec<(String, i32)> =
        sqlx::query_as(context.sql(LOCK_BALANCES)).bind(parameter(&balance_ids)?).fetch_all(&mut *connection).await?;
    let balances: HashMap<String, i64> = balances.into_iter().map(|(user, balance)| (user, balance.into())).collect();
    for (user, balance_id) in there {
        if !held.contains(&user) || (balance_id.is_some() && !balances.contains_key(&user)) {
            locked.busy_users.insert(user_id(user)?);
        }
    }
    for row in sqlx::query(context.sql(ACCOUNTS)).bind(names).fetch_all(connection).await? {
        let (user, mut account) = account_row(&row)?;
        account.balance = balances.get(user.as_str()).copied().map(Credits::new);
        locked.accounts.insert(user, account);
    }
    Ok(locked)
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

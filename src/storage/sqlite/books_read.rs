//! What operators look at: users, keys, balances and their history.

use sqlx::SqlitePool;

use crate::domain::ids::RemoteKeyId;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::books::{BooksError, CreditsView, KeyBalance, KeySelector, KeyView, TransactionView, UserView};
use crate::storage::decode::decimal;

/// Newest first.
pub async fn users(readers: &SqlitePool, limit: u32) -> Result<Vec<UserView>, StoreError> {
    let rows = sqlx::query_as::<_, (String, String, Option<String>, i64, i64, String)>(
        "SELECT u.id, u.email, u.name, COALESCE(b.currentCredits, 0), \
           (SELECT COUNT(*) FROM api_keys AS k WHERE k.userId = u.id), u.createdAt \
         FROM users AS u LEFT JOIN user_credit_balances AS b ON b.userId = u.id \
         ORDER BY u.createdAt DESC, u.id DESC LIMIT ?1",
    )
    .bind(limit)
    .fetch_all(readers)
    .await?;
    let views = rows.into_iter().map(|(id, email, name, credits, keys, created_at)| UserView {
        id,
        email,
        name,
        credits,
        keys,
        created_at,
    });
    Ok(views.collect())
}

type KeyRow = (String, String, String, Option<String>, String, String, String, Option<String>);

/// Newest first.
pub async fn keys(readers: &SqlitePool, user: Option<String>, limit: u32) -> Result<Vec<KeyView>, BooksError> {
    let user_id = match user {
        Some(user) => Some(find_user(readers, &user).await?.0),
        None => None,
    };
    let rows = sqlx::query_as::<_, KeyRow>(
        "SELECT k.id, k.userId, u.email, k.remoteKeyId, k.label, k.status, k.createdAt, k.lastUsedAt \
         FROM api_keys AS k JOIN users AS u ON u.id = k.userId \
         WHERE ?1 IS NULL OR k.userId = ?1 ORDER BY k.createdAt DESC, k.id DESC LIMIT ?2",
    )
    .bind(user_id)
    .bind(limit)
    .fetch_all(readers)
    .await
    .map_err(StoreError::from)?;
    let view = |(id, user_id, email, remote_key_id, label, status, created_at, last_used_at): KeyRow| KeyView {
        id,
        user_id,
        email,
        remote_key_id,
        label,
        status,
        created_at,
        last_used_at,
    };
    Ok(rows.into_iter().map(view).collect())
}

/// Balance, remainder and unpaid amount of one user.
pub async fn credits(readers: &SqlitePool, user: String) -> Result<CreditsView, BooksError> {
    let (user_id, email) = find_user(readers, &user).await?;
    let (credits, remainder, unpaid) = sqlx::query_as::<_, (i64, i64, i64)>(
        "SELECT COALESCE((SELECT currentCredits FROM user_credit_balances WHERE userId = ?1), 0), \
           COALESCE((SELECT remainder_femtos FROM hookledger_accounts WHERE user_id = ?1), 0), \
           COALESCE((SELECT unpaid_credits FROM hookledger_accounts WHERE user_id = ?1), 0)",
    )
    .bind(&user_id)
    .fetch_one(readers)
    .await
    .map_err(StoreError::from)?;
    Ok(CreditsView { user_id, email, credits, remainder: decimal(0, remainder), unpaid })
}

type BalanceRow = (i64, bool, i64, String, String, Option<String>, String, Option<String>, String);

// One statement, and so one instant. The first row is the one that is charged: `stored::owners` sorts alike.
const KEY_BY_ID: &str = "SELECT 1, k.status = 'ACTIVE', COALESCE(b.currentCredits, 0), k.userId, k.id, \
       k.remoteKeyId, k.label, b.updatedAt, k.createdAt \
     FROM api_keys AS k LEFT JOIN user_credit_balances AS b ON b.userId = k.userId WHERE k.id = ?1";

// Compared as text: a number would match `042` as well.
const KEY_BY_REMOTE_ID: &str = "SELECT (SELECT COUNT(DISTINCT o.userId) FROM api_keys AS o WHERE o.remoteKeyId = ?1), \
       k.status = 'ACTIVE', COALESCE(b.currentCredits, 0), k.userId, k.id, k.remoteKeyId, k.label, b.updatedAt, \
       k.createdAt \
     FROM api_keys AS k LEFT JOIN user_credit_balances AS b ON b.userId = k.userId WHERE k.remoteKeyId = ?1 \
     ORDER BY k.status = 'ACTIVE' DESC, k.id LIMIT 1";

/// What the owner of an active key has.
pub async fn key_balance(readers: &SqlitePool, key: KeySelector) -> Result<KeyBalance, BooksError> {
    let (sql, id) = match &key {
        // A row that claims to be of token 0 is nobody's: its calls are charged to nobody either.
        KeySelector::Remote(id) if id.is_nobody() => return Err(BooksError::NoSuchKey(key)),
        KeySelector::Remote(id) => (KEY_BY_REMOTE_ID, id.to_string()),
        KeySelector::Id(id) => (KEY_BY_ID, id.to_string()),
    };
    let row = sqlx::query_as::<_, BalanceRow>(sql).bind(id).fetch_optional(readers).await.map_err(StoreError::from)?;
    let Some(row) = row else { return Err(BooksError::NoSuchKey(key)) };
    let (owners, is_active, credits, user_id, key_id, remote_key_id, label, updated_at, created_at) = row;
    if owners > 1 {
        return Err(BooksError::SeveralKeyOwners(key));
    }
    if !is_active {
        return Err(BooksError::KeyNotActive(key));
    }
    let last_updated = UnixMillis::from_column(updated_at.as_deref().unwrap_or(&created_at));
    Ok(KeyBalance {
        credits,
        user_id,
        key_id,
        remote_key_id: remote_key_id.as_deref().and_then(RemoteKeyId::parse),
        label,
        // Another program's odd date is no reason to keep a call waiting.
        last_updated: last_updated.unwrap_or(UnixMillis::ZERO),
    })
}

/// Id, time, type, amount, balance after it, description and reference.
pub type TransactionRow = (String, String, String, i64, i64, Option<String>, Option<String>);

impl From<TransactionRow> for TransactionView {
    fn from((id, created_at, kind, amount, balance, description, reference): TransactionRow) -> Self {
        TransactionView { id, created_at, kind, amount, balance, description, reference }
    }
}

/// Newest first.
pub async fn history(readers: &SqlitePool, user: String, limit: u32) -> Result<Vec<TransactionView>, BooksError> {
    let (user_id, _) = find_user(readers, &user).await?;
    let rows = sqlx::query_as::<_, TransactionRow>(
        "SELECT id, createdAt, type, amount, balance, desc, ref FROM credit_transactions \
         WHERE userId = ?1 ORDER BY createdAt DESC, id DESC LIMIT ?2",
    )
    .bind(user_id)
    .bind(limit)
    .fetch_all(readers)
    .await
    .map_err(StoreError::from)?;
    Ok(rows.into_iter().map(TransactionView::from).collect())
}

/// The id and email of a user named by either.
pub async fn find_user(readers: &SqlitePool, id_or_email: &str) -> Result<(String, String), BooksError> {
    let found = sqlx::query_as::<_, (String, String)>(
        "SELECT id, email FROM users WHERE id = ?1 UNION ALL SELECT id, email FROM users WHERE email = ?1 LIMIT 1",
    )
    .bind(id_or_email)
    .fetch_optional(readers)
    .await
    .map_err(StoreError::from)?;
    found.ok_or_else(|| BooksError::NoSuchUser(id_or_email.to_owned()))
}

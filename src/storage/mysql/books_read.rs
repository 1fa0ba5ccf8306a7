//! What operators look at: users, keys, balances and their history.

use sqlx::MySqlPool;
use sqlx::mysql::MySqlRow;

use super::context::Names;
use crate::domain::ids::RemoteKeyId;
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::books::{BooksError, CreditsView, KeyBalance, KeySelector, KeyView, TransactionView, UserView};
use crate::storage::decode::{BookRow, decimal};

/// Newest first.
pub async fn users(readers: &MySqlPool, limit: u32) -> Result<Vec<UserView>, StoreError> {
    let rows = sqlx::query(
        "SELECT u.id, u.email, u.name, CAST(COALESCE(b.currentCredits, 0) AS SIGNED), \
           (SELECT COUNT(*) FROM api_keys AS k WHERE k.userId = u.id), CAST(u.createdAt AS CHAR) \
         FROM users AS u LEFT JOIN user_credit_balances AS b ON b.userId = u.id \
         ORDER BY u.createdAt DESC, u.id DESC LIMIT ?",
    )
    .bind(limit)
    .fetch_all(readers)
    .await?;
    let view = |row: &MySqlRow| -> Result<UserView, StoreError> {
        Ok(UserView {
            id: row.text(0)?,
            email: row.text(1)?,
            name: row.optional_text(2)?,
            credits: row.number(3)?,
            keys: row.number(4)?,
            created_at: row.text(5)?,
        })
    };
    rows.iter().map(view).collect()
}

/// Newest first.
pub async fn keys(readers: &MySqlPool, user: Option<String>, limit: u32) -> Result<Vec<KeyView>, BooksError> {
    let user_id = match user {
        Some(user) => Some(find_user(readers, &user).await?.0),
        None => None,
    };
    let rows = sqlx::query(
        "SELECT k.id, k.userId, u.email, k.remoteKeyId, k.label, CAST(k.status AS CHAR), CAST(k.createdAt AS CHAR), \
           CAST(k.lastUsedAt AS CHAR) \
         FROM api_keys AS k JOIN users AS u ON u.id = k.userId \
         WHERE ? IS NULL OR k.userId = ? ORDER BY k.createdAt DESC, k.id DESC LIMIT ?",
    )
    .bind(user_id.clone())
    .bind(user_id)
    .bind(limit)
    .fetch_all(readers)
    .await
    .map_err(StoreError::from)?;
    let view = |row: &MySqlRow| -> Result<KeyView, StoreError> {
        Ok(KeyView {
            id: row.text(0)?,
            user_id: row.text(1)?,
            email: row.text(2)?,
            remote_key_id: row.optional_text(3)?,
            label: row.text(4)?,
            status: row.text(5)?,
            created_at: row.text(6)?,
            last_used_at: row.optional_text(7)?,
        })
    };
    Ok(rows.iter().map(view).collect::<Result<_, _>>()?)
}

/// Balance, remainder and unpaid amount of one user.
pub async fn credits(readers: &MySqlPool, names: &Names, user: String) -> Result<CreditsView, BooksError> {
    let (user_id, email) = find_user(readers, &user).await?;
    let row = sqlx::query(names.sql(
        "SELECT CAST(COALESCE((SELECT currentCredits FROM user_credit_balances WHERE userId = ?), 0) AS SIGNED), \
           COALESCE((SELECT remainder_femtos FROM hookledger_accounts WHERE user_id = ?), 0), \
           COALESCE((SELECT unpaid_credits FROM hookledger_accounts WHERE user_id = ?), 0)",
    ))
    .bind(&user_id)
    .bind(&user_id)
    .bind(&user_id)
    .fetch_one(readers)
    .await
    .map_err(StoreError::from)?;
    let (credits, remainder, unpaid) = (row.number(0)?, decimal(0, row.number(1)?), row.number(2)?);
    Ok(CreditsView { user_id, email, credits, remainder, unpaid })
}

// One statement, and so one instant.
const KEY_BALANCES: &str = "SELECT k.status = 'ACTIVE', CAST(COALESCE(b.currentCredits, 0) AS SIGNED), k.userId, k.id, \
       k.remoteKeyId, k.label, CAST(b.updatedAt AS CHAR), CAST(k.createdAt AS CHAR) \
     FROM api_keys AS k LEFT JOIN user_credit_balances AS b ON b.userId = k.userId";

/// What the owner of an active key has.
pub async fn key_balance(readers: &MySqlPool, key: KeySelector) -> Result<KeyBalance, BooksError> {
    let (column, id) = match &key {
        // A row that claims to be of token 0 is nobody's: its calls are charged to nobody either.
        KeySelector::Remote(id) if id.is_nobody() => return Err(BooksError::NoSuchKey(key)),
        KeySelector::Remote(id) => ("k.remoteKeyId", id.to_string()),
        KeySelector::Id(id) => ("k.id", id.to_string()),
    };
    let sql = sqlx::AssertSqlSafe(format!("{KEY_BALANCES} WHERE {column} = ?"));
    let rows = sqlx::query(sql).bind(&id).fetch_all(readers).await.map_err(StoreError::from)?;
    let mut found = Vec::new();
    for row in &rows {
        let asked = match &key {
            KeySelector::Remote(_) => row.optional_text(4)?.unwrap_or_default(),
            KeySelector::Id(_) => row.text(3)?,
        };
        // The collation takes more for equal than is.
        if asked == id {
            found.push((row.flag(0)?, balance_row(row)?));
        }
    }
    let first_user = found.first().map(|(_, balance)| balance.user_id.clone());
    if found.iter().any(|(_, balance)| Some(&balance.user_id) != first_user.as_ref()) {
        return Err(BooksError::SeveralKeyOwners(key));
    }
    // The first row is the one that is charged: `stored::owners` sorts alike.
    found.sort_by(|(active, one), (other_active, other)| (!active, &one.key_id).cmp(&(!other_active, &other.key_id)));
    match found.into_iter().next() {
        None => Err(BooksError::NoSuchKey(key)),
        Some((false, _)) => Err(BooksError::KeyNotActive(key)),
        Some((true, balance)) => Ok(balance),
    }
}

fn balance_row(row: &MySqlRow) -> Result<KeyBalance, StoreError> {
    let updated_at = row.optional_text(6)?;
    let created_at = row.text(7)?;
    let last_updated = UnixMillis::from_column(updated_at.as_deref().unwrap_or(&created_at));
    Ok(KeyBalance {
        credits: row.number(1)?,
        user_id: row.text(2)?,
        key_id: row.text(3)?,
        remote_key_id: row.optional_text(4)?.as_deref().and_then(RemoteKeyId::parse),
        label: row.text(5)?,
        // Another program's odd date is no reason to keep a call waiting.
        last_updated: last_updated.unwrap_or(UnixMillis::ZERO),
    })
}

/// Columns of a transaction, from the first on.
pub fn transaction_row(row: &MySqlRow, first: usize) -> Result<TransactionView, StoreError> {
    Ok(TransactionView {
        id: row.text(first)?,
        created_at: row.text(first + 1)?,
        kind: row.text(first + 2)?,
        amount: row.number(first + 3)?,
        balance: row.number(first + 4)?,
        description: row.optional_text(first + 5)?,
        reference: row.optional_text(first + 6)?,
    })
}

/// The columns that `transaction_row` reads, of the table `t`.
pub const TRANSACTION: &str = "t.id, CAST(t.createdAt AS CHAR), CAST(t.type AS CHAR), CAST(t.amount AS SIGNED), \
     CAST(t.balance AS SIGNED), t.`desc`, t.ref";

/// Newest first.
pub async fn history(readers: &MySqlPool, user: String, limit: u32) -> Result<Vec<TransactionView>, BooksError> {
    let (user_id, _) = find_user(readers, &user).await?;
    let sql = format!(
        "SELECT {TRANSACTION} FROM credit_transactions AS t WHERE t.userId = ? ORDER BY t.createdAt DESC, t.id DESC LIMIT ?"
    );
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql))
        .bind(user_id)
        .bind(limit)
        .fetch_all(readers)
        .await
        .map_err(StoreError::from)?;
    Ok(rows.iter().map(|row| transaction_row(row, 0)).collect::<Result<_, _>>()?)
}

/// The id and email of a user named by either.
pub async fn find_user(readers: &MySqlPool, id_or_email: &str) -> Result<(String, String), BooksError> {
    let found = sqlx::query_as("SELECT id, email FROM users WHERE id = ? OR email = ?")
        .bind(id_or_email)
        .bind(id_or_email)
        .fetch_all(readers)
        .await
        .map_err(StoreError::from)?;
    choose_user(found, id_or_email).ok_or_else(|| BooksError::NoSuchUser(id_or_email.to_owned()))
}

/// An id is compared by its bytes, whatever the collation takes for equal; an email without its case. The id comes first.
pub fn choose_user(found: Vec<(String, String)>, id_or_email: &str) -> Option<(String, String)> {
    let by_id = found.iter().find(|(id, _)| id == id_or_email);
    let by_email = found.iter().find(|(_, email)| email.to_lowercase() == id_or_email.to_lowercase());
    by_id.or(by_email).cloned()
}

//! What operators change: users, keys and granted credits, each in one transaction.

use sqlx::{Connection, SqliteConnection};

use super::writer::Context;
use super::{snapshot, write};
use crate::domain::ids::{RemoteKeyId, UserId};
use crate::domain::money::{AmountTooLarge, Credits};
use crate::domain::outcome::fit_column;
use crate::domain::settlement::{AccountChange, next_stamp};
use crate::failpoint;
use crate::storage::StoreError;
use crate::storage::books::{BooksError, Created, Granted, NewGrant, NewKey, NewUser};

impl From<sqlx::Error> for BooksError {
    fn from(error: sqlx::Error) -> Self {
        BooksError::Store(error.into())
    }
}

impl From<AmountTooLarge> for BooksError {
    fn from(error: AmountTooLarge) -> Self {
        BooksError::Invalid(error.to_string())
    }
}

/// Adds a user with a balance row, and a grant where he begins with credits.
pub async fn add_user(
    connection: &mut SqliteConnection,
    context: &Context,
    user: NewUser,
) -> Result<Created, BooksError> {
    let email = bounded("email", &user.email)?;
    if user.credits < 0 {
        return Err(BooksError::Invalid("credits must be zero or more".to_owned()));
    }
    let name = user.name.as_deref().map(|name| bounded("name", name)).transpose()?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let taken: bool = sqlx::query_scalar("SELECT COUNT(*) > 0 FROM users WHERE email = ?1 OR id = ?1")
        .bind(email)
        .fetch_one(&mut *transaction)
        .await?;
    if taken {
        return Err(BooksError::EmailTaken(email.to_owned()));
    }
    let now = context.clock.now();
    let id = context.ids.next(now);
    sqlx::query("INSERT INTO users (id, email, name, createdAt, updatedAt) VALUES (?1, ?2, ?3, ?4, ?4)")
        .bind(id.as_str())
        .bind(email)
        .bind(name)
        .bind(now.to_column())
        .execute(&mut *transaction)
        .await?;
    let user_id = UserId::parse(id.as_str()).map_err(|error| BooksError::Invalid(error.to_string()))?;
    book_grant(&mut transaction, context, &user_id, Credits::new(user.credits), Some("initial credits")).await?;
    transaction.commit().await?;
    Ok(Created { id: id.as_str().to_owned() })
}

/// Gives a user the key that a token of new-api stands for.
pub async fn add_key(connection: &mut SqliteConnection, context: &Context, key: NewKey) -> Result<Created, BooksError> {
    let remote_id = RemoteKeyId::new(key.remote_id)
        .filter(|id| !id.is_nobody())
        .ok_or_else(|| BooksError::Invalid("the remote id must be above 0: new-api's token id".to_owned()))?;
    let label = key.label.as_deref().map(|label| bounded("label", label)).transpose()?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let user_id = find_user(&mut transaction, &key.user).await?;
    let other = sqlx::query_as::<_, (String, String)>(
        "SELECT id, userId FROM api_keys WHERE remoteKeyId = ?1 AND userId <> ?2 LIMIT 1",
    )
    .bind(remote_id.to_string())
    .bind(user_id.as_str())
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some((key_id, user_id)) = other {
        return Err(BooksError::RemoteIdTaken { remote_id: remote_id.to_string(), key_id, user_id });
    }
    let now = context.clock.now();
    let id = context.ids.next(now);
    sqlx::query(
        "INSERT INTO api_keys (id, userId, label, remoteKeyId, createdAt, updatedAt) VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
    )
    .bind(id.as_str())
    .bind(user_id.as_str())
    .bind(label.map_or_else(|| format!("token {remote_id}"), str::to_owned))
    .bind(remote_id.to_string())
    .bind(now.to_column())
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await?;
    Ok(Created { id: id.as_str().to_owned() })
}

/// Adds credits, once for each idempotency key.
pub async fn grant(
    connection: &mut SqliteConnection,
    context: &Context,
    grant: NewGrant,
) -> Result<Granted, BooksError> {
    if grant.amount <= 0 {
        return Err(BooksError::Invalid("the amount must be above 0".to_owned()));
    }
    let amount = Credits::new(grant.amount).for_column()?;
    let idempotency_key = grant.idempotency_key.as_deref().map(|key| bounded("idempotency key", key)).transpose()?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let user_id = find_user(&mut transaction, &grant.user).await?;
    if let Some(key) = idempotency_key
        && let Some(repeated) = repeated_grant(&mut transaction, key, &user_id, amount).await?
    {
        return Ok(repeated);
    }
    let granted = book_grant(&mut transaction, context, &user_id, amount, grant.reason.as_deref()).await?;
    if let Some(key) = idempotency_key {
        sqlx::query(
            "INSERT INTO hookledger_grants (idempotency_key, transaction_id, user_id, amount) VALUES (?1, ?2, ?3, ?4)",
        )
        .bind(key)
        .bind(&granted.id)
        .bind(user_id.as_str())
        .bind(amount.get())
        .execute(&mut *transaction)
        .await?;
    }
    failpoint::hit("store.grant.written").map_err(StoreError::from)?;
    transaction.commit().await?;
    failpoint::hit("store.grant.committed").map_err(StoreError::from)?;
    Ok(granted)
}

async fn repeated_grant(
    connection: &mut SqliteConnection,
    idempotency_key: &str,
    user_id: &UserId,
    amount: Credits,
) -> Result<Option<Granted>, BooksError> {
    let earlier = sqlx::query_as::<_, (String, String, i64)>(
        "SELECT transaction_id, user_id, amount FROM hookledger_grants WHERE idempotency_key = ?1",
    )
    .bind(idempotency_key)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((id, earlier_user, earlier_amount)) = earlier else {
        return Ok(None);
    };
    if earlier_user != user_id.as_str() || earlier_amount != amount.get() {
        return Err(BooksError::IdempotencyConflict(idempotency_key.to_owned()));
    }
    let balance = snapshot::account(connection, user_id).await?.balance.unwrap_or_default();
    Ok(Some(Granted { id, user_id: earlier_user, amount: amount.get(), balance: balance.get(), repeated: true }))
}

/// Moves a balance upwards and writes the transaction that tells of it; nothing is written for an amount of zero.
async fn book_grant(
    connection: &mut SqliteConnection,
    context: &Context,
    user_id: &UserId,
    amount: Credits,
    reason: Option<&str>,
) -> Result<Granted, BooksError> {
    let now = context.clock.now();
    let account = snapshot::account(&mut *connection, user_id).await?;
    let balance = account.balance.unwrap_or_default().checked_add(amount)?;
    let created_at = next_stamp(now, account.newest_transaction.as_ref());
    let previous = account.newest_transaction.as_ref().and_then(|newest| newest.id.as_ref());
    let id = context.ids.next_after(created_at, previous);
    let change = AccountChange {
        user_id: user_id.clone(),
        balance_delta: amount,
        remainder: account.remainder,
        unpaid: account.unpaid,
        creates_balance: account.balance.is_none(),
    };
    write::move_balances(&mut *connection, context, std::slice::from_ref(&change), now).await?;
    if amount != Credits::ZERO {
        sqlx::query(
            "INSERT INTO credit_transactions (id, userId, type, amount, balance, desc, createdAt) \
             VALUES (?1, ?2, 'RECHARGE', ?3, ?4, ?5, ?6)",
        )
        .bind(id.as_str())
        .bind(user_id.as_str())
        .bind(amount.get())
        .bind(balance.get())
        .bind(reason.map(fit_column))
        .bind(created_at.to_column())
        .execute(connection)
        .await?;
    }
    Ok(Granted {
        id: id.as_str().to_owned(),
        user_id: user_id.as_str().to_owned(),
        amount: amount.get(),
        balance: balance.get(),
        repeated: false,
    })
}

async fn find_user(connection: &mut SqliteConnection, id_or_email: &str) -> Result<UserId, BooksError> {
    let found = sqlx::query_scalar::<_, String>(
        "SELECT id FROM users WHERE id = ?1 UNION ALL SELECT id FROM users WHERE email = ?1 LIMIT 1",
    )
    .bind(id_or_email)
    .fetch_optional(connection)
    .await?;
    found.and_then(|id| UserId::parse(&id).ok()).ok_or_else(|| BooksError::NoSuchUser(id_or_email.to_owned()))
}

/// A text of 1 to 191 characters without NUL, as the platform's columns hold it.
fn bounded<'a>(what: &str, text: &'a str) -> Result<&'a str, BooksError> {
    match UserId::parse(text) {
        Ok(_) if text.trim() == text => Ok(text),
        Ok(_) => Err(BooksError::Invalid(format!("the {what} must not begin or end with a space"))),
        Err(error) => Err(BooksError::Invalid(format!("the {what} {error}"))),
    }
}

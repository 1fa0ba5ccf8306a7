//! What operators change: users, keys and granted credits, each in one transaction.

use sqlx::{Connection, SqliteConnection};

use super::writer::Context;
use super::{snapshot, write};
use crate::domain::accounts::plan_move;
use crate::domain::ids::{RemoteKeyId, UserId};
use crate::domain::money::{AmountTooLarge, Credits};
use crate::domain::outcome::fit_column;
use crate::failpoint;
use crate::storage::StoreError;
use crate::storage::books::{BooksError, Created, Granted, NewAdjustment, NewGrant, NewKey, NewUser, bounded};

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
    book_move(&mut transaction, context, &user_id, RECHARGE, Credits::new(user.credits), Some("initial credits"))
        .await?;
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
    // Whoever gives it to a user has changed his mind about it.
    sqlx::query("DELETE FROM hookledger_ignored_tokens WHERE remote_key_id = ?1")
        .bind(remote_id.get())
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
    let NewGrant { user, amount, reason, idempotency_key, .. } = grant;
    move_credits(connection, context, Move { kind: RECHARGE, user, amount, reason, idempotency_key }).await
}

/// Corrects a balance in either direction, once for each idempotency key.
pub async fn adjust(
    connection: &mut SqliteConnection,
    context: &Context,
    adjustment: NewAdjustment,
) -> Result<Granted, BooksError> {
    let NewAdjustment { user, amount, reason, idempotency_key, .. } = adjustment;
    if amount == 0 {
        return Err(BooksError::Invalid("the amount must not be 0".to_owned()));
    }
    let reason = Some(bounded("reason", &reason)?.to_owned());
    move_credits(connection, context, Move { kind: ADMIN_ADJUST, user, amount, reason, idempotency_key }).await
}

const RECHARGE: &str = "RECHARGE";
const ADMIN_ADJUST: &str = "ADMIN_ADJUST";

/// Credits that a person moves.
struct Move {
    /// `credit_transactions.type`
    kind: &'static str,
    user: String,
    amount: i64,
    reason: Option<String>,
    idempotency_key: Option<String>,
}

async fn move_credits(
    connection: &mut SqliteConnection,
    context: &Context,
    wanted: Move,
) -> Result<Granted, BooksError> {
    let Move { kind, user, amount, reason, idempotency_key } = wanted;
    let amount = Credits::new(amount).for_column()?;
    let idempotency_key = idempotency_key.as_deref().map(|key| bounded("idempotency key", key)).transpose()?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let user_id = find_user(&mut transaction, &user).await?;
    if let Some(key) = idempotency_key
        && let Some(repeated) = repeated_move(&mut transaction, kind, key, &user_id, amount).await?
    {
        return Ok(repeated);
    }
    let moved = book_move(&mut transaction, context, &user_id, kind, amount, reason.as_deref()).await?;
    if let Some(key) = idempotency_key {
        sqlx::query(
            "INSERT INTO hookledger_grants (idempotency_key, transaction_id, user_id, amount, kind) \
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )
        .bind(key)
        .bind(&moved.id)
        .bind(user_id.as_str())
        .bind(amount.get())
        .bind(kind)
        .execute(&mut *transaction)
        .await?;
    }
    failpoint::hit("store.grant.written").map_err(StoreError::from)?;
    transaction.commit().await?;
    failpoint::hit("store.grant.committed").map_err(StoreError::from)?;
    Ok(moved)
}

async fn repeated_move(
    connection: &mut SqliteConnection,
    kind: &str,
    idempotency_key: &str,
    user_id: &UserId,
    amount: Credits,
) -> Result<Option<Granted>, BooksError> {
    let earlier = sqlx::query_as::<_, (String, String, i64, String)>(
        "SELECT transaction_id, user_id, amount, kind FROM hookledger_grants WHERE idempotency_key = ?1",
    )
    .bind(idempotency_key)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((id, earlier_user, earlier_amount, earlier_kind)) = earlier else {
        return Ok(None);
    };
    if earlier_user != user_id.as_str() || earlier_amount != amount.get() || earlier_kind != kind {
        return Err(BooksError::IdempotencyConflict(idempotency_key.to_owned()));
    }
    let balance = snapshot::account(connection, user_id).await?.balance.unwrap_or_default();
    Ok(Some(Granted { id, user_id: earlier_user, amount: amount.get(), balance: balance.get(), repeated: true }))
}

/// Moves a balance and writes the transaction that tells of it; no transaction is written for an amount of zero.
async fn book_move(
    connection: &mut SqliteConnection,
    context: &Context,
    user_id: &UserId,
    kind: &str,
    amount: Credits,
    reason: Option<&str>,
) -> Result<Granted, BooksError> {
    let now = context.clock.now();
    let account = snapshot::account(&mut *connection, user_id).await?;
    let moved = plan_move(user_id, &account, amount, now, &context.ids)?;
    write::move_balances(&mut *connection, context, std::slice::from_ref(&moved.change), now).await?;
    if amount != Credits::ZERO {
        sqlx::query(
            "INSERT INTO credit_transactions (id, userId, type, amount, balance, desc, createdAt) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(moved.id.as_str())
        .bind(user_id.as_str())
        .bind(kind)
        .bind(amount.get())
        .bind(moved.balance_after.get())
        .bind(reason.map(fit_column))
        .bind(moved.created_at.to_column())
        .execute(connection)
        .await?;
    }
    Ok(Granted {
        id: moved.id.to_string(),
        user_id: user_id.to_string(),
        amount: amount.get(),
        balance: moved.balance_after.get(),
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

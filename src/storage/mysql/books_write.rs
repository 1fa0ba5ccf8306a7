//! What operators change: users, keys and credits, each in one transaction. The platform does this itself; who does it
//! here was asked whether he means it.

use std::collections::BTreeSet;

use sqlx::MySqlConnection;

use super::context::Context;
use super::shard::End;
use super::{lock, write};
use crate::domain::accounts::{TransactionKind, plan_move};
use crate::domain::ids::{RemoteKeyId, UserId};
use crate::domain::money::Credits;
use crate::domain::outcome::fit_column;
use crate::failpoint;
use crate::storage::StoreError;
use crate::storage::books::{BooksError, Created, Granted, NewAdjustment, NewGrant, NewKey, NewUser, bounded};

/// Adds a user with a balance row, and a grant where he begins with credits.
pub async fn add_user(
    connection: &mut MySqlConnection,
    context: &Context,
    user: NewUser,
) -> Result<End<Created>, BooksError> {
    let email = bounded("email", &user.email)?;
    if user.credits < 0 {
        return Err(BooksError::Invalid("credits must be zero or more".to_owned()));
    }
    let name = user.name.as_deref().map(|name| bounded("name", name)).transpose()?;
    let taken: bool = sqlx::query_scalar("SELECT COUNT(*) > 0 FROM users WHERE email = ? OR id = ?")
        .bind(email)
        .bind(email)
        .fetch_one(&mut *connection)
        .await?;
    if taken {
        return Err(BooksError::EmailTaken(email.to_owned()));
    }
    let now = context.clock.now();
    let id = context.ids.next(now);
    sqlx::query("INSERT INTO users (id, email, name, createdAt, updatedAt) VALUES (?, ?, ?, ?, ?)")
        .bind(id.as_str())
        .bind(email)
        .bind(name)
        .bind(now.to_column())
        .bind(now.to_column())
        .execute(&mut *connection)
        .await?;
    let user_id = UserId::parse(id.as_str()).map_err(|error| BooksError::Invalid(error.to_string()))?;
    let credits = Credits::new(user.credits);
    book_move(connection, context, &user_id, RECHARGE, credits, Some("initial credits")).await?;
    Ok(End::Commit(Created { id: id.to_string() }))
}

/// Gives a user the key that a token of new-api stands for.
pub async fn add_key(
    connection: &mut MySqlConnection,
    context: &Context,
    key: NewKey,
) -> Result<End<Created>, BooksError> {
    let remote_id = RemoteKeyId::new(key.remote_id)
        .filter(|id| !id.is_nobody())
        .ok_or_else(|| BooksError::Invalid("the remote id must be above 0: new-api's token id".to_owned()))?;
    let label = key.label.as_deref().map(|label| bounded("label", label)).transpose()?;
    let user_id = find_user(connection, &key.user).await?;
    let others: Vec<(String, String, String)> =
        sqlx::query_as("SELECT id, userId, remoteKeyId FROM api_keys WHERE remoteKeyId = ?")
            .bind(remote_id.to_string())
            .fetch_all(&mut *connection)
            .await?;
    let other = others
        .into_iter()
        .find(|(_, owner, remote)| *remote == remote_id.to_string() && owner.as_str() != user_id.as_str());
    if let Some((key_id, user_id, _)) = other {
        return Err(BooksError::RemoteIdTaken { remote_id: remote_id.to_string(), key_id, user_id });
    }
    let now = context.clock.now();
    let id = context.ids.next(now);
    sqlx::query(
        "INSERT INTO api_keys (id, userId, label, remoteKeyId, maskedValue, fullValue, createdAt, updatedAt) \
         VALUES (?, ?, ?, ?, '', '', ?, ?)",
    )
    .bind(id.as_str())
    .bind(user_id.as_str())
    .bind(label.map_or_else(|| format!("token {remote_id}"), str::to_owned))
    .bind(remote_id.to_string())
    .bind(now.to_column())
    .bind(now.to_column())
    .execute(&mut *connection)
    .await?;
    // Whoever gives it to a user has changed his mind about it.
    sqlx::query(context.sql("DELETE FROM hookledger_ignored_tokens WHERE remote_key_id = ?"))
        .bind(remote_id.get())
        .execute(connection)
        .await?;
    Ok(End::Commit(Created { id: id.to_string() }))
}

/// Adds credits, once for each idempotency key.
pub async fn grant(
    connection: &mut MySqlConnection,
    context: &Context,
    grant: NewGrant,
) -> Result<End<Granted>, BooksError> {
    if grant.amount <= 0 {
        return Err(BooksError::Invalid("the amount must be above 0".to_owned()));
    }
    let NewGrant { user, amount, reason, idempotency_key, .. } = grant;
    move_credits(connection, context, Move { kind: RECHARGE, user, amount, reason, idempotency_key }).await
}

/// Corrects a balance in either direction, once for each idempotency key.
pub async fn adjust(
    connection: &mut MySqlConnection,
    context: &Context,
    adjustment: NewAdjustment,
) -> Result<End<Granted>, BooksError> {
    let NewAdjustment { user, amount, reason, idempotency_key, .. } = adjustment;
    if amount == 0 {
        return Err(BooksError::Invalid("the amount must not be 0".to_owned()));
    }
    let reason = Some(bounded("reason", &reason)?.to_owned());
    move_credits(connection, context, Move { kind: ADMIN_ADJUST, user, amount, reason, idempotency_key }).await
}

const RECHARGE: &str = TransactionKind::Recharge.as_str();
const ADMIN_ADJUST: &str = TransactionKind::AdminAdjust.as_str();

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
    connection: &mut MySqlConnection,
    context: &Context,
    wanted: Move,
) -> Result<End<Granted>, BooksError> {
    let Move { kind, user, amount, reason, idempotency_key } = wanted;
    let amount = Credits::new(amount).for_column()?;
    let idempotency_key = idempotency_key.as_deref().map(|key| bounded("idempotency key", key)).transpose()?;
    let user_id = find_user(connection, &user).await?;
    if let Some(key) = idempotency_key
        && let Some(repeated) = repeated_move(connection, context, kind, key, &user_id, amount).await?
    {
        return Ok(End::RollBack(repeated));
    }
    let moved = book_move(connection, context, &user_id, kind, amount, reason.as_deref()).await?;
    // Without a key as well, by a name that nobody else gives: should the platform lose it, repair books it again.
    sqlx::query(context.sql(
        "INSERT INTO hookledger_grants (idempotency_key, transaction_id, user_id, amount, kind) VALUES (?, ?, ?, ?, ?)",
    ))
    .bind(idempotency_key.unwrap_or(&moved.id))
    .bind(&moved.id)
    .bind(user_id.as_str())
    .bind(amount.get())
    .bind(kind)
    .execute(connection)
    .await?;
    failpoint::hit("store.grant.written").map_err(StoreError::from)?;
    Ok(End::Commit(moved))
}

async fn repeated_move(
    connection: &mut MySqlConnection,
    context: &Context,
    kind: &str,
    idempotency_key: &str,
    user_id: &UserId,
    amount: Credits,
) -> Result<Option<Granted>, BooksError> {
    let earlier = sqlx::query_as::<_, (String, String, i64, String)>(
        context.sql("SELECT transaction_id, user_id, amount, kind FROM hookledger_grants WHERE idempotency_key = ?"),
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
    let balance: Option<i32> = sqlx::query_scalar("SELECT currentCredits FROM user_credit_balances WHERE userId = ?")
        .bind(user_id.as_str())
        .fetch_optional(connection)
        .await?;
    let balance = i64::from(balance.unwrap_or(0));
    Ok(Some(Granted { id, user_id: earlier_user, amount: amount.get(), balance, repeated: true }))
}

/// Moves a balance and writes the transaction that tells of it; no transaction is written for an amount of zero.
async fn book_move(
    connection: &mut MySqlConnection,
    context: &Context,
    user_id: &UserId,
    kind: &str,
    amount: Credits,
    reason: Option<&str>,
) -> Result<Granted, BooksError> {
    let now = context.clock.now();
    let locked = lock::lock(connection, context, &BTreeSet::from([user_id.clone()]), &BTreeSet::new()).await?;
    if locked.busy_users.contains(user_id) {
        return Err(StoreError::Contended("another program holds the user's row".to_owned()).into());
    }
    let account = locked.accounts.get(user_id).cloned().unwrap_or_default();
    let moved = plan_move(user_id, &account, amount, now, &context.ids)?;
    write::move_balances(connection, context, std::slice::from_ref(&moved.change), now).await?;
    if amount != Credits::ZERO {
        sqlx::query(
            "INSERT INTO credit_transactions (id, userId, type, amount, balance, `desc`, createdAt) \
             VALUES (?, ?, ?, ?, ?, ?, ?)",
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

async fn find_user(connection: &mut MySqlConnection, id_or_email: &str) -> Result<UserId, BooksError> {
    let found: Vec<(String, String)> = sqlx::query_as("SELECT id, email FROM users WHERE id = ? OR email = ?")
        .bind(id_or_email)
        .bind(id_or_email)
        .fetch_all(connection)
        .await?;
    let found = super::books_read::choose_user(found, id_or_email).and_then(|(id, _)| UserId::parse(&id).ok());
    found.ok_or_else(|| BooksError::NoSuchUser(id_or_email.to_owned()))
}

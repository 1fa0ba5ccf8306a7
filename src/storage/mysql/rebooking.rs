//! Books again what the platform's side has lost: charges from our claims, refunds, and credits that a person moved here.
//!
//! Our own accounts stay as they are: they know of all of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::mysql::MySqlRow;
use sqlx::{MySqlConnection, Row};

use super::context::Context;
use super::repair::{Looked, page_rows, place_after};
use super::{lock, write};
use crate::domain::accounts::{Movement, OpenAccounts, TransactionKind};
use crate::domain::event::{Content, Tokens};
use crate::domain::ids::{EventId, KeyId, RecordId, RemoteKeyId, RequestId, UserId};
use crate::domain::matching::TieRule;
use crate::domain::money::{AmountTooLarge, CreditFemtos, Credits, QuotaPerUnit, QuotaUnits, Rate, Remainder};
use crate::domain::pricing::{ExactPrice, Price, Rounding};
use crate::domain::settlement::{Charge, ClaimSide, LedgerPolicy};
use crate::domain::side::{Channel, SideIdentity};
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::decode::BookRow;
use crate::storage::near_claim;
use crate::storage::repair::{Mended, RepairPart, RepairPlace, Repaired};
use crate::storage::rows::{self, parameter};
use crate::storage::stored::unreadable;

const CHARGES: &str = "SELECT c.call_second, c.claim_id, u.id IS NOT NULL AND k.id IS NOT NULL AND r.id IS NULL, \
       CONVERT(c.event_id USING utf8mb4), IF(c.source = 'webhook', COALESCE(c.event_at_ms, c.call_second * 1000), c.call_second * 1000), \
       CONVERT(c.request_id USING utf8mb4), c.log_id, c.remote_key_id, c.model, c.prompt_tokens, c.completion_tokens, \
       c.price_units, c.price_credits, c.price_femtos, c.rate_micros, c.quota_per_unit, c.user_id, c.key_id, \
       c.credits_moved, c.credits_unpaid, c.remainder_before, c.remainder_after, c.rounding, \
       c.row_second, c.row_digest, c.row_nth, CONVERT(c.row_request_id USING utf8mb4), c.row_log_id, c.row_source, \
       c.source, c.event_at_ms, c.tie_rule \
     FROM (SELECT call_second, claim_id FROM hookledger_claims \
           WHERE call_second >= ? AND (call_second > ? OR claim_id > ?) ORDER BY call_second, claim_id LIMIT ?) AS p \
     STRAIGHT_JOIN hookledger_claims AS c ON c.call_second = p.call_second AND c.claim_id = p.claim_id \
     LEFT JOIN users AS u ON u.id = c.user_id COLLATE {collation} \
     LEFT JOIN api_keys AS k ON k.id = c.key_id COLLATE {collation} \
     LEFT JOIN usage_records AS r ON r.id = c.claim_id COLLATE {collation} ORDER BY c.call_second, c.claim_id";

const REFUNDS: &str = "SELECT f.refund_id, u.id IS NOT NULL AND f.transaction_id IS NOT NULL AND t.id IS NULL, \
       f.claim_id, f.user_id, f.credits_moved, COALESCE(c.model, '') \
     FROM (SELECT refund_id FROM hookledger_refunds WHERE refund_id > ? ORDER BY refund_id LIMIT ?) AS p \
     STRAIGHT_JOIN hookledger_refunds AS f ON f.refund_id = p.refund_id \
     LEFT JOIN hookledger_claims AS c ON c.call_second = f.call_second AND c.claim_id = f.claim_id \
     LEFT JOIN users AS u ON u.id = f.user_id COLLATE {collation} \
     LEFT JOIN credit_transactions AS t ON t.id = f.transaction_id COLLATE {collation} ORDER BY f.refund_id";

const GRANTS: &str = "SELECT g.idempotency_key, u.id IS NOT NULL AND t.id IS NULL, g.user_id, g.amount, g.kind \
     FROM (SELECT idempotency_key FROM hookledger_grants WHERE idempotency_key > ? ORDER BY idempotency_key LIMIT ?) AS p \
     STRAIGHT_JOIN hookledger_grants AS g ON g.idempotency_key = p.idempotency_key \
     LEFT JOIN users AS u ON u.id = g.user_id COLLATE {collation} \
     LEFT JOIN credit_transactions AS t ON t.id = g.transaction_id COLLATE {collation} ORDER BY g.idempotency_key";

/// Why a person moved credits is not remembered.
const MOVED_AGAIN: &str = "booked again by repair";

const NEW_REFUND_TRANSACTIONS: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS (a VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', \
       b VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]')) AS e \
     STRAIGHT_JOIN hookledger_refunds AS f ON f.refund_id = e.a COLLATE utf8mb4_bin SET f.transaction_id = e.b";

const NEW_GRANT_TRANSACTIONS: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS ( \
       a VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', b VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]')) AS e \
     STRAIGHT_JOIN hookledger_grants AS g ON g.idempotency_key = e.a COLLATE utf8mb4_bin SET g.transaction_id = e.b";

/// One page of claims: those without a usage record get one, with its transaction and the balance.
pub async fn charges(
    connection: &mut MySqlConnection,
    context: &Context,
    place: &RepairPlace,
    installation: &str,
) -> Result<Looked, StoreError> {
    let rows = sqlx::query(context.sql(CHARGES))
        .bind(place.second)
        .bind(place.second)
        .bind(place.id.clone())
        .bind(page_rows())
        .fetch_all(&mut *connection)
        .await?;
    let Some(last) = rows.last() else { return Ok(Looked::default()) };
    let next = place_after(RepairPart::Charges, rows.len(), last.number(0)?, &last.text(1)?);
    let (mut charges, mut adopted) = (Vec::new(), Vec::new());
    for row in &rows {
        if row.flag(2)? {
            let of_others = row.text(29)? == "adopted";
            let charges = if of_others { &mut adopted } else { &mut charges };
            charges.push(charge(row, **context.policy.load())?);
        }
    }
    if charges.is_empty() && adopted.is_empty() {
        return Ok((Repaired::default(), next));
    }
    // What another program wrote is none of ours afterwards either: its second is not the event's.
    for (installation, charges) in [(Some(installation), &charges), (None, &adopted)] {
        let records = rows::usage_records(installation, charges)?;
        write::each(connection, context, write::USAGE_RECORDS, &[], records, &[]).await?;
    }
    charges.extend(adopted);
    let lost = charges.iter().map(|charge| {
        Ok(Lost {
            name: charge.id.to_string(),
            kind: TransactionKind::Deduct,
            amount: Credits::ZERO.checked_sub(charge.credits).map_err(too_large)?,
            user_id: charge.user_id.clone(),
            charge_id: Some(charge.id.clone()),
            description: charge.content.model.clone(),
        })
    });
    let lost = lost.collect::<Result<Vec<Lost>, StoreError>>()?;
    book_again(connection, context, &lost).await?;
    let credits = charges.iter().map(|charge| charge.credits.get()).sum();
    let booked_charges = Mended { count: charges.len() as u64, credits };
    Ok((Repaired { booked_charges, ..Repaired::default() }, next))
}

/// One page of refunds: those whose transaction is gone get another, and the balance.
pub async fn refunds(
    connection: &mut MySqlConnection,
    context: &Context,
    place: &RepairPlace,
) -> Result<Looked, StoreError> {
    let rows = page(connection, context, REFUNDS, place).await?;
    let Some(last) = rows.last() else { return Ok(Looked::default()) };
    let next = place_after(RepairPart::Refunds, rows.len(), 0, &last.text(0)?);
    let mut lost = Vec::new();
    for row in &rows {
        if row.flag(1)? {
            lost.push(Lost {
                name: row.text(0)?,
                kind: TransactionKind::Refund,
                amount: Credits::new(row.number(4)?),
                user_id: user_id(row.text(3)?)?,
                charge_id: Some(record_id(row.text(2)?)?),
                description: Arc::from(row.text(5)?.as_str()),
            });
        }
    }
    let renamed = book_again(connection, context, &lost).await?;
    write::each(connection, context, NEW_REFUND_TRANSACTIONS, &[], parameter(&renamed)?, &[]).await?;
    Ok((Repaired { booked_refunds: sum(&lost), ..Repaired::default() }, next))
}

/// One page of what persons moved: what has lost its transaction gets another, and the balance.
pub async fn grants(
    connection: &mut MySqlConnection,
    context: &Context,
    place: &RepairPlace,
) -> Result<Looked, StoreError> {
    let rows = page(connection, context, GRANTS, place).await?;
    let Some(last) = rows.last() else { return Ok(Looked::default()) };
    let next = place_after(RepairPart::Grants, rows.len(), 0, &last.text(0)?);
    let mut lost = Vec::new();
    for row in &rows {
        if row.flag(1)? {
            let kind = row.text(4)?;
            lost.push(Lost {
                name: row.text(0)?,
                kind: TransactionKind::parse(&kind).ok_or_else(|| unreadable("hookledger_grants.kind", kind))?,
                amount: Credits::new(row.number(3)?),
                user_id: user_id(row.text(2)?)?,
                charge_id: None,
                description: Arc::from(MOVED_AGAIN),
            });
        }
    }
    let renamed = book_again(connection, context, &lost).await?;
    write::each(connection, context, NEW_GRANT_TRANSACTIONS, &[], parameter(&renamed)?, &[]).await?;
    Ok((Repaired { booked_grants: sum(&lost), ..Repaired::default() }, next))
}

async fn page(
    connection: &mut MySqlConnection,
    context: &Context,
    sql: &str,
    place: &RepairPlace,
) -> Result<Vec<MySqlRow>, StoreError> {
    Ok(sqlx::query(context.sql(sql)).bind(place.id.clone()).bind(page_rows()).fetch_all(connection).await?)
}

/// A movement of credits that the platform's side does not know any more.
struct Lost {
    /// Of the row of ours that remembers it.
    name: String,
    kind: TransactionKind,
    /// Signed, as it moves the balance.
    amount: Credits,
    user_id: UserId,
    charge_id: Option<RecordId>,
    description: Arc<str>,
}

fn sum(lost: &[Lost]) -> Mended {
    Mended { count: lost.len() as u64, credits: lost.iter().map(|lost| lost.amount.get()).sum() }
}

/// Moves the balances and writes the transactions; the name of each row of ours with the id of its new transaction.
async fn book_again(
    connection: &mut MySqlConnection,
    context: &Context,
    lost: &[Lost],
) -> Result<Vec<(String, String)>, StoreError> {
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    let users: BTreeSet<UserId> = lost.iter().map(|lost| lost.user_id.clone()).collect();
    let locked = lock::lock(connection, context, &users, &BTreeSet::new()).await?;
    if !locked.busy_users.is_empty() {
        return Err(StoreError::Contended("another program holds a user's row".to_owned()));
    }
    let mut accounts = OpenAccounts::new(locked.accounts);
    let now = context.clock.now();
    let (mut transactions, mut renamed) = (Vec::new(), Vec::new());
    for Lost { name, kind, amount, user_id, charge_id, description } in lost {
        let account = accounts.get(user_id);
        let movement = Movement {
            kind: *kind,
            amount: *amount,
            remainder: account.remainder,
            unpaid: account.unpaid,
            charge_id: charge_id.clone(),
            description: description.clone(),
        };
        if let Some(transaction) = accounts.book(user_id, movement, now, &context.ids).map_err(too_large)? {
            renamed.push((name.clone(), transaction.id.to_string()));
            transactions.push(transaction);
        }
    }
    write::each(connection, context, write::TRANSACTIONS, &[], rows::transactions(&transactions)?, &[]).await?;
    write::move_balances(connection, context, &accounts.finish(), now).await?;
    Ok(renamed)
}

pub fn too_large(error: AmountTooLarge) -> StoreError {
    StoreError::Refused(error.to_string())
}

pub fn record_id(id: String) -> Result<RecordId, StoreError> {
    RecordId::parse(&id).map_err(|_| unreadable("the id of a charge", id))
}

pub fn user_id(id: String) -> Result<UserId, StoreError> {
    UserId::parse(&id).map_err(|_| unreadable("a user's id", id))
}

/// A claim as the charge that it was.
fn charge(row: &MySqlRow, policy: LedgerPolicy) -> Result<Charge, StoreError> {
    let id = row.text(1)?;
    let odd = || unreadable("hookledger_claims", row.try_get::<String, _>(1).unwrap_or_default());
    let tokens = |column| Ok::<_, StoreError>(i32::try_from(row.number(column)?).unwrap_or(i32::MAX));
    let (prompt, completion) = (tokens(9)?, tokens(10)?);
    let units = row.optional_number(11)?.and_then(QuotaUnits::new);
    let femtos = Remainder::new(row.number(13)?).ok_or_else(odd)?;
    let content = Content {
        remote_key_id: RemoteKeyId::new(row.number(7)?).ok_or_else(odd)?,
        model: Arc::from(row.text(8)?.as_str()),
        // The claim does not keep the sender's total.
        tokens: Tokens { prompt, completion, total: prompt.saturating_add(completion) },
        price: units.map_or(Price::CreditCost(Credits::ZERO), Price::Quota),
        called_at: UnixMillis::new(row.number(4)?),
    };
    let event = match (row.optional_text(3)?, row.optional_number(30)?) {
        (Some(event_id), Some(at)) => {
            let event_id = EventId::parse(&event_id).map_err(|_| odd())?;
            let request_id = row.optional_text(5)?.and_then(|id| RequestId::parse(&id).ok());
            let identity = SideIdentity::Event { event_id, request_id, log_id: row.optional_number(6)? };
            Some(ClaimSide { identity, at: UnixMillis::new(at) })
        }
        _ => None,
    };
    let row_side = near_claim::row_side(row, 23, &odd)?.map(|(identity, at)| ClaimSide { identity, at });
    Ok(Charge {
        id: record_id(id)?,
        event,
        content,
        channel: if row.text(29)? == Channel::Log.as_str() { Channel::Log } else { Channel::Webhook },
        row: row_side,
        tie: row.optional_text(31)?.as_deref().and_then(TieRule::parse),
        user_id: user_id(row.text(16)?)?,
        key_id: KeyId::parse(&row.text(17)?).map_err(|_| odd())?,
        price: ExactPrice {
            units,
            credits: CreditFemtos::from_parts(row.number(12)?, femtos).ok_or_else(odd)?,
            rate: Rate::from_micros(row.number(14)?).ok_or_else(odd)?,
            quota_per_unit: QuotaPerUnit::new(row.number(15)?).ok_or_else(odd)?,
        },
        rounding: row.optional_text(22)?.as_deref().and_then(Rounding::parse).unwrap_or(policy.rounding),
        credits: Credits::new(row.number(18)?),
        unpaid: Credits::new(row.number(19)?),
        remainder_before: Remainder::new(row.number(20)?).ok_or_else(odd)?,
        remainder_after: Remainder::new(row.number(21)?).ok_or_else(odd)?,
    })
}

//! Makes again what our state has lost: claims and accounts from usage records, refunds from their transactions.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use sqlx::MySqlConnection;
use sqlx::mysql::MySqlRow;

use super::belonging;
use super::context::Context;
use super::rebooking::{record_id, too_large, user_id};
use super::repair::{Looked, page_rows, place_after};
use super::{coverage, lock, write};
use crate::domain::event::{Content, Tokens};
use crate::domain::ids::{EventId, KeyId, RemoteKeyId, UserId};
use crate::domain::log_snapshot::RowWrite;
use crate::domain::matching::TieRule;
use crate::domain::money::{CreditFemtos, Credits, QuotaPerUnit, QuotaUnits, Rate, Remainder};
use crate::domain::pricing::{ExactPrice, Price, Rounding};
use crate::domain::repair::{RebuiltClaim, rebuilt_accounts};
use crate::domain::settlement::{Charge, LedgerPolicy, Plan};
use crate::domain::time::UnixMillis;
use crate::storage::StoreError;
use crate::storage::decode::BookRow;
use crate::storage::raw_meta::{self, StoredMeta};
use crate::storage::repair::{Mended, RepairPart, RepairPlace, Repaired};
use crate::storage::rows::{self, parameter};
use crate::storage::stored::ClaimKey;

const RECORDS: &str = "SELECT r.id, r.rawMeta, r.apiKeyId, k.userId, r.model, CAST(r.promptTokens AS SIGNED), \
       CAST(r.completionTokens AS SIGNED), CAST(r.totalTokens AS SIGNED), CAST(r.creditCost AS SIGNED) \
     FROM (SELECT id FROM usage_records WHERE id > ? AND id < '1' ORDER BY id LIMIT ?) AS p \
     STRAIGHT_JOIN usage_records AS r ON r.id = p.id STRAIGHT_JOIN api_keys AS k ON k.id = r.apiKeyId ORDER BY r.id";

const GIVEN_BACK: &str = "SELECT t.id, t.type = 'REFUND' AND f.refund_id IS NULL AND r.id IS NOT NULL, r.id, r.rawMeta, \
       t.userId, CAST(t.amount AS SIGNED), COALESCE(a.remainder_femtos, 0), CAST(t.createdAt AS CHAR) \
     FROM (SELECT id FROM credit_transactions WHERE id > ? AND id < '1' ORDER BY id LIMIT ?) AS p \
     STRAIGHT_JOIN credit_transactions AS t ON t.id = p.id \
     LEFT JOIN usage_records AS r ON r.id = t.ref AND t.type = 'REFUND' \
     LEFT JOIN hookledger_refunds AS f \
       ON f.claim_id = t.ref COLLATE utf8mb4_bin AND f.transaction_id = t.id COLLATE utf8mb4_bin \
     LEFT JOIN hookledger_accounts AS a ON a.user_id = t.userId COLLATE utf8mb4_bin ORDER BY t.id";

// Records of these keys' calls of these instants; the last condition only spares what is surely of another event.
const WOULD_BE: &str = "SELECT r.rawMeta FROM JSON_TABLE(?, '$[*]' COLUMNS ( \
       a VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', b VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[1]', \
       c VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]')) AS e \
     STRAIGHT_JOIN api_keys AS k ON k.remoteKeyId = e.a COLLATE {collation} \
     STRAIGHT_JOIN usage_records AS r ON r.apiKeyId = k.id AND r.timestamp = CAST(e.b AS DATETIME(3)) \
     WHERE r.id < '1' AND LOCATE(CAST(e.c AS BINARY), CAST(r.rawMeta AS BINARY)) > 0";

/// Whether the claims that our state lacks were made again before, as in a repair, or only would be, as in a dry run.
#[derive(Debug, Clone, Copy)]
pub enum Rebuilt<'a> {
    Is,
    /// From the records of this installation.
    WouldBe(&'a str),
}

/// Which of these events, each with its token, have a usage record of ours, and so would have a claim.
pub async fn would_be_claimed(
    connection: &mut MySqlConnection,
    context: &Context,
    installation: &str,
    events: &[(ClaimKey, RemoteKeyId)],
) -> Result<HashSet<ClaimKey>, StoreError> {
    let asked = events.iter().map(|((called_at, event_id), token)| {
        Ok((token.to_string(), called_at.to_column(), parameter(&event_id.as_str())?))
    });
    let asked = asked.collect::<Result<BTreeSet<_>, StoreError>>()?;
    let mark = belonging::mark(&mut *connection, &context.names).await?.unwrap_or(i64::MIN);
    let found: Vec<Option<String>> =
        sqlx::query_scalar(context.sql(WOULD_BE)).bind(parameter(&asked)?).fetch_all(connection).await?;
    let metas = found.iter().flatten().filter_map(|text| raw_meta::read(text));
    let ours = metas.filter(|meta| meta.installation == installation && second(meta) >= mark);
    Ok(ours
        .filter_map(|meta| Some((UnixMillis::new(meta.event_at_ms?), EventId::parse(meta.event_id.as_deref()?).ok()?)))
        .collect())
}

/// Why a refund that is made again was given is not known any more.
const REASON: &str = "rebuilt by repair";

/// One page of usage records: those of ours without a claim get one, and their users' accounts what they tell.
pub async fn claims(
    connection: &mut MySqlConnection,
    context: &Context,
    place: &RepairPlace,
    installation: &str,
) -> Result<Looked, StoreError> {
    let rows = sqlx::query(RECORDS).bind(place.id.clone()).bind(page_rows()).fetch_all(&mut *connection).await?;
    let Some(last) = rows.last() else { return Ok(Looked::default()) };
    let next = place_after(RepairPart::Claims, rows.len(), 0, &last.text(0)?);
    let mark = belonging::mark(&mut *connection, &context.names).await?.unwrap_or(i64::MIN);
    let mut written = Vec::new();
    for row in &rows {
        let meta = row.optional_text(1)?.and_then(|text| raw_meta::read(&text));
        let is_ours = |meta: &StoredMeta| meta.installation == installation && second(meta) >= mark;
        if let Some(meta) = meta.filter(is_ours) {
            written.push((row.text(0)?, meta, row));
        }
    }
    let places: Vec<(i64, &str)> = written.iter().map(|(id, meta, _)| (second(meta), id.as_str())).collect();
    let claimed: HashSet<String> = belonging::claimed(&mut *connection, &context.names, &places).await?;
    let unclaimed = written.iter().filter(|(id, ..)| !claimed.contains(id));
    let policy = **context.policy.load();
    let charges: Vec<Charge> =
        unclaimed.map(|(id, meta, row)| charge(id, meta, row, policy)).collect::<Result<_, StoreError>>()?;
    if charges.is_empty() {
        return Ok((Repaired::default(), next));
    }
    let users: BTreeSet<UserId> = charges.iter().map(|charge| charge.user_id.clone()).collect();
    // Only our own rows of the users are written here: those are ours from the touch on, whoever holds the platform's.
    let locked = lock::lock(connection, context, &users, &BTreeSet::new()).await?;
    let rebuilt = charges.iter().map(|charge| RebuiltClaim {
        id: charge.id.clone(),
        user_id: charge.user_id.clone(),
        unpaid: charge.unpaid,
        remainder_after: charge.remainder_after,
    });
    let accounts = rebuilt_accounts(rebuilt, |user| locked.accounts.get(user)).map_err(too_large)?;
    write::each(connection, context, write::REBUILT_CLAIMS, &[], rows::claims(&charges)?, &[]).await?;
    let seconds: BTreeSet<i64> = charges.iter().map(|charge| charge.content.called_at.as_secs()).collect();
    coverage::open_for(connection, context, parameter(&seconds)?).await?;
    // Read again, its row is known.
    let rows_of_charges = Plan { rows: charges.iter().filter_map(RowWrite::of_charge).collect(), ..Plan::default() };
    super::log::write(connection, context, &rows_of_charges, context.clock.now()).await?;
    write::each(connection, context, write::ACCOUNTS, &[], rows::accounts(&accounts)?, &[]).await?;
    let credits = charges.iter().map(|charge| charge.credits.get()).sum();
    let rebuilt_charges = Mended { count: charges.len() as u64, credits };
    Ok((Repaired { rebuilt_charges, ..Repaired::default() }, next))
}

fn second(meta: &StoredMeta) -> i64 {
    meta.called_at().as_secs()
}

/// A usage record as the charge that it was.
fn charge(id: &str, meta: &StoredMeta, row: &MySqlRow, policy: LedgerPolicy) -> Result<Charge, StoreError> {
    let odd = || StoreError::Refused(format!("rawMeta of the usage record {id} is not as hookledger writes it"));
    let tokens = |column| Ok::<_, StoreError>(i32::try_from(row.number(column)?).unwrap_or(i32::MAX));
    let units = meta.quota.and_then(QuotaUnits::new);
    let content = Content {
        remote_key_id: RemoteKeyId::new(meta.remote_key_id).ok_or_else(odd)?,
        model: Arc::from(meta.model.clone().map_or_else(|| row.text(4), Ok)?.as_str()),
        tokens: Tokens { prompt: tokens(5)?, completion: tokens(6)?, total: tokens(7)? },
        price: units.map_or(Price::CreditCost(Credits::ZERO), Price::Quota),
        called_at: meta.called_at(),
    };
    let (event, row_side) = (meta.event_side(), meta.row_side());
    Ok(Charge {
        id: record_id(id.to_owned())?,
        tie: (event.is_some() && row_side.is_some()).then_some(TieRule::Person),
        event,
        content,
        channel: meta.channel(),
        row: row_side,
        user_id: user_id(row.text(3)?)?,
        key_id: KeyId::parse(&row.text(2)?).map_err(|_| odd())?,
        price: ExactPrice {
            units,
            credits: CreditFemtos::parse(&meta.price).map_err(|_| odd())?,
            rate: Rate::parse(&meta.rate).map_err(|_| odd())?,
            quota_per_unit: QuotaPerUnit::new(meta.quota_per_unit).ok_or_else(odd)?,
        },
        rounding: meta.rounding.as_deref().and_then(Rounding::parse).unwrap_or(policy.rounding),
        credits: Credits::new(row.number(8)?),
        unpaid: Credits::new(meta.unpaid),
        remainder_before: Remainder::new(meta.remainder_before).ok_or_else(odd)?,
        remainder_after: Remainder::new(meta.remainder_after).ok_or_else(odd)?,
    })
}

/// One page of transactions: a `REFUND` of a charge of ours that no refund of ours tells of gets one, of the whole credits
/// that it moved.
pub async fn given_back(
    connection: &mut MySqlConnection,
    context: &Context,
    place: &RepairPlace,
    installation: &str,
) -> Result<Looked, StoreError> {
    let rows = sqlx::query(context.sql(GIVEN_BACK))
        .bind(place.id.clone())
        .bind(page_rows())
        .fetch_all(&mut *connection)
        .await?;
    let Some(last) = rows.last() else { return Ok(Looked::default()) };
    let next = place_after(RepairPart::GivenBack, rows.len(), 0, &last.text(0)?);
    let (mut refunds, mut rebuilt) = (Vec::new(), Mended::default());
    for row in &rows {
        let meta = if row.flag(1)? { row.optional_text(3)?.and_then(|text| raw_meta::read(&text)) } else { None };
        let Some(meta) = meta.filter(|meta| meta.installation == installation) else { continue };
        let (transaction, amount, remainder) = (row.text(0)?, row.number(5)?, row.number(6)?);
        let at = UnixMillis::from_column(&row.text(7)?).unwrap_or(UnixMillis::ZERO).as_millis();
        let key = format!("rebuilt {transaction}");
        refunds.push((transaction, second(&meta), row.text(2)?, key, row.text(4)?, amount, remainder, at));
        rebuilt.add(Mended { count: 1, credits: amount });
    }
    write::each(connection, context, REFUNDS, &[REASON], parameter(&refunds)?, &[]).await?;
    Ok((Repaired { rebuilt_refunds: rebuilt, ..Repaired::default() }, next))
}

const REFUNDS: &str = "INSERT INTO hookledger_refunds (reason, origin, refund_id, transaction_id, call_second, claim_id, \
       idempotency_key, user_id, price_credits, price_femtos, credits_moved, unpaid_lowered, remainder_before, \
       remainder_after, refunded_at_ms, is_rest) \
     SELECT ?, 'operator', e.a, e.a, e.b, e.c, e.d, e.f, e.g, 0, e.g, 0, e.h, e.h, e.i, 0 FROM JSON_TABLE(?, '$[*]' COLUMNS ( \
       a VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[0]', b BIGINT PATH '$[1]', \
       c VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[2]', d VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[3]', \
       f VARCHAR(1000) CHARACTER SET utf8mb4 PATH '$[4]', g BIGINT PATH '$[5]', h BIGINT PATH '$[6]', \
       i BIGINT PATH '$[7]')) AS e";

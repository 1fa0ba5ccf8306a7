//! Rows of the books back into values, from columns in the order of each store's statements; the same for every database.

use std::sync::Arc;

use super::books::TransactionView;
use super::charges::{ChargeView, RefundView};
use super::deciding::kind_of_row;
use super::disputes::{DisputeKind, FoundDispute, FoundRow};
use super::neighbours::row_identity;
use super::stored::{unreadable, usage_event};
use super::{StoreError, log_content};
use crate::domain::decision::Subject;
use crate::domain::ids::{RecordId, UserId};
use crate::domain::log_snapshot::NumberedRow;
use crate::domain::money::{CreditFemtos, Credits, QuotaPerUnit, QuotaUnits, Rate, Remainder};
use crate::domain::pricing::{ExactPrice, Rounding};
use crate::domain::refund::{BookedCharge, ChargeKey, EarlierRefund, Refund, RefundOrigin};
use crate::domain::time::UnixMillis;

/// A row as every database gives it: columns by their place.
pub trait BookRow {
    fn number(&self, column: usize) -> Result<i64, StoreError>;
    fn optional_number(&self, column: usize) -> Result<Option<i64>, StoreError>;
    fn text(&self, column: usize) -> Result<String, StoreError>;
    fn optional_text(&self, column: usize) -> Result<Option<String>, StoreError>;

    fn flag(&self, column: usize) -> Result<bool, StoreError> {
        Ok(self.number(column)? != 0)
    }
}

/// Whole credits and femtos as one decimal.
pub fn decimal(credits: i64, femtos: i64) -> String {
    let remainder = Remainder::new(femtos).unwrap_or_default();
    CreditFemtos::from_parts(credits, remainder).unwrap_or_default().to_string()
}

/// The columns of a charge as people see it.
pub fn charge_view(row: &impl BookRow) -> Result<ChargeView, StoreError> {
    let time = |index: usize| row.number(index).map(|millis| UnixMillis::new(millis).to_column());
    Ok(ChargeView {
        id: row.text(0)?,
        source: row.text(1)?,
        event_id: row.optional_text(2)?,
        request_id: row.optional_text(3)?,
        log_id: row.optional_number(4)?,
        called_at: time(5)?,
        settled_at: time(6)?,
        user_id: row.text(7)?,
        key_id: row.text(8)?,
        remote_key_id: row.number(9)?,
        model: row.text(10)?,
        prompt_tokens: row.number(11)?,
        completion_tokens: row.number(12)?,
        quota: row.optional_number(13)?,
        price: decimal(row.number(14)?, row.number(15)?),
        usd_to_credits: Rate::from_micros(row.number(16)?).map(|rate| rate.to_string()).unwrap_or_default(),
        quota_per_unit: row.number(17)?,
        credits: row.number(18)?,
        unpaid: row.number(19)?,
        remainder_before: decimal(0, row.number(20)?),
        remainder_after: decimal(0, row.number(21)?),
        refunded: summed(row.number(22)?, row.number(23)?)?.to_string(),
    })
}

/// A sum of whole credits and one of parts, of which many may make whole ones.
pub fn summed(credits: i64, femtos: i64) -> Result<CreditFemtos, StoreError> {
    let (whole, part) = CreditFemtos::split_parts(femtos).ok_or_else(|| unreadable("a sum of refunds", femtos))?;
    let credits = credits.checked_add(whole).ok_or_else(|| unreadable("a sum of refunds", credits))?;
    CreditFemtos::from_parts(credits, part).ok_or_else(|| unreadable("a sum of refunds", credits))
}

/// The columns of a refund as people see it, its transaction's behind them.
pub fn refund_view(row: &impl BookRow) -> Result<RefundView, StoreError> {
    let transaction = match row.optional_text(11)? {
        None => None,
        Some(id) => Some(TransactionView {
            id,
            created_at: row.text(12)?,
            kind: row.text(13)?,
            amount: row.number(14)?,
            balance: row.number(15)?,
            description: row.optional_text(16)?,
            reference: row.optional_text(17)?,
        }),
    };
    Ok(RefundView {
        id: row.text(0)?,
        refunded_at: UnixMillis::new(row.number(1)?).to_column(),
        origin: row.text(2)?,
        reason: row.text(3)?,
        idempotency_key: row.text(4)?,
        amount: decimal(row.number(5)?, row.number(6)?),
        credits: row.number(7)?,
        unpaid_lowered: row.number(8)?,
        remainder_before: decimal(0, row.number(9)?),
        remainder_after: decimal(0, row.number(10)?),
        transaction,
    })
}

/// An event that waits for a person: payload, message, when it was recorded; none where its payload cannot be read.
pub fn disputed_event<R: BookRow>(row: &R) -> Result<Option<FoundDispute>, StoreError> {
    let Some(event) = usage_event(&row.text(0)?) else { return Ok(None) };
    Ok(Some(FoundDispute {
        subject: Subject::Event(Arc::new(event)),
        kind: DisputeKind::Event,
        reason: row.optional_text(1)?,
        since: UnixMillis::new(row.number(2)?),
    }))
}

/// A row that waits for a person: source, second, digest, number, state, content, reason, when it was read; none where
/// its content cannot be read.
pub fn disputed_row<R: BookRow>(row: &R) -> Result<Option<FoundDispute>, StoreError> {
    let identity = row_identity(&row.text(0)?, row.number(1)?, &row.text(2)?, row.number(3)?)?;
    let content = row.optional_text(5)?.as_deref().and_then(log_content::read);
    let (Some(kind), Some(content)) = (kind_of_row(&row.text(4)?), content) else { return Ok(None) };
    Ok(Some(FoundDispute {
        subject: Subject::Row(Arc::new(NumberedRow { identity, row: content })),
        kind,
        reason: row.optional_text(6)?,
        since: UnixMillis::new(row.number(7)?),
    }))
}

/// A row that could not be booked: source, second, digest, number, content; none where its content cannot be read.
pub fn failed_row<R: BookRow>(row: &R) -> Result<Option<NumberedRow>, StoreError> {
    let identity = row_identity(&row.text(0)?, row.number(1)?, &row.text(2)?, row.number(3)?)?;
    let content = row.optional_text(4)?.as_deref().and_then(log_content::read);
    Ok(content.map(|row| NumberedRow { identity, row }))
}

/// A row by its identity: state, content, the charge's id.
pub fn found_row(row: &impl BookRow) -> Result<FoundRow, StoreError> {
    Ok(FoundRow { state: row.text(0)?, content: row.optional_text(1)?, claim_id: row.optional_text(2)? })
}

fn record_id(what: &'static str, id: String) -> Result<RecordId, StoreError> {
    RecordId::parse(&id).map_err(|_| unreadable(what, id))
}

fn user_id(id: String) -> Result<UserId, StoreError> {
    UserId::parse(&id).map_err(|_| unreadable("user_id", id))
}

fn remainder(femtos: i64) -> Result<Remainder, StoreError> {
    Remainder::new(femtos).ok_or_else(|| unreadable("a remainder", femtos))
}

fn amount(credits: i64, femtos: i64) -> Result<CreditFemtos, StoreError> {
    CreditFemtos::from_parts(credits, remainder(femtos)?).ok_or_else(|| unreadable("a price", credits))
}

/// The columns of a charge as a refund needs it.
pub fn booked_charge(row: &impl BookRow) -> Result<(ChargeKey, BookedCharge), StoreError> {
    let key = ChargeKey { call_second: row.number(0)?, id: record_id("hookledger_claims.claim_id", row.text(1)?)? };
    let (rate_micros, quota_per_unit) = (row.number(8)?, row.number(9)?);
    let price = ExactPrice {
        units: row.optional_number(5)?.and_then(QuotaUnits::new),
        credits: amount(row.number(6)?, row.number(7)?)?,
        rate: Rate::from_micros(rate_micros).ok_or_else(|| unreadable("rate_micros", rate_micros))?,
        quota_per_unit: QuotaPerUnit::new(quota_per_unit)
            .ok_or_else(|| unreadable("quota_per_unit", quota_per_unit))?,
    };
    let charge = BookedCharge {
        user_id: user_id(row.text(2)?)?,
        has_user: row.flag(3)?,
        model: Arc::from(row.text(4)?.as_str()),
        price,
        remainder_before: remainder(row.number(10)?)?,
        remainder_after: remainder(row.number(11)?)?,
        rounding: row.optional_text(14)?.as_deref().and_then(Rounding::parse),
        refunded: summed(row.number(12)?, row.number(13)?)?,
    };
    Ok((key, charge))
}

/// Whose idempotency key it is, and what was given back with it.
pub type Earlier = ((RefundOrigin, Arc<str>), EarlierRefund);

/// The columns of an earlier refund.
pub fn earlier_refund(row: &impl BookRow) -> Result<Earlier, StoreError> {
    let origin: String = row.text(0)?;
    let origin = RefundOrigin::parse(&origin).ok_or_else(|| unreadable("hookledger_refunds.origin", origin))?;
    let charge = ChargeKey { call_second: row.number(3)?, id: record_id("hookledger_refunds.claim_id", row.text(4)?)? };
    let transaction_id = row.optional_text(12)?;
    let refund = Refund {
        id: record_id("hookledger_refunds.refund_id", row.text(2)?)?,
        charge: charge.clone(),
        user_id: user_id(row.text(5)?)?,
        amount: amount(row.number(6)?, row.number(7)?)?,
        credits: Credits::new(row.number(8)?),
        unpaid_lowered: Credits::new(row.number(9)?),
        remainder_before: remainder(row.number(10)?)?,
        remainder_after: remainder(row.number(11)?)?,
        balance_after: Credits::ZERO,
        transaction_id: transaction_id.map(|id| record_id("hookledger_refunds.transaction_id", id)).transpose()?,
    };
    Ok(((origin, Arc::from(row.text(1)?.as_str())), EarlierRefund { charge, is_rest: row.flag(13)?, refund }))
}

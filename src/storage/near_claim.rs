//! Claims near a batch, from the columns that each store's statements give in this order; the same for every database.
//!
//! No SQL here. What the sides of a claim are to matching is said in `neighbours`.

use std::sync::Arc;

use super::StoreError;
use super::decode::BookRow;
use super::stored::unreadable;
use crate::domain::ids::{EventId, KeyId, RecordId, RemoteKeyId, RequestId, UserId};
use crate::domain::log_row::{RowDigest, RowIdentity};
use crate::domain::log_snapshot::NearCharge;
use crate::domain::matching::{Facts, TieRule};
use crate::domain::money::{CreditFemtos, Credits, QuotaPerUnit, QuotaUnits, Rate, Remainder};
use crate::domain::pricing::{ExactPrice, Rounding};
use crate::domain::refund::ChargeKey;
use crate::domain::side::SideIdentity;
use crate::domain::time::UnixMillis;

/// A claim with its two sides.
#[derive(Debug, Clone)]
pub struct NearClaim {
    pub key: ChargeKey,
    pub is_adopted: bool,
    pub event: Option<(SideIdentity, UnixMillis)>,
    pub row: Option<(SideIdentity, UnixMillis)>,
    pub rule: Option<TieRule>,
    pub charge: NearCharge,
    token: RemoteKeyId,
    model: Arc<str>,
    tokens: (i32, i32),
}

impl NearClaim {
    /// Columns: second, id, source, event id, its milliseconds, request id, log id, the row's second, digest, number,
    /// request id, log id and source, tie rule, token, model, prompt, completion, units, credits, femtos, rate, quota per unit, user,
    /// key, moved, unpaid, rounding.
    pub fn read(row: &impl BookRow) -> Result<Self, StoreError> {
        let id = row.text(1)?;
        let odd = || unreadable("hookledger_claims", id.clone());
        let count = |column| i32::try_from(row.number(column)?).map_err(|_| odd());
        let femtos = Remainder::new(row.number(20)?).ok_or_else(odd)?;
        let price = ExactPrice {
            units: row.optional_number(18)?.and_then(QuotaUnits::new),
            credits: CreditFemtos::from_parts(row.number(19)?, femtos).ok_or_else(odd)?,
            rate: Rate::from_micros(row.number(21)?).ok_or_else(odd)?,
            quota_per_unit: QuotaPerUnit::new(row.number(22)?).ok_or_else(odd)?,
        };
        Ok(NearClaim {
            key: ChargeKey { call_second: row.number(0)?, id: RecordId::parse(&id).map_err(|_| odd())? },
            is_adopted: row.text(2)? == "adopted",
            event: event_side(row, &odd)?,
            row: row_side(row, 7, &odd)?,
            rule: row.optional_text(13)?.as_deref().and_then(TieRule::parse),
            charge: NearCharge {
                user_id: UserId::parse(&row.text(23)?).map_err(|_| odd())?,
                key_id: KeyId::parse(&row.text(24)?).map_err(|_| odd())?,
                price,
                credits: Credits::new(row.number(25)?),
                unpaid: Credits::new(row.number(26)?),
                rounding: row.optional_text(27)?.as_deref().and_then(Rounding::parse).unwrap_or(Rounding::Carry),
            },
            token: RemoteKeyId::new(row.number(14)?).ok_or_else(odd)?,
            model: Arc::from(row.text(15)?.as_str()),
            tokens: (count(16)?, count(17)?),
        })
    }

    /// Token, prompt and completion tokens.
    pub fn counts(&self) -> (i64, i32, i32) {
        (self.token.get(), self.tokens.0, self.tokens.1)
    }

    /// What matching compares of the side that lies at this time.
    pub fn facts(&self, at: UnixMillis) -> Facts {
        Facts {
            token: self.token,
            model: self.model.clone(),
            prompt_tokens: self.tokens.0,
            completion_tokens: self.tokens.1,
            units: self.charge.price.units,
            credits: self.charge.price.credits,
            at,
        }
    }
}

pub type OptionalSide = Option<(SideIdentity, UnixMillis)>;

fn request_id(row: &impl BookRow, column: usize) -> Result<Option<RequestId>, StoreError> {
    Ok(row.optional_text(column)?.and_then(|id| RequestId::parse(&id).ok()))
}

fn event_side(row: &impl BookRow, odd: &impl Fn() -> StoreError) -> Result<OptionalSide, StoreError> {
    let (Some(event_id), Some(at)) = (row.optional_text(3)?, row.optional_number(4)?) else { return Ok(None) };
    let identity = SideIdentity::Event {
        event_id: EventId::parse(&event_id).map_err(|_| odd())?,
        request_id: request_id(row, 5)?,
        log_id: row.optional_number(6)?,
    };
    Ok(Some((identity, UnixMillis::new(at))))
}

/// The row of a claim, its columns from `first` on: second, digest, number, request id, log id, source.
pub fn row_side(row: &impl BookRow, first: usize, odd: &impl Fn() -> StoreError) -> Result<OptionalSide, StoreError> {
    let (Some(second), Some(digest)) = (row.optional_number(first)?, row.optional_text(first + 1)?) else {
        return Ok(None);
    };
    let number = row.optional_number(first + 2)?.unwrap_or_default();
    let identity = SideIdentity::Row {
        row: RowIdentity {
            source: Arc::from(row.optional_text(first + 5)?.unwrap_or_default()),
            second,
            digest: RowDigest::of_text(&digest),
            number: u32::try_from(number).map_err(|_| odd())?,
        },
        request_id: request_id(row, first + 3)?,
        log_id: row.optional_number(first + 4)?,
    };
    Ok(Some((identity, UnixMillis::new(second.saturating_mul(1000)))))
}

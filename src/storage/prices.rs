//! The dated prices in the shapes that people and programs see, and the decision that only a person can make about them:
//! at which second new-api's quota per unit changed. The JSON names stay.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::books::BooksError;
use super::price_list::{PriceRow, RATE};
use crate::domain::money::Rate;
use crate::domain::pricing::QuotaHold;
use crate::domain::time::UnixMillis;

/// What calls were and are priced by.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PricesView {
    /// Credits for a dollar, oldest first; the first counts for everything before it as well.
    pub rates: Vec<DatedValue>,
    /// Quota units of a dollar, likewise.
    pub quotas: Vec<DatedValue>,
    /// When new-api's quota per unit was seen to change, oldest first.
    pub quota_changes: Vec<QuotaChange>,
}

/// A value, and from when on it counts.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatedValue {
    /// UTC.
    pub from: String,
    /// As a decimal.
    pub value: String,
}

/// new-api said another quota per unit than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaChange {
    /// When the old one was seen last, UTC.
    pub last_seen: String,
    /// When the new one was seen first, UTC.
    pub first_seen: String,
    /// The old one.
    pub before: i64,
    /// The new one.
    pub after: i64,
    /// From when on the new one counts, UTC; absent while nobody has named it.
    #[schema(required)]
    pub named: Option<String>,
    /// Events and rows of that time that wait for it.
    pub held: i64,
    /// Charges of that time that were made by the old one, before anybody knew of the change.
    pub charged_by_the_old: i64,
    /// What these took, in whole credits.
    pub credits_by_the_old: i64,
}

/// A person says when new-api's quota per unit changed.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewQuotaChange {
    /// The first second of the new one, in Unix seconds.
    pub at_second: i64,
}

/// Looks at the dated prices, and the decision about them.
#[async_trait]
pub trait Prices: Send + Sync + 'static {
    async fn prices(&self) -> Result<PricesView, BooksError>;

    /// The new quota per unit counts from this second on; what was held is settled after that. The same second again is
    /// no error.
    async fn name_quota_change(&self, change: NewQuotaChange) -> Result<QuotaChange, BooksError>;
}

/// A row of `hookledger_quota_holds`: from, until, before, after, named; and what lies in its span: held, charged by the
/// old one, credits of these.
pub type HoldRow = (i64, i64, i64, i64, Option<i64>, i64, i64, i64);

impl PricesView {
    pub fn of(mut prices: Vec<PriceRow>, holds: Vec<HoldRow>) -> Self {
        prices.sort();
        let (rates, quotas): (Vec<PriceRow>, Vec<PriceRow>) = prices.into_iter().partition(|(kind, ..)| kind == RATE);
        let rate = |micros| Rate::from_micros(micros).map(|rate| rate.to_string());
        let dated = |(second, value)| DatedValue { from: instant(second), value };
        PricesView {
            rates: rates.into_iter().filter_map(|(_, second, micros)| Some(dated((second, rate(micros)?)))).collect(),
            quotas: quotas.into_iter().map(|(_, second, units)| dated((second, units.to_string()))).collect(),
            quota_changes: holds.into_iter().map(QuotaChange::of).collect(),
        }
    }
}

impl QuotaChange {
    pub fn of(row: HoldRow) -> Self {
        let (from, until, before, after, named, held, charged_by_the_old, credits_by_the_old) = row;
        QuotaChange {
            last_seen: instant(from),
            first_seen: instant(until),
            before,
            after,
            named: named.map(instant),
            held,
            charged_by_the_old,
            credits_by_the_old,
        }
    }
}

/// Which change the second is of: the newest that is open, or that was named so before.
pub fn change_at(rows: &[HoldRow], second: i64) -> Result<HoldRow, BooksError> {
    let spans = |row: &&HoldRow| QuotaHold { from_second: row.0, until_second: row.1 }.may_begin_at(second);
    let mut found = rows.iter().rev().filter(spans);
    if let Some(row) = found.clone().find(|row| row.4.is_none()).or_else(|| found.find(|row| row.4 == Some(second))) {
        return Ok(*row);
    }
    let open = rows.iter().rev().find(|row| row.4.is_none());
    Err(BooksError::NotThatSecond(match open {
        Some((from, until, before, after, ..)) => format!(
            "the change from {before} to {after} lies between {} and {}: name a second of that time",
            instant(*from),
            instant(until + 1)
        ),
        None => "no change of new-api's quota per unit waits for its second".to_owned(),
    }))
}

fn instant(second: i64) -> String {
    UnixMillis::new(second.saturating_mul(1000)).to_rfc3339()
}

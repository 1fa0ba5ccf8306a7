//! The dated lists of rates and of quota per dollar, from their rows, and what a look at the present values changes in
//! them; the same for every database.

use super::{ConfiguredPrices, StoreError};
use crate::domain::money::{QuotaPerUnit, Rate};
use crate::domain::pricing::{Dated, PriceBook, effective_second};
use crate::domain::time::UnixMillis;

const RATE: &str = "usd_to_credits_micros";
const QUOTA: &str = "quota_per_unit";

/// Kind, second from which it counts, value: a row of `hookledger_prices`.
pub type PriceRow = (String, i64, i64);

type Lists = (Vec<Dated<Rate>>, Vec<Dated<QuotaPerUnit>>);

/// Both lists, from their rows.
pub fn book(rows: Vec<PriceRow>) -> Result<PriceBook, StoreError> {
    let (rates, quotas) = lists(rows)?;
    PriceBook::new(rates, quotas).ok_or(StoreError::NoPrices)
}

/// In the order of their seconds.
fn lists(mut rows: Vec<PriceRow>) -> Result<Lists, StoreError> {
    rows.sort_by_key(|(_, from_second, _)| *from_second);
    let (mut rates, mut quotas) = (Vec::new(), Vec::new());
    for (kind, from_second, value) in rows {
        // Without prices nothing can be booked: this is no single event's fault.
        let odd = || StoreError::Unavailable(format!("hookledger_prices holds {value}: was it changed by hand?"));
        if kind == RATE {
            rates.push(Dated { from_second, value: Rate::from_micros(value).ok_or_else(odd)? });
        } else {
            quotas.push(Dated { from_second, value: QuotaPerUnit::new(value).ok_or_else(odd)? });
        }
    }
    Ok((rates, quotas))
}

/// What holds now and what is to hold.
pub struct Comparison {
    new_rate: Option<Rate>,
    new_quota: Option<QuotaPerUnit>,
    last_quota: Option<QuotaPerUnit>,
    /// The second from which a new value counts.
    pub from_second: i64,
    pub invalid_rate: Option<String>,
}

impl Comparison {
    /// Each kind of value, and the new one where there is one.
    pub fn new_values(&self) -> [(&'static str, Option<i64>); 2] {
        [(RATE, self.new_rate.map(Rate::micros)), (QUOTA, self.new_quota.map(QuotaPerUnit::get))]
    }

    /// The quota per unit before and after, where one takes another's place.
    pub fn quota_change(&self) -> Option<(QuotaPerUnit, QuotaPerUnit)> {
        Some((self.last_quota?, self.new_quota?))
    }

    pub fn is_settled(&self) -> bool {
        self.new_rate.is_none() && self.new_quota.is_none()
    }
}

/// Compares what is stored with `options.UsdToCreditsRate` and the configured values.
pub fn compare_lists(
    option: Option<String>,
    rows: Vec<PriceRow>,
    configured: ConfiguredPrices,
    now: UnixMillis,
) -> Result<Comparison, StoreError> {
    let (rates, quotas) = lists(rows)?;
    let from_second = if rates.is_empty() || quotas.is_empty() { 0 } else { effective_second(now) };
    let (last_rate, last_quota) = (value_from(&rates, from_second), value_from(&quotas, from_second));
    let (wanted_rate, invalid_rate) = match option {
        None => (configured.usd_to_credits, None),
        Some(text) => match Rate::parse(&text) {
            Ok(rate) => (rate, None),
            // The last good one holds.
            Err(_) => (last_rate.unwrap_or(configured.usd_to_credits), Some(text)),
        },
    };
    let wanted_quota = match last_quota {
        Some(last_quota) if configured.keeps_quota => last_quota,
        _ => configured.quota_per_unit,
    };
    Ok(Comparison {
        new_rate: (last_rate != Some(wanted_rate)).then_some(wanted_rate),
        new_quota: (last_quota != Some(wanted_quota)).then_some(wanted_quota),
        last_quota,
        from_second,
        invalid_rate,
    })
}

/// The value that will hold at that second as the list stands.
fn value_from<T: Copy>(list: &[Dated<T>], second: i64) -> Option<T> {
    list.iter().rev().find(|entry| entry.from_second <= second).or(list.first()).map(|entry| entry.value)
}

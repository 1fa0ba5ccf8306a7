//! The dated lists of rates and of quota per dollar, from their rows, and what a look at the present values changes in
//! them; the same for every database.

use super::{ConfiguredPrices, PriceLook, StoreError};
use crate::domain::money::{QuotaPerUnit, Rate};
use crate::domain::pricing::{Dated, PriceBook, QuotaHold, effective_second};
use crate::domain::time::UnixMillis;

/// Kinds of rows: those of `hookledger_prices`, and what every look brings beside them.
pub const RATE: &str = "usd_to_credits_micros";
pub const QUOTA: &str = "quota_per_unit";
/// An open row of `hookledger_quota_holds`: its ends.
const HOLD: &str = "quota_hold";
/// The second in which new-api's quota per unit was last seen to be the present one.
const HEARD: &str = "quota_heard";

/// Every row that pricing depends on.
macro_rules! price_rows {
    () => {
        "SELECT kind, from_second, value FROM hookledger_prices \
         UNION ALL SELECT 'quota_hold', from_second, until_second FROM hookledger_quota_holds WHERE named_second IS NULL"
    };
}
pub(super) use price_rows;

/// The note under which `HEARD` is kept in `hookledger_meta`.
pub const HEARD_NOTE: &str = "quota_heard_second";

/// What was heard is noted anew after so long.
const NOTED_EVERY_SECS: u64 = 60;

/// Kind, second from which it counts, value.
pub type PriceRow = (String, i64, i64);

#[derive(Default)]
struct Lists {
    rates: Vec<Dated<Rate>>,
    quotas: Vec<Dated<QuotaPerUnit>>,
    holds: Vec<QuotaHold>,
    heard_second: Option<i64>,
}

/// Both lists, from their rows.
pub fn book(rows: Vec<PriceRow>) -> Result<PriceBook, StoreError> {
    let Lists { rates, quotas, holds, .. } = lists(rows)?;
    Ok(PriceBook::new(rates, quotas).ok_or(StoreError::NoPrices)?.with_holds(holds))
}

/// In the order of their seconds.
fn lists(mut rows: Vec<PriceRow>) -> Result<Lists, StoreError> {
    rows.sort_by_key(|(_, from_second, _)| *from_second);
    let mut lists = Lists::default();
    for (kind, from_second, value) in rows {
        // Without prices nothing can be booked: this is no single event's fault.
        let odd = || StoreError::Unavailable(format!("hookledger_prices holds {value}: was it changed by hand?"));
        match kind.as_str() {
            RATE => lists.rates.push(Dated { from_second, value: Rate::from_micros(value).ok_or_else(odd)? }),
            QUOTA => lists.quotas.push(Dated { from_second, value: QuotaPerUnit::new(value).ok_or_else(odd)? }),
            HOLD => lists.holds.push(QuotaHold { from_second, until_second: value }),
            HEARD => lists.heard_second = Some(value),
            _ => return Err(StoreError::Unavailable(format!("hookledger_prices holds a {kind}"))),
        }
    }
    Ok(lists)
}

/// What is to be written: new values, each with the second from which it counts.
#[derive(Debug, Default)]
pub struct Comparison {
    new_rate: Option<Dated<Rate>>,
    new_quota: Option<Dated<QuotaPerUnit>>,
    last_quota: Option<QuotaPerUnit>,
    /// The span in which the quota per unit changed, with the old and the new one.
    pub new_hold: Option<(QuotaHold, QuotaPerUnit, QuotaPerUnit)>,
    /// To be noted as heard.
    pub heard_second: Option<i64>,
    invalid_rate: Option<String>,
    has_holds: bool,
}

impl Comparison {
    /// Kind, second from which it counts, and value of what is new.
    pub fn new_values(&self) -> Vec<(&'static str, i64, i64)> {
        let rate = self.new_rate.map(|new| (RATE, new.from_second, new.value.micros()));
        let quota = self.new_quota.map(|new| (QUOTA, new.from_second, new.value.get()));
        rate.into_iter().chain(quota).collect()
    }

    pub fn is_settled(&self) -> bool {
        self.new_rate.is_none() && self.new_quota.is_none() && self.heard_second.is_none()
    }

    /// What a look tells, once all of this is stored.
    pub fn told(self) -> PriceLook {
        PriceLook {
            changed_from_second: self.new_values().iter().map(|(_, from_second, _)| *from_second).min(),
            quota_change: self.last_quota.zip(self.new_quota.map(|new| new.value)),
            invalid_rate: self.invalid_rate,
            has_holds: self.has_holds || self.new_hold.is_some(),
        }
    }
}

/// Compares what is stored with `options.UsdToCreditsRate` and the configured values.
pub fn compare_lists(
    option: Option<String>,
    rows: Vec<PriceRow>,
    configured: ConfiguredPrices,
    now: UnixMillis,
) -> Result<Comparison, StoreError> {
    let Lists { rates, quotas, holds, heard_second } = lists(rows)?;
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
    let mut found = Comparison {
        new_rate: (last_rate != Some(wanted_rate)).then_some(Dated { from_second, value: wanted_rate }),
        new_quota: (last_quota != Some(wanted_quota)).then_some(Dated { from_second, value: wanted_quota }),
        last_quota,
        invalid_rate,
        has_holds: !holds.is_empty(),
        ..Comparison::default()
    };
    found.listen(configured, heard_second, now);
    Ok(found)
}

impl Comparison {
    /// What new-api itself says counts at once; if it said something else before, nobody knows since when.
    fn listen(&mut self, configured: ConfiguredPrices, noted_second: Option<i64>, now: UnixMillis) {
        let Some(heard) = configured.heard else { return };
        let heard_second = heard.at.as_secs();
        let is_old = |noted: i64| noted.abs_diff(heard_second) >= NOTED_EVERY_SECS;
        if self.new_quota.is_some() || noted_second.is_none_or(is_old) {
            self.heard_second = Some(heard_second);
        }
        let last_old = noted_second.max(heard.former_at.map(UnixMillis::as_secs));
        if let (Some(new), Some(before), Some(last_old)) = (&mut self.new_quota, self.last_quota, last_old) {
            let until_second = now.as_secs();
            let hold = QuotaHold { from_second: last_old.min(until_second), until_second };
            new.from_second = until_second + 1;
            self.new_hold = Some((hold, before, new.value));
        }
    }
}

/// The value that will hold at that second as the list stands.
fn value_from<T: Copy>(list: &[Dated<T>], second: i64) -> Option<T> {
    list.iter().rev().find(|entry| entry.from_second <= second).or(list.first()).map(|entry| entry.value)
}

//! What a call costs: the price the sender gave, at the rate of the call's own second.

use super::decimal::Decimal;
use super::money::{AmountTooLarge, CreditFemtos, Credits, QuotaPerUnit, QuotaUnits, Rate, Remainder};
use super::planted;
use super::time::UnixMillis;

/// A femto is 10^-15 credit and a rate counts 10^-6: this many femtos in a millionth.
const FEMTOS_PER_MICRO: i128 = 1_000_000_000;

/// Rates and quota per dollar change on whole minutes.
const MINUTE_SECS: i64 = 60;

/// The price as the sender stated it; with several fields, quota goes before cost, and cost before creditCost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Price {
    /// `data.quota`
    Quota(QuotaUnits),
    /// `data.cost`, US dollars
    CostUsd(Decimal),
    /// `data.creditCost`: final, whatever the rate
    CreditCost(Credits),
}

impl Price {
    /// As it was stated, where it was stated in quota units.
    pub fn units(self) -> Option<QuotaUnits> {
        match self {
            Price::Quota(units) => Some(units),
            Price::CostUsd(_) | Price::CreditCost(_) => None,
        }
    }
}

/// What becomes of fractions of a credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// Whole credits move, the rest is kept for the user's next call.
    Carry,
    /// Each call by itself to the nearest credit, as LetAiCode did.
    Nearest,
}

impl Rounding {
    pub fn as_str(self) -> &'static str {
        match self {
            Rounding::Carry => "carry",
            Rounding::Nearest => "nearest",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Rounding::Carry, Rounding::Nearest].into_iter().find(|rounding| rounding.as_str() == text)
    }
}

/// What happens at a balance of zero or less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdraft {
    /// Booked into the negative: the call has happened.
    Allow,
    /// Nothing is deducted; the usage record and the unpaid amount are kept.
    Refuse,
}

/// A call's price in every form that the books keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExactPrice {
    /// Absent where the sender priced in credits.
    pub units: Option<QuotaUnits>,
    pub credits: CreditFemtos,
    pub rate: Rate,
    pub quota_per_unit: QuotaPerUnit,
}

impl ExactPrice {
    /// What other units cost at this price's rate.
    pub fn of_units(self, units: QuotaUnits) -> Result<CreditFemtos, AmountTooLarge> {
        in_credits(units, self.rate, self.quota_per_unit)
    }

    /// The price in US dollars as the platform's `DOUBLE` column shows it: a decimal for display, never for sums.
    pub fn display_usd(self) -> String {
        const PLACES: i128 = 1_000_000_000_000;
        let (numerator, divisor) = match self.units {
            Some(units) => (i128::from(units.get()), i128::from(self.quota_per_unit.get())),
            // credits / rate, where credits count 10^-15 and rates 10^-6
            None => (self.credits.get() / FEMTOS_PER_MICRO, i128::from(self.rate.micros())),
        };
        let scaled = numerator.saturating_mul(PLACES) / divisor;
        format!("{}.{:012}", scaled / PLACES, scaled % PLACES)
    }
}

/// A value and the second from which it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dated<T> {
    pub from_second: i64,
    pub value: T,
}

/// Seconds in which the quota per unit changed, nobody knows when; both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaHold {
    /// Of the last look that showed the old one.
    pub from_second: i64,
    /// Of the first look that showed another.
    pub until_second: i64,
}

impl QuotaHold {
    /// From which seconds on the new one may count: the first of the hold, or one of those after it up to its end.
    pub fn may_begin_at(self, second: i64) -> bool {
        (self.from_second..=self.until_second + 1).contains(&second)
    }
}

/// The dated lists of rates and of quota per dollar, each in the order of its seconds and never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceBook {
    rates: Vec<Dated<Rate>>,
    quotas: Vec<Dated<QuotaPerUnit>>,
    holds: Vec<QuotaHold>,
}

impl PriceBook {
    /// `None` where one of the lists is empty: nothing can be priced before the first look at the rate.
    pub fn new(mut rates: Vec<Dated<Rate>>, mut quotas: Vec<Dated<QuotaPerUnit>>) -> Option<Self> {
        rates.sort_by_key(|entry| entry.from_second);
        quotas.sort_by_key(|entry| entry.from_second);
        (!rates.is_empty() && !quotas.is_empty()).then_some(PriceBook { rates, quotas, holds: Vec::new() })
    }

    /// The same, with spans of which a person has still to name the second of the change.
    pub fn with_holds(self, holds: Vec<QuotaHold>) -> Self {
        PriceBook { holds, ..self }
    }

    /// Whether nobody knows yet what a call at `at` with such a price costs.
    pub fn is_held(&self, price: Price, at: UnixMillis) -> bool {
        let second = at.as_secs();
        let holds = |hold: &QuotaHold| (hold.from_second..=hold.until_second).contains(&second);
        matches!(price, Price::Quota(_)) && self.holds.iter().any(holds)
    }

    /// Prices a call made at `at`. Seconds before the first entry take the first.
    pub fn price(&self, price: Price, at: UnixMillis) -> Result<ExactPrice, AmountTooLarge> {
        let rate = value_at(&self.rates, at);
        let quota_per_unit = value_at(&self.quotas, at);
        let (units, credits) = match price {
            Price::Quota(units) => (Some(units), in_credits(units, rate, quota_per_unit)?),
            Price::CostUsd(cost) => {
                let units = units_of_cost(cost, quota_per_unit)?;
                (Some(units), in_credits(units, rate, quota_per_unit)?)
            }
            Price::CreditCost(credits) => (None, CreditFemtos::from_credits(credits)?),
        };
        Ok(ExactPrice { units, credits, rate, quota_per_unit })
    }
}

/// The second from which a change seen at `now` counts: the next whole minute.
pub fn effective_second(now: UnixMillis) -> i64 {
    (now.as_secs().div_euclid(MINUTE_SECS) + 1) * MINUTE_SECS
}

fn value_at<T: Copy>(list: &[Dated<T>], at: UnixMillis) -> T {
    let later = list.partition_point(|entry| entry.from_second <= at.as_secs());
    list[later.saturating_sub(1)].value
}

fn units_of_cost(cost: Decimal, quota_per_unit: QuotaPerUnit) -> Result<QuotaUnits, AmountTooLarge> {
    let factor = u64::try_from(quota_per_unit.get()).map_err(|_| AmountTooLarge)?;
    cost.times_rounded(factor).ok().and_then(QuotaUnits::new).ok_or(AmountTooLarge)
}

fn in_credits(units: QuotaUnits, rate: Rate, quota_per_unit: QuotaPerUnit) -> Result<CreditFemtos, AmountTooLarge> {
    let scaled = i128::from(units.get())
        .checked_mul(i128::from(rate.micros()))
        .and_then(|product| product.checked_mul(FEMTOS_PER_MICRO))
        .ok_or(AmountTooLarge)?;
    let divisor = i128::from(quota_per_unit.get());
    let (quotient, rest) = (scaled / divisor, scaled % divisor);
    let femtos = if rest * 2 >= divisor { quotient + 1 } else { quotient };
    let whole = i64::try_from(femtos / super::money::FEMTOS_PER_CREDIT).map_err(|_| AmountTooLarge)?;
    let part = i64::try_from(femtos % super::money::FEMTOS_PER_CREDIT).map_err(|_| AmountTooLarge)?;
    let remainder = Remainder::new(part).ok_or(AmountTooLarge)?;
    CreditFemtos::from_parts(whole, remainder).ok_or(AmountTooLarge)
}

/// What a price moves, given what the user owed below one credit before.
pub fn credits_to_move(
    price: CreditFemtos,
    remainder: Remainder,
    rounding: Rounding,
) -> Result<(Credits, Remainder), AmountTooLarge> {
    let (credits, rest) = match rounding {
        Rounding::Carry => price.plus_remainder(remainder)?.split()?,
        Rounding::Nearest => (price.to_nearest()?, remainder),
    };
    Ok((credits.for_column()?, rest))
}

/// The whole credits that an amount gives back, given what the user owed below one credit before: `credits_to_move`
/// with the sign turned.
pub fn credits_to_give_back(
    amount: CreditFemtos,
    remainder: Remainder,
) -> Result<(Credits, Remainder), AmountTooLarge> {
    let owed = CreditFemtos::ZERO.plus_remainder(remainder)?;
    if let Ok(rest) = owed.checked_sub(amount) {
        return Ok((Credits::ZERO, rest.split()?.1));
    }
    let (whole, part) = amount.checked_sub(owed)?.split()?;
    if part == Remainder::ZERO || planted::is_on("refund_rounded_down") {
        return Ok((whole.for_column()?, part));
    }
    let one = CreditFemtos::from_credits(Credits::new(1))?;
    let rest = one.checked_sub(CreditFemtos::ZERO.plus_remainder(part)?)?;
    Ok((whole.checked_add(Credits::new(1))?, rest.split()?.1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn book(rates: &[(i64, &str)]) -> PriceBook {
        let rates =
            rates.iter().map(|(second, rate)| Dated { from_second: *second, value: Rate::parse(rate).unwrap() });
        let quotas = vec![Dated { from_second: 0, value: QuotaPerUnit::new(500_000).unwrap() }];
        PriceBook::new(rates.collect(), quotas).unwrap()
    }

    fn units(units: i64) -> Price {
        Price::Quota(QuotaUnits::new(units).unwrap())
    }

    #[test]
    fn each_call_is_priced_by_its_own_second() {
        let book = book(&[(600, "1000"), (1200, "2000")]);
        let credits_at = |second: i64| {
            let price = book.price(units(500_000), UnixMillis::new(second * 1000)).unwrap();
            price.credits.to_string()
        };
        assert_eq!(credits_at(0), "1000", "seconds before the first entry take the first");
        assert_eq!(credits_at(1199), "1000");
        assert_eq!(credits_at(1200), "2000");
        assert_eq!(credits_at(99_999), "2000");
    }

    #[test]
    fn a_change_counts_from_the_next_whole_minute() {
        assert_eq!(effective_second(UnixMillis::new(59_999)), 60);
        assert_eq!(effective_second(UnixMillis::new(60_000)), 120);
    }

    #[test]
    fn what_is_priced_in_quota_while_the_unit_changed_is_held() {
        let hold = QuotaHold { from_second: 10, until_second: 20 };
        let book = book(&[(0, "1000")]).with_holds(vec![hold]);
        let is_held = |price, second: i64| book.is_held(price, UnixMillis::new(second * 1000 + 999));
        assert_eq!([9, 10, 20, 21].map(|second| is_held(units(1), second)), [false, true, true, false]);
        assert!(!is_held(Price::CreditCost(Credits::new(1)), 15), "final whatever the unit is");
        assert!(!is_held(Price::CostUsd(Decimal::parse("1").unwrap()), 15));
        assert_eq!([9, 10, 21, 22].map(|second| hold.may_begin_at(second)), [false, true, true, false]);
    }

    #[test]
    fn a_price_in_credits_is_final_and_a_cost_is_its_units() {
        let book = book(&[(0, "1000")]);
        let price = |price| book.price(price, UnixMillis::ZERO).unwrap();
        assert_eq!(price(Price::CreditCost(Credits::new(12))).credits.to_string(), "12");
        let cost = price(Price::CostUsd(Decimal::parse("0.000226").unwrap()));
        assert_eq!((cost.units.map(QuotaUnits::get), cost.credits.to_string()), (Some(113), "0.226".to_owned()));
    }

    #[test]
    fn prices_beyond_the_books_are_refused() {
        let book = book(&[(0, "1000000000")]);
        assert_eq!(book.price(units(i64::MAX), UnixMillis::ZERO), Err(AmountTooLarge));
        let dear = CreditFemtos::from_credits(Credits::new(i64::from(i32::MAX) + 1)).unwrap();
        assert!(credits_to_move(dear, Remainder::ZERO, Rounding::Carry).is_err());
    }

    #[test]
    fn a_million_calls_of_one_unit_cost_what_their_sum_costs() {
        let book = book(&[(0, "1000")]);
        let price = book.price(units(1), UnixMillis::ZERO).unwrap().credits;
        let (mut moved, mut remainder) = (0, Remainder::ZERO);
        for _ in 0..1_000_000 {
            let (credits, rest) = credits_to_move(price, remainder, Rounding::Carry).unwrap();
            moved += credits.get();
            remainder = rest;
        }
        assert_eq!((moved, remainder), (2000, Remainder::ZERO));
    }

    proptest! {
        #[test]
        fn carried_totals_are_exact_to_less_than_one_credit(
            calls in prop::collection::vec(0i64..5_000_000, 1..200),
            rate_micros in 1i64..5_000_000_000,
            quota_per_unit in 1i64..2_000_000,
        ) {
            let quota = QuotaPerUnit::new(quota_per_unit).unwrap();
            let rate = Rate::from_micros(rate_micros).unwrap();
            let book = PriceBook::new(
                vec![Dated { from_second: 0, value: rate }],
                vec![Dated { from_second: 0, value: quota }],
            ).unwrap();
            let (mut moved, mut remainder) = (0i128, Remainder::ZERO);
            for call in &calls {
                let price = book.price(units(*call), UnixMillis::ZERO).unwrap().credits;
                let Ok((credits, rest)) = credits_to_move(price, remainder, Rounding::Carry) else { return Ok(()) };
                moved += i128::from(credits.get());
                remainder = rest;
            }
            // In thousandths of a credit: sum(units) x rate / quota_per_unit.
            let sum: i128 = calls.iter().map(|call| i128::from(*call)).sum();
            let exact_millis = sum * i128::from(rate_micros) / i128::from(quota_per_unit) / 1000;
            prop_assert!((exact_millis - moved * 1000).abs() <= 1000, "{exact_millis} against {moved}");
        }

        #[test]
        fn nearest_rounds_each_call_as_the_platform_did(quota in 0i64..500_000_000) {
            let price = book(&[(0, "1000")]).price(units(quota), UnixMillis::ZERO).unwrap().credits;
            let (credits, rest) = credits_to_move(price, Remainder::ZERO, Rounding::Nearest).unwrap();
            // 500 units are one credit; the platform's Math.round takes halves upwards.
            prop_assert_eq!(credits.get(), (quota + 250).div_euclid(500));
            prop_assert_eq!(rest, Remainder::ZERO);
        }
    }
}

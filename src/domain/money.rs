//! Amounts with their units in the type. Arithmetic is checked: what does not fit is an error, never a wrap.

use std::fmt;

use super::decimal::{Decimal, DecimalError};

/// Parts of a credit in which remainders are kept: 10^15.
pub const FEMTOS_PER_CREDIT: i128 = 1_000_000_000_000_000;

/// Places of a rate.
const MICROS_PER_CREDIT: u64 = 1_000_000;

/// Largest rate and largest quota per US dollar that are accepted.
pub const MAX_RATE: i64 = 1_000_000_000;

/// A sum or product that left the range of its type or of the column that is to hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the amount is larger than the books can hold")]
pub struct AmountTooLarge;

/// new-api's unit of price: 500,000 are one US dollar by default. Never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuotaUnits(i64);

impl QuotaUnits {
    pub fn new(units: i64) -> Option<Self> {
        (units >= 0).then_some(QuotaUnits(units))
    }

    pub fn get(self) -> i64 {
        self.0
    }
}

/// Whole credits, signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Credits(i64);

impl Credits {
    pub const ZERO: Credits = Credits(0);

    pub fn new(credits: i64) -> Self {
        Credits(credits)
    }

    pub fn get(self) -> i64 {
        self.0
    }

    /// The sum, if the platform's `INTEGER` columns (32 bits, signed) can hold it.
    pub fn checked_add(self, other: Credits) -> Result<Credits, AmountTooLarge> {
        self.0.checked_add(other.0).map(Credits).ok_or(AmountTooLarge)?.for_column()
    }

    pub fn checked_sub(self, other: Credits) -> Result<Credits, AmountTooLarge> {
        self.0.checked_sub(other.0).map(Credits).ok_or(AmountTooLarge)?.for_column()
    }

    /// This amount, if a 32-bit column can hold it and its negative.
    pub fn for_column(self) -> Result<Credits, AmountTooLarge> {
        match i32::try_from(self.0) {
            Ok(value) if value != i32::MIN => Ok(self),
            _ => Err(AmountTooLarge),
        }
    }
}

impl fmt::Display for Credits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An exact amount of zero or more, in parts of 10^-15 credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CreditFemtos(i128);

impl CreditFemtos {
    pub const ZERO: CreditFemtos = CreditFemtos(0);

    pub fn from_credits(credits: Credits) -> Result<Self, AmountTooLarge> {
        if credits.get() < 0 {
            return Err(AmountTooLarge);
        }
        Ok(CreditFemtos(i128::from(credits.get()) * FEMTOS_PER_CREDIT))
    }

    /// Puts an amount together again from its whole credits and the part below one.
    pub fn from_parts(credits: i64, remainder: Remainder) -> Option<Self> {
        (credits >= 0).then(|| CreditFemtos(i128::from(credits) * FEMTOS_PER_CREDIT + i128::from(remainder.0)))
    }

    /// Whole credits and the rest, of parts that may be more than make one.
    pub fn split_parts(femtos: i64) -> Option<(i64, Remainder)> {
        CreditFemtos(i128::from(femtos)).split().ok().map(|(whole, rest)| (whole.get(), rest)).filter(|_| femtos >= 0)
    }

    pub fn get(self) -> i128 {
        self.0
    }

    pub fn plus_remainder(self, remainder: Remainder) -> Result<Self, AmountTooLarge> {
        self.0.checked_add(i128::from(remainder.0)).map(CreditFemtos).ok_or(AmountTooLarge)
    }

    pub fn checked_add(self, other: CreditFemtos) -> Result<Self, AmountTooLarge> {
        self.0.checked_add(other.0).map(CreditFemtos).ok_or(AmountTooLarge)
    }

    /// The difference, if it is not below zero.
    pub fn checked_sub(self, other: CreditFemtos) -> Result<Self, AmountTooLarge> {
        self.0.checked_sub(other.0).filter(|difference| *difference >= 0).map(CreditFemtos).ok_or(AmountTooLarge)
    }

    /// The share that `part` is of `whole`, to the nearest femto.
    pub fn share(self, part: QuotaUnits, whole: QuotaUnits) -> Result<Self, AmountTooLarge> {
        let whole = i128::from(whole.0);
        let product = self.0.checked_mul(i128::from(part.0)).filter(|_| whole > 0).ok_or(AmountTooLarge)?;
        let rounded_up = i128::from((product % whole) * 2 >= whole);
        Ok(CreditFemtos(product / whole + rounded_up))
    }

    pub fn has_fraction(self) -> bool {
        self.0 % FEMTOS_PER_CREDIT != 0
    }

    /// Reads a decimal with at most fifteen places, such as `12` or `0.226`.
    pub fn parse(text: &str) -> Result<Self, DecimalError> {
        Decimal::parse(text.trim())?.in_parts(FEMTOS_PER_CREDIT as u64).map(CreditFemtos)
    }

    /// The whole credits in it and what is left over.
    pub fn split(self) -> Result<(Credits, Remainder), AmountTooLarge> {
        let whole = i64::try_from(self.0 / FEMTOS_PER_CREDIT).map_err(|_| AmountTooLarge)?;
        let rest = i64::try_from(self.0 % FEMTOS_PER_CREDIT).map_err(|_| AmountTooLarge)?;
        Ok((Credits(whole), Remainder(rest)))
    }

    /// To the nearest whole credit, halves upwards, as the platform rounds.
    pub fn to_nearest(self) -> Result<Credits, AmountTooLarge> {
        let raised = self.0.checked_add(FEMTOS_PER_CREDIT / 2).ok_or(AmountTooLarge)?;
        Ok(CreditFemtos(raised).split()?.0)
    }
}

/// A decimal for people and for `rawMeta`: `0.226`, `12`.
impl fmt::Display for CreditFemtos {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / FEMTOS_PER_CREDIT, self.0 % FEMTOS_PER_CREDIT);
        if rest == 0 {
            return write!(formatter, "{whole}");
        }
        let places = format!("{rest:015}");
        write!(formatter, "{whole}.{}", places.trim_end_matches('0'))
    }
}

/// What a user owes below one whole credit: 0 to 10^15 - 1 parts of 10^-15 credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Remainder(i64);

impl Remainder {
    pub const ZERO: Remainder = Remainder(0);

    pub fn new(femtos: i64) -> Option<Self> {
        (0..FEMTOS_PER_CREDIT).contains(&i128::from(femtos)).then_some(Remainder(femtos))
    }

    pub fn get(self) -> i64 {
        self.0
    }
}

/// Credits for one US dollar: above 0, at most 10^9, at most six places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    micros: i64,
}

/// Why a text is not a rate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a decimal above 0 and at most 1000000000 with at most six places")]
pub struct RateError;

impl Rate {
    pub fn parse(text: &str) -> Result<Self, RateError> {
        let micros = Decimal::parse(text.trim())
            .and_then(|decimal| decimal.times_exactly(MICROS_PER_CREDIT))
            .map_err(|_: DecimalError| RateError)?;
        Rate::from_micros(micros).ok_or(RateError)
    }

    pub fn from_micros(micros: i64) -> Option<Self> {
        let largest = MAX_RATE * MICROS_PER_CREDIT as i64;
        (1..=largest).contains(&micros).then_some(Rate { micros })
    }

    /// Millionths of a credit for one US dollar.
    pub fn micros(self) -> i64 {
        self.micros
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_credit = MICROS_PER_CREDIT as i64;
        let (whole, rest) = (self.micros / per_credit, self.micros % per_credit);
        if rest == 0 {
            return write!(formatter, "{whole}");
        }
        write!(formatter, "{whole}.{}", format!("{rest:06}").trim_end_matches('0'))
    }
}

/// Quota units for one US dollar: 1 to 10^9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QuotaPerUnit(i64);

impl QuotaPerUnit {
    pub fn new(units: i64) -> Option<Self> {
        (1..=MAX_RATE).contains(&units).then_some(QuotaPerUnit(units))
    }

    pub fn get(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_at_most_six_places_and_are_above_zero() {
        assert_eq!(Rate::parse("1000").map(Rate::micros), Ok(1_000_000_000));
        assert_eq!(Rate::parse(" 7.25 ").unwrap().to_string(), "7.25");
        for bad in ["0", "-1", "0.0000001", "abc", "", "1e10", "NaN"] {
            assert_eq!(Rate::parse(bad), Err(RateError), "{bad:?}");
        }
    }

    #[test]
    fn columns_of_32_bits_bound_whole_credits() {
        let largest = Credits::new(i64::from(i32::MAX));
        assert_eq!(largest.checked_add(Credits::new(1)), Err(AmountTooLarge));
        assert_eq!(largest.checked_sub(largest), Ok(Credits::ZERO));
        assert_eq!(Credits::new(i64::MIN).checked_sub(largest), Err(AmountTooLarge));
    }

    #[test]
    fn exact_amounts_read_like_decimals() {
        assert_eq!(CreditFemtos(226_000_000_000_000).to_string(), "0.226");
        assert_eq!(CreditFemtos(3 * FEMTOS_PER_CREDIT).to_string(), "3");
        assert_eq!(CreditFemtos(FEMTOS_PER_CREDIT / 2).to_nearest(), Ok(Credits(1)));
        assert_eq!(CreditFemtos(FEMTOS_PER_CREDIT / 2 - 1).to_nearest(), Ok(Credits(0)));
    }
}

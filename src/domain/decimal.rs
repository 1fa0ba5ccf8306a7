//! Exact decimals as JSON writes them: no value of money ever passes through a float.

use std::fmt;

/// Significant digits that a number may have: a double prints 17, and the arithmetic after it stays inside `u128`.
pub const MAX_DIGITS: usize = 28;

/// Far beyond zero and infinity for every purpose here.
const MAX_EXPONENT: i64 = i64::MAX / 4;

/// A decimal of zero or more: `mantissa` x 10^`exponent`, with no trailing zeros in the mantissa.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Decimal {
    mantissa: u128,
    exponent: i64,
}

/// Why a text is not such a decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecimalError {
    #[error("must be a number")]
    NotANumber,
    #[error("must not be negative")]
    Negative,
    #[error("must have at most 28 significant digits")]
    TooPrecise,
    #[error("is too large")]
    TooLarge,
    #[error("must be a whole number")]
    NotWhole,
}

impl Decimal {
    /// Reads a JSON number such as `0.0123`, `2e-06` or `150`. `-0` is zero.
    pub fn parse(text: &str) -> Result<Self, DecimalError> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (significand, exponent) = split_exponent(unsigned)?;
        let (whole, fraction) = significand.split_once('.').unwrap_or((significand, ""));
        let has_point = significand.len() != whole.len();
        let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || (has_point && !is_digits(fraction)) {
            return Err(DecimalError::NotANumber);
        }
        let digits = format!("{whole}{fraction}");
        let leading = digits.trim_start_matches('0');
        let trimmed = leading.trim_end_matches('0');
        if trimmed.is_empty() {
            return Ok(Decimal { mantissa: 0, exponent: 0 });
        }
        if negative {
            return Err(DecimalError::Negative);
        }
        if trimmed.len() > MAX_DIGITS {
            return Err(DecimalError::TooPrecise);
        }
        let mantissa = trimmed.parse().map_err(|_| DecimalError::NotANumber)?;
        let dropped = (leading.len() - trimmed.len()) as i64 - fraction.len() as i64;
        // Kept within what a text can say, so that what is written is read as the same number.
        let exponent = exponent.saturating_add(dropped).clamp(-MAX_EXPONENT, MAX_EXPONENT);
        Ok(Decimal { mantissa, exponent })
    }

    pub fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// The value as a whole number of `i64`; `150.0` and `1.5e2` are whole.
    pub fn to_whole(self) -> Result<i64, DecimalError> {
        if self.exponent < 0 {
            return Err(DecimalError::NotWhole);
        }
        i64::try_from(self.scaled_up(1).ok_or(DecimalError::TooLarge)?).map_err(|_| DecimalError::TooLarge)
    }

    /// The value x `factor`, if that is whole and fits.
    pub fn times_exactly(self, factor: u64) -> Result<i64, DecimalError> {
        i64::try_from(self.in_parts(factor)?).map_err(|_| DecimalError::TooLarge)
    }

    /// The value counted in parts of which `parts` make one, if that is a whole number of them.
    pub fn in_parts(self, parts: u64) -> Result<i128, DecimalError> {
        let product = self.mantissa.checked_mul(u128::from(parts)).ok_or(DecimalError::TooLarge)?;
        let product = Decimal::normalised(product, self.exponent);
        if product.exponent < 0 {
            return Err(DecimalError::NotWhole);
        }
        i128::try_from(product.scaled_up(1).ok_or(DecimalError::TooLarge)?).map_err(|_| DecimalError::TooLarge)
    }

    /// The value x `factor`, to the nearest whole number, halves upwards.
    pub fn times_rounded(self, factor: u64) -> Result<i64, DecimalError> {
        if self.exponent >= 0 {
            let product = self.scaled_up(u128::from(factor)).ok_or(DecimalError::TooLarge)?;
            return i64::try_from(product).map_err(|_| DecimalError::TooLarge);
        }
        // At most 28 + 20 digits would not fit; factors are at most 10^9 (see `money`), so this does.
        let product = self.mantissa.checked_mul(u128::from(factor)).ok_or(DecimalError::TooLarge)?;
        let places = self.exponent.unsigned_abs();
        let Some(divisor) = u32::try_from(places).ok().and_then(|places| 10u128.checked_pow(places)) else {
            return Ok(0); // fewer than 10^38 parts of one: the product is below a half
        };
        let (quotient, rest) = (product / divisor, product % divisor);
        let rounded = if rest >= divisor - rest { quotient + 1 } else { quotient };
        i64::try_from(rounded).map_err(|_| DecimalError::TooLarge)
    }

    fn normalised(mut mantissa: u128, mut exponent: i64) -> Self {
        if mantissa == 0 {
            return Decimal { mantissa, exponent: 0 };
        }
        while mantissa.is_multiple_of(10) {
            mantissa /= 10;
            exponent = exponent.saturating_add(1);
        }
        Decimal { mantissa, exponent }
    }

    fn scaled_up(self, factor: u128) -> Option<u128> {
        let power = 10u128.checked_pow(u32::try_from(self.exponent).ok()?)?;
        self.mantissa.checked_mul(factor)?.checked_mul(power)
    }
}

fn split_exponent(text: &str) -> Result<(&str, i64), DecimalError> {
    let Some(at) = text.find(['e', 'E']) else {
        return Ok((text, 0));
    };
    let digits = &text[at + 1..];
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(DecimalError::NotANumber);
    }
    // An exponent of more than 18 digits means zero or infinity all the same.
    let magnitude = unsigned.parse::<i64>().unwrap_or(MAX_EXPONENT).min(MAX_EXPONENT);
    Ok((&text[..at], if digits.starts_with('-') { -magnitude } else { magnitude }))
}

impl fmt::Display for Decimal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exponent {
            0 => write!(formatter, "{}", self.mantissa),
            exponent => write!(formatter, "{}e{exponent}", self.mantissa),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_is_written_is_read_as_the_same_number() {
        for text in ["0.89e-300123459223372036854775807678", "12.50e99999999999999999999", "100e-4", "0.000226", "-0"] {
            let number = decimal(text);
            assert_eq!(decimal(&number.to_string()), number, "{text}");
        }
    }

    #[test]
    fn prices_of_the_wire_become_their_quota() {
        for (cost, units) in [
            ("0.000226", 113),
            ("0.000012", 6),
            ("0.00366", 1830),
            ("2e-06", 1),
            ("0", 0),
            ("0.0", 0),
            ("-0", 0),
            ("1e-300", 0),
            ("1E+2", 50_000_000),
            ("0.000001", 1), // exactly half a unit goes up
            ("0.00000099999999999999999999", 0),
            ("0.30000000000000004", 150_000),
        ] {
            assert_eq!(decimal(cost).times_rounded(500_000), Ok(units), "{cost}");
        }
        assert_eq!(decimal("1e308").times_rounded(500_000), Err(DecimalError::TooLarge));
        assert_eq!(decimal("1e99999999999999999999").times_rounded(1), Err(DecimalError::TooLarge));
    }

    #[test]
    fn equal_values_are_equal_however_they_are_written() {
        assert_eq!(decimal("0.0123"), decimal("1.23e-2"));
        assert_eq!(decimal("100"), decimal("1e2"));
        assert_eq!(decimal("0e5"), decimal("0.000"));
    }

    #[test]
    fn what_is_not_a_number_of_zero_or_more_is_refused() {
        for text in ["", "-", ".5", "5.", "1e", "NaN", "Infinity", "0x10", "1,5", " 1", "１"] {
            assert_eq!(Decimal::parse(text), Err(DecimalError::NotANumber), "{text:?}");
        }
        assert_eq!(Decimal::parse("-0.5"), Err(DecimalError::Negative));
        assert_eq!(Decimal::parse(&"1".repeat(29)), Err(DecimalError::TooPrecise));
        assert_eq!(decimal("1.5").to_whole(), Err(DecimalError::NotWhole));
        assert_eq!(decimal("9223372036854775808").to_whole(), Err(DecimalError::TooLarge));
        assert_eq!(decimal("1000.25").times_exactly(1_000_000), Ok(1_000_250_000));
        assert_eq!(decimal("0.0000001").times_exactly(1_000_000), Err(DecimalError::NotWhole));
    }

    proptest! {
        #[test]
        fn whole_numbers_survive(value in 0..=i64::MAX) {
            if let Ok(parsed) = Decimal::parse(&value.to_string()) {
                prop_assert_eq!(parsed.to_whole(), Ok(value));
            }
        }

        #[test]
        fn rounding_is_off_by_at_most_half(micros in 0u64..10_000_000_000, factor in 1u64..1_000_000_000) {
            let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            let rounded = decimal(&text).times_rounded(factor).unwrap() as i128 * 1_000_000;
            let exact = i128::from(micros) * i128::from(factor);
            prop_assert!((rounded - exact).abs() * 2 <= 1_000_000);
        }
    }
}

//! How a time is written on the command line: always UTC.

use crate::domain::time::parse_utc;

/// Unix milliseconds of a time in UTC.
pub fn parse_time(text: &str) -> Result<i64, String> {
    parse_utc(text).ok_or_else(|| "write it like \"2026-11-24 08:00:00\", in UTC".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_unless_they_say_otherwise() {
        assert_eq!(parse_time("2026-11-24 22:19:49"), Ok(1_795_558_789_000));
        assert_eq!(parse_time("2026-11-25T06:19:49+08:00"), Ok(1_795_558_789_000));
        assert_eq!(parse_time("2026-11-24T22:19:49.5"), Ok(1_795_558_789_500));
        assert!(parse_time("yesterday").is_err());
    }
}

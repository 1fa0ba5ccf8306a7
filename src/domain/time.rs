//! Instants as the ledger knows them: UTC milliseconds, passed in and never fetched.
//!
//! The system's clock is read in the module `clock` alone, so that a test can drive time by hand.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, SecondsFormat, Utc};

/// Column format of the shared tables: `YYYY-MM-DD HH:MM:SS.mmm`, UTC.
const COLUMN_FORMAT: &str = "%Y-%m-%d %H:%M:%S%.3f";

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixMillis(i64);

impl UnixMillis {
    /// The latest instant that four digits of a year can show: 9999-12-31T23:59:59.999Z.
    pub const MAX: UnixMillis = UnixMillis(253_402_300_799_999);
    pub const ZERO: UnixMillis = UnixMillis(0);

    /// An instant between 1970 and 9999; anything else is clamped to these ends.
    pub fn new(millis: i64) -> Self {
        UnixMillis(millis.clamp(0, Self::MAX.0))
    }

    pub fn as_millis(self) -> i64 {
        self.0
    }

    pub fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    pub fn plus(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        UnixMillis::new(self.0.saturating_add(millis))
    }

    pub fn minus(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        UnixMillis::new(self.0.saturating_sub(millis))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: UnixMillis) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// As the shared tables store it: `2026-11-24 02:31:00.000`.
    pub fn to_column(self) -> String {
        self.to_utc().format(COLUMN_FORMAT).to_string()
    }

    /// Reads what the shared tables hold; fractions finer than a millisecond are dropped.
    pub fn from_column(text: &str) -> Option<Self> {
        let parsed = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok()?;
        Some(UnixMillis::new(parsed.and_utc().timestamp_millis()))
    }

    /// As JSON answers show it: `2026-11-24T02:31:00.000Z`.
    pub fn to_rfc3339(self) -> String {
        self.to_utc().to_rfc3339_opts(SecondsFormat::Millis, true)
    }

    fn to_utc(self) -> DateTime<Utc> {
        DateTime::<Utc>::from_timestamp_millis(self.0).unwrap_or_default()
    }
}

/// Unix milliseconds of a time as people write it: in UTC, unless it says otherwise.
pub fn parse_utc(text: &str) -> Option<i64> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_millis());
    }
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .map(|time| time.and_utc().timestamp_millis())
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.to_rfc3339())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_read_back_to_the_millisecond() {
        let instant = UnixMillis::new(1_795_558_789_007);
        assert_eq!(instant.to_column(), "2026-11-24 22:19:49.007");
        assert_eq!(UnixMillis::from_column(&instant.to_column()), Some(instant));
        assert_eq!(UnixMillis::from_column("2026-11-24 22:19:49"), Some(UnixMillis::new(1_795_558_789_000)));
        assert_eq!(UnixMillis::from_column("yesterday"), None);
    }

    #[test]
    fn arithmetic_stays_inside_the_calendar() {
        assert_eq!(UnixMillis::ZERO.minus(Duration::from_secs(1)), UnixMillis::ZERO);
        assert_eq!(UnixMillis::MAX.plus(Duration::MAX), UnixMillis::MAX);
    }
}

//! The test side of the daemon's movable clock, and the one place where tests read the calendar.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, by the machine's clock.
#[allow(clippy::disallowed_methods)] // the tests' one reader of the calendar
pub fn now_millis() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).expect("the machine's clock is past 1970");
    i64::try_from(elapsed.as_millis()).expect("the year fits")
}

/// Seconds since 1970, by the machine's clock.
pub fn now_secs() -> i64 {
    now_millis().div_euclid(1000)
}

/// The file that tells a test build how far its clock is off the machine's. It begins at zero.
#[derive(Debug, Clone)]
pub struct MovableClock {
    file: PathBuf,
}

impl MovableClock {
    /// Keeps the offset that the file holds, if it is there: every handle of one file tells the same time.
    pub fn at(file: &Path) -> Self {
        let clock = MovableClock { file: file.to_owned() };
        if !file.exists() {
            clock.set_offset_millis(0);
        }
        clock
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Puts the daemon's clock this far ahead of the machine's, or behind it, at once: a reader sees the old number
    /// or the new one, never a part.
    pub fn set_offset_millis(&self, offset_millis: i64) {
        let fresh = self.file.with_extension("fresh");
        fs::write(&fresh, offset_millis.to_string()).expect("the clock file can be written");
        fs::rename(&fresh, &self.file).expect("the clock file can be replaced");
    }

    pub fn offset_millis(&self) -> i64 {
        let text = fs::read_to_string(&self.file).expect("the clock file can be read");
        text.trim().parse().expect("the clock file holds a number")
    }

    /// Answers a time that nobody can have seen before, and everybody sees from now on.
    pub fn advance(&self, duration: Duration) -> i64 {
        let millis = i64::try_from(duration.as_millis()).expect("the duration fits");
        let (now, offset) = (now_millis(), self.offset_millis());
        self.set_offset_millis(offset + millis);
        now + offset + millis
    }

    pub fn set_back(&self, duration: Duration) {
        let millis = i64::try_from(duration.as_millis()).expect("the duration fits");
        self.set_offset_millis(self.offset_millis() - millis);
    }

    /// What the daemon's clock shows.
    pub fn now_millis(&self) -> i64 {
        now_millis() + self.offset_millis()
    }

    pub fn now_secs(&self) -> i64 {
        self.now_millis().div_euclid(1000)
    }
}

//! The one place that reads the system's clock. Everything else is handed a `Clock`.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::domain::time::UnixMillis;

/// Tells the time; a test passes its own.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> UnixMillis;
}

pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one reader of the system's clock
    fn now(&self) -> UnixMillis {
        let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis::new(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The machine's clock, moved by the milliseconds that a file holds, so that a test can move a running daemon's time.
#[cfg(feature = "failpoints")]
#[derive(Debug)]
pub struct MovableClock {
    offset_file: std::path::PathBuf,
}

#[cfg(feature = "failpoints")]
impl Clock for MovableClock {
    fn now(&self) -> UnixMillis {
        let offset = std::fs::read_to_string(&self.offset_file).ok();
        let offset: i64 = offset.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        UnixMillis::new(SystemClock.now().as_millis() + offset)
    }
}

/// The clock of a daemon: the system's, unless a test build was given a movable one.
pub fn for_daemon() -> SharedClock {
    #[cfg(feature = "failpoints")]
    if let Some(file) = std::env::var_os("HOOKLEDGER_TEST_CLOCK_FILE") {
        return Arc::new(MovableClock { offset_file: file.into() });
    }
    Arc::new(SystemClock)
}

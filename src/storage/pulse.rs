//! What the owner of a writing connection shows of itself, so that anybody can tell whether it still moves.
//!
//! It shows no time of its own while it rests: there is nothing to do. While it works, every wait for the database has
//! a deadline, and only what lasts beyond that is a hang; unless a disk that is slow still gets on.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// No piece of work is under way.
const RESTS: u64 = 0;

/// However slowly a disk gets on, one piece of work does not take longer.
const DISK_PATIENCE: Duration = Duration::from_secs(600);

/// What the system knows of an owner that has made no step for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskSign {
    /// So many reads and writes were carried out for it.
    Calls(u64),
    /// It waits for the disk inside the system: no end of the process could hurry that, or even come before it.
    InTheSystem,
}

/// Asked only about an owner that has made no step for longer than it may.
pub type DiskLook = fn() -> Option<DiskSign>;

#[derive(Default)]
struct Disk {
    look: Option<DiskLook>,
    /// What was seen last, and since when.
    seen: Mutex<Option<(DiskSign, Instant)>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.seen.fmt(formatter)
    }
}

impl Disk {
    /// For how long nothing has changed there; nothing where nobody knows.
    fn still_for(&self, now: Instant) -> Option<Duration> {
        let sign = self.look?()?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *seen {
            Some((last, since)) if last == sign && sign != DiskSign::InTheSystem => since,
            _ => now,
        };
        *seen = Some((sign, since));
        Some(now.saturating_duration_since(since))
    }
}

#[derive(Debug)]
pub struct OwnerPulse {
    name: String,
    /// The longest that the owner waits for the database at a time.
    deadline: Duration,
    base: Instant,
    /// Milliseconds since `base` plus one, of the last step of the work under way.
    moved: AtomicU64,
    is_closed: AtomicBool,
    is_gone: AtomicBool,
    disk: Disk,
}

impl OwnerPulse {
    pub fn new(name: impl Into<String>, deadline: Duration) -> Self {
        OwnerPulse {
            name: name.into(),
            deadline,
            base: Instant::now(),
            moved: AtomicU64::new(RESTS),
            is_closed: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            disk: Disk::default(),
        }
    }

    /// The owner works with a disk, and this tells whether that gets on.
    pub fn with_disk(mut self, look: DiskLook) -> Self {
        self.disk.look = Some(look);
        self
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The longest that it waits for the database at a time.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// A piece of work begins, or gets on.
    pub fn moves(&self) {
        let elapsed = u64::try_from(self.base.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.moved.store(elapsed + 1, Ordering::Release);
    }

    /// Nothing is under way any more.
    pub fn rests(&self) {
        self.moved.store(RESTS, Ordering::Release);
    }

    /// It was told to close: how long that may take is the drain's concern, and its end is no failure.
    pub fn closes(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Held by its thread for as long as that lasts.
    pub fn until_end(self: &Arc<Self>) -> UntilEnd {
        UntilEnd(self.clone())
    }

    /// Its thread ended although nobody had told it to.
    pub fn is_lost(&self) -> bool {
        self.is_gone.load(Ordering::Acquire) && !self.is_closed.load(Ordering::Acquire)
    }

    /// For how long it has made no step, beyond what it may wait for the database, and its disk none either.
    pub fn stalled(&self, now: Instant) -> Duration {
        match self.moved.load(Ordering::Acquire) {
            RESTS => Duration::ZERO,
            _ if self.is_closed.load(Ordering::Acquire) => Duration::ZERO,
            moved => {
                let moved_at = self.base + Duration::from_millis(moved - 1);
                let age = now.saturating_duration_since(moved_at);
                let stalled = age.saturating_sub(self.deadline);
                if stalled.is_zero() || age > DISK_PATIENCE {
                    return stalled;
                }
                self.disk.still_for(now).map_or(stalled, |still| stalled.min(still))
            }
        }
    }
}

/// Tells the end of a thread, also where a panic unwinds it.
pub struct UntilEnd(Arc<OwnerPulse>);

impl Drop for UntilEnd {
    fn drop(&mut self) {
        self.0.is_gone.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lasts_beyond_the_deadline_is_a_stall() {
        let pulse = OwnerPulse::new("writer", Duration::from_secs(5));
        let begin = Instant::now();
        assert_eq!(pulse.stalled(begin + Duration::from_secs(100)), Duration::ZERO, "it rests");
        pulse.moves();
        assert_eq!(pulse.stalled(begin + Duration::from_secs(4)), Duration::ZERO, "it waits for the database");
        let stalled = pulse.stalled(begin + Duration::from_secs(8));
        assert!((2..=3).contains(&stalled.as_secs()), "{stalled:?}");
        pulse.rests();
        assert_eq!(pulse.stalled(begin + Duration::from_secs(8)), Duration::ZERO);
    }

    #[test]
    fn a_disk_that_gets_on_is_no_stall_and_not_for_ever() {
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let look: DiskLook = || match CALLS.load(Ordering::Relaxed) {
            u64::MAX => Some(DiskSign::InTheSystem),
            calls => Some(DiskSign::Calls(calls)),
        };
        let pulse = OwnerPulse::new("writer", Duration::from_secs(5)).with_disk(look);
        let begin = Instant::now();
        pulse.moves();
        let stalled = |secs| pulse.stalled(begin + Duration::from_secs(secs)).as_secs();
        assert_eq!(stalled(20), 0, "the first look knows nothing yet");
        assert_eq!(stalled(30), 10, "nothing was read or written since");
        CALLS.store(1, Ordering::Relaxed);
        assert_eq!((stalled(40), stalled(43)), (0, 3));
        CALLS.store(u64::MAX, Ordering::Relaxed);
        assert_eq!((stalled(50), stalled(599)), (0, 0));
        assert!(stalled(601) > 590);
    }

    #[test]
    fn an_end_is_a_loss_only_where_nobody_asked_for_it() {
        let pulse = Arc::new(OwnerPulse::new("writer", Duration::ZERO));
        drop(pulse.until_end());
        assert!(pulse.is_lost());
        pulse.closes();
        assert!(!pulse.is_lost());
    }
}

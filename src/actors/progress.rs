//! Whether every actor still gets on: seen from real work, cheap, and from any thread.
//!
//! Two signs are needed. A *beat*: the actor took something out of its mailbox; the Supervisor's look is a message like
//! any other and waits behind them, so that a blocked thread does not beat. And the *work* under way, which an actor
//! awaits: it counts as moving whenever what it waits for wakes it (and not when it is polled, which every message to
//! its actor does). A wait for the database or for new-api within its own deadline is no hang.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

use super::ActorName;
use crate::storage::pulse::OwnerPulse;

/// How much later than the Supervisor somebody else may take an actor for hung: it looks once a heartbeat, and a
/// replacement comes after a pause.
const GRACE: Duration = Duration::from_secs(5);

/// Who got on last, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slowest {
    /// An actor, or the owner of a writing connection.
    pub part: String,
    /// Since its last progress; waits within their own deadlines do not count.
    pub age: Duration,
}

/// What a piece of work awaits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The owner of a writing connection, behind others, or a connection that reads.
    Database,
    /// new-api, for its turn, its answer or the end of a pause that it asked for; and the database.
    Gateway,
}

/// new-api may take ten minutes for an answer (`newapi.timeout`), and a turn to ask it comes as late.
const GATEWAY_WAIT: Duration = Duration::from_secs(15 * 60);

/// What waits in the queue of an owner that the actors asked for, each for as long as it may.
const DATABASE_WAITS: u32 = 16;

/// The progress of all actors. It outlives each of them.
pub struct Progress {
    hang_timeout: Duration,
    database_wait: Duration,
    seats: Mutex<[Seat; ActorName::ALL.len()]>,
    owners: Vec<Arc<OwnerPulse>>,
}

/// Where one actor is: its life, or since when it has none.
#[derive(Clone)]
enum Seat {
    Alive(Arc<Pulse>),
    Empty { since: Instant },
}

impl Seat {
    fn age(&self, now: Instant) -> Duration {
        match self {
            Seat::Alive(pulse) => pulse.age(now),
            Seat::Empty { since } => now.saturating_duration_since(*since),
        }
    }
}

impl Progress {
    pub fn new(hang_timeout: Duration, owners: Vec<Arc<OwnerPulse>>) -> Self {
        let since = Instant::now();
        let seats = ActorName::ALL.map(|_| Seat::Empty { since });
        let longest = owners.iter().map(|owner| owner.deadline()).max().unwrap_or_default();
        Progress { hang_timeout, database_wait: longest * DATABASE_WAITS, seats: Mutex::new(seats), owners }
    }

    /// Whoever makes no progress for longer hangs.
    pub fn hang_timeout(&self) -> Duration {
        self.hang_timeout
    }

    /// Whether the process does what it is there for: every actor and every owner of a connection got on lately, or
    /// waits within its deadline, or is just being replaced. What feeds a watchdog asks this, and nothing else.
    pub fn is_alive(&self, now: Instant) -> bool {
        self.why_not_alive(now).is_none()
    }

    /// The same, with who holds it up.
    pub fn why_not_alive(&self, now: Instant) -> Option<String> {
        if let Some(owner) = self.lost_owner() {
            return Some(format!("the owner of a writing connection ({}) has ended", owner.name()));
        }
        let Slowest { part, age } = self.slowest(now);
        let is_hung = age > self.hang_timeout + GRACE;
        is_hung.then(|| format!("the {part} has made no progress for {age:.1?}"))
    }

    /// The one whose last progress lies back furthest.
    pub fn slowest(&self, now: Instant) -> Slowest {
        let actors = self.ages(now).map(|(actor, age)| Slowest { part: actor.as_str().to_owned(), age });
        let owners = self.owners.iter().map(|owner| Slowest { part: owner.name().to_owned(), age: owner.stalled(now) });
        let slowest = actors.into_iter().chain(owners).max_by_key(|one| one.age);
        slowest.unwrap_or(Slowest { part: String::new(), age: Duration::ZERO })
    }

    /// Whether every actor has a life: none is being replaced.
    pub fn are_all_running(&self) -> bool {
        self.lock().iter().all(|seat| matches!(seat, Seat::Alive(_)))
    }

    /// Since its last progress, of each actor.
    pub fn ages(&self, now: Instant) -> [(ActorName, Duration); ActorName::ALL.len()] {
        let seats = self.lock().clone();
        ActorName::ALL.map(|actor| (actor, seats[actor as usize].age(now)))
    }

    /// Whether the actor has made no progress for so long that it counts as hung. One that is being replaced does not.
    pub fn is_hung(&self, actor: ActorName, now: Instant) -> bool {
        let seat = self.lock()[actor as usize].clone();
        matches!(seat, Seat::Alive(_)) && seat.age(now) > self.hang_timeout
    }

    /// An owner of a connection that hangs: nobody can take its work over while it may still commit.
    pub fn hung_owner(&self, now: Instant) -> Option<&OwnerPulse> {
        self.owners.iter().find(|owner| owner.stalled(now) > self.hang_timeout).map(Arc::as_ref)
    }

    /// An owner of a connection whose thread ended although nobody asked for it.
    pub fn lost_owner(&self) -> Option<&OwnerPulse> {
        self.owners.iter().find(|owner| owner.is_lost()).map(Arc::as_ref)
    }

    /// A life begins; the pulse is what it shows itself with.
    pub fn begin(&self, actor: ActorName) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::new(self.database_wait));
        self.lock()[actor as usize] = Seat::Alive(pulse.clone());
        pulse
    }

    /// The actor's life ended, or was given up.
    pub fn end(&self, actor: ActorName) {
        self.lock()[actor as usize] = Seat::Empty { since: Instant::now() };
    }

    fn lock(&self) -> MutexGuard<'_, [Seat; ActorName::ALL.len()]> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The signs of life of one life of one actor.
#[derive(Debug)]
pub struct Pulse {
    base: Instant,
    database_wait: Duration,
    beat: AtomicU64,
    work: Mutex<Vec<Arc<Work>>>,
}

#[derive(Debug)]
struct Work {
    base: Instant,
    moved: AtomicU64,
    /// How long it may wait at a time.
    deadline: Duration,
    actor: AtomicWaker,
}

impl Work {
    fn moves(&self) {
        self.moved.store(elapsed_since(self.base), Ordering::Release);
    }
}

impl Wake for Work {
    fn wake(self: Arc<Self>) {
        self.moves();
        self.actor.wake();
    }
}

fn elapsed_since(base: Instant) -> u64 {
    u64::try_from(base.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Pulse {
    fn new(database_wait: Duration) -> Self {
        Pulse { base: Instant::now(), database_wait, beat: AtomicU64::new(0), work: Mutex::default() }
    }

    /// The actor took something out of its mailbox, or looked at its queue.
    pub fn beat(&self) {
        self.beat.store(elapsed_since(self.base), Ordering::Release);
    }

    /// Has a piece of work seen while it is under way.
    pub fn watch<'a, T>(self: &Arc<Self>, wait: Wait, work: impl Future<Output = T> + 'a) -> Watched<'a, T> {
        let deadline = match wait {
            Wait::Database => self.database_wait,
            Wait::Gateway => self.database_wait.max(GATEWAY_WAIT),
        };
        let seen = Arc::new(Work { base: self.base, moved: AtomicU64::default(), deadline, actor: AtomicWaker::new() });
        seen.moves();
        self.lock().push(seen.clone());
        Watched { pulse: self.clone(), seen, work: Box::pin(work) }
    }

    fn age(&self, now: Instant) -> Duration {
        let since = |at: &AtomicU64| {
            now.saturating_duration_since(self.base + Duration::from_millis(at.load(Ordering::Acquire)))
        };
        let beat = since(&self.beat);
        let work = self.lock().iter().map(|work| since(&work.moved).saturating_sub(work.deadline)).max();
        beat.max(work.unwrap_or_default())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Work>>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A piece of an actor's work that is seen as long as it lasts.
pub struct Watched<'a, T> {
    pulse: Arc<Pulse>,
    seen: Arc<Work>,
    work: Pin<Box<dyn Future<Output = T> + 'a>>,
}

impl<T> Future for Watched<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.seen.actor.register(context.waker());
        let waker = Waker::from(self.seen.clone());
        self.work.as_mut().poll(&mut Context::from_waker(&waker))
    }
}

impl<T> Drop for Watched<'_, T> {
    fn drop(&mut self) {
        self.pulse.lock().retain(|one| !Arc::ptr_eq(one, &self.seen));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn progress() -> Progress {
        Progress::new(SECOND * 10, vec![Arc::new(OwnerPulse::new("ledger-writer", SECOND * 10))])
    }

    fn all_alive(progress: &Progress) -> Vec<Arc<Pulse>> {
        ActorName::ALL.map(|actor| progress.begin(actor)).to_vec()
    }

    #[test]
    fn the_slowest_decides() {
        let progress = progress();
        assert!(!progress.are_all_running());
        let pulses = all_alive(&progress);
        let begin = Instant::now();
        assert!(progress.are_all_running() && progress.is_alive(begin + SECOND * 9));
        let late = begin + SECOND * 20;
        assert!(progress.is_hung(ActorName::Ledger, late) && !progress.is_alive(late));
        assert!(progress.why_not_alive(late).is_some_and(|reason| reason.contains("has made no progress for 20.")));
        pulses.iter().for_each(|pulse| pulse.beat());
        assert!(progress.slowest(begin + SECOND).age < SECOND * 2);
    }

    #[test]
    fn work_that_waits_within_its_deadline_is_alive() {
        let progress = progress();
        let pulses = all_alive(&progress);
        let begin = Instant::now();
        let work = pulses[0].watch(Wait::Database, std::future::pending::<()>());
        let beats_at = |secs: u32| {
            pulses[0].beat.store(u64::from(secs) * 1000, Ordering::Release);
            pulses[0].age(begin + SECOND * secs)
        };
        assert!(beats_at(150) < SECOND, "it may stand behind others");
        // Beats alone do not help work that nothing wakes any more.
        assert!(beats_at(175) > SECOND * 14);
        drop(work);
        assert!(beats_at(175) < SECOND);
        let _work = pulses[0].watch(Wait::Gateway, std::future::pending::<()>());
        assert!(beats_at(175) < SECOND);
    }

    #[test]
    fn work_moves_when_it_is_woken_and_not_when_it_is_polled() {
        let progress = progress();
        let pulses = all_alive(&progress);
        let (wake, woken) = tokio::sync::oneshot::channel::<()>();
        let mut work = Box::pin(pulses[0].watch(Wait::Database, woken));
        let at = work.seen.clone();
        let mut context = Context::from_waker(Waker::noop());
        at.moved.store(u64::MAX, Ordering::Release);
        assert!(work.as_mut().poll(&mut context).is_pending());
        assert_eq!(at.moved.load(Ordering::Acquire), u64::MAX, "nothing woke it");
        wake.send(()).unwrap();
        assert_ne!(at.moved.load(Ordering::Acquire), u64::MAX);
        assert!(work.as_mut().poll(&mut context).is_ready());
    }

    #[test]
    fn one_that_is_being_replaced_is_no_hang_and_not_for_long() {
        let progress = progress();
        let _pulses = all_alive(&progress);
        progress.end(ActorName::Logger);
        let now = Instant::now();
        assert!(!progress.are_all_running() && progress.is_alive(now + SECOND));
        assert!(!progress.is_hung(ActorName::Logger, now + SECOND * 100));
        assert!(!progress.is_alive(now + SECOND * 100));
    }

    #[test]
    fn an_owner_counts_with_what_it_may_wait() {
        let owner = Arc::new(OwnerPulse::new("ledger-writer", SECOND * 30));
        let progress = Progress::new(SECOND * 10, vec![owner.clone()]);
        owner.moves();
        let begin = Instant::now();
        assert!(progress.hung_owner(begin + SECOND * 35).is_none());
        assert_eq!(progress.hung_owner(begin + SECOND * 41).map(OwnerPulse::name), Some("ledger-writer"));
        owner.rests();
        assert!(progress.hung_owner(begin + SECOND * 41).is_none());
        drop(owner.until_end());
        assert!(progress.lost_owner().is_some() && !progress.is_alive(Instant::now()));
    }
}

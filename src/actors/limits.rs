//! How much a source may send: governor's limits per source address, with a bound on how many are remembered.
//!
//! Rightly and wrongly signed requests have allowances of their own, so that nobody can use up another's by forging.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use crate::config::RateLimitSettings;

/// Who a limit is held against: an IPv4 address, or the /64 network of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(IpAddr);

impl Source {
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Source(IpAddr::V4(address)),
            IpAddr::V6(address) => {
                let network = u128::from(address) & (u128::MAX << 64);
                Source(IpAddr::V6(Ipv6Addr::from(network)))
            }
        }
    }
}

/// Both allowances of every source.
pub struct Limits {
    current: ArcSwap<Allowances>,
}

struct Allowances {
    good: Arc<Allowance>,
    bad: Arc<Allowance>,
}

type Limiter = RateLimiter<Source, BoundedStates, DefaultClock, NoOpMiddleware<<DefaultClock as Clock>::Instant>>;

struct Allowance {
    numbers: Numbers,
    /// None: no limit.
    limiter: Option<Limiter>,
    clock: DefaultClock,
}

/// What an allowance is made of. While they stay the same, what each source used up is remembered.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Numbers {
    per_second: u32,
    burst: u32,
    max_sources: usize,
}

impl Numbers {
    fn of_good(settings: &RateLimitSettings) -> Self {
        Numbers { per_second: settings.per_second, burst: settings.burst, max_sources: settings.max_sources }
    }

    fn of_bad(settings: &RateLimitSettings) -> Self {
        Numbers { per_second: settings.bad_per_second, burst: settings.bad_burst, max_sources: settings.max_sources }
    }
}

impl Limits {
    pub fn new(settings: &RateLimitSettings) -> Self {
        let good = Arc::new(Allowance::new(Numbers::of_good(settings)));
        let bad = Arc::new(Allowance::new(Numbers::of_bad(settings)));
        Limits { current: ArcSwap::from_pointee(Allowances { good, bad }) }
    }

    /// Holds every source to other numbers from now on; it begins anew with an allowance whose numbers changed.
    pub fn change(&self, settings: &RateLimitSettings) {
        let current = self.current.load();
        let good = current.good.with(Numbers::of_good(settings));
        let bad = current.bad.with(Numbers::of_bad(settings));
        self.current.store(Arc::new(Allowances { good, bad }));
    }

    /// Counts a rightly signed request; the time to wait if it is one too many.
    pub fn check_good(&self, source: Source) -> Result<(), Duration> {
        self.current.load().good.check(source)
    }

    /// Counts a wrongly signed request; the time to wait if it is one too many.
    pub fn check_bad(&self, source: Source) -> Result<(), Duration> {
        self.current.load().bad.check(source)
    }

    /// Forgets sources whose allowance is whole again.
    pub fn tidy(&self) {
        let current = self.current.load();
        for limiter in current.limiters() {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }

    /// How many sources are remembered.
    pub fn sources(&self) -> usize {
        self.current.load().limiters().map(Limiter::len).sum()
    }
}

impl Allowances {
    fn limiters(&self) -> impl Iterator<Item = &Limiter> {
        self.good.limiter.iter().chain(&self.bad.limiter)
    }
}

impl Allowance {
    /// A rate of 0 switches the limit off.
    fn new(numbers: Numbers) -> Self {
        let clock = DefaultClock::default();
        let quota = NonZeroU32::new(numbers.per_second).zip(NonZeroU32::new(numbers.burst));
        let limiter = quota.map(|(per_second, burst)| {
            let quota = Quota::per_second(per_second).allow_burst(burst);
            RateLimiter::new(quota, BoundedStates::new(numbers.max_sources), clock.clone())
        });
        Allowance { numbers, limiter, clock }
    }

    fn with(self: &Arc<Self>, numbers: Numbers) -> Arc<Self> {
        if self.numbers == numbers { self.clone() } else { Arc::new(Allowance::new(numbers)) }
    }

    fn check(&self, source: Source) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        limiter.check_key(&source).map_err(|refusal| refusal.wait_time_from(self.clock.now()))
    }
}

/// State of at most `max_sources`; those beyond share one.
struct BoundedStates {
    states: Mutex<HashMap<Source, InMemoryState>>,
    shared: InMemoryState,
    max_sources: usize,
}

impl BoundedStates {
    fn new(max_sources: usize) -> Self {
        BoundedStates { states: Mutex::new(HashMap::new()), shared: InMemoryState::default(), max_sources }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Source, InMemoryState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for BoundedStates {
    type Key = Source;

    fn measure_and_replace<T, F, E>(&self, key: &Source, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut states = self.lock();
        if states.len() >= self.max_sources && !states.contains_key(key) {
            return self.shared.measure_and_replace(&NotKeyed::NonKey, f);
        }
        states.entry(*key).or_default().measure_and_replace(&NotKeyed::NonKey, f)
    }
}

impl ShrinkableKeyedStateStore<Source> for BoundedStates {
    fn retain_recent(&self, drop_below: Nanos) {
        self.lock().retain(|_, state| {
            // A look that never replaces: it refuses with what it saw.
            let seen: Result<(), Option<Nanos>> = state.measure_and_replace(&NotKeyed::NonKey, Err);
            seen.err().flatten().is_some_and(|arrival| arrival > drop_below)
        });
    }

    fn shrink_to_fit(&self) {
        self.lock().shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(per_second: u32, burst: u32, max_sources: usize) -> Limits {
        let (bad_per_second, bad_burst) = (1, 2);
        Limits::new(&RateLimitSettings { per_second, burst, bad_per_second, bad_burst, max_sources })
    }

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    /// What is seen within one second of the limits' clock: on a busy machine it may have to be tried again.
    fn seen_within_a_second<T>(case: impl Fn() -> T) -> T {
        for _ in 0..100 {
            let begun = std::time::Instant::now();
            let seen = case();
            if begun.elapsed() < Duration::from_millis(900) {
                return seen;
            }
        }
        panic!("it never took less than a second");
    }

    #[test]
    fn each_source_has_its_own_allowances() {
        let (one, other) = (source("10.0.0.1"), source("10.0.0.2"));
        let (three, fourth, of_other, bad) = seen_within_a_second(|| {
            let limits = limits(1, 3, 10);
            let three = [(); 3].map(|()| limits.check_good(one).is_ok());
            (three, limits.check_good(one), limits.check_good(other), limits.check_bad(one))
        });
        assert_eq!(three, [true; 3]);
        let wait = fourth.unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1));
        assert!(of_other.is_ok());
        assert!(bad.is_ok(), "used up by good requests, not by bad ones");
    }

    #[test]
    fn an_ipv6_source_is_its_network_and_a_mapped_address_is_ipv4() {
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
    }

    #[test]
    fn a_flood_of_addresses_is_remembered_up_to_the_bound() {
        let (refused, sources) = seen_within_a_second(|| {
            let limits = limits(1, 1, 100);
            let address = |number: u32| Source::of(IpAddr::from(number.to_be_bytes()));
            let refused = (0..10_000).filter(|number| limits.check_good(address(*number)).is_err());
            (refused.collect::<Vec<u32>>(), limits.sources())
        });
        assert!(refused.into_iter().eq(101..10_000), "the first beyond the bound uses up the shared allowance");
        assert_eq!(sources, 100);
    }

    #[test]
    fn sources_whose_allowance_is_whole_are_forgotten() {
        let sources = seen_within_a_second(|| {
            let limits = Limits::new(&RateLimitSettings {
                per_second: 1_000_000,
                burst: 1_000_000,
                bad_per_second: 1,
                bad_burst: 1,
                max_sources: 10,
            });
            limits.check_good(source("10.0.0.1")).unwrap();
            limits.check_bad(source("10.0.0.1")).unwrap();
            let deadline = std::time::Instant::now() + Duration::from_millis(500);
            while limits.sources() != 1 && std::time::Instant::now() < deadline {
                limits.tidy();
            }
            limits.sources()
        });
        assert_eq!(sources, 1, "the good one is whole within a microsecond, the bad one within a second");
    }

    #[test]
    fn other_numbers_hold_at_once_and_the_same_ones_forget_nothing() {
        let numbers =
            |burst| RateLimitSettings { per_second: 1, burst, bad_per_second: 1, bad_burst: 2, max_sources: 10 };
        let one = source("10.0.0.1");
        let (same, others, bad) = seen_within_a_second(|| {
            let limits = limits(1, 3, 10);
            (0..3).for_each(|_| limits.check_good(one).unwrap());
            (0..2).for_each(|_| limits.check_bad(one).unwrap());
            limits.change(&numbers(3));
            let same = (limits.check_good(one).is_err(), limits.check_bad(one).is_err());
            limits.change(&numbers(5));
            let others = [(); 6].map(|()| limits.check_good(one).is_ok());
            (same, others, limits.check_bad(one))
        });
        assert_eq!(same, (true, true), "nothing is given anew");
        assert_eq!(others, [true, true, true, true, true, false]);
        assert!(bad.is_err(), "the other allowance is as it was");
    }

    #[test]
    fn a_rate_of_zero_limits_nothing() {
        let limits = limits(0, 0, 1);
        assert!((0..1000).all(|_| limits.check_good(source("10.0.0.1")).is_ok()));
    }
}

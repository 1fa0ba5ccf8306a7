//! How often new-api is asked: a turn for each request, in the order of asking, and the pauses after failures.
//!
//! The time is passed in. A limiter as for our own senders would neither keep an order among those who wait, nor hold
//! everybody back once new-api says that it was asked too often.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::GatewayError;

/// A turn that is further away is not given out.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// No pause is longer: new-api counts its requests over three minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(180);

/// Hands out turns, shared by everybody who asks.
pub(super) struct Pacer {
    /// Between two turns; zero: no limit.
    interval: Duration,
    next_turn: Mutex<Option<Instant>>,
}

impl Pacer {
    pub(super) fn new(requests_per_second: Option<f64>) -> Self {
        let interval = requests_per_second.and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok());
        Pacer { interval: interval.unwrap_or_default(), next_turn: Mutex::default() }
    }

    /// Takes the next turn: how long it is away. Whoever gives up waiting loses his turn.
    pub(super) fn take_turn(&self, now: Instant) -> Result<Duration, GatewayError> {
        let mut next_turn = self.lock();
        let turn = next_turn.map_or(now, |next| next.max(now));
        let wait = turn.duration_since(now);
        if wait > LONGEST_WAIT {
            return Err(GatewayError::TooManyWaiting { wait });
        }
        *next_turn = Some(turn + self.interval);
        Ok(wait)
    }

    /// Nobody's turn comes before this pause is over.
    pub(super) fn hold_back(&self, now: Instant, pause: Duration) {
        let mut next_turn = self.lock();
        let until = now + pause.min(LONGEST_PAUSE);
        *next_turn = Some(next_turn.map_or(until, |next| next.max(until)));
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.next_turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a request is sent again, and when no more.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retries {
    pub(super) max_retries: u32,
    pub(super) base_backoff: Duration,
}

impl Retries {
    /// The pause before the next try after `failures` in a row, if there is one. `jitter`, 0 to 1, takes up to half of
    /// it away; what an answer itself asked for is kept.
    pub(super) fn pause_after(&self, error: &GatewayError, failures: u32, jitter: f64) -> Option<Duration> {
        if !error.may_pass() || failures > self.max_retries {
            return None;
        }
        let doubled = self.base_backoff.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1).min(16)));
        let pause = doubled.min(LONGEST_PAUSE).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0);
        match error {
            GatewayError::RateLimited { retry_after: Some(asked) } => Some(pause.max(*asked).min(LONGEST_PAUSE)),
            _ => Some(pause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn waits(pacer: &Pacer, now: Instant, count: usize) -> Vec<u128> {
        (0..count).map(|_| pacer.take_turn(now).unwrap().as_millis()).collect()
    }

    #[test]
    fn turns_follow_each_other_at_the_rate() {
        let start = Instant::now();
        assert_eq!(waits(&Pacer::new(Some(1.0)), start, 4), [0, 1000, 2000, 3000]);
        assert_eq!(waits(&Pacer::new(Some(4.0)), start, 3), [0, 250, 500]);
        assert_eq!(waits(&Pacer::new(Some(0.5)), start, 3), [0, 2000, 4000]);
        assert_eq!(waits(&Pacer::new(None), start, 3), [0, 0, 0]);
    }

    #[test]
    fn time_that_nobody_used_is_not_saved_up() {
        let (pacer, start) = (Pacer::new(Some(1.0)), Instant::now());
        assert_eq!(waits(&pacer, start, 1), [0]);
        assert_eq!(waits(&pacer, start + SECOND / 2, 1), [500]);
        assert_eq!(waits(&pacer, start + 60 * SECOND, 3), [0, 1000, 2000]);
    }

    #[test]
    fn a_refusal_for_asking_too_often_holds_everybody_back() {
        let (pacer, start) = (Pacer::new(Some(1.0)), Instant::now());
        assert_eq!(waits(&pacer, start, 1), [0]);
        pacer.hold_back(start, 10 * SECOND);
        pacer.hold_back(start, 5 * SECOND);
        assert_eq!(waits(&pacer, start, 2), [10_000, 11_000], "the longer of two pauses");
        let unlimited = Pacer::new(None);
        unlimited.hold_back(start, 3600 * SECOND);
        assert_eq!(waits(&unlimited, start, 2), [180_000, 180_000], "never for longer than new-api counts");
    }

    #[test]
    fn those_who_wait_are_bounded() {
        let (pacer, start) = (Pacer::new(Some(1.0)), Instant::now());
        let taken = (0..1000).take_while(|_| pacer.take_turn(start).is_ok()).count();
        assert_eq!(taken, 601);
        assert_eq!(pacer.take_turn(start), Err(GatewayError::TooManyWaiting { wait: 601 * SECOND }));
        assert!(pacer.take_turn(start + 1000 * SECOND).is_ok(), "the queue is gone");
    }

    fn retries() -> Retries {
        Retries { max_retries: 3, base_backoff: SECOND }
    }

    #[test]
    fn pauses_double_and_end() {
        let error = GatewayError::ServerFailed { status: 502 };
        let pauses = |jitter| -> Vec<Option<u128>> {
            let pause = |failures| retries().pause_after(&error, failures, jitter).map(|pause| pause.as_millis());
            (1..=4).map(pause).collect()
        };
        assert_eq!(pauses(0.0), [Some(1000), Some(2000), Some(4000), None]);
        assert_eq!(pauses(1.0), [Some(500), Some(1000), Some(2000), None]);
        let none = Retries { max_retries: 0, ..retries() };
        assert_eq!(none.pause_after(&error, 1, 0.0), None);
        let long = Retries { max_retries: 20, base_backoff: 600 * SECOND };
        assert_eq!(long.pause_after(&error, 20, 0.0), Some(LONGEST_PAUSE));
    }

    #[test]
    fn what_an_answer_asks_for_is_kept_within_bounds() {
        let limited = |secs: Option<u64>| GatewayError::RateLimited { retry_after: secs.map(Duration::from_secs) };
        let pause = |secs| retries().pause_after(&limited(secs), 1, 1.0).unwrap();
        assert_eq!(pause(None), SECOND / 2);
        assert_eq!((pause(Some(7)), pause(Some(0))), (7 * SECOND, SECOND / 2));
        assert_eq!(pause(Some(86_400)), LONGEST_PAUSE);
    }

    #[test]
    fn a_refusal_is_never_tried_again() {
        let said = String::new;
        for error in [
            GatewayError::TokenRefused { said: said() },
            GatewayError::WrongUser { said: said() },
            GatewayError::NotAdmin { said: said() },
            GatewayError::NotRoot { said: said() },
            GatewayError::Refused { said: said() },
            GatewayError::NotNewApi { found: said() },
            GatewayError::Redirected { target: said() },
            GatewayError::TooLong { limit_bytes: 1 },
        ] {
            assert_eq!(retries().pause_after(&error, 1, 0.0), None, "{error}");
        }
        for error in [
            GatewayError::OutOfReach { reason: said() },
            GatewayError::TimedOut { after: SECOND },
            GatewayError::BrokenAnswer { reason: said() },
        ] {
            assert!(retries().pause_after(&error, 1, 0.0).is_some(), "{error}");
        }
    }
}

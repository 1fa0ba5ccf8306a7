//! The sender's side of the contract: many events at once, each repeated until a 2xx or until patience ends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::sign::signed_request;
use super::wait::{Deadline, pause};
use super::wire::Connection;

/// How long and how often one event is tried.
#[derive(Debug, Clone)]
pub struct Retry {
    pub max_attempts: usize,
    /// Before the second attempt, the third …; the last one repeats. Empty: none.
    pub pauses: Vec<Duration>,
    /// No attempt begins later than this after the start of the delivery.
    pub give_up_after: Duration,
    /// Of one attempt.
    pub timeout: Duration,
}

impl Retry {
    /// One attempt each.
    pub fn never() -> Self {
        Retry::times(1, Duration::ZERO)
    }

    /// As new-api's sender does it.
    pub fn like_new_api() -> Self {
        let pauses = [1, 2, 4].map(Duration::from_secs).to_vec();
        Retry { max_attempts: 4, pauses, ..Retry::never() }
    }

    pub fn times(max_attempts: usize, pause: Duration) -> Self {
        Retry {
            max_attempts,
            pauses: vec![pause],
            give_up_after: Duration::from_secs(600),
            timeout: Duration::from_secs(10),
        }
    }

    /// As often as it takes until then: for tests in which the daemon dies and comes back.
    pub fn until(give_up_after: Duration, pause: Duration) -> Self {
        Retry { give_up_after, ..Retry::times(usize::MAX, pause) }
    }

    fn pause_after(&self, attempts: usize) -> Duration {
        let index = attempts.saturating_sub(1).min(self.pauses.len().saturating_sub(1));
        self.pauses.get(index).copied().unwrap_or_default()
    }
}

/// What one attempt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    Answered {
        status: u16,
        text: String,
    },
    /// No answer: refused, cut, timed out. Whether the event arrived is unknown.
    Unanswered(String),
}

impl Attempt {
    pub fn is_acknowledged(&self) -> bool {
        matches!(self, Attempt::Answered { status: 200..=299, .. })
    }
}

/// One body and everything that came of it, in order.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub body: String,
    pub attempts: Vec<Attempt>,
}

impl Delivery {
    pub fn is_acknowledged(&self) -> bool {
        self.attempts.iter().any(Attempt::is_acknowledged)
    }

    /// The event's id, if the body is an event.
    pub fn event_id(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_str(&self.body).ok()?;
        body["eventId"].as_str().map(str::to_owned)
    }
}

/// What became of each body, in the order in which they were given.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub deliveries: Vec<Delivery>,
}

impl Report {
    /// The ids of the events that got any 2xx: these must not be lost.
    pub fn acknowledged(&self) -> BTreeSet<String> {
        self.ids(Delivery::is_acknowledged)
    }

    pub fn unacknowledged(&self) -> BTreeSet<String> {
        self.ids(|delivery| !delivery.is_acknowledged())
    }

    /// How often each status was answered; 0 counts the attempts without an answer.
    pub fn statuses(&self) -> BTreeMap<u16, usize> {
        let mut counts = BTreeMap::new();
        for attempt in self.deliveries.iter().flat_map(|delivery| &delivery.attempts) {
            let status = match attempt {
                Attempt::Answered { status, .. } => *status,
                Attempt::Unanswered(_) => 0,
            };
            *counts.entry(status).or_default() += 1;
        }
        counts
    }

    #[track_caller]
    pub fn assert_all_acknowledged(&self) {
        let failed = self.deliveries.iter().find(|delivery| !delivery.is_acknowledged());
        if let Some(delivery) = failed {
            panic!("{} was not acknowledged: {:?}", delivery.body, delivery.attempts.last());
        }
    }

    fn ids(&self, is_wanted: impl Fn(&Delivery) -> bool) -> BTreeSet<String> {
        self.deliveries.iter().filter(|delivery| is_wanted(delivery)).filter_map(Delivery::event_id).collect()
    }
}

/// Delivers all bodies over that many connections and waits for the end.
pub fn deliver(address: SocketAddr, secret: &str, bodies: Vec<String>, connections: usize, policy: Retry) -> Report {
    start_delivery(address, secret, bodies, connections, policy).finish()
}

/// Begins to deliver, so that the test can break something meanwhile.
pub fn start_delivery(
    address: SocketAddr,
    secret: &str,
    bodies: Vec<String>,
    connections: usize,
    policy: Retry,
) -> Ongoing {
    let deliveries = bodies.into_iter().map(|body| Delivery { body, attempts: Vec::new() });
    let shared = Arc::new(Shared {
        address,
        secret: secret.to_owned(),
        deadline: Deadline::after(policy.give_up_after),
        policy,
        deliveries: deliveries.map(Mutex::new).collect(),
        next: AtomicUsize::new(0),
        acknowledged: AtomicUsize::new(0),
        is_stopped: AtomicBool::new(false),
    });
    let thread_of = |_| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || shared.work())
    };
    let threads = (0..connections).map(thread_of).collect();
    Ongoing { shared, threads }
}

/// A delivery that goes on.
#[derive(Debug)]
pub struct Ongoing {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Ongoing {
    /// How many bodies got a 2xx so far.
    pub fn acknowledged(&self) -> usize {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }

    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// No further attempt begins.
    pub fn stop(&self) {
        self.shared.is_stopped.store(true, Ordering::SeqCst);
    }

    /// Waits for the end, which the policy bounds.
    pub fn finish(self) -> Report {
        for thread in self.threads {
            thread.join().expect("a sender does not panic");
        }
        let copy = |delivery: &Mutex<Delivery>| delivery.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Report { deliveries: self.shared.deliveries.iter().map(copy).collect() }
    }
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    secret: String,
    policy: Retry,
    deadline: Deadline,
    /// Each is locked by the thread that delivers it.
    deliveries: Vec<Mutex<Delivery>>,
    next: AtomicUsize,
    acknowledged: AtomicUsize,
    is_stopped: AtomicBool,
}

impl Shared {
    /// One thread: takes body after body, over one connection for as long as that lasts.
    fn work(&self) {
        let mut connection = None;
        while let Some(delivery) = self.deliveries.get(self.next.fetch_add(1, Ordering::SeqCst)) {
            let mut delivery = delivery.lock().unwrap_or_else(PoisonError::into_inner);
            let request = signed_request(&self.secret, delivery.body.as_bytes());
            while self.may_go_on(delivery.attempts.len()) {
                let attempt = self.attempt(&mut connection, &request);
                let is_acknowledged = attempt.is_acknowledged();
                delivery.attempts.push(attempt);
                if is_acknowledged {
                    self.acknowledged.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                if self.may_go_on(delivery.attempts.len()) {
                    pause(self.policy.pause_after(delivery.attempts.len()).min(self.deadline.remaining()));
                }
            }
        }
    }

    fn may_go_on(&self, attempts: usize) -> bool {
        let is_stopped = self.is_stopped.load(Ordering::SeqCst);
        attempts < self.policy.max_attempts && !is_stopped && !self.deadline.has_passed()
    }

    fn attempt(&self, kept: &mut Option<Connection>, request: &[u8]) -> Attempt {
        let connected = kept.take().map_or_else(|| Connection::open(self.address, self.policy.timeout), Ok);
        let answered = connected.and_then(|mut connection| {
            let answer = connection.request(request)?;
            Ok((connection, answer))
        });
        match answered {
            Ok((connection, answer)) => {
                *kept = (!answer.closes()).then_some(connection);
                Attempt::Answered { status: answer.status, text: answer.text() }
            }
            Err(error) => Attempt::Unanswered(error.to_string()),
        }
    }
}

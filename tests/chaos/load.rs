//! The load: threads that make calls as users of new-api do, and tell of them as its sender of webhooks does, which
//! loses, repeats, delays and reorders; somebody else forges.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::calls::Calls;
use crate::kit::clock::now_secs;
use crate::kit::daemon::SECRET;
use crate::kit::events::{Usage, ping};
use crate::kit::newapi::{Call, Called, NewApiHandle};
use crate::kit::random::Random;
use crate::kit::sign::signed_request;
use crate::kit::wait::{Deadline, Stopwatch, pause};
use crate::kit::wire::Connection;

pub const USERS: usize = 5;
const MODEL: &str = "gpt-4";
const FORGERS_SECRET: &str = "somebody-elses-0123456789abcdef01234567";

/// As new-api's own sender: a first attempt and three more.
const ATTEMPTS: usize = 4;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);
const RETRY_PAUSE: Duration = Duration::from_millis(25);
/// So much of the time that answers took is made up for: a thread does not hurry for minutes after an outage.
const CAUGHT_UP: Duration = Duration::from_secs(1);
/// Events that a thread keeps back at most.
const HELD: usize = 16;
/// How long what was kept back may take to arrive once everything works.
const LAST_DELIVERIES: Duration = Duration::from_secs(90);

/// How often, out of a hundred calls, what goes wrong between new-api and the daemon.
#[derive(Debug, Clone, Copy)]
pub struct Misfortunes {
    pub lost_event: u64,
    pub lost_row: u64,
    pub delayed: u64,
    pub doubled: u64,
    pub equal: u64,
    pub forged: u64,
    pub pinged: u64,
}

impl Misfortunes {
    pub const MANY: Misfortunes =
        Misfortunes { lost_event: 8, lost_row: 8, delayed: 8, doubled: 8, equal: 4, forged: 2, pinged: 10 };
    pub const FEW: Misfortunes =
        Misfortunes { lost_event: 1, lost_row: 0, delayed: 2, doubled: 1, equal: 1, forged: 0, pinged: 1 };
}

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub threads: usize,
    /// Of each thread, from one call to the next, give or take a half. What slow answers took is made up for, up to
    /// [`CAUGHT_UP`].
    pub between: Duration,
    pub misfortunes: Misfortunes,
}

/// What the attempts of a load came to.
#[derive(Debug, Default, Clone)]
pub struct Answers {
    /// Of rightly signed requests; 0 for none.
    pub right: BTreeMap<u16, u64>,
    pub forged: BTreeMap<u16, u64>,
    /// Events that were kept back, sent again, never sent.
    pub met: BTreeMap<&'static str, u64>,
}

/// A load that goes on.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    newapi: NewApiHandle,
    calls: Arc<Calls>,
    pace: Pace,
    answers: Mutex<Answers>,
    is_closing: AtomicBool,
    /// Set while the daemon's clock is elsewhere, when it may refuse events for their time.
    is_clock_moved: Arc<AtomicBool>,
}

impl Load {
    pub fn start(
        address: SocketAddr,
        newapi: NewApiHandle,
        calls: Arc<Calls>,
        pace: Pace,
        random: &mut Random,
        is_clock_moved: Arc<AtomicBool>,
    ) -> Self {
        let shared = Shared {
            address,
            newapi,
            calls,
            pace,
            answers: Mutex::default(),
            is_closing: AtomicBool::new(false),
            is_clock_moved,
        };
        let shared = Arc::new(shared);
        let thread_of = |number: usize| {
            let sender = Sender {
                shared: Arc::clone(&shared),
                random: random.fork(),
                held: VecDeque::new(),
                connection: None,
                prefix: format!("e{number}-{:x}", random.next() >> 32),
                made: 0,
            };
            thread::spawn(move || sender.work())
        };
        let threads = (0..pace.threads).map(thread_of).collect();
        Load { shared, threads }
    }

    /// A sender that found something wrong has ended.
    pub fn assert_going(&self) {
        assert!(!self.threads.iter().any(JoinHandle::is_finished), "a sender found something wrong, as told above");
    }

    /// No more calls; what must arrive arrives. The daemon has to be well. What all attempts came to.
    pub fn close(self) -> Answers {
        self.shared.is_closing.store(true, Ordering::SeqCst);
        for thread in self.threads {
            thread.join().expect("a sender ends well");
        }
        self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// An event on its way.
#[derive(Debug, Clone)]
struct Event {
    id: String,
    number: i64,
    body: String,
    /// Nothing else tells of its call.
    must_arrive: bool,
}

struct Sender {
    shared: Arc<Shared>,
    random: Random,
    held: VecDeque<Event>,
    connection: Option<Connection>,
    /// Of the ids of this thread's events.
    prefix: String,
    made: u64,
}

impl Sender {
    fn work(mut self) {
        let (clock, mut due) = (Stopwatch::start(), Duration::ZERO);
        while !self.shared.is_closing.load(Ordering::SeqCst) {
            self.one_call();
            if !self.held.is_empty() && (self.held.len() > HELD || self.random.chance(1, 4)) {
                // Not always the oldest: so they overtake each other.
                let index = self.random.below(self.held.len() as u64) as usize;
                let event = self.held.remove(index).expect("it is among them");
                self.deliver(event);
            }
            let between = self.shared.pace.between.mul_f64(0.5 + self.random.below(1000) as f64 / 1000.0);
            let now = clock.elapsed();
            due = (due + between).max(now.saturating_sub(CAUGHT_UP));
            pause(due.saturating_sub(now));
        }
        let deadline = Deadline::after(LAST_DELIVERIES);
        for event in std::mem::take(&mut self.held) {
            while !self.attempt(&event) {
                assert!(!deadline.has_passed(), "{} was not acknowledged by a daemon that is well", event.body);
                pause(RETRY_PAUSE);
            }
        }
    }

    fn one_call(&mut self) {
        let misfortunes = self.shared.pace.misfortunes;
        if self.chance(misfortunes.pinged) {
            let body = ping(&self.next_id());
            self.request(SECRET, &body);
        }
        if self.chance(misfortunes.forged) {
            self.forge();
        }
        let user = self.random.below(USERS as u64) as usize;
        let units = self.random.between(0..=2400);
        if self.chance(misfortunes.lost_row) {
            let number = self.shared.calls.add(user, units, 1);
            let id = self.next_id();
            let body = usage(&id, user, number, units).json();
            return self.deliver(Event { id, number, body, must_arrive: true });
        }
        let times = if self.chance(misfortunes.equal) { 2 } else { 1 };
        let number = self.shared.calls.add(user, units, times);
        for _ in 0..times {
            let call = Call::new(token_of(user), MODEL, now_secs()).tokens(number, 7).quota(units);
            let called = self.shared.newapi.call(&call);
            if self.chance(misfortunes.lost_event) {
                self.met("webhook lost");
            } else {
                let event = self.event_of(&called, number);
                self.tell(event);
            }
        }
    }

    fn event_of(&mut self, called: &Called, number: i64) -> Event {
        let id = self.next_id();
        // Of senders that know the call's identity, and of the current one, which does not.
        let usage = if self.random.chance(1, 2) { called.usage(&id) } else { called.usage_by_cost(&id) };
        Event { body: usage.json(), id, number, must_arrive: false }
    }

    /// An event whose call is in the log as well.
    fn tell(&mut self, event: Event) {
        if self.chance(self.shared.pace.misfortunes.delayed) {
            self.met("webhook delayed and reordered");
            self.held.push_back(event);
        } else if self.chance(self.shared.pace.misfortunes.doubled) {
            self.met("webhook sent twice");
            self.held.push_back(event.clone());
            self.deliver(event.clone());
            self.attempt(&event);
        } else {
            self.deliver(event);
        }
    }

    fn deliver(&mut self, event: Event) {
        for attempt in 0..ATTEMPTS {
            if self.attempt(&event) {
                return;
            }
            pause(RETRY_PAUSE * (1 + attempt as u32));
        }
        // The sender of new-api gives up. Where the log tells of the call as well, it may.
        if event.must_arrive || self.random.chance(1, 2) {
            self.held.push_back(event);
        } else {
            self.met("webhook given up after four attempts");
        }
    }

    /// Whether it was acknowledged.
    fn attempt(&mut self, event: &Event) -> bool {
        self.shared.calls.sent();
        let status = self.request(SECRET, &event.body);
        let is_acknowledged = (200..300).contains(&status);
        if is_acknowledged {
            self.shared.calls.acknowledge(&event.id, event.number);
        }
        let is_excused = status == 400 && self.shared.is_clock_moved.load(Ordering::SeqCst);
        assert!(is_excused || [0, 200, 202, 503].contains(&status), "undocumented answer {status} to {}", event.body);
        let mut answers = self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.right.entry(status).or_default() += 1;
        is_acknowledged
    }

    /// A dear call that nobody made, signed by somebody who does not know the secret.
    fn forge(&mut self) {
        let number = self.shared.calls.add(0, 0, 0);
        let body = usage(&self.next_id(), 0, number, 5_000_000).json();
        let status = self.request(FORGERS_SECRET, &body);
        assert!([0, 403, 429, 503].contains(&status), "a forged event was answered {status}");
        let mut answers = self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.forged.entry(status).or_default() += 1;
    }

    /// The status; 0 for no answer.
    fn request(&mut self, secret: &str, body: &str) -> u16 {
        let request = signed_request(secret, body.as_bytes());
        let address = self.shared.address;
        let connected = self.connection.take().map_or_else(|| Connection::open(address, ANSWER_TIMEOUT), Ok);
        let answered = connected.and_then(|mut connection| Ok((connection.request(&request)?, connection)));
        match answered {
            Ok((answer, connection)) => {
                self.connection = (!answer.closes()).then_some(connection);
                answer.status
            }
            Err(_) => 0,
        }
    }

    fn met(&self, name: &'static str) {
        let mut answers = self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner);
        *answers.met.entry(name).or_default() += 1;
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.chance(percent, 100)
    }

    fn next_id(&mut self) -> String {
        self.made += 1;
        format!("{}-{}", self.prefix, self.made)
    }
}

/// new-api's number of the token that a user has.
pub fn token_of(user: usize) -> i64 {
    user as i64 + 1
}

/// The event of a call that left no row.
fn usage(id: &str, user: usize, number: i64, units: i64) -> Usage {
    Usage::new(id).remote_key(token_of(user)).model(MODEL).tokens(number, 7).quota(units).at_secs(now_secs())
}

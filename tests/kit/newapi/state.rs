//! Everything that the server's threads and the test change together: the world, its clock, the faults, the journal.

use std::time::Duration;

use super::super::clock::{MovableClock, now_secs};
use super::answer::{Answer, http_date, request_id};
use super::endpoints;
use super::faults::{Fault, Limiter, Scripts};
use super::journal::Journal;
use super::log::Log;
use super::paging::Habits;
use super::request::{Endpoint, Request};
use super::world::World;

/// What the gateway's host takes for now. Rows bring their own second.
#[derive(Debug, Default)]
pub enum Clock {
    #[default]
    Machine,
    Fixed(i64),
    /// The daemon's own, so that both tell the same time.
    Movable(MovableClock),
}

impl Clock {
    fn now_secs(&self) -> i64 {
        match self {
            Clock::Machine => now_secs(),
            Clock::Fixed(secs) => *secs,
            Clock::Movable(clock) => clock.now_secs(),
        }
    }
}

/// How an answer is brought to the client.
#[derive(Debug, Clone, Copy)]
pub enum Manner {
    AtOnce,
    After(Duration),
    Never,
    Cut,
    Half,
    Oversized(usize),
}

/// An answer, ready to be written.
#[derive(Debug)]
pub struct Reply {
    /// In the journal.
    pub number: u64,
    pub answer: Answer,
    pub manner: Manner,
    pub request_id: String,
    pub date: Option<String>,
    /// How often the fake had been healed when the request came.
    pub healings: u64,
}

impl Reply {
    pub fn bytes(&self) -> (Vec<u8>, Vec<u8>) {
        self.answer.bytes(&self.request_id, self.date.as_deref())
    }
}

/// Runs once, just before a page of rows is answered.
pub struct Interlude {
    pub page: i64,
    pub action: Box<dyn FnOnce(&mut Log) + Send>,
}

#[derive(Default)]
pub struct State {
    pub world: World,
    pub habits: Habits,
    pub clock: Clock,
    /// The `Date` header is so far off the clock; None: there is no such header.
    pub date_skew_secs: Option<i64>,
    pub scripts: Scripts,
    pub interludes: Vec<Interlude>,
    pub limiter: Option<Limiter>,
    pub journal: Journal,
    pub healings: u64,
    pub is_stopped: bool,
    ids_made: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("State").field("world", &self.world).finish_non_exhaustive()
    }
}

impl State {
    pub fn now_secs(&self) -> i64 {
        self.clock.now_secs()
    }

    /// An id that no other request or row has.
    pub fn new_request_id(&mut self, at_secs: i64) -> String {
        self.ids_made += 1;
        request_id(at_secs, self.ids_made)
    }

    pub fn heal(&mut self) {
        self.scripts.clear();
        self.healings += 1;
    }

    pub fn stop(&mut self) {
        self.is_stopped = true;
    }

    pub fn reply(&mut self, request: &Request) -> Reply {
        let number = self.journal.write(request);
        let now_secs = self.now_secs();
        let is_taken = self.limiter.as_mut().is_none_or(|limiter| limiter.takes(now_secs));
        let fault = if is_taken { self.scripts.next(request.endpoint) } else { Some(Fault::TooManyRequests) };
        let manner = match &fault {
            Some(Fault::Hang) => Manner::Never,
            Some(Fault::Cut) => Manner::Cut,
            Some(Fault::HalfABody) => Manner::Half,
            Some(Fault::Delay(duration)) => Manner::After(*duration),
            Some(Fault::Oversized(bytes)) => Manner::Oversized(*bytes),
            _ => Manner::AtOnce,
        };
        let foreign = fault.as_ref().and_then(|fault| fault.answer(request));
        let answer = foreign.unwrap_or_else(|| self.answer(request, fault.as_ref(), now_secs));
        let request_id = self.new_request_id(now_secs);
        let date = self.date_skew_secs.map(|skew_secs| http_date(now_secs + skew_secs));
        Reply { number, answer, manner, request_id, date, healings: self.healings }
    }

    fn answer(&mut self, request: &Request, fault: Option<&Fault>, now_secs: i64) -> Answer {
        let mut habits = self.habits;
        match fault {
            Some(Fault::Hang | Fault::Cut) => return Answer::empty(500), // never written, and nothing is done
            Some(Fault::TimesIgnored) => habits.ignores_times = true,
            Some(Fault::StatisticsOfZero) => {
                let zero = serde_json::json!({ "quota": 0, "rpm": 0, "tpm": 0 });
                return Answer::data(&zero);
            }
            _ => {}
        }
        if request.endpoint == Endpoint::LogRows {
            self.play_interludes(request.parameter("p").map_or(1, |_| request.number("p")));
        }
        self.ids_made += 1;
        let answer = endpoints::answer(&mut self.world, request, habits, now_secs, self.ids_made);
        if request.endpoint == Endpoint::LogRows {
            self.world.log.count_read();
        }
        answer
    }

    fn play_interludes(&mut self, page: i64) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.interludes).into_iter().partition(|one| one.page == page);
        self.interludes = later;
        for interlude in due {
            (interlude.action)(&mut self.world.log);
        }
    }
}

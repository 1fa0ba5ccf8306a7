//! A new-api for tests: a real server on loopback that answers as the gateway's console API does, and breaks on order.
//!
//! Its state is what a test says: users, tokens, options, rows with seconds of the test's choosing. It never makes a
//! row by itself, except for a change of an option. `newapi_contract` holds it against what a real one answered.
//!
//! - holding: [`NewApi`] (starts one, ends it when dropped), [`NewApiHandle`] (everything that a test does to it);
//! - talking: [`request`], [`answer`], [`server`] (threads and bytes), [`state`] (one answer at a time);
//! - answering: [`auth`], [`endpoints`], [`paging`] (rows and statistics, in each dialect);
//! - knowing: [`world`] (users, tokens, options), [`rows`], [`log`], [`calls`] (what relayed calls and tasks leave);
//! - breaking: [`faults`]; watching: [`journal`];
//! - judging the fake: [`contract`] (our own), [`recorded`] (answers of a real one).

pub mod answer;
pub mod auth;
pub mod calls;
pub mod contract;
pub mod endpoints;
pub mod faults;
pub mod journal;
pub mod log;
pub mod paging;
pub mod recorded;
pub mod request;
pub mod rows;
pub mod server;
pub mod state;
pub mod world;

mod self_check;
mod self_check_faults;

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

pub use calls::{Call, Called, Task};
pub use faults::{Fault, RateLimit, Script};
pub use journal::Entry;
pub use log::Log;
pub use paging::{Dialect, LogStore};
pub use request::Endpoint;
pub use rows::Row;
pub use world::{Role, Token, User, World};

use super::clock::MovableClock;
use super::ports::{free_address, listen};
use super::wait::wait_until;
use faults::Limiter;
use server::Server;
use state::{Clock, Interlude};

/// A running fake. Ends with all its connections when it goes out of scope.
#[derive(Debug)]
pub struct NewApi {
    handle: NewApiHandle,
}

impl NewApi {
    /// A new installation: user 1 `root`, no tokens, an empty log, 500,000 quota units a dollar, the machine's clock.
    pub fn start() -> Self {
        let address = free_address();
        let server = Server::start(listen(address), address);
        server.change(|state| state.date_skew_secs = Some(0));
        NewApi { handle: NewApiHandle { server } }
    }

    /// Controls the same fake from another thread.
    pub fn handle(&self) -> NewApiHandle {
        self.handle.clone()
    }
}

impl Deref for NewApi {
    type Target = NewApiHandle;

    fn deref(&self) -> &NewApiHandle {
        &self.handle
    }
}

impl Drop for NewApi {
    fn drop(&mut self) {
        self.handle.server.stop();
    }
}

/// What a test can do to the fake.
#[derive(Debug, Clone)]
pub struct NewApiHandle {
    server: Arc<Server>,
}

/// Where it is, and who may ask.
impl NewApiHandle {
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// `http://127.0.0.1:port`, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Of user 1, who is root from the start.
    pub fn root_access_token(&self) -> String {
        self.world(|world| world.user(1).expect("user 1 is there").access_token.clone())
    }

    pub fn add_user(&self, user: User) {
        self.world(|world| world.users.push(user));
    }

    /// From now on the user's former access token is wrong.
    pub fn set_access_token(&self, user_id: i64, access_token: &str) {
        self.world(|world| {
            let user = world.users.iter_mut().find(|user| user.id == user_id);
            access_token.clone_into(&mut user.expect("the user is there").access_token);
        });
    }

    pub fn set_role(&self, user_id: i64, role: Role) {
        self.world(|world| {
            let user = world.users.iter_mut().find(|user| user.id == user_id);
            user.expect("the user is there").role = role;
        });
    }
}

/// What it knows.
impl NewApiHandle {
    /// Looks at everything that it knows, or changes it.
    pub fn world<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        self.server.change(|state| change(&mut state.world))
    }

    /// Looks at its log, or changes it.
    pub fn log<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        self.world(|world| change(&mut world.log))
    }

    /// Adds a row as it is; answers its id.
    pub fn insert(&self, row: Row) -> i64 {
        self.log(|log| log.insert(row))
    }

    pub fn add_token(&self, token: Token) {
        self.world(|world| world.tokens.insert(token.id, token));
    }

    /// As it is now.
    #[track_caller]
    pub fn token(&self, id: i64) -> Token {
        self.world(|world| world.tokens.get(&id).cloned()).unwrap_or_else(|| panic!("there is no token {id}"))
    }

    /// Without a row in the log.
    pub fn set_option(&self, key: &str, value: &str) {
        self.world(|world| world.options.insert(key.to_owned(), value.to_owned()));
    }

    pub fn remove_option(&self, key: &str) {
        self.world(|world| world.options.remove(key));
    }

    pub fn option(&self, key: &str) -> Option<String> {
        self.world(|world| world.option(key).map(str::to_owned))
    }

    /// False: consumption leaves no rows from now on; refunds do.
    pub fn log_consumption(&self, is_on: bool) {
        self.set_option("LogConsumeEnabled", if is_on { "true" } else { "false" });
    }

    pub fn set_quota_per_unit(&self, units: i64) {
        self.set_option("QuotaPerUnit", &units.to_string());
    }

    pub fn set_version(&self, version: &str) {
        self.world(|world| version.clone_into(&mut world.version));
    }

    pub fn set_start_time(&self, secs: i64) {
        self.world(|world| world.start_time = secs);
    }
}

/// Its clock: for the `Date` header, the rates of the last minute, and its limit of calls.
impl NewApiHandle {
    pub fn set_now_secs(&self, secs: i64) {
        self.server.change(|state| state.clock = Clock::Fixed(secs));
    }

    /// Tells the time of this clock from now on.
    pub fn follow(&self, clock: &MovableClock) {
        self.server.change(|state| state.clock = Clock::Movable(clock.clone()));
    }

    pub fn now_secs(&self) -> i64 {
        self.server.state().now_secs()
    }

    /// Puts the `Date` header so far ahead of the clock, or behind it.
    pub fn skew_date_secs(&self, skew_secs: i64) {
        self.server.change(|state| state.date_skew_secs = Some(skew_secs));
    }

    pub fn send_no_date(&self) {
        self.server.change(|state| state.date_skew_secs = None);
    }
}

/// How it breaks.
impl NewApiHandle {
    /// Adds a fault: `fail(Fault::Hang)` until it is healed, `fail(Fault::ServerError.times(3).on(Endpoint::LogRows))`.
    pub fn fail(&self, script: impl Into<Script>) {
        self.server.change(|state| state.scripts.add(script.into()));
    }

    /// The next requests, whatever they ask.
    pub fn fail_next(&self, count: u64, fault: Fault) {
        self.fail(fault.times(count));
    }

    /// No script is left; what hangs is closed, what is delayed is answered. Settings below stay.
    pub fn heal(&self) {
        self.server.change(state::State::heal);
    }

    /// Closes every connection there is. New ones are taken.
    pub fn cut(&self) {
        self.server.cut();
    }

    /// None: no limit, as at the start.
    pub fn limit_calls(&self, limit: Option<RateLimit>) {
        self.server.change(|state| state.limiter = limit.map(Limiter::new));
    }

    pub fn speak(&self, dialect: Dialect) {
        self.server.change(|state| state.habits.dialect = dialect);
    }

    pub fn keep_log_in(&self, store: LogStore) {
        self.server.change(|state| state.habits.store = store);
    }

    /// Changes the log once, just before the next page of this number is answered: so rows are added or deleted
    /// between a reader's pages.
    pub fn before_page(&self, page: i64, action: impl FnOnce(&mut Log) + Send + 'static) {
        let interlude = Interlude { page, action: Box::new(action) };
        self.server.change(|state| state.interludes.push(interlude));
    }
}

/// What was asked of it.
impl NewApiHandle {
    /// In the order in which they came; the latest 10,000.
    pub fn requests(&self) -> Vec<Entry> {
        self.server.state().journal.entries()
    }

    pub fn requests_to(&self, endpoint: Endpoint) -> Vec<Entry> {
        let mut entries = self.requests();
        entries.retain(|entry| entry.request.endpoint == endpoint);
        entries
    }

    pub fn count(&self, endpoint: Endpoint) -> u64 {
        self.server.state().journal.count(endpoint)
    }

    /// Of everything below `/api/log/`.
    pub fn count_of_log(&self) -> u64 {
        self.count(Endpoint::LogRows) + self.count(Endpoint::LogStat)
    }

    pub fn count_of_all(&self) -> u64 {
        self.server.state().journal.total()
    }

    /// Counts from zero again.
    pub fn forget_requests(&self) {
        self.server.change(|state| state.journal.forget());
    }

    /// Until so many requests came to this endpoint since it was started or told to forget.
    #[track_caller]
    pub fn wait_for_requests(&self, endpoint: Endpoint, count: u64, timeout: Duration) {
        let what = format!("new-api has {count} requests to {endpoint:?}");
        wait_until(&what, timeout, || (self.count(endpoint) >= count).then_some(()));
    }
}

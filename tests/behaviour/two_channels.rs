//! The log beside the webhook: each call is charged once, whichever channel tells of it first.

use std::time::Duration;

use crate::kit::books::Books;
use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;
use crate::kit::newapi::{Call, NewApi, Token};
use crate::kit::wait::wait_until;

pub const UNITS_PER_CREDIT: i64 = 500;
pub const PULL: (&str, &str) = ("HOOKLEDGER__POLLING__MODE", "pull");
/// Where new-api is told to send events to; the test itself delivers them.
pub const WEBHOOK_URL: &str = "http://127.0.0.1:1/api/webhooks/events";
pub const DAY_SECS: i64 = 24 * 3600;
/// A little more than `polling.lookback`.
pub const COVERED_AFTER_SECS: i64 = 660;
/// Longer than what a slow look at the last hour found is kept.
pub const PATIENCE: Duration = Duration::from_secs(400);

/// A new-api with the token 42, and a daemon that reads its log; the key's owner has 1,000 credits.
pub struct Rig {
    pub newapi: NewApi,
    pub daemon: Daemon,
    pub user: String,
}

impl Rig {
    #[track_caller]
    pub fn start(settings: &[(&str, &str)]) -> Self {
        Rig::start_beside(NewApi::start(), settings)
    }

    /// The same beside a gateway that was prepared before.
    #[track_caller]
    pub fn start_beside(newapi: NewApi, settings: &[(&str, &str)]) -> Self {
        newapi.add_token(Token::new(42, "alice-key").owned_by(1));
        newapi.set_option("webhook_url", WEBHOOK_URL);
        let mut options = DaemonOptions::new().movable_clock();
        for (name, value) in Rig::settings_for(&newapi) {
            options = options.set(&name, value);
        }
        for (name, value) in settings {
            options = options.set(name, value);
        }
        let daemon = Daemon::start(options);
        newapi.follow(&daemon.clock());
        let user = daemon.add_user("alice@example.com", 1000);
        daemon.add_key(&user, 42);
        Rig { newapi, daemon, user }
    }

    /// What leads a daemon to this gateway, without a pace that a test would wait for.
    pub fn settings_for(newapi: &NewApi) -> Vec<(String, String)> {
        let settings = [
            ("HOOKLEDGER__NEWAPI__BASE_URL", newapi.url()),
            ("HOOKLEDGER__NEWAPI__ACCESS_TOKEN", newapi.root_access_token()),
            ("HOOKLEDGER__NEWAPI__USER_ID", "1".to_owned()),
            ("HOOKLEDGER__NEWAPI__REQUESTS_PER_SECOND", "0".to_owned()),
            ("HOOKLEDGER__POLLING__PULL_INTERVAL", "1s".to_owned()),
            ("HOOKLEDGER__POLLING__SETTLE_DELAY", "0s".to_owned()),
        ];
        settings.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// A gateway whose log is the main channel; coverage has begun some minutes ago, so that calls may lie there.
    #[track_caller]
    pub fn pulling() -> Self {
        let rig = Rig::start(&[PULL]);
        rig.wait_for_a_pass();
        rig.advance_secs(240);
        rig
    }

    /// A channel that does well, whose log is swept that seldom; coverage has begun.
    #[track_caller]
    pub fn swept_every(interval: &str) -> Self {
        let rig = Rig::start(&[
            ("HOOKLEDGER__POLLING__SWEEP_INTERVAL", interval),
            ("HOOKLEDGER__POLLING__STALE_AFTER", "48h"),
            ("HOOKLEDGER__POLLING__INTERVAL", "1d"),
        ]);
        rig.wait_until_coverage_has_begun();
        rig
    }

    /// Waits for the first pass of the daemon.
    #[track_caller]
    pub fn wait_until_coverage_has_begun(&self) {
        wait_until("coverage has begun", PATIENCE, || (self.passes() >= 1.0).then_some(()));
    }

    /// Those that were whole since the daemon began.
    fn passes(&self) -> f64 {
        self.daemon.metric("hookledger_poll_runs_total{outcome=\"done\"}").unwrap_or_default()
    }

    pub fn books(&self) -> Books {
        self.daemon.books()
    }

    pub fn now_secs(&self) -> i64 {
        self.daemon.clock().now_secs()
    }

    pub fn advance_secs(&self, seconds: i64) {
        self.daemon.clock().advance(Duration::from_secs(seconds.unsigned_abs()));
    }

    /// Posts an event, which must be taken: what was answered.
    #[track_caller]
    pub fn post(&self, usage: &Usage) -> u16 {
        let answer = self.daemon.post(usage.json());
        assert!([200, 202].contains(&answer.status), "{} was answered {}", usage.event_id(), answer.status);
        answer.status
    }

    /// Another user with a key of his own for this token; his id. He has 1,000 credits as well.
    #[track_caller]
    pub fn another_user(&self, token_id: i64) -> String {
        self.newapi.add_token(Token::new(token_id, &format!("key-{token_id}")).owned_by(1));
        let user = self.daemon.add_user(&format!("user-{token_id}@example.com"), 1000);
        self.daemon.add_key(&user, token_id);
        user
    }

    /// Lets so much time pass that every second up to now counts as read.
    #[track_caller]
    pub fn cover_everything(&self) {
        self.advance_secs(COVERED_AFTER_SECS);
        self.wait_for_a_pass();
    }

    /// Calls of which both channels have told.
    pub fn tied(&self) -> i64 {
        let tied = "SELECT COUNT(*) FROM hookledger_claims WHERE event_id IS NOT NULL AND row_second IS NOT NULL";
        self.books().scalar_i64(tied)
    }

    /// Rows of the log in this state.
    pub fn rows_in_state(&self, state: &str) -> i64 {
        self.books().scalar_i64(&format!("SELECT COUNT(*) FROM hookledger_rows WHERE state = '{state}'"))
    }

    /// Events of which a person is told that they are disputed.
    pub fn disputed_events(&self) -> i64 {
        let disputed = "SELECT COUNT(*) FROM webhook_logs WHERE status = 'failed' AND errorMsg LIKE 'Disputed: %'";
        self.books().scalar_i64(disputed)
    }

    /// So many calls of one credit each were charged to the user, and to nobody else; the books agree with themselves.
    #[track_caller]
    pub fn assert_billed(&self, calls: i64) {
        assert_eq!((self.charges(), self.books().balance(&self.user)), (calls, 1000 - calls), "charges and balance");
        self.books().assert_whole();
        self.books().assert_carried_exactly();
    }

    pub fn call(&self, at_secs: i64) -> Call {
        Call::new(42, "gpt-4", at_secs).tokens(10, 5).quota(UNITS_PER_CREDIT)
    }

    #[track_caller]
    pub fn wait_for_charges(&self, count: i64) {
        wait_until(&format!("{count} charges"), PATIENCE, || (self.charges() == count).then_some(()));
    }

    pub fn charges(&self) -> i64 {
        self.books().scalar_i64("SELECT COUNT(*) FROM hookledger_claims")
    }

    /// Waits until another pass has ended.
    #[track_caller]
    pub fn wait_for_a_pass(&self) {
        let before = self.passes();
        wait_until("another pass", PATIENCE, || (self.passes() >= before + 2.0).then_some(()));
    }

    /// Waits until a pass has begun and ended that the clock makes due, where passes are an hour apart.
    #[track_caller]
    pub fn wait_for_a_pass_by_clock(&self) {
        self.wait_for_a_pass_by_clock_of(3601);
    }

    /// The same, where passes are up to so many seconds apart.
    #[track_caller]
    pub fn wait_for_a_pass_by_clock_of(&self, enough_secs: i64) {
        // The first one may still be under way.
        self.wait_until_coverage_has_begun();
        let before = self.passes();
        self.advance_secs(enough_secs);
        wait_until("another pass", PATIENCE, || (self.passes() > before).then_some(()));
    }
}

#[test]
fn a_gateway_without_webhooks_is_billed_by_its_log() {
    let rig = Rig::start(&[PULL]);
    rig.wait_for_a_pass();
    let now = now_secs();
    for _ in 0..10 {
        rig.newapi.call(&rig.call(now));
    }
    rig.wait_for_charges(10);
    rig.wait_for_a_pass();
    assert_eq!((rig.charges(), rig.books().balance(&rig.user)), (10, 990), "ten equal calls of one second are ten");
    let status = rig.daemon.command_json(&["status"]);
    assert_eq!(status["channel"]["state"], "pull");
}

#[test]
fn an_event_and_its_row_are_one_call_in_either_order() {
    let rig = Rig::start(&[PULL]);
    rig.wait_for_a_pass();
    let event_first = rig.call(now_secs()).tokens(1, 1).late();
    let called = rig.newapi.call(&event_first);
    assert_eq!(rig.daemon.post(called.usage("event-first").json()).status, 200);
    rig.newapi.log(|log| log.reveal_all());
    let called = rig.newapi.call(&rig.call(now_secs()).tokens(2, 2));
    rig.wait_for_charges(2);
    let answer = rig.daemon.post(called.usage("row-first").json());
    assert_eq!((answer.status, answer.json()["message"].as_str()), (200, Some("Event already processed (idempotent)")));
    rig.wait_for_a_pass();
    assert_eq!((rig.charges(), rig.books().balance(&rig.user)), (2, 998));
    assert_eq!(rig.tied(), 2);
}

#[test]
fn events_that_stop_are_noticed_and_the_log_takes_over() {
    let rig = Rig::start(&[
        ("HOOKLEDGER__POLLING__STALE_AFTER", "2s"),
        ("HOOKLEDGER__POLLING__INTERVAL", "1s"),
        ("HOOKLEDGER__POLLING__PROBE_INTERVAL", "1s"),
    ]);
    let called = rig.newapi.call(&rig.call(now_secs()).tokens(1, 1));
    assert_eq!(rig.daemon.post(called.usage("e").json()).status, 200);
    rig.newapi.call(&rig.call(now_secs() + 1).tokens(2, 2));
    rig.wait_for_charges(2);
    wait_until("the channel is stale", PATIENCE, || {
        (rig.daemon.metric("hookledger_channel_state{state=\"stale\"}") == Some(1.0)).then_some(())
    });
    assert_eq!(rig.books().balance(&rig.user), 998);
}

//! The log beside the webhook: each call is charged once, whichever channel tells of it first.

use std::time::Duration;

use crate::kit::books::Books;
use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::newapi::{Call, NewApi, Token};
use crate::kit::wait::wait_until;

const UNITS_PER_CREDIT: i64 = 500;
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A new-api with the token 42, and a daemon that reads its log; the key's owner has 1,000 credits.
pub struct Rig {
    pub newapi: NewApi,
    pub daemon: Daemon,
    pub user: String,
}

impl Rig {
    #[track_caller]
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let newapi = NewApi::start();
        newapi.add_token(Token::new(42, "alice-key").owned_by(1));
        let mut options = DaemonOptions::new().movable_clock();
        let base = [
            ("HOOKLEDGER__NEWAPI__BASE_URL", newapi.url()),
            ("HOOKLEDGER__NEWAPI__ACCESS_TOKEN", newapi.root_access_token()),
            ("HOOKLEDGER__NEWAPI__USER_ID", "1".to_owned()),
            ("HOOKLEDGER__NEWAPI__REQUESTS_PER_SECOND", "0".to_owned()),
            ("HOOKLEDGER__POLLING__PULL_INTERVAL", "1s".to_owned()),
            ("HOOKLEDGER__POLLING__SETTLE_DELAY", "0s".to_owned()),
        ];
        for (name, value) in base {
            options = options.set(name, value);
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

    pub fn books(&self) -> Books {
        self.daemon.books()
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
        let ended = || self.daemon.metric("hookledger_poll_runs_total{outcome=\"done\"}").unwrap_or_default();
        let before = ended();
        wait_until("another pass", PATIENCE, || (ended() >= before + 2.0).then_some(()));
    }
}

#[test]
fn a_gateway_without_webhooks_is_billed_by_its_log() {
    let rig = Rig::start(&[("HOOKLEDGER__POLLING__MODE", "pull")]);
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
    let rig = Rig::start(&[("HOOKLEDGER__POLLING__MODE", "pull")]);
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
    let tied = "SELECT COUNT(*) FROM hookledger_claims WHERE event_id IS NOT NULL AND row_second IS NOT NULL";
    assert_eq!(rig.books().scalar_i64(tied), 2);
}

#[test]
fn events_that_stop_are_noticed_and_the_log_takes_over() {
    let rig = Rig::start(&[
        ("HOOKLEDGER__POLLING__STALE_AFTER", "2s"),
        ("HOOKLEDGER__POLLING__INTERVAL", "1s"),
        ("HOOKLEDGER__POLLING__PROBE_INTERVAL", "1s"),
    ]);
    rig.newapi.set_option("webhook_url", "http://127.0.0.1:1/api/webhooks/events");
    let called = rig.newapi.call(&rig.call(now_secs()).tokens(1, 1));
    assert_eq!(rig.daemon.post(called.usage("e").json()).status, 200);
    rig.newapi.call(&rig.call(now_secs() + 1).tokens(2, 2));
    rig.wait_for_charges(2);
    wait_until("the channel is stale", PATIENCE, || {
        (rig.daemon.metric("hookledger_channel_state{state=\"stale\"}") == Some(1.0)).then_some(())
    });
    assert_eq!(rig.books().balance(&rig.user), 998);
}

//! A daemon to be broken, with its users, beside a scripted new-api, on fresh books.

use std::sync::Arc;
use std::time::Duration;

use crate::calls::Calls;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::newapi::{NewApi, Token};
use crate::kit::wait::wait_until;
use crate::load::{USERS, token_of};

/// What each user has in the beginning: enough for hours at any speed.
pub const CREDITS: i64 = 1_000_000_000;

const PATIENCE: Duration = Duration::from_secs(60);

/// So quick that what takes minutes in an installation takes a second here. The budget of restarts is far above what is
/// done to the actors, and its window so short that pauses between them stay short.
const SETTINGS: &[(&str, &str)] = &[
    // A clock that is a day and an hour ahead must not refuse for good what nothing else tells of.
    ("HOOKLEDGER__WEBHOOK__MAX_AGE", "7d"),
    ("HOOKLEDGER__POLLING__MODE", "pull"),
    ("HOOKLEDGER__POLLING__PULL_INTERVAL", "1s"),
    ("HOOKLEDGER__POLLING__PROBE_INTERVAL", "1s"),
    ("HOOKLEDGER__POLLING__SETTLE_DELAY", "0s"),
    ("HOOKLEDGER__POLLING__LOOKBACK", "5s"),
    ("HOOKLEDGER__NEWAPI__REQUESTS_PER_SECOND", "0"),
    ("HOOKLEDGER__NEWAPI__TIMEOUT", "2s"),
    ("HOOKLEDGER__NEWAPI__BASE_BACKOFF", "50ms"),
    ("HOOKLEDGER__RETRY__MAX_ATTEMPTS", "1000"),
    ("HOOKLEDGER__RETRY__BASE_DELAY", "100ms"),
    ("HOOKLEDGER__RETRY__MAX_DELAY", "1s"),
    ("HOOKLEDGER__SUPERVISOR__MAX_RESTARTS", "10000"),
    ("HOOKLEDGER__SUPERVISOR__WINDOW", "300ms"),
    ("HOOKLEDGER__SUPERVISOR__HEARTBEAT", "200ms"),
    ("HOOKLEDGER__LOG__LEVEL", "warn"),
];

pub const GOOD_CONFIG: &str = "[ledger]\nmax_batch = 256\n";
pub const BAD_CONFIG: &str = "[ledger]\nmax_batch = \"many\"\n";

pub struct Rig {
    pub newapi: NewApi,
    pub daemon: Daemon,
    /// Their ids, by number.
    pub users: Vec<String>,
    pub calls: Arc<Calls>,
}

impl Rig {
    pub fn start(more: &[(&str, &str)]) -> Self {
        let newapi = NewApi::start();
        newapi.set_option("webhook_url", "http://127.0.0.1:1/api/webhooks/events");
        for user in 0..USERS {
            newapi.add_token(Token::new(token_of(user), &format!("key-{user}")).owned_by(1));
        }
        let mut options = DaemonOptions::new()
            .movable_clock()
            .config_file()
            .set("HOOKLEDGER__NEWAPI__BASE_URL", newapi.url())
            .set("HOOKLEDGER__NEWAPI__ACCESS_TOKEN", newapi.root_access_token())
            .set("HOOKLEDGER__NEWAPI__USER_ID", 1);
        for (name, value) in SETTINGS.iter().chain(more) {
            options = options.set(name, value);
        }
        let daemon = Daemon::prepare(options);
        daemon.write_config(GOOD_CONFIG);
        daemon.clock();
        daemon.launch();
        daemon.wait_ready();
        let rig = Rig { users: users_of(&daemon), newapi, daemon, calls: Arc::default() };
        rig.wait_for_passes(2.0, PATIENCE);
        rig
    }

    /// Until so many passes over the log have ended well from now on.
    #[track_caller]
    pub fn wait_for_passes(&self, count: f64, patience: Duration) {
        let before = self.passes();
        wait_until("the log was read", patience, || (self.passes() >= before + count).then_some(()));
    }

    fn passes(&self) -> f64 {
        self.daemon.metric("hookledger_poll_runs_total{outcome=\"done\"}").unwrap_or_default()
    }
}

fn users_of(daemon: &Daemon) -> Vec<String> {
    let user = |number: usize| {
        let user = daemon.add_user(&format!("user-{number}@example.com"), CREDITS);
        daemon.add_key(&user, token_of(number));
        user
    };
    (0..USERS).map(user).collect()
}

//! What cannot be booked is kept apart, with its reason; nobody else waits for it.

use serde_json::Value;

use super::{PROCESSED, UNITS_PER_CREDIT, assert_account, assert_sound, charge, customer, refused};
use crate::kit::books::quoted;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::sender::{Attempt, Delivery, Retry, deliver};

/// Holds up the first batch, so that whatever else arrives makes up the second.
const HOLD_FIRST_BATCH: &str = "ledger.batch.before=1*sleep(2000)";

const DEEP: i64 = -2_147_483_600;

/// Puts a user's balance deep below zero, as another program would, with a transaction that tells of it.
fn adjust(daemon: &Daemon, user: &str, balance: i64) {
    let user = quoted(user);
    daemon.books().execute(&format!(
        "BEGIN; UPDATE user_credit_balances SET currentCredits = {balance} WHERE userId = {user};
         INSERT INTO credit_transactions (id, userId, type, amount, balance)
           VALUES ('adjusted', {user}, 'ADMIN_ADJUST', {balance}, {balance}); COMMIT"
    ));
}

/// Delivers all bodies at once, and the message that each was answered.
#[track_caller]
fn deliver_at_once(daemon: &Daemon, bodies: Vec<String>) -> Vec<(String, String)> {
    let count = bodies.len();
    let report = deliver(daemon.address(), SECRET, bodies, count, Retry::never());
    assert_eq!(report.statuses(), [(200, count)].into());
    let batches = daemon.metric("hookledger_ledger_batch_size_count").unwrap_or_default();
    assert!(batches <= 16.0, "{count} events went into {batches} commits: not at once");
    let message = |delivery: &Delivery| match delivery.attempts.last() {
        Some(Attempt::Answered { text, .. }) => {
            let body: Value = serde_json::from_str(text).expect("every answer is JSON");
            (delivery.event_id().unwrap(), body["message"].as_str().unwrap().to_owned())
        }
        other => panic!("{} was not answered: {other:?}", delivery.body),
    };
    report.deliveries.iter().map(message).collect()
}

/// Events named `bad…` cannot be booked, all others are charged.
#[track_caller]
fn assert_parted(daemon: &Daemon, messages: &[(String, String)]) {
    for (event_id, message) in messages {
        let (status, stored) = daemon.books().inbox(event_id).expect("every event is stored");
        if event_id.starts_with("bad") {
            assert!(message.starts_with("Cannot be booked: "), "{event_id} was answered {message:?}");
            assert_eq!((status.as_str(), stored.as_ref()), ("failed", Some(message)), "{event_id}");
        } else {
            assert_eq!(message, PROCESSED, "{event_id}");
            assert_eq!((status.as_str(), stored), ("processed", None), "{event_id}");
        }
    }
}

fn good(number: i64, token: i64) -> String {
    Usage::new(format!("good-{number}")).remote_key(token).quota(UNITS_PER_CREDIT).json()
}

#[test]
fn amounts_beyond_the_columns_are_kept_apart() {
    // What is tried again counts again.
    let options =
        DaemonOptions::new().fail_points(HOLD_FIRST_BATCH).answers_late().set("HOOKLEDGER__RETRY__BASE_DELAY", "10m");
    let daemon = Daemon::start(options);
    let user = customer(&daemon, "user", 100, 1);
    let deep = customer(&daemon, "deep", 0, 2);
    adjust(&daemon, &deep, DEEP);
    let bad = |name: &str, token: i64| Usage::new(format!("bad-{name}")).remote_key(token);
    let mut bodies: Vec<String> = (0..20).map(|number| good(number, 1)).collect();
    bodies.push(bad("largest quota", 1).quota(i64::MAX).json());
    bodies.push(bad("quota", 1).quota(2_147_483_648 * UNITS_PER_CREDIT).json());
    bodies.push(bad("cost", 1).cost("1e9").json());
    bodies.push(bad("credits", 2).credit_cost(2_147_483_647).json());
    bodies.push(bad("deep", 2).credit_cost(48).json());
    let messages = deliver_at_once(&daemon, bodies);
    assert_parted(&daemon, &messages);
    assert_account(&daemon, &user, 80, 0, "after twenty calls");
    assert_account(&daemon, &deep, DEEP, 0, "after none");
    charge(&daemon, &Usage::new("last").remote_key(2).credit_cost(47));
    assert_account(&daemon, &deep, -2_147_483_647, 0, "down to the end of the column");
    assert!(refused(&daemon, &Usage::new("one more").remote_key(2).credit_cost(1)).starts_with("Cannot be booked: "));
    let count = r#"hookledger_ledger_settlements_total{source="webhook",outcome="error"}"#;
    assert_eq!(daemon.metric(count), Some(6.0));
    assert_sound(&daemon);
}

#[test]
fn a_repeat_of_what_cannot_be_booked_says_so_again() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 100, 1);
    let usage = Usage::new("bad").quota(i64::MAX);
    let message = refused(&daemon, &usage);
    assert_eq!(refused(&daemon, &usage), message);
    daemon.restart();
    assert_eq!(refused(&daemon, &usage), message, "after a restart as well");
    assert_account(&daemon, &user, 100, 0, "nothing was charged");
    assert_sound(&daemon);
}

#[test]
fn what_the_database_itself_refuses_is_kept_apart() {
    let daemon = Daemon::start(DaemonOptions::new().fail_points(HOLD_FIRST_BATCH).answers_late());
    let user = customer(&daemon, "user", 100, 1);
    daemon.books().refuse_model("poison", "no poison here");
    let mut bodies: Vec<String> = (0..20).map(|number| good(number, 1)).collect();
    for (number, place) in [3, 4, 17].into_iter().enumerate() {
        let bad = Usage::new(format!("bad-{number}")).model("poison").quota(UNITS_PER_CREDIT);
        bodies.insert(place, bad.json());
    }
    let messages = deliver_at_once(&daemon, bodies);
    assert_parted(&daemon, &messages);
    let reasons = messages.iter().filter(|(_, message)| message.contains("no poison here"));
    assert_eq!(reasons.count(), 3, "the database's own words are told: {messages:?}");
    assert_account(&daemon, &user, 80, 0, "after twenty calls");
    assert_sound(&daemon);
}

#[test]
fn values_that_make_no_sense_concern_their_own_events_alone() {
    only_on_sqlite!();
    let daemon = Daemon::start(DaemonOptions::new().fail_points(HOLD_FIRST_BATCH).answers_late());
    let user = customer(&daemon, "user", 100, 1);
    let broke = customer(&daemon, "broke", 100, 2);
    let nameless = daemon.add_user("nameless@example.com", 100);
    // What SQLite lets another program store: a balance that is no number, and a key without an id.
    daemon.books().execute(&format!(
        "UPDATE user_credit_balances SET currentCredits = 'plenty' WHERE userId = '{broke}';
         INSERT INTO api_keys (id, userId, label, remoteKeyId) VALUES ('', '{nameless}', '', '3');"
    ));
    let mut bodies: Vec<String> = (0..20).map(|number| good(number, 1)).collect();
    for (place, token) in [(3, 2), (11, 3), (17, 2)] {
        bodies.insert(place, Usage::new(format!("bad-{place}")).remote_key(token).quota(UNITS_PER_CREDIT).json());
    }
    let messages = deliver_at_once(&daemon, bodies);
    assert_parted(&daemon, &messages);
    assert_account(&daemon, &user, 80, 0, "after twenty calls");
    daemon.books().execute(&format!("UPDATE user_credit_balances SET currentCredits = 100 WHERE userId = '{broke}'"));
    daemon.books().assert_whole();
}

#[test]
fn a_key_of_a_user_who_is_gone_is_kept_apart() {
    let daemon = Daemon::start(DaemonOptions::new().fail_points(HOLD_FIRST_BATCH).answers_late());
    let user = customer(&daemon, "user", 100, 1);
    daemon.books().insert_orphaned_key("orphan", "2");
    let mut bodies: Vec<String> = (0..20).map(|number| good(number, 1)).collect();
    bodies.insert(10, Usage::new("bad-orphan").remote_key(2).quota(UNITS_PER_CREDIT).json());
    let messages = deliver_at_once(&daemon, bodies);
    assert_parted(&daemon, &messages);
    assert_account(&daemon, &user, 80, 0, "after twenty calls");
    assert_account(&daemon, "nobody", 0, 0, "nothing was booked for nobody");
    daemon.books().execute("DELETE FROM api_keys WHERE id = 'orphan'");
    assert_sound(&daemon);
}

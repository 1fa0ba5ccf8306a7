//! `events replay`: what is not settled is settled again by hand, and nothing twice.

use std::time::Duration;

use crate::crashes::{usage_bodies, with_users};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::sender::{Retry, start_delivery};
use crate::kit::wait::wait_until;
use crate::waiting::TOKEN_LOOKS;

const PATIENCE: Duration = Duration::from_secs(30);
const TOKEN: i64 = 77;

/// Events of a token that nobody had for ten hours, and whose key is there now: too old to be charged by themselves.
fn with_history(events: usize) -> (Daemon, String) {
    let daemon = Daemon::start(DaemonOptions::new().movable_clock());
    let user = daemon.add_user("late@example.com", 1000);
    let at = daemon.clock().now_secs();
    for number in 0..events {
        let body = Usage::new(format!("old-{number}")).remote_key(TOKEN).quota(1000).at_secs(at).json();
        assert_eq!(daemon.post(body).json()["success"], false);
    }
    let now = daemon.clock().advance(Duration::from_secs(36_000));
    wait_until("the token was looked at", PATIENCE, || (daemon.books().scalar_i64(TOKEN_LOOKS) >= now).then_some(()));
    daemon.add_key(&user, TOKEN);
    let listed = "SELECT count(*) FROM webhook_logs WHERE errorMsg LIKE '%ledger.key_grace%'";
    wait_until("history is listed, not charged", PATIENCE, || {
        (daemon.books().scalar_i64(listed) == events as i64).then_some(())
    });
    (daemon, user)
}

#[test]
fn history_is_charged_only_after_its_sum_was_shown() {
    let (daemon, user) = with_history(3);
    let within = daemon.command_json(&["events", "replay", "--all-failed"]);
    assert_eq!((&within["tried"], &within["charged"]), (&3.into(), &0.into()), "still beyond the grace: {within}");
    let asked = daemon.command_json(&["events", "replay", "--all-failed", "--beyond-grace"]);
    assert_eq!((&asked["charged"], &asked["credits"]), (&3.into(), &6.into()), "{asked}");
    assert_eq!(daemon.books().balance(&user), 1000, "shown, not charged");
    let charged = daemon.command_json(&["events", "replay", "--all-failed", "--beyond-grace", "--yes"]);
    assert_eq!((&charged["charged"], &charged["credits"]), (&3.into(), &6.into()), "{charged}");
    assert_eq!(daemon.books().balance(&user), 994);
    let again = daemon.command_json(&["events", "replay", "--all-failed", "--beyond-grace", "--yes"]);
    assert_eq!(again["tried"], 0);
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
}

#[test]
fn replaying_a_processed_event_charges_nothing_and_an_unknown_one_is_a_mistake() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = daemon.add_user("user@example.com", 100);
    daemon.add_key(&user, TOKEN);
    daemon.post(Usage::new("done").remote_key(TOKEN).quota(1000).json());
    let replayed = daemon.command_json(&["events", "replay", "done"]);
    assert_eq!((&replayed["tried"], &replayed["charged"]), (&0.into(), &0.into()));
    assert_eq!(daemon.books().balance(&user), 98);
    assert_eq!(daemon.command(&["events", "replay", "nobody"]).status.code(), Some(1));
    assert_eq!(daemon.command(&["events", "replay"]).status.code(), Some(2), "all is asked for by name");
}

#[test]
fn a_range_of_times_replays_its_own_events() {
    let (daemon, user) = with_history(2);
    let none = ["events", "replay", "--since", "2100-01-01 00:00:00", "--beyond-grace", "--yes"];
    assert_eq!(daemon.command_json(&none)["tried"], 0);
    let all = ["events", "replay", "--until", "2100-01-01 00:00:00", "--beyond-grace", "--yes"];
    assert_eq!(daemon.command_json(&all)["charged"], 2);
    assert_eq!(daemon.books().balance(&user), 996);
}

#[test]
fn replays_beside_each_other_and_beside_webhooks_charge_each_event_once() {
    const OLD: usize = 60;
    const NEW: usize = 400;
    let (daemon, user) = with_history(OLD);
    with_users(&daemon);
    let at = daemon.clock().now_secs();
    let bodies = usage_bodies(NEW, "flow").into_iter().map(|body| with_time(&body, at)).collect();
    let retry = Retry::until(PATIENCE, Duration::from_millis(20));
    let flow = start_delivery(daemon.address(), SECRET, bodies, 8, retry);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let arguments = ["events", "replay", "--all-failed", "--beyond-grace", "--yes"];
                assert!(daemon.command(&arguments).status.success());
            });
        }
    });
    flow.finish().assert_all_acknowledged();
    let books = daemon.books();
    wait_until("nothing waits", PATIENCE, || (books.count("hookledger_inbox") == 0).then_some(()));
    assert_eq!(books.count("hookledger_claims"), (OLD + NEW) as i64);
    assert_eq!(books.balance(&user), 1000 - 2 * OLD as i64);
    books.assert_whole();
    books.assert_carried_exactly();
}

fn with_time(body: &str, at_secs: i64) -> String {
    let mut body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["timestamp"] = at_secs.into();
    body.to_string()
}

#[test]
fn without_a_daemon_the_command_settles_by_itself() {
    let (daemon, user) = with_history(2);
    assert_eq!(daemon.terminate(), 0);
    let charged = daemon.command_json(&["events", "replay", "--all-failed", "--beyond-grace", "--yes"]);
    assert_eq!(charged["charged"], 2);
    assert_eq!(daemon.books().balance(&user), 996);
    daemon.books().assert_whole();
}

//! Clearing what is old never weakens the memory of what was charged, whatever the clock does.

use std::time::Duration;

use serde_json::Value;

use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::database::is_sqlite;
use crate::kit::events::{Usage, ping};
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const TOKEN: i64 = 42;

/// Beside a platform nothing is cleared until that is set: what the tests do not set is as on SQLite.
fn rig(options: DaemonOptions) -> (Daemon, String) {
    const WEBHOOK_LOGS: &str = "HOOKLEDGER__RETENTION__WEBHOOK_LOGS";
    let is_set = options.environment.contains_key(WEBHOOK_LOGS) || is_sqlite();
    let options = if is_set { options } else { options.set(WEBHOOK_LOGS, "90d") };
    let daemon = Daemon::start(options.movable_clock());
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, TOKEN);
    (daemon, user)
}

fn body(daemon: &Daemon, event: &str) -> String {
    Usage::new(event).remote_key(TOKEN).quota(500).at_secs(daemon.clock().now_secs()).json()
}

fn charge(daemon: &Daemon, event: &str) -> String {
    let body = body(daemon, event);
    let answer = daemon.post(&body).json();
    assert_eq!(answer["message"], "Event processed successfully", "{answer}");
    body
}

fn message(daemon: &Daemon, body: &str) -> Value {
    daemon.post(body).json()["message"].clone()
}

/// Moves the clock on, has a call charged then, and waits until a run by that clock has cleared what it could.
fn advance(daemon: &Daemon, by: Duration, event: &str) {
    daemon.clock().advance(by);
    charge(daemon, event);
    daemon.clock().advance(Duration::from_secs(600)); // the next run
}

fn wait_gone(daemon: &Daemon, event: &str) {
    wait_until(&format!("the row of {event} is cleared"), PATIENCE, || {
        daemon.books().inbox(event).is_none().then_some(())
    });
}

/// `webhook.max_age` beyond the retention of nothing: an old event is not refused for its age alone.
fn long_tolerance() -> DaemonOptions {
    DaemonOptions::new().set("HOOKLEDGER__WEBHOOK__MAX_AGE", "20d").set("HOOKLEDGER__RETENTION__WEBHOOK_LOGS", "21d")
}

#[test]
fn processed_rows_go_and_their_charges_stay_known() {
    let (daemon, user) = rig(DaemonOptions::new());
    let old = charge(&daemon, "old");
    daemon.post(ping("old-ping"));
    let failed = Usage::new("failed").remote_key(999).quota(500).at_secs(daemon.clock().now_secs()).json();
    assert_eq!(daemon.post(failed).json()["success"], false);
    advance(&daemon, 91 * DAY, "young");
    wait_gone(&daemon, "old");
    wait_gone(&daemon, "old-ping");
    assert_eq!(daemon.books().inbox("failed").unwrap().0, "failed", "what is not settled stays");
    assert!(daemon.books().inbox("young").is_some());
    assert_eq!(daemon.post(&old).status, 400, "refused for its age");
    assert_eq!(daemon.books().balance(&user), 998);
    assert_eq!(daemon.command_json(&["charges", "list"]).as_array().unwrap().len(), 2, "charges are still told");
    wait_until("what went is counted", PATIENCE, || {
        let counted = daemon.metric("hookledger_retention_removed_rows_total{kind=\"processed\"}");
        (counted == Some(2.0)).then_some(())
    });
    daemon.books().assert_whole();
}

#[test]
fn beside_a_platform_nothing_goes_until_that_is_set() {
    only_on_a_server!();
    let daemon = Daemon::prepare(DaemonOptions::new().movable_clock().config_file());
    daemon.write_config("");
    daemon.launch();
    daemon.wait_ready();
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, TOKEN);
    charge(&daemon, "old");
    advance(&daemon, 91 * DAY, "young");
    let mut now = daemon.clock().advance(Duration::from_secs(61));
    for round in ["a run", "and another"] {
        let looks = || daemon.books().scalar_i64(crate::waiting::TOKEN_LOOKS);
        wait_until(round, PATIENCE, || (looks() >= now).then_some(()));
        now = daemon.clock().advance(Duration::from_secs(601));
    }
    assert!(daemon.books().inbox("old").is_some());
    daemon.write_config("[retention]\nwebhook_logs = \"90d\"\n");
    daemon.reload();
    daemon.clock().advance(Duration::from_secs(601));
    wait_gone(&daemon, "old");
}

#[test]
fn rows_that_the_platform_wrote_stay_whatever_they_look_like() {
    only_on_a_server!();
    let options = DaemonOptions::new().movable_clock().set("HOOKLEDGER__RETENTION__WEBHOOK_LOGS", "90d");
    let daemon = Daemon::prepare(options);
    let books = daemon.books();
    books.platform_customer("user", "key", TOKEN, 1000);
    let theirs = |event: &str, row_id: &str| {
        let usage = Usage::new(event).remote_key(TOKEN).quota(500);
        books.platform_logs(&usage, "processed");
        books.execute(&format!("UPDATE webhook_logs SET id = '{row_id}' WHERE eventId = '{event}'"));
        usage.json()
    };
    theirs("before", "clx0a2b3c4d5e6f7g8h9");
    daemon.launch();
    daemon.wait_ready();
    // Its receiver goes on, with ids such as ours; what it has is a repeat here, and has no claim.
    let after = theirs("after", "01900000-0000-7000-8000-000000000001");
    assert_eq!(message(&daemon, &after), "Event already processed (idempotent)");
    theirs("alone", "01900000-0000-7000-8000-000000000002");
    theirs("random", "0a9d1c3e-6a0f-4f5e-9f61-2f9a4bb0a1c7");
    daemon.post(ping("ping"));
    assert!(daemon.command(&["key", "ignore", "77"]).status.success());
    let ignored = |event: &str| Usage::new(event).remote_key(77).quota(500).at_secs(daemon.clock().now_secs()).json();
    assert_eq!(daemon.post(ignored("ignored")).json()["success"], false);
    let waits = Usage::new("waits").remote_key(78).quota(500).at_secs(daemon.clock().now_secs()).json();
    assert_eq!(daemon.post(waits).json()["success"], false);
    assert!(daemon.command(&["key", "ignore", "78"]).status.success());
    charge(&daemon, "ours");
    assert_eq!(books.count("hookledger_log_rows"), 3, "what no claim tells of");
    advance(&daemon, 91 * DAY, "young");
    for gone in ["ping", "ignored", "waits", "ours"] {
        wait_gone(&daemon, gone);
    }
    for stays in ["before", "after", "alone", "random"] {
        assert_eq!(books.inbox(stays), Some(("processed".to_owned(), None)), "{stays}");
    }
    assert_eq!((books.count("hookledger_log_rows"), books.count("webhook_logs")), (0, 5));
}

#[test]
fn what_the_platform_cleared_itself_is_not_remembered_for_ever() {
    only_on_a_server!();
    let daemon = Daemon::start(DaemonOptions::new().movable_clock());
    let books = daemon.books();
    for event in ["gone", "stays"] {
        daemon.post(ping(event));
    }
    assert_eq!(books.count("hookledger_log_rows"), 2);
    books.execute("DELETE FROM webhook_logs WHERE eventId = 'gone'");
    daemon.clock().advance(Duration::from_secs(601));
    let left = "SELECT log_id AS id FROM hookledger_log_rows";
    wait_until("its mark has gone after it", PATIENCE, || (books.rows(left).len() == 1).then_some(()));
    assert_eq!(books.scalar_text(left), books.scalar_text("SELECT id FROM webhook_logs"));
}

#[test]
fn a_repeat_of_a_cleared_event_that_is_young_enough_is_known() {
    let (mut daemon, user) = rig(long_tolerance());
    let old = charge(&daemon, "old");
    advance(&daemon, 22 * DAY, "young");
    wait_gone(&daemon, "old");
    // The operator raises the tolerance after that, as after a long outage.
    daemon.set_environment("HOOKLEDGER__WEBHOOK__MAX_AGE", "60d");
    daemon.set_environment("HOOKLEDGER__RETENTION__WEBHOOK_LOGS", "90d");
    assert_eq!(daemon.terminate(), 0);
    daemon.restart();
    assert_eq!(message(&daemon, &old), "Event already processed (idempotent)");
    assert_eq!(daemon.books().balance(&user), 998);
}

#[test]
fn a_clock_ten_days_ahead_and_back_opens_nothing_to_a_second_charge() {
    let options = DaemonOptions::new()
        .set("HOOKLEDGER__WEBHOOK__MAX_AGE", "1h")
        .set("HOOKLEDGER__RETENTION__WEBHOOK_LOGS", "2h")
        .set("HOOKLEDGER__RETENTION__DEAD", "1d")
        .set("HOOKLEDGER__RETENTION__CLAIMS", "219h"); // 9 days and 3 hours: less than the jump
    let (daemon, user) = rig(options);
    let first = charge(&daemon, "first");
    let second = charge(&daemon, "second");
    // The clock alone jumps: nothing becomes old. Then a sender's clock has jumped as well: everything does.
    daemon.clock().advance(10 * DAY);
    assert_eq!(daemon.post(&first).status, 400, "too old for now");
    charge(&daemon, "ahead");
    daemon.clock().advance(Duration::from_secs(600));
    wait_gone(&daemon, "first");
    wait_until("the claims went, too", PATIENCE, || (daemon.books().count("hookledger_claims") == 1).then_some(()));
    daemon.clock().set_back(10 * DAY + Duration::from_secs(600));
    for (body, id) in [(&first, "first"), (&second, "second")] {
        let answer = daemon.post(body).json();
        assert_eq!(answer["success"], false, "{answer}");
        assert!(answer["message"].as_str().unwrap().contains("retention.claims"), "{answer}");
        assert_eq!(daemon.books().inbox(id).unwrap().0, "dead", "a person can see it");
    }
    let replayed = daemon.command_json(&["events", "replay", "--all-failed", "--beyond-grace", "--yes"]);
    assert_eq!((&replayed["tried"], &replayed["charged"]), (&2.into(), &0.into()), "by hand neither");
    assert_eq!(daemon.books().balance(&user), 997);
}

#[test]
fn the_clock_alone_makes_nothing_old() {
    let (daemon, user) = rig(DaemonOptions::new());
    charge(&daemon, "first");
    let now = daemon.clock().advance(400 * DAY);
    let looks = || daemon.books().scalar_i64(crate::waiting::TOKEN_LOOKS);
    wait_until("the scheduler has gone through its steps", PATIENCE, || (looks() >= now).then_some(()));
    let now = daemon.clock().advance(Duration::from_secs(601));
    wait_until("and again", PATIENCE, || (looks() >= now).then_some(()));
    assert!(daemon.books().inbox("first").is_some());
    assert_eq!(daemon.books().balance(&user), 999);
}

#[test]
fn dead_events_go_with_their_retries() {
    let options = DaemonOptions::new().set("HOOKLEDGER__RETRY__MAX_ATTEMPTS", "1");
    let (daemon, _) = rig(options);
    let books = daemon.books();
    books.execute("UPDATE user_credit_balances SET currentCredits = -2147483647");
    assert_eq!(daemon.post(body(&daemon, "dead")).json()["success"], false);
    assert_eq!(books.inbox("dead").unwrap().0, "dead");
    books.execute("UPDATE user_credit_balances SET currentCredits = 1000");
    advance(&daemon, 366 * DAY, "young");
    wait_gone(&daemon, "dead");
    assert_eq!(books.count("hookledger_inbox"), 0);
}

#[test]
fn claims_wait_for_what_is_unsettled() {
    let options = DaemonOptions::new()
        .set("HOOKLEDGER__RETENTION__DEAD", "1d")
        .set("HOOKLEDGER__RETENTION__WEBHOOK_LOGS", "2d")
        .set("HOOKLEDGER__RETENTION__CLAIMS", "11d");
    let (daemon, one) = rig(options);
    let other = daemon.add_user("other@example.com", 100);
    charge(&daemon, "first");
    daemon.clock().advance(Duration::from_secs(10));
    // A token that two users have: its event may be charged whenever one of them gives it up.
    let books = daemon.books();
    for (id, user) in [("k1", &one), ("k2", &other)] {
        books.insert_key(id, user, "7", "ACTIVE");
    }
    let at = daemon.clock().now_secs();
    assert_eq!(daemon.post(Usage::new("waits").remote_key(7).quota(500).at_secs(at).json()).json()["success"], false);
    advance(&daemon, 30 * DAY, "young");
    wait_gone(&daemon, "first");
    let mark = "SELECT CAST(value AS SIGNED) FROM hookledger_meta WHERE name = 'claims_remembered_from_second'";
    wait_until("the mark has moved up to what waits", PATIENCE, || {
        (!books.rows(mark).is_empty() && books.scalar_i64(mark) == at).then_some(())
    });
    books.execute("DELETE FROM api_keys WHERE id = 'k2'");
    daemon.clock().advance(Duration::from_secs(60));
    wait_until("it is charged", PATIENCE, || (books.inbox("waits").unwrap().0 == "processed").then_some(()));
    assert_eq!(books.balance(&one), 997);
}

#[test]
fn before_the_first_charge_nothing_is_old() {
    let daemon = Daemon::start(DaemonOptions::new().movable_clock());
    daemon.post(ping("first"));
    let mut now = daemon.clock().advance(400 * DAY);
    let books = daemon.books();
    for round in ["a run", "and another"] {
        let looks = || books.scalar_i64(crate::waiting::TOKEN_LOOKS);
        wait_until(round, PATIENCE, || (looks() >= now).then_some(()));
        now = daemon.clock().advance(Duration::from_secs(61));
    }
    assert!(books.inbox("first").is_some());
}

#[test]
fn a_policy_that_is_changed_counts_before_the_next_step() {
    const OLD: i64 = 20_000;
    let daemon = Daemon::prepare(DaemonOptions::new().movable_clock().config_file());
    daemon.write_config("[retention]\nwebhook_logs = \"90d\"\n");
    daemon.launch();
    daemon.wait_ready();
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, TOKEN);
    charge(&daemon, "first");
    daemon.books().execute(
        "INSERT INTO webhook_logs (id, eventId, payload, status, processedAt, createdAt) \
         WITH RECURSIVE digit(v) AS (SELECT 0 UNION ALL SELECT v + 1 FROM digit WHERE v < 9), \
           n(v) AS (SELECT a.v + 10 * b.v + 100 * c.v + 1000 * d.v + 10000 * e.v \
             FROM digit AS a, digit AS b, digit AS c, digit AS d, digit AS e WHERE e.v < 2) \
         SELECT '00000000-0000-7000-8000-' || substr('000000000000' || v, -12), 'old-' || v, '{}', \
           'processed', '2019-01-01 00:00:00.000', '2019-01-01 00:00:00.000' FROM n",
    );
    if !is_sqlite() {
        daemon
            .books()
            .execute("INSERT INTO hookledger_log_rows SELECT id FROM webhook_logs WHERE eventId LIKE 'old-%'");
    }
    let left = || daemon.books().scalar_i64("SELECT count(*) FROM webhook_logs WHERE eventId LIKE 'old-%'");
    daemon.clock().advance(Duration::from_secs(61));
    wait_until("it has begun", PATIENCE, || (left() < OLD).then_some(()));
    daemon.write_config("[retention]\nwebhook_logs = \"forever\"\n");
    daemon.reload();
    let reloaded = left();
    daemon.clock().advance(Duration::from_secs(61));
    assert!(reloaded > 0, "the test came too late");
    charge(&daemon, "second");
    charge(&daemon, "third");
    assert!(left() >= reloaded - 64, "at most a step that was under way");
    assert!(daemon.command(&["status"]).status.success());
}

#[test]
fn a_kill_between_the_steps_forgets_nothing_that_can_be_charged() {
    let options = DaemonOptions::new()
        .set("HOOKLEDGER__RETENTION__DEAD", "1d")
        .set("HOOKLEDGER__RETENTION__WEBHOOK_LOGS", "2d")
        .set("HOOKLEDGER__RETENTION__CLAIMS", "11d");
    let (mut daemon, user) = rig(options);
    let old = charge(&daemon, "old");
    daemon.clock().advance(30 * DAY);
    charge(&daemon, "young");
    assert_eq!(daemon.terminate(), 0);
    // The steps: rows of the log, the mark, the claims. Each start gets one further.
    for (step, passes) in [("log", 0), ("mark", 1), ("claims", 1)] {
        daemon.set_environment("FAILPOINTS", format!("store.retention.written={passes}*off->1*return(kill)"));
        daemon.launch();
        assert!(daemon.wait_exit(PATIENCE).is_some(), "{step} was never passed");
        daemon.clock().set_back(30 * DAY);
        daemon.unset_environment("FAILPOINTS");
        daemon.set_environment("HOOKLEDGER__RETENTION__WEBHOOK_LOGS", "forever");
        daemon.set_environment("HOOKLEDGER__RETENTION__DEAD", "forever");
        daemon.set_environment("HOOKLEDGER__RETENTION__CLAIMS", "forever");
        daemon.restart();
        let answer = daemon.post(&old).json();
        assert_ne!(answer["message"], "Event processed successfully", "{step}: {answer}");
        assert_eq!(daemon.books().balance(&user), 998, "{step}");
        assert_eq!(daemon.terminate(), 0);
        daemon.clock().advance(30 * DAY);
        for (key, value) in [("WEBHOOK_LOGS", "2d"), ("DEAD", "1d"), ("CLAIMS", "11d")] {
            daemon.set_environment(&format!("HOOKLEDGER__RETENTION__{key}"), value);
        }
    }
}

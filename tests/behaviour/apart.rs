//! Our state and the platform's tables restored, dropped or replaced apart from each other: noticed, nothing billed
//! twice, and made whole by `repair`.

use std::time::Duration;

use serde_json::{Value, json};

use super::crashes::{usage_bodies, with_users};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::database::is_sqlite;
use crate::kit::events::Usage;
use crate::kit::platform::PlatformCall;
use crate::kit::sender::{Retry, deliver};
use crate::kit::wait::wait_until;

const TOKEN: i64 = 42;
const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// The platform's tables that are written to.
const PLATFORM: &[&str] =
    &["users", "api_keys", "usage_records", "credit_transactions", "user_credit_balances", "webhook_logs"];

/// Those of ours.
const OWN: &[&str] = &["hookledger_claims", "hookledger_accounts", "hookledger_inbox", "hookledger_refunds"];

fn options() -> DaemonOptions {
    // A repeat is to be refused for nothing but being one.
    DaemonOptions::new()
        .movable_clock()
        .set("HOOKLEDGER__WEBHOOK__MAX_AGE", "20d")
        .set("HOOKLEDGER__RETENTION__WEBHOOK_LOGS", "21d")
}

/// A daemon, a user with 1000 credits and a key.
fn rig(options: DaemonOptions) -> (Daemon, String) {
    let daemon = Daemon::start(options);
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, TOKEN);
    (daemon, user)
}

fn body(daemon: &Daemon, event: &str, token: i64, quota: i64) -> String {
    Usage::new(event).remote_key(token).quota(quota).at_secs(daemon.clock().now_secs()).json()
}

#[track_caller]
fn charge(daemon: &Daemon, event: &str, quota: i64) -> String {
    let body = body(daemon, event, TOKEN, quota);
    assert_eq!(daemon.post(&body).json()["message"], "Event processed successfully");
    body
}

fn refund(daemon: &Daemon, event: &str, amount: &str) {
    let charge = daemon.command_json(&["charges", "show", "--event", event])["id"].as_str().unwrap().to_owned();
    let part = ["charges", "refund", &charge, "--amount", amount, "--idempotency-key", event, "--reason", "failed"];
    daemon.command_json(&part);
}

fn books_of(daemon: &Daemon, user: &str) -> (i64, String, i64) {
    let shown = daemon.command_json(&["credits", "show", user]);
    (
        shown["credits"].as_i64().unwrap(),
        shown["remainder"].as_str().unwrap().to_owned(),
        shown["unpaid"].as_i64().unwrap(),
    )
}

/// Keeps tables as they are now beside the platform's.
fn keep(daemon: &Daemon, tables: &[&str]) {
    let books = daemon.books();
    let copy =
        |table: &&str| format!("CREATE TABLE kit_{table} AS SELECT {} FROM {table};", books.written_columns(table));
    books.execute(&tables.iter().map(copy).collect::<String>());
}

/// Puts them back as they were kept.
fn put_back(daemon: &Daemon, tables: &[&str]) {
    let books = daemon.books();
    let back = |table: &&str| {
        let columns = books.written_columns(table);
        format!("DELETE FROM {table}; INSERT INTO {table} ({columns}) SELECT {columns} FROM kit_{table};")
    };
    let back: String = tables.iter().map(back).collect();
    books.execute_unchecked(&format!("START TRANSACTION; {back} COMMIT"));
}

fn drop_state(daemon: &Daemon) {
    daemon.books().execute(&format!("DROP DATABASE `{}`", daemon.guest().state()));
}

/// The sentence of the condition, once it holds.
#[track_caller]
fn wait_apart(daemon: &Daemon) -> String {
    wait_until("the schemas are found apart", PATIENCE, || {
        let status = daemon.command_json(&["status"]);
        let held = status["conditions"].as_array().unwrap().iter().find(|held| held["name"] == "schemas_apart")?;
        Some(held["message"].as_str().unwrap().to_owned())
    })
}

fn conditions(daemon: &Daemon) -> Value {
    daemon.command_json(&["status"])["conditions"].clone()
}

/// While they are apart, events are taken, and nothing is settled or given.
#[track_caller]
fn assert_takes_and_settles_nothing(daemon: &Daemon, repeat: &str, fresh: &str) {
    let claims = daemon.books().count("hookledger_claims");
    for body in [repeat, fresh, repeat] {
        let answer = daemon.post(body);
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    let ready = daemon.get("/readyz");
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("hookledger repair"), "{}", ready.text());
    let health = daemon.get("/api/webhooks/health");
    assert!(health.status == 200 && health.text().contains("not settled"), "{}", health.text());
    let granted = daemon.command(&["credits", "grant", "--user", "user@example.com", "--amount", "5"]);
    let words = String::from_utf8_lossy(&granted.stderr).into_owned();
    assert!(granted.status.code() == Some(1) && words.contains("repair"), "{words}");
    assert_eq!(daemon.command_json(&["events", "replay", "--all-failed"])["charged"], 0);
    assert_eq!(daemon.books().count("hookledger_claims"), claims, "nothing is settled");
}

/// All that a repair could change.
fn everything(daemon: &Daemon) -> Vec<Value> {
    let tables = PLATFORM.iter().chain(OWN).chain(&["hookledger_meta"]);
    let rows = |table: &&str| {
        let mut rows: Vec<String> =
            daemon.books().rows(&format!("SELECT * FROM {table}")).iter().map(|row| json!(row).to_string()).collect();
        // The daemon looks at tokens, and for other programs, while a test looks at tables.
        rows.retain(|row| !row.contains("tokens_looked_at_ms") && !row.contains("foreign_looked_at_ms"));
        rows.sort();
        json!(rows)
    };
    tables.map(rows).collect()
}

#[track_caller]
fn repair(daemon: &Daemon) -> Value {
    let before = everything(daemon);
    let told = daemon.command_json(&["repair", "--dry-run"]);
    assert_eq!(everything(daemon), before, "a dry run changes nothing");
    let repaired = daemon.command_json(&["repair"]);
    // All but what only the real one can tell.
    let mut expected = repaired.clone();
    expected["stillApart"] = told["stillApart"].clone();
    assert_eq!(told, expected, "a dry run tells what will be");
    assert_eq!(repaired["stillApart"], Value::Null, "{repaired}");
    repaired
}

/// Nothing is left to repair, nothing waits, and the books agree.
#[track_caller]
fn assert_whole_again(daemon: &Daemon) {
    let books = daemon.books();
    wait_until("nothing is pending", PATIENCE, || {
        (books.scalar_i64("SELECT count(*) FROM hookledger_inbox WHERE state = 'pending'") == 0).then_some(())
    });
    books.assert_whole();
    books.assert_carried_exactly();
    let again = daemon.command_json(&["repair"]);
    assert_eq!((&again["installation"], &again["bookedCharges"]["count"]), (&Value::Null, &json!(0)), "{again}");
    assert_eq!((&again["rebuiltCharges"]["count"], &again["closedEvents"]), (&json!(0), &json!(0)), "{again}");
    assert_eq!((&again["bookedGrants"]["count"], &again["notRebuilt"]), (&json!(0), &json!([])), "{again}");
    books.assert_whole();
}

#[test]
fn a_dropped_state_is_rebuilt_from_the_usage_records() {
    only_on_a_server!();
    let (daemon, user) = rig(options());
    let repeat = charge(&daemon, "e-1", 1830); // 3.66 credits
    refund(&daemon, "e-1", "2");
    charge(&daemon, "e-2", 1177); // 2.354: with the remainder three whole ones
    daemon.post(body(&daemon, "parked", 77, 500));
    // What the platform could not bill is not ours to retry.
    daemon.books().platform_logs(&Usage::new("theirs").remote_key(TOKEN).quota(500), "failed");
    daemon
        .books()
        .execute("UPDATE webhook_logs SET id = '0a9d1c3e-6a0f-4f5e-9f61-2f9a4bb0a1c7' WHERE eventId = 'theirs'");
    let before = books_of(&daemon, &user);
    assert_eq!(before, (996, "0.014".to_owned(), 0));
    let installation = "SELECT value FROM hookledger_meta WHERE name = 'installation_id'";
    let id = daemon.books().scalar_text(installation);
    daemon.terminate();
    drop_state(&daemon);
    daemon.launch();
    daemon.wait_ready();
    let sentence = wait_apart(&daemon);
    assert!(sentence.contains("2 of the newest usage records"), "{sentence}");
    assert_ne!(daemon.books().scalar_text(installation), id, "made anew");
    assert_takes_and_settles_nothing(&daemon, &repeat, &body(&daemon, "e-3", TOKEN, 5000));
    // The body of an event that was charged meanwhile is there as well: it waits for nothing.
    daemon.books().execute("UPDATE webhook_logs SET status = 'failed' WHERE eventId = 'e-2'");
    let told = String::from_utf8(daemon.command(&["repair", "--dry-run"]).stdout).unwrap();
    assert!(told.contains("no repair brings back") && told.contains("idempotency keys of refunds"), "{told}");
    let repaired = repair(&daemon);
    assert_eq!(repaired["closedEvents"], 1, "{repaired}");
    assert_eq!(repaired["notRebuilt"].as_array().map(Vec::len), Some(6), "{repaired}");
    assert_eq!(repaired["rebuiltCharges"], json!({ "count": 2, "credits": 6 }));
    assert_eq!(repaired["rebuiltRefunds"], json!({ "count": 1, "credits": 2 }));
    assert_eq!((&repaired["installation"], &repaired["waitingEvents"]), (&json!(id), &json!(1)), "{repaired}");
    assert_eq!(daemon.books().scalar_text(installation), id, "taken over");
    assert_eq!(conditions(&daemon), json!([]));
    assert_whole_again(&daemon);
    assert_eq!(books_of(&daemon, &user), (986, "0.014".to_owned(), 0), "what came meanwhile was charged, once");
    assert_eq!(daemon.post(&repeat).json()["message"], "Event already processed (idempotent)");
    // What is charged from here on carries the same id, and what was parked still waits for its key.
    daemon.add_key(&user, 77);
    wait_until("it is charged", PATIENCE, || (daemon.books().inbox("parked")?.0 == "processed").then_some(()));
    assert_eq!(daemon.books().inbox("theirs"), Some(("failed".to_owned(), None)));
    daemon.restart();
    assert_eq!(conditions(&daemon), json!([]));
    assert_whole_again(&daemon);
}

#[test]
fn a_platform_restored_under_a_running_daemon_is_booked_again() {
    only_on_a_server!();
    let (daemon, user) = rig(options());
    charge(&daemon, "old", 1830);
    keep(&daemon, PLATFORM);
    let repeat = charge(&daemon, "e-1", 1177);
    refund(&daemon, "e-1", "1.5");
    charge(&daemon, "e-2", 5000);
    daemon.post(body(&daemon, "parked", 77, 500));
    let gift = ["credits", "grant", "--user", &user, "--amount", "7", "--reason", "gift", "--idempotency-key", "g"];
    daemon.command_json(&gift);
    daemon.grant(&user, 30);
    daemon.command_json(&["credits", "adjust", "--user", &user, "--amount=-4", "--reason", "wrong"]);
    let before = books_of(&daemon, &user);
    put_back(&daemon, PLATFORM);
    daemon.clock().advance(HOUR);
    let sentence = wait_apart(&daemon);
    assert!(sentence.contains("2 of the newest charges"), "{sentence}");
    assert_takes_and_settles_nothing(&daemon, &repeat, &body(&daemon, "e-3", TOKEN, 500));
    let repaired = repair(&daemon);
    assert_eq!(repaired["bookedCharges"]["count"], 2, "{repaired}");
    assert_eq!(repaired["bookedGrants"], json!({ "count": 3, "credits": 33 }), "{repaired}");
    let moved = "SELECT group_concat(type, ' ', amount ORDER BY amount) FROM credit_transactions
                 WHERE `desc` = 'booked again by repair'";
    assert_eq!(daemon.books().scalar_text(moved), "ADMIN_ADJUST -4,RECHARGE 7,RECHARGE 30");
    assert_eq!((&repaired["bookedRefunds"]["count"], &repaired["lostEvents"]), (&json!(1), &json!(1)), "{repaired}");
    assert_whole_again(&daemon);
    assert_eq!(books_of(&daemon, &user), (before.0 - 1, before.1, 0), "as before, and what came meanwhile");
    assert_eq!(daemon.post(&repeat).json()["message"], "Event already processed (idempotent)");
    assert_eq!(daemon.command_json(&gift)["repeated"], true, "the key is still known");
    assert_eq!(conditions(&daemon), json!([]));
}

#[test]
fn what_another_program_had_billed_is_booked_again_as_its_own() {
    only_on_a_server!();
    let (daemon, user) = rig(options());
    let books = daemon.books();
    keep(&daemon, PLATFORM);
    let key = books.scalar_text("SELECT id FROM api_keys");
    let called_at = daemon.clock().now_secs() * 1000;
    // Its id sorts among ours, and its time is not the event's.
    books.platform_bills(&PlatformCall::new("0-theirs", &key, called_at - 240_000).credits(7));
    let repeat = body(&daemon, "e", TOKEN, 500);
    assert_eq!(daemon.post(&repeat).json()["message"], "Event already processed (idempotent)");
    assert_eq!(books.balance(&user), 993);
    put_back(&daemon, PLATFORM);
    daemon.clock().advance(HOUR);
    wait_apart(&daemon);
    assert_eq!(repair(&daemon)["bookedCharges"], json!({ "count": 1, "credits": 7 }));
    assert_eq!((books.balance(&user), conditions(&daemon)), (993, json!([])));
    assert_eq!(daemon.post(&repeat).json()["message"], "Event already processed (idempotent)");
    assert_eq!(books.scalar_text("SELECT id FROM usage_records WHERE rawMeta IS NULL"), "0-theirs");
    daemon.restart();
    assert_eq!(conditions(&daemon), json!([]));
    assert_whole_again(&daemon);
}

#[test]
fn a_rebuilt_charge_keeps_its_own_rounding() {
    only_on_a_server!();
    let (daemon, _) = rig(options());
    charge(&daemon, "e", 1830);
    daemon.terminate();
    drop_state(&daemon);
    assert!(daemon.command(&["migrate"]).status.success());
    let repaired = daemon.command_with(&["repair"], &[("HOOKLEDGER__LEDGER__ROUNDING", "nearest")]);
    assert!(repaired.status.success(), "{repaired:?}");
    assert_eq!(daemon.books().scalar_text("SELECT rounding FROM hookledger_claims"), "carry");
}

#[test]
fn a_state_of_an_earlier_time_learns_what_was_charged_since() {
    only_on_a_server!();
    let (daemon, user) = rig(options());
    charge(&daemon, "old", 1830);
    daemon.post(body(&daemon, "parked", 77, 500));
    keep(&daemon, OWN);
    let repeat = charge(&daemon, "e-1", 1177);
    daemon.add_key(&user, 77);
    wait_until("what waited is charged", PATIENCE, || (daemon.books().inbox("parked")?.0 == "processed").then_some(()));
    let before = books_of(&daemon, &user);
    daemon.terminate();
    put_back(&daemon, OWN);
    daemon.books().execute("DELETE FROM webhook_logs WHERE eventId = 'e-1'"); // as retention does
    daemon.launch();
    daemon.wait_ready();
    wait_apart(&daemon);
    assert_takes_and_settles_nothing(&daemon, &repeat, &body(&daemon, "e-2", TOKEN, 500));
    let repaired = repair(&daemon);
    assert_eq!(repaired["rebuiltCharges"]["count"], 2, "{repaired}");
    assert_eq!(repaired["closedEvents"], 2, "the repeat, and what was parked: {repaired}");
    assert_whole_again(&daemon);
    assert_eq!(books_of(&daemon, &user), (before.0 - 1, before.1, 0));
}

#[test]
fn erased_users_and_keys_are_no_sign() {
    only_on_a_server!();
    let (daemon, user) = rig(options());
    let other = daemon.add_user("other@example.com", 10);
    let key = daemon.add_key(&other, 43);
    charge(&daemon, "e-1", 500);
    assert_eq!(daemon.post(body(&daemon, "e-2", 43, 500)).status, 200);
    daemon.books().execute(&format!("DELETE FROM users WHERE id = '{user}'; DELETE FROM api_keys WHERE id = '{key}'"));
    daemon.restart();
    assert_eq!(conditions(&daemon), json!([]));
    assert_eq!(daemon.get("/readyz").json()["message"], "ready");
    let repaired = daemon.command_json(&["repair"]);
    assert_eq!(repaired["bookedCharges"]["count"], 0, "{repaired}");
}

#[test]
fn a_repair_killed_in_the_middle_goes_on() {
    only_on_a_server!();
    const EVENTS: usize = 1100;
    let daemon = Daemon::start(options());
    with_users(&daemon);
    let retry = Retry::until(PATIENCE, Duration::from_millis(20));
    deliver(daemon.address(), SECRET, usage_bodies(EVENTS, "killed"), 32, retry);
    wait_until("all is charged", PATIENCE, || {
        (daemon.books().count("hookledger_claims") == EVENTS as i64).then_some(())
    });
    keep(&daemon, &["hookledger_accounts", "user_credit_balances", "credit_transactions", "usage_records"]);
    daemon.terminate();
    let killed_at = |pages: usize| {
        let place = format!("store.repair.page={pages}*off->1*return(kill)");
        let killed = daemon.command_with(&["repair"], &[("FAILPOINTS", place.as_str())]);
        assert!(!killed.status.success(), "killed after {pages} pages");
    };
    drop_state(&daemon);
    assert!(daemon.command(&["migrate"]).status.success());
    (0..8).for_each(killed_at);
    assert!(daemon.command(&["repair"]).status.success());
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
    // And the other way round.
    daemon.books().execute_unchecked(
        "DELETE FROM usage_records; DELETE FROM credit_transactions WHERE type = 'DEDUCT'; \
         UPDATE user_credit_balances SET currentCredits = 1000",
    );
    (0..5).for_each(killed_at);
    assert!(daemon.command(&["repair"]).status.success());
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
    let differing = "SELECT count(*) FROM user_credit_balances AS b JOIN kit_user_credit_balances AS k ON k.id = b.id \
                     WHERE k.currentCredits <> b.currentCredits";
    assert_eq!(daemon.books().scalar_i64(differing), 0, "balances as before");
    let moved = "SELECT count(*) FROM hookledger_accounts AS a JOIN kit_hookledger_accounts AS k \
                 ON k.user_id = a.user_id WHERE k.remainder_femtos <> a.remainder_femtos";
    assert_eq!(daemon.books().scalar_i64(moved), 0, "remainders as before");
}

#[test]
fn whole_books_are_left_as_they_are() {
    let (daemon, _) = rig(options());
    charge(&daemon, "e-1", 1830);
    let output = daemon.command(&["repair"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(told.contains("there is nothing to do"), "{told}");
    assert_eq!(told.contains("one file"), is_sqlite(), "{told}");
    assert_eq!(daemon.command_json(&["repair", "--dry-run"])["oneFile"], is_sqlite());
    daemon.books().assert_whole();
}

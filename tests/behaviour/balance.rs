//! The balance question: who may ask, what is told of which key, and that it never waits for a write.

use std::time::Duration;

use serde_json::json;

use crate::kit::clock::{now_millis, now_secs};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::sender::{Retry, start_delivery};
use crate::kit::wait::wait_until;
use crate::kit::wire::{Connection, Response, http_request};

const TOKEN: &str = "balance-token-of-the-kit";
const UNITS_PER_CREDIT: i64 = 500;
const PATIENCE: Duration = Duration::from_secs(60);
/// Far below the time for which a blocked write waits.
const PROMPT: Duration = Duration::from_secs(7);

fn with_token() -> DaemonOptions {
    DaemonOptions::new().set("HOOKLEDGER__BALANCE__TOKEN", TOKEN)
}

fn by_id(key: &str) -> String {
    format!("/api/api-keys/{key}/credit-balance")
}

fn by_remote_id(token: impl std::fmt::Display) -> String {
    format!("/api/api-keys/remote/{token}/credit-balance")
}

fn question(path: &str, token: &str) -> Vec<u8> {
    http_request("GET", path, &[("X-API-Key", token)], b"")
}

#[track_caller]
fn ask_as(daemon: &Daemon, path: &str, token: &str) -> Response {
    daemon.connection().request(&question(path, token)).expect("an answer")
}

#[track_caller]
fn ask(daemon: &Daemon, path: &str) -> Response {
    ask_as(daemon, path, TOKEN)
}

#[track_caller]
fn credit(daemon: &Daemon, path: &str) -> i64 {
    credit_of(&ask(daemon, path))
}

#[track_caller]
fn credit_of(answer: &Response) -> i64 {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"]["credit"].as_i64().expect("credits are a whole number")
}

#[track_caller]
fn assert_refused(answer: &Response, status: u16) {
    let body = answer.json();
    let message = body["message"].as_str().unwrap_or_default().to_owned();
    assert!(!message.is_empty(), "{body}");
    assert_eq!((answer.status, body), (status, json!({ "success": false, "message": message })));
}

#[test]
fn the_answer_says_what_new_api_needs_by_either_id() {
    let daemon = Daemon::start(with_token());
    let user = daemon.add_user("user@example.com", 1000);
    let id = daemon.command_json(&["key", "add", "--user", &user, "--remote-id", "42", "--label", "通义 key"]);
    let key = id["id"].as_str().unwrap().to_owned();
    for path in [by_id(&key), by_remote_id(42)] {
        let answer = ask(&daemon, &path);
        let body = answer.json();
        assert_eq!((answer.status, answer.header("Cache-Control")), (200, Some("no-store")), "{body}");
        let last_updated = body["data"]["lastUpdated"].as_str().unwrap().to_owned();
        let timestamp = body["data"]["timestamp"].as_i64().unwrap();
        assert_eq!(
            body,
            json!({ "success": true, "data": {
                "credit": 1000, "userId": user, "keyId": key, "remoteKeyId": 42, "label": "通义 key",
                "lastUpdated": last_updated, "timestamp": timestamp,
            }})
        );
        assert!((now_secs() - timestamp).abs() < 60, "{timestamp} is not now");
        let time = chrono::DateTime::parse_from_rfc3339(&last_updated).expect("ISO 8601");
        assert!((now_millis() - time.timestamp_millis()).abs() < 60_000, "{last_updated} is not of late");
        assert!(last_updated.ends_with('Z') && last_updated.len() == "2026-11-24T02:31:00.000Z".len());
        let column = last_updated.replace('T', " ").replace('Z', "");
        assert_eq!(daemon.books().scalar_text("SELECT updatedAt FROM user_credit_balances"), column);
    }
    assert_eq!(daemon.metric(r#"hookledger_balance_requests_total{outcome="found"}"#), Some(2.0));
    assert_eq!(daemon.metric("hookledger_balance_duration_seconds_count"), Some(2.0));
}

#[test]
fn it_is_right_to_the_last_commit() {
    let daemon = Daemon::start(with_token());
    let user = daemon.add_user("user@example.com", 3);
    let key = daemon.add_key(&user, 1);
    for number in 1..=5 {
        let answer = daemon.post(Usage::new(format!("evt-{number}")).quota(UNITS_PER_CREDIT).json());
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(credit(&daemon, &by_remote_id(1)), 3 - number, "below zero as well");
    }
    daemon.grant(&user, 10);
    assert_eq!(credit(&daemon, &by_id(&key)), 8);
    daemon.books().execute("UPDATE user_credit_balances SET currentCredits = 77");
    assert_eq!(credit(&daemon, &by_id(&key)), 77, "another program's commit counts as well");
}

#[test]
fn without_the_token_nothing_is_told() {
    let daemon = Daemon::start(with_token());
    let user = daemon.add_user("user@example.com", 1000);
    let key = daemon.add_key(&user, 42);
    let paths = [by_id(&key), by_remote_id(42), by_id("unknown"), by_remote_id(43), by_remote_id("x"), by_id("%ff")];
    let mut told = std::collections::BTreeSet::new();
    for path in &paths {
        for wrong in ["", "wrong", &TOKEN[1..], &format!("{TOKEN}0"), &TOKEN.to_uppercase(), SECRET] {
            let answer = ask_as(&daemon, path, wrong);
            assert_refused(&answer, 401);
            told.insert(answer.text());
        }
        let answer = daemon.get(path);
        assert_refused(&answer, 401);
        let as_bearer = http_request("GET", path, &[("Authorization", &format!("Bearer {TOKEN}"))], b"");
        assert_refused(&daemon.connection().request(&as_bearer).expect("an answer"), 401);
    }
    assert_eq!(told.len(), 1, "the same words whether there is a key or not: {told:?}");
    assert_eq!(daemon.metric(r#"hookledger_balance_requests_total{outcome="wrong_token"}"#), Some(36.0));
    assert_eq!(credit(&daemon, &by_remote_id(42)), 1000);
    let output = daemon.output();
    assert!(!output.stderr.contains(TOKEN) && !output.stdout.contains(TOKEN), "the token is not logged");
}

#[test]
fn what_is_no_key_is_unknown() {
    let daemon = Daemon::start(with_token());
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, 42);
    daemon.books().insert_key("zero", &user, "0", "ACTIVE");
    daemon.books().insert_key("padded", &user, "07", "ACTIVE");
    let odd = ["43", "0", "042", "42x", "-42", "+42", "42.0", "7", "07", "9223372036854775808", "%20", "4%32%20", "x"];
    for path in odd.map(by_remote_id).into_iter().chain([by_id("42"), by_id("unknown"), by_id("%00"), by_id("%ff")]) {
        assert_refused(&ask(&daemon, &path), 404);
    }
    let long = by_id(&"k".repeat(192));
    assert_refused(&ask(&daemon, &long), 404);
    let padded = ask(&daemon, &by_id("padded")).json();
    assert_eq!(padded["data"]["remoteKeyId"], json!(null), "new-api knows no token 07");
    assert_eq!(credit(&daemon, &by_remote_id("4%32")), 1000, "42 in other letters");
}

#[test]
fn a_key_that_is_not_active_is_refused() {
    let daemon = Daemon::start(with_token());
    let user = daemon.add_user("user@example.com", 1000);
    let key = daemon.add_key(&user, 42);
    for status in ["DISABLED", "DELETED"] {
        daemon.books().execute(&format!("UPDATE api_keys SET status = '{status}'"));
        assert_refused(&ask(&daemon, &by_id(&key)), 403);
        assert_refused(&ask(&daemon, &by_remote_id(42)), 403);
    }
    daemon.books().execute("UPDATE api_keys SET status = 'ACTIVE'");
    assert_eq!(credit(&daemon, &by_id(&key)), 1000);
}

#[test]
fn a_token_of_several_users_has_no_one_balance() {
    let daemon = Daemon::start(with_token());
    let first = daemon.add_user("first@example.com", 1000);
    daemon.add_key(&first, 42);
    let second = daemon.add_user("second@example.com", 500);
    for status in ["ACTIVE", "DISABLED"] {
        daemon.books().insert_key("doubled", &second, "42", status);
        assert_refused(&ask(&daemon, &by_remote_id(42)), 403);
        daemon.books().execute("DELETE FROM api_keys WHERE id = 'doubled'");
    }
    assert_eq!(credit(&daemon, &by_remote_id(42)), 1000);
}

#[test]
fn of_one_users_several_keys_the_active_one_answers() {
    let daemon = Daemon::start(with_token());
    let user = daemon.add_user("user@example.com", 1000);
    for (id, status) in [("a", "DELETED"), ("b", "DISABLED"), ("c", "ACTIVE"), ("d", "ACTIVE"), ("e", "DISABLED")] {
        daemon.books().insert_key(id, &user, "42", status);
    }
    let body = ask(&daemon, &by_remote_id(42)).json();
    assert_eq!((&body["data"]["keyId"], &body["data"]["credit"]), (&json!("c"), &json!(1000)), "{body}");
    assert_refused(&ask(&daemon, &by_id("b")), 403);
    daemon.books().execute("UPDATE api_keys SET status = 'DISABLED'");
    assert_refused(&ask(&daemon, &by_remote_id(42)), 403);
}

#[test]
fn a_user_without_a_balance_has_none() {
    let daemon = Daemon::start(with_token());
    daemon.books().insert_user("u", "u@example.com");
    daemon.books().insert_key("k", "u", "42", "ACTIVE");
    daemon.books().execute("UPDATE api_keys SET createdAt = '2026-01-02 03:04:05.678'");
    let data = ask(&daemon, &by_remote_id(42)).json()["data"].clone();
    assert_eq!((&data["credit"], &data["lastUpdated"]), (&json!(0), &json!("2026-01-02T03:04:05.678Z")));
    assert_eq!(daemon.books().count("user_credit_balances"), 0, "asking makes no row");
}

#[test]
fn the_paths_exist_only_with_a_token() {
    let mut daemon = Daemon::start(DaemonOptions::new());
    let user = daemon.add_user("user@example.com", 1000);
    let key = daemon.add_key(&user, 42);
    let paths = [by_id(&key), by_remote_id(42)];
    for path in &paths {
        let unknown = daemon.get("/api/api-keys/nowhere");
        let answer = ask(&daemon, path);
        assert_refused(&answer, 404);
        assert_eq!(answer.text(), unknown.text(), "as any unknown path");
    }
    std::fs::write(daemon.folder().join("token"), format!("{TOKEN}\n")).unwrap();
    for (variable, value) in [
        ("HOOKLEDGER__BALANCE__TOKEN_FILE", daemon.folder().join("token").display().to_string()),
        ("NEW_API_ADMIN_TOKEN", TOKEN.to_owned()),
    ] {
        daemon.set_environment(variable, value);
        daemon.restart();
        for path in &paths {
            assert_eq!(credit(&daemon, path), 1000, "{variable}");
            assert_refused(&ask_as(&daemon, path, "wrong"), 401);
        }
        daemon.unset_environment(variable);
    }
}

#[test]
fn only_get_asks_and_events_settings_do_not_matter() {
    let options = with_token().set("HOOKLEDGER__WEBHOOK__ALLOW_SOURCES", "192.0.2.1");
    let daemon = Daemon::prepare(options.set("HOOKLEDGER__WEBHOOK__ENABLED", "false"));
    daemon.launch();
    // It is never ready.
    let alive = || Connection::open(daemon.address(), PROMPT)?.request(&http_request("GET", "/healthz", &[], b""));
    wait_until("it answers", PATIENCE, || alive().is_ok_and(|answer| answer.status == 200).then_some(()));
    let user = daemon.add_user("user@example.com", 1000);
    let key = daemon.add_key(&user, 42);
    for path in [by_id(&key), by_remote_id(42)] {
        assert_eq!(credit(&daemon, &path), 1000);
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let request = http_request(method, &path, &[("X-API-Key", TOKEN)], b"");
            let answer = daemon.connection().request(&request).expect("an answer");
            assert_refused(&answer, 405);
            assert_eq!(answer.header("Allow"), Some("GET"));
        }
    }
    assert_refused(&daemon.get("/api/api-keys/nowhere"), 403);
}

#[test]
fn it_answers_under_full_load_and_knows_every_answered_charge() {
    const EVENTS: usize = 3000;
    /// At least; more for as long as events are delivered.
    const QUESTIONS: usize = 200;
    // Each answer tells of a charge.
    let daemon = Daemon::start(with_token().answers_late());
    let user = daemon.add_user("user@example.com", 10_000);
    daemon.add_key(&user, 1);
    let at = now_secs();
    let bodies = (0..EVENTS).map(|number| Usage::new(format!("e-{number}")).quota(UNITS_PER_CREDIT).at_secs(at).json());
    let ongoing = start_delivery(daemon.address(), SECRET, bodies.collect(), 32, Retry::never());
    let mut connection = Connection::open(daemon.address(), PATIENCE).unwrap();
    let mut seen = vec![10_000];
    let mut asked = 0;
    while asked < QUESTIONS || !ongoing.is_finished() {
        asked += 1;
        let charged_before = i64::try_from(ongoing.acknowledged()).unwrap();
        let now = credit_of(&connection.request(&question(&by_remote_id(1), TOKEN)).expect("an answer"));
        assert!(now <= 10_000 - charged_before, "{charged_before} were charged, and yet there are {now}");
        let last = seen[seen.len() - 1];
        assert!(now <= last, "the balance never goes up: {now} after {last}");
        seen.push(now);
    }
    seen.dedup();
    assert!(seen.len() > 10, "the balance was asked for while it moved: {seen:?}");
    let report = ongoing.finish();
    assert_eq!(report.statuses(), [(200, EVENTS)].into());
    assert_eq!(credit(&daemon, &by_remote_id(1)), 7_000);
    daemon.books().assert_whole();
}

#[test]
fn it_does_not_wait_for_a_blocked_writer() {
    let daemon = Daemon::start(with_token().set("HOOKLEDGER__DATABASE__LOCK_WAIT", "15s"));
    let user = daemon.add_user("user@example.com", 10);
    let key = daemon.add_key(&user, 1);
    let lock = daemon.books().hold_writers();
    let bodies = (0..20).map(|number| Usage::new(format!("e-{number}")).quota(UNITS_PER_CREDIT).json()).collect();
    let retry = Retry::until(PATIENCE * 3, Duration::from_millis(50));
    let ongoing = start_delivery(daemon.address(), SECRET, bodies, 8, retry);
    let mut connection = Connection::open(daemon.address(), PROMPT).unwrap();
    for path in [by_id(&key), by_remote_id(1)].iter().cycle().take(100) {
        let answer = connection.request(&question(path, TOKEN)).expect("an answer at once");
        assert_eq!(credit_of(&answer), 10);
    }
    wait_until("a write has given up", PATIENCE, || (!daemon.is_ready()).then_some(()));
    assert_eq!(ongoing.acknowledged(), 0, "the writer was blocked all the time");
    assert_eq!(credit_of(&connection.request(&question(&by_id(&key), TOKEN)).expect("an answer at once")), 10);
    drop(lock);
    ongoing.finish().assert_all_acknowledged();
    wait_until("everything is charged", PATIENCE, || (credit(&daemon, &by_id(&key)) == -10).then_some(()));
    daemon.books().assert_whole();
}

#[test]
fn a_database_that_cannot_be_read_is_503() {
    let daemon = Daemon::start(with_token());
    let user = daemon.add_user("user@example.com", 10);
    let key = daemon.add_key(&user, 1);
    daemon.books().execute("ALTER TABLE user_credit_balances RENAME TO moved_away");
    let answer = ask(&daemon, &by_id(&key));
    assert_refused(&answer, 503);
    assert_eq!(answer.header("Retry-After"), Some("1"));
    daemon.books().execute("ALTER TABLE moved_away RENAME TO user_credit_balances");
    assert_eq!(credit(&daemon, &by_id(&key)), 10);
}

//! Tokens that no key has, and tokens that change their owner.

use std::time::Duration;

use crate::kit::books::quoted;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::database::is_sqlite;
use crate::kit::events::Usage;
use crate::kit::wait::wait_until;
use crate::waiting::TOKEN_LOOKS;

const PATIENCE: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);

fn daemon() -> Daemon {
    Daemon::start(DaemonOptions::new().movable_clock().answers_late())
}

/// Delivers an event of a token, made this long ago by the daemon's clock.
fn deliver(daemon: &Daemon, id: &str, token: i64, ago: Duration) -> serde_json::Value {
    let at = daemon.clock().now_secs() - ago.as_secs() as i64;
    daemon.post(Usage::new(id).remote_key(token).quota(1000).at_secs(at).json()).json()
}

fn wait_look(daemon: &Daemon) {
    let now = daemon.clock().advance(MINUTE);
    let books = daemon.books();
    wait_until("tokens were looked at", PATIENCE, || (books.scalar_i64(TOKEN_LOOKS) >= now).then_some(()));
}

#[test]
fn unmatched_tokens_are_listed_with_what_they_come_to() {
    let daemon = daemon();
    for (id, token) in [("a", 7), ("b", 7), ("c", 8)] {
        deliver(&daemon, id, token, Duration::ZERO);
    }
    deliver(&daemon, "d", 0, Duration::ZERO); // nobody's: a channel test
    let listed = daemon.command_json(&["key", "unmatched"]);
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), 2, "{listed:?}");
    let first = &listed[0];
    assert_eq!((&first["remoteId"], &first["calls"], &first["quota"]), (&7.into(), &2.into(), &2000.into()));
    assert_eq!(first["credits"], "4");
    let command: Vec<&str> = first["command"].as_str().unwrap().split(' ').collect();
    let user = daemon.add_user("user@example.com", 100);
    let command: Vec<&str> =
        command.iter().skip(1).map(|word| if *word == "ID_OR_EMAIL" { user.as_str() } else { word }).collect();
    assert_eq!(command.contains(&"--platform-database"), !is_sqlite(), "{command:?}");
    assert!(daemon.command_unmeant(&command).status.success(), "the command is ready to be run: {command:?}");
    wait_until("its events are charged", PATIENCE, || (daemon.books().balance(&user) == 96).then_some(()));
    assert_eq!(daemon.command_json(&["key", "unmatched"]).as_array().unwrap().len(), 1);
}

#[test]
fn an_ignored_token_waits_for_nothing_until_it_has_a_key() {
    let daemon = daemon();
    deliver(&daemon, "before", 7, Duration::ZERO);
    let ignored = daemon.command_json(&["key", "ignore", "7"]);
    assert_eq!((&ignored["isIgnored"], &ignored["closedEvents"]), (&true.into(), &1.into()));
    assert_eq!(daemon.command_json(&["key", "unmatched"]), serde_json::json!([]));
    let answer = deliver(&daemon, "while", 7, Duration::ZERO);
    assert_eq!(answer["success"], false, "{answer}");
    assert!(answer["message"].as_str().unwrap().starts_with("API Key is ignored"), "{answer}");
    let books = daemon.books();
    assert_eq!(books.count("hookledger_inbox"), 0);
    for id in ["before", "while"] {
        let (status, message) = books.inbox(id).unwrap();
        assert!(status == "processed" && message.unwrap().contains("is ignored"), "{id}: {status}");
    }
    let repeat = deliver(&daemon, "while", 7, Duration::ZERO);
    assert_eq!(repeat["success"], false, "not told to be charged: {repeat}");
    assert_eq!(daemon.command_json(&["key", "ignore"])[0]["remoteId"], 7);
    // Whoever gives it to a user ends that; what was ignored stays uncharged.
    let user = daemon.add_user("user@example.com", 100);
    daemon.add_key(&user, 7);
    assert_eq!(deliver(&daemon, "after", 7, Duration::ZERO)["message"], "Event processed successfully");
    assert_eq!(books.balance(&user), 98);
    let refused = daemon.command(&["key", "ignore", "7"]);
    assert_eq!(refused.status.code(), Some(1), "a token with a key is somebody's");
    books.assert_whole();
}

#[test]
fn ignoring_can_be_undone() {
    let daemon = daemon();
    daemon.command_json(&["key", "ignore", "--remote-id", "7"]);
    assert_eq!(daemon.command_json(&["key", "ignore", "7", "--undo"])["isIgnored"], false);
    deliver(&daemon, "e", 7, Duration::ZERO);
    assert_eq!(daemon.books().inbox("e").unwrap().0, "failed");
    assert_eq!(daemon.command(&["key", "ignore", "--undo"]).status.code(), Some(2));
}

/// One user owned the token, then another: by a new key, or by a key that was given away.
fn with_two_owners(daemon: &Daemon) -> (String, String) {
    let (former, present) = (daemon.add_user("former@example.com", 100), daemon.add_user("present@example.com", 100));
    let key = daemon.add_key(&former, 7);
    assert_eq!(deliver(daemon, "first", 7, Duration::ZERO)["success"], true);
    daemon.clock().advance(10 * MINUTE);
    // His key is pointed to another token, and the other user gets this one.
    daemon.books().execute(&format!("UPDATE api_keys SET remoteKeyId = '99' WHERE id = '{key}'"));
    daemon.add_key(&present, 7);
    daemon.clock().advance(10 * MINUTE);
    (former, present)
}

#[test]
fn a_late_call_is_its_own_seconds_owners() {
    let daemon = daemon();
    let (former, present) = with_two_owners(&daemon);
    assert_eq!(deliver(&daemon, "late", 7, 15 * MINUTE)["success"], true);
    assert_eq!(deliver(&daemon, "now", 7, Duration::ZERO)["success"], true);
    assert_eq!(deliver(&daemon, "late-again", 7, 16 * MINUTE)["success"], true);
    let books = daemon.books();
    assert_eq!((books.balance(&former), books.balance(&present)), (94, 98));
    books.assert_whole();
    books.assert_carried_exactly();
}

#[test]
fn a_call_of_an_owner_whose_key_is_gone_is_listed_and_charged_only_by_hand() {
    let daemon = daemon();
    let (former, present) = with_two_owners(&daemon);
    daemon.books().execute(&format!("DELETE FROM api_keys WHERE userId = '{former}'"));
    let answer = deliver(&daemon, "late", 7, 15 * MINUTE);
    assert_eq!(answer["success"], false, "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("another user"), "{answer}");
    wait_look(&daemon);
    let books = daemon.books();
    assert_eq!((books.inbox("late").unwrap().0.as_str(), books.balance(&present)), ("failed", 100), "not by surprise");
    let charged = daemon.command_json(&["events", "replay", "late", "--beyond-grace", "--yes"]);
    assert_eq!(charged["charged"], 1);
    assert_eq!(books.balance(&present), 98);
}

#[test]
fn a_change_of_owner_is_seen_within_a_minute_without_any_call() {
    let daemon = daemon();
    let (former, present) = (daemon.add_user("former@example.com", 100), daemon.add_user("present@example.com", 100));
    let key = daemon.add_key(&former, 7);
    assert_eq!(deliver(&daemon, "first", 7, Duration::ZERO)["success"], true);
    daemon.clock().advance(10 * MINUTE);
    // The same key changes hands: only a look can date that.
    daemon.books().execute(&format!("UPDATE api_keys SET userId = '{present}' WHERE id = '{key}'"));
    wait_look(&daemon);
    wait_until("the change is dated", PATIENCE, || {
        (daemon.books().count("hookledger_token_owners") == 2).then_some(())
    });
    daemon.clock().advance(60 * MINUTE);
    assert_eq!(deliver(&daemon, "his", 7, 30 * MINUTE)["success"], true);
    assert_eq!(daemon.books().balance(&present), 98);
    let former_call = deliver(&daemon, "former", 7, 65 * MINUTE);
    assert_eq!(former_call["success"], false, "the key is no longer his who made it: {former_call}");
    assert_eq!(daemon.books().balance(&former), 98);
    daemon.books().assert_whole();
}

/// Events that tokens without a key left behind: half of them of one token, the rest of a token each.
fn insert_foreign_events(daemon: &Daemon, count: i64) {
    const AT_ONCE: usize = 1000;
    let at_ms = daemon.clock().now_millis() - 10 * 3_600_000;
    let token = |number: i64| if number <= count / 2 { 7 } else { 100_000 + number };
    let log = |number: i64| {
        let event = Usage::new(format!("f-{number}")).remote_key(token(number)).quota(500).at_secs(at_ms / 1000);
        format!("('0000-{number:08}', 'f-{number}', {}, 'failed', 'API Key not found')", quoted(&event.json()))
    };
    let waiting =
        |number: i64| format!("('0000-{number:08}', 'failed', 'unknown_key', {}, {at_ms}, {at_ms})", token(number));
    let unknown = |number: i64| format!("({}, {})", token(number), at_ms + 35_000_000);
    let mut sql = "BEGIN;".to_owned();
    let mut insert = |columns: &str, rows: Vec<String>| {
        for rows in rows.chunks(AT_ONCE) {
            sql.push_str(&format!("INSERT INTO {columns} VALUES {};\n", rows.join(", ")));
        }
    };
    insert("webhook_logs (id, eventId, payload, status, errorMsg)", (1..=count).map(log).collect());
    let columns = "hookledger_inbox (inbox_id, state, reason, remote_key_id, called_at_ms, recorded_at_ms)";
    insert(columns, (1..=count).map(waiting).collect());
    let columns = "hookledger_unknown_tokens (remote_key_id, last_look_ms)";
    insert(columns, (count / 2..=count).map(unknown).collect());
    daemon.books().execute(&(sql + "COMMIT"));
}

#[test]
fn a_hundred_thousand_events_of_foreign_tokens_slow_nobody_and_fill_no_memory() {
    const FOREIGN: i64 = 100_000;
    const RESIDENT_KIB: u64 = 160 * 1024; // an idle test build has some 40 MiB
    let daemon = daemon();
    let paying = daemon.add_user("paying@example.com", 1_000_000);
    daemon.add_key(&paying, 42);
    insert_foreign_events(&daemon, FOREIGN);
    wait_look(&daemon);
    assert_eq!(daemon.command_json(&["key", "unmatched", "--limit", "1"])[0]["calls"], FOREIGN / 2);
    // One of the tokens gets its key: half of the events are looked at again, and are too old to be charged.
    let late = daemon.add_user("late@example.com", 100);
    daemon.add_key(&late, 7);
    let books = daemon.books();
    let mut delivered = 0;
    let listed = "SELECT count(*) FROM hookledger_inbox WHERE reason = 'beyond_grace'";
    wait_until("they are listed", 20 * PATIENCE, || {
        // Meanwhile everybody else is charged at once.
        for _ in 0..20 {
            let answer = deliver(&daemon, &format!("e-{delivered}"), 42, Duration::ZERO);
            assert_eq!(answer["message"], "Event processed successfully");
            delivered += 1;
        }
        (books.scalar_i64(listed) == FOREIGN / 2).then_some(())
    });
    assert_eq!((books.balance(&paying), books.balance(&late)), (1_000_000 - 2 * delivered, 100));
    let resident = crate::kit::process::resident_kib(daemon.pid());
    assert!(resident < RESIDENT_KIB, "{resident} KiB resident");
}

//! Users, keys and credits: the same story with a daemon at work, through its socket, and without one.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use serde_json::{Value, json};

use super::{failing, fine, migrated, ran};
use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::database::unreachable_url;
use crate::kit::events::Usage;
use crate::kit::sender::{Retry, start_delivery};

/// The named fields of an object, or of each in a list.
fn fields(value: &Value, names: &[&str]) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| fields(item, names)).collect(),
        object => names.iter().map(|name| ((*name).to_owned(), object[*name].clone())).collect(),
    }
}

/// Adds, lists, grants and shows.
fn tell_the_story(daemon: &Daemon) {
    let alice =
        fine(daemon, &["user", "add", "--email", "alice@example.com", "--name", "Alice 爱", "--credits", "100"]);
    let bob = daemon.command_json(&["user", "add", "--email", "bob@example.com"]);
    let bob = bob["id"].as_str().expect("the new id").to_owned();
    assert_ne!(alice, bob);
    let users = fields(&daemon.command_json(&["user", "list"]), &["id", "email", "name", "credits", "keys"]);
    let expected = json!([
        { "id": bob, "email": "bob@example.com", "name": null, "credits": 0, "keys": 0 },
        { "id": alice, "email": "alice@example.com", "name": "Alice 爱", "credits": 100, "keys": 0 },
    ]);
    assert_eq!(users, expected, "newest first");

    let key = fine(daemon, &["key", "add", "--user", "alice@example.com", "--remote-id", "42", "--label", "laptop"]);
    let second = daemon.command_json(&["key", "add", "--user", &bob, "--remote-id", "43"]);
    let second = second["id"].as_str().expect("the new id");
    let names = ["id", "userId", "email", "remoteKeyId", "label", "status", "lastUsedAt"];
    let of_alice = json!({ "id": key, "userId": alice, "email": "alice@example.com", "remoteKeyId": "42",
        "label": "laptop", "status": "ACTIVE", "lastUsedAt": null });
    let of_bob = json!({ "id": second, "userId": bob, "email": "bob@example.com", "remoteKeyId": "43",
        "label": "token 43", "status": "ACTIVE", "lastUsedAt": null });
    assert_eq!(fields(&daemon.command_json(&["key", "list"]), &names), json!([of_bob, of_alice]));
    assert_eq!(fields(&daemon.command_json(&["key", "list", "--user", &alice]), &names), json!([of_alice]));
    grant_and_show(daemon, &alice);
    for (arguments, words) in [
        (&["user", "list"] as &[&str], &["alice@example.com", "bob@example.com", &alice][..]),
        (&["key", "list"], &["42", "43", "laptop"]),
        (&["credits", "show", "alice@example.com"], &["alice@example.com", "157"]),
        (&["credits", "history", "alice@example.com"], &["RECHARGE", "a gift", "157"]),
    ] {
        let table = fine(daemon, arguments);
        assert!(words.iter().all(|word| table.contains(word)), "{arguments:?} prints {words:?}: {table}");
    }
    daemon.books().assert_whole();
}

fn grant_and_show(daemon: &Daemon, alice: &str) {
    let once =
        ["credits", "grant", "--user", alice, "--amount", "50", "--reason", "a gift", "--idempotency-key", "gift-1"];
    let names = ["userId", "amount", "balance", "repeated"];
    let first = daemon.command_json(&once);
    let expected = json!({ "userId": alice, "amount": 50, "balance": 150, "repeated": false });
    assert_eq!(fields(&first, &names), expected);
    let again = daemon.command_json(&once);
    let expected = json!({ "userId": alice, "amount": 50, "balance": 150, "repeated": true });
    assert_eq!((fields(&again, &names), &again["id"]), (expected, &first["id"]), "the same key adds once");
    let other = ["credits", "grant", "--user", alice, "--amount", "51", "--idempotency-key", "gift-1"];
    assert!(failing(daemon, &other, 1).contains("gift-1"));
    let other = ["credits", "grant", "--user", "bob@example.com", "--amount", "50", "--idempotency-key", "gift-1"];
    assert!(failing(daemon, &other, 1).contains("gift-1"));
    fine(daemon, &["credits", "grant", "--user", "alice@example.com", "--amount", "7"]);

    let shown = daemon.command_json(&["credits", "show", "alice@example.com"]);
    let expected =
        json!({ "userId": alice, "email": "alice@example.com", "credits": 157, "remainder": "0", "unpaid": 0 });
    assert_eq!(shown, expected);
    let names = ["type", "amount", "balance", "description", "reference"];
    let row = |amount: i64, balance: i64, description: Value| {
        json!({ "type": "RECHARGE", "amount": amount, "balance": balance, "description": description,
            "reference": null })
    };
    let expected =
        json!([row(7, 157, json!(null)), row(50, 150, json!("a gift")), row(100, 100, json!("initial credits"))]);
    let history = daemon.command_json(&["credits", "history", "alice@example.com"]);
    assert_eq!(fields(&history, &names), expected, "newest first");
    let newest = daemon.command_json(&["credits", "history", "--user", alice, "--limit", "1"]);
    assert_eq!(fields(&newest, &names), json!([row(7, 157, json!(null))]));
}

#[test]
fn the_story_is_told_to_a_running_daemon() {
    let daemon = Daemon::start(DaemonOptions::new());
    tell_the_story(&daemon);
    let answer = daemon.post(Usage::new("evt").remote_key(42).quota(500).json());
    assert_eq!(answer.json()["success"], true, "the daemon knows the key at once: {}", answer.text());
}

#[test]
fn the_story_is_told_without_a_daemon() {
    let daemon = migrated(DaemonOptions::new());
    tell_the_story(&daemon);
    daemon.launch();
    daemon.wait_ready();
    let answer = daemon.post(Usage::new("evt").remote_key(42).quota(500).json());
    assert_eq!(answer.json()["success"], true, "the daemon finds what was written: {}", answer.text());
}

/// What is refused, and a word of the reason.
fn refuse(daemon: &Daemon) {
    let alice = daemon.add_user("alice@example.com", 1);
    daemon.add_user("bob@example.com", 0);
    daemon.add_key(&alice, 42);
    let long = "x".repeat(192);
    let cases: &[(&[&str], &str)] = &[
        (&["user", "add", "--email", "alice@example.com"], "alice@example.com exists already"),
        (&["user", "add", "--email", &alice], "exists already"),
        (&["user", "add", "--email", ""], "email"),
        (&["user", "add", "--email", " a@example.com"], "space"),
        (&["user", "add", "--email", &long], "191"),
        (&["user", "add", "--email", "c@example.com", "--credits", "2147483648"], "larger"),
        (&["key", "add", "--user", "nobody@example.com", "--remote-id", "1"], "nobody@example.com"),
        (&["key", "add", "--user", "bob@example.com", "--remote-id", "42"], "another user"),
        (&["key", "list", "--user", "nobody@example.com"], "nobody@example.com"),
        (&["credits", "grant", "--user", "nobody@example.com", "--amount", "1"], "nobody@example.com"),
        (&["credits", "grant", "--user", "alice@example.com", "--amount", "2147483647"], "larger"),
        (&["credits", "grant", "--user", "alice@example.com", "--amount", "9223372036854775807"], "larger"),
        (&["credits", "show", "nobody@example.com"], "nobody@example.com"),
        (&["credits", "history", "nobody@example.com"], "nobody@example.com"),
        (&["events", "show", "no-such-event"], "no-such-event"),
    ];
    for (arguments, word) in cases {
        let complaint = failing(daemon, arguments, 1);
        assert!(complaint.contains(word), "{arguments:?} is refused for {word:?}: {complaint}");
        failing(daemon, &[*arguments, &["--json"]].concat(), 1);
    }
    let books = daemon.books();
    let counts = ["users", "api_keys", "credit_transactions"].map(|table| books.count(table));
    assert_eq!((counts, books.balance(&alice)), ([2, 1, 1], 1), "nothing refused left a trace");
    books.assert_whole();
}

#[test]
fn a_running_daemon_refuses() {
    refuse(&Daemon::start(DaemonOptions::new()));
}

#[test]
fn what_a_daemon_would_refuse_is_refused_without_one() {
    refuse(&migrated(DaemonOptions::new()));
}

#[test]
fn the_socket_is_for_the_daemons_user_alone() {
    let daemon = Daemon::start(DaemonOptions::new());
    let check = || {
        let socket = fs::metadata(daemon.admin_socket()).expect("the socket is there");
        let owner = fs::metadata(format!("/proc/{}", daemon.pid())).expect("the daemon runs").uid();
        assert!(socket.file_type().is_socket());
        assert_eq!((socket.mode() & 0o777, socket.uid()), (0o600, owner), "mode and owner");
    };
    check();
    daemon.restart();
    check();
    assert_eq!(daemon.terminate(), 0);
    assert!(!daemon.admin_socket().exists(), "a stopped daemon takes its socket away");
}

#[test]
fn writes_go_through_the_socket_while_a_daemon_runs() {
    let daemon = Daemon::start(DaemonOptions::new());
    let socket = daemon.admin_socket().display().to_string();
    // Only the socket leads to the daemon: the command's own database does not exist.
    let elsewhere = [("HOOKLEDGER__DATABASE__URL", unreachable_url()), ("HOOKLEDGER__ADMIN__SOCKET", &socket)];
    for arguments in [
        &["user", "add", "--email", "alice@example.com", "--credits", "5"] as &[&str],
        &["key", "add", "--user", "alice@example.com", "--remote-id", "7"],
        &["credits", "grant", "--user", "alice@example.com", "--amount", "3"],
    ] {
        let ran = ran(&daemon, arguments, &elsewhere);
        assert_eq!(ran.code, 0, "{arguments:?}: {ran:?}");
    }
    assert_eq!(daemon.command_json(&["credits", "show", "alice@example.com"])["credits"], 8);
    // A socket that a killed daemon left behind leads nowhere: the command writes by itself.
    daemon.kill();
    assert!(daemon.admin_socket().exists(), "a killed daemon could not take its socket away");
    fine(&daemon, &["user", "add", "--email", "bob@example.com"]);
    assert_eq!(daemon.books().count("users"), 2);
}

#[test]
fn operators_work_while_events_pour_in() {
    let daemon = Daemon::start(DaemonOptions::new().answers_late());
    let first = daemon.add_user("first@example.com", 0);
    daemon.add_key(&first, 1);
    let at = now_secs();
    let bodies = (0..3000).map(|number| Usage::new(format!("evt-{number}")).quota(500).at_secs(at).json());
    let patience = Retry::never();
    let ongoing = start_delivery(daemon.address(), SECRET, bodies.collect(), 32, patience);
    let mut ids = BTreeSet::new();
    let mut rounds = 0;
    while !ongoing.is_finished() || rounds < 3 {
        let email = format!("user{rounds}@example.com");
        ids.insert(fine(&daemon, &["user", "add", "--email", &email, "--credits", "10"]));
        ids.insert(fine(&daemon, &["key", "add", "--user", &email, "--remote-id", &(100 + rounds).to_string()]));
        fine(&daemon, &["credits", "grant", "--user", "first@example.com", "--amount", "1000"]);
        rounds += 1;
    }
    let report = ongoing.finish();
    assert_eq!(report.statuses(), [(200, 3000)].into());
    assert_eq!(ids.len(), 2 * usize::try_from(rounds).unwrap());
    assert_eq!(daemon.books().balance(&first), i64::from(rounds) * 1000 - 3000);
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
}

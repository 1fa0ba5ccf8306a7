//! Whose call it is: the key's owner as the tables tell it, and nobody where they don't.

use std::time::Duration;

use super::{UNITS_PER_CREDIT, assert_account, assert_sound, charge, customer, refused};
use crate::kit::books::quoted;
use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

fn one_credit(event_id: &str, token: i64) -> Usage {
    Usage::new(event_id).remote_key(token).quota(UNITS_PER_CREDIT)
}

fn keys_charged(daemon: &Daemon) -> Vec<String> {
    let rows = daemon.books().rows("SELECT apiKeyId AS id FROM usage_records ORDER BY id");
    rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_key_of_several_users_charges_nobody() {
    let daemon = Daemon::start(DaemonOptions::new());
    let first = customer(&daemon, "first", 10, 5);
    let second = customer(&daemon, "second", 10, 6);
    daemon.books().insert_key("doubled", &second, "5", "ACTIVE");
    let message = refused(&daemon, &one_credit("whose", 5));
    assert!(message.contains("remoteKeyId: 5"), "{message:?} names the key");
    assert!(message.starts_with("Several users"), "{message:?} says what is wrong with it");
    charge(&daemon, &one_credit("clear", 6));
    assert_account(&daemon, &first, 10, 0, "the first owner");
    assert_account(&daemon, &second, 9, 0, "the second owner, for a key of his own");
    let count = r#"hookledger_ledger_settlements_total{source="webhook",outcome="ambiguous_key"}"#;
    assert_eq!(daemon.metric(count), Some(1.0));
    assert_sound(&daemon);
}

#[test]
fn a_disabled_double_is_ambiguous_as_well() {
    let daemon = Daemon::start(DaemonOptions::new());
    let first = customer(&daemon, "first", 10, 5);
    let second = daemon.add_user("second@example.com", 10);
    daemon.books().insert_key("doubled", &second, "5", "DELETED");
    refused(&daemon, &one_credit("whose", 5));
    assert_account(&daemon, &first, 10, 0, "the status never decides whose call it is");
    assert_account(&daemon, &second, 10, 0, "the status never decides whose call it is");
    assert_sound(&daemon);
}

#[test]
fn several_rows_of_one_user_are_one_key() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = daemon.add_user("user@example.com", 10);
    daemon.books().insert_key("a-deleted", &user, "7", "DELETED");
    daemon.books().insert_key("b-active", &user, "7", "ACTIVE");
    daemon.books().insert_key("c-active", &user, "7", "ACTIVE");
    daemon.books().insert_key("d-disabled", &user, "7", "DISABLED");
    charge(&daemon, &one_credit("one", 7));
    assert_account(&daemon, &user, 9, 0, "after one call");
    assert_eq!(keys_charged(&daemon), ["b-active"], "the first that is active");
    assert_sound(&daemon);
}

#[test]
fn a_disabled_or_deleted_key_is_still_charged() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 10, 7);
    for (number, status) in ["DISABLED", "DELETED"].into_iter().enumerate() {
        daemon.books().execute(&format!("UPDATE api_keys SET status = '{status}'"));
        charge(&daemon, &one_credit(status, 7));
        assert_account(&daemon, &user, 9 - i64::try_from(number).unwrap(), 0, status);
    }
    assert_sound(&daemon);
}

#[test]
fn a_disabled_user_is_still_charged() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 10, 7);
    daemon.books().execute("UPDATE users SET status = 0");
    charge(&daemon, &one_credit("evt", 7));
    assert_account(&daemon, &user, 9, 0, "the call has happened");
    assert_sound(&daemon);
}

#[test]
fn only_canonical_digits_name_a_token() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = daemon.add_user("user@example.com", 10);
    for (number, odd) in ["042", "42 ", " 42", "+42", "42.0", "４２", "0x2a", ""].into_iter().enumerate() {
        daemon.books().insert_key(&format!("odd-{number}"), &user, odd, "ACTIVE");
    }
    let message = refused(&daemon, &one_credit("evt-42", 42));
    assert_eq!(message, "API Key not found for remoteKeyId: 42");
    let padded = one_credit("evt-padded", 42).data_field("remoteKeyId", r#""042""#);
    assert_eq!(daemon.post(padded.json()).status, 400, "nor does an event name it so");
    assert_account(&daemon, &user, 10, 0, "nobody has the token 42");
    daemon.add_key(&user, 42);
    wait_until("what waited for the token is charged", PATIENCE, || (daemon.books().balance(&user) == 9).then_some(()));
    charge(&daemon, &one_credit("evt-42-again", 42));
    assert_account(&daemon, &user, 8, 0, "now he has it");
    assert_sound(&daemon);
}

#[test]
fn the_largest_token_is_one_and_zero_is_nobodys() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 10, i64::MAX);
    daemon.books().insert_key("zero", &user, "0", "ACTIVE");
    charge(&daemon, &one_credit("largest", i64::MAX));
    assert_eq!(refused(&daemon, &one_credit("zero", 0)), "API Key not found for remoteKeyId: 0");
    assert_account(&daemon, &user, 9, 0, "after one call of his token");
    assert_sound(&daemon);
}

#[test]
fn an_unknown_token_is_kept_and_repeated_alike() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 10, 1);
    let usage = one_credit("early", 99).at_secs(now_secs());
    for _ in 0..2 {
        assert_eq!(refused(&daemon, &usage), "API Key not found for remoteKeyId: 99");
    }
    assert_eq!(daemon.books().count("webhook_logs"), 1);
    assert_account(&daemon, &user, 10, 0, "another user's call is not his");
    assert_sound(&daemon);
}

#[test]
fn deleting_a_user_takes_his_key_along() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 10, 1);
    charge(&daemon, &one_credit("before", 1));
    daemon.books().execute(&format!("DELETE FROM users WHERE id = {}", quoted(&user)));
    assert_eq!(refused(&daemon, &one_credit("after", 1)), "API Key not found for remoteKeyId: 1");
    assert_eq!(daemon.books().count("usage_records"), 0, "his records went with him");
}

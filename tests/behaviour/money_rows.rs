//! A deduction in the shared tables, column by column: other programs read these rows.

use serde_json::{Value, json};

use super::{assert_account, assert_sound, charge, customer};
use crate::kit::books::{Row, quoted};
use crate::kit::clock::now_millis;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;

/// 2025-12-21 06:53:20.123 UTC
const CALLED_AT_MILLIS: i64 = 1_766_300_000_123;
const CALLED_AT: &str = "2025-12-21 06:53:20.123";

/// A daemon whose clock shows one minute after the call.
fn daemon_of_that_day() -> Daemon {
    let daemon = Daemon::prepare(DaemonOptions::new().movable_clock());
    daemon.clock().set_offset_millis(CALLED_AT_MILLIS + 60_000 - now_millis());
    daemon.launch();
    daemon.wait_ready();
    daemon
}

#[track_caller]
fn only_row(daemon: &Daemon, sql: &str) -> Row {
    let mut rows = daemon.books().rows(sql);
    assert_eq!(rows.len(), 1, "{sql} finds one row: {rows:?}");
    rows.remove(0)
}

/// Takes out of a row what cannot be known beforehand.
#[track_caller]
fn taken(row: &mut Row, column: &str) -> String {
    let value = row.remove(column);
    value.as_ref().and_then(Value::as_str).unwrap_or_else(|| panic!("{column} is {value:?}")).to_owned()
}

#[track_caller]
fn assert_uuid_v7(id: &str) {
    let shape: String = id.chars().map(|letter| if letter.is_ascii_hexdigit() { 'x' } else { letter }).collect();
    assert_eq!(shape, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx", "{id}");
    assert_eq!(id.as_bytes()[14], b'7', "{id} is of version 7");
}

/// The stamp is of the minute that the daemon's clock showed, and written as every stamp is.
#[track_caller]
fn assert_stamp(stamp: &str) {
    let shape: String = stamp.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
    assert_eq!(shape, "0000-00-00 00:00:00.000", "{stamp}");
    let window = "2025-12-21 06:54:20.123".."2025-12-21 06:55:20.123";
    assert!(window.contains(&stamp), "{stamp} is not when the daemon wrote it");
}

#[test]
fn a_deduction_is_written_to_the_letter() {
    let daemon = daemon_of_that_day();
    let user = daemon.add_user("carol@example.com", 1000);
    let key = daemon.add_key(&user, 3);
    charge(&daemon, &Usage::new("before").remote_key(3).quota(100).at_millis(CALLED_AT_MILLIS - 1));
    let usage = Usage::new("evt-rows").remote_key(3).model("gpt-4").tokens(44, 39).total_tokens(90).quota(1830);
    let usage = usage.request_id("req-1").log_id(136).at_millis(CALLED_AT_MILLIS);
    charge(&daemon, &usage);

    let mut record = only_row(&daemon, "SELECT * FROM usage_records WHERE creditCost <> 0");
    let (record_id, meta) = (taken(&mut record, "id"), taken(&mut record, "rawMeta"));
    assert_uuid_v7(&record_id);
    let expected = json!({ "apiKeyId": key, "timestamp": CALLED_AT, "model": "gpt-4", "promptTokens": 44,
        "completionTokens": 39, "totalTokens": 90, "costUsd": 0.00366, "creditCost": 3 });
    assert_eq!(json!(record), expected);

    let installation = daemon.books().scalar_text("SELECT value FROM hookledger_meta WHERE name = 'installation_id'");
    let expected = json!({ "installation": installation, "source": "webhook", "eventId": "evt-rows",
        "eventAtMs": CALLED_AT_MILLIS, "requestId": "req-1", "logId": 136, "remoteKeyId": 3, "quota": 1830,
        "price": "3.66", "rate": "1000", "quotaPerUnit": 500_000, "rounding": "carry",
        "remainderBefore": 200_000_000_000_000_i64, "remainderAfter": 860_000_000_000_000_i64 });
    assert_eq!(serde_json::from_str::<Value>(&meta).expect("rawMeta is JSON"), expected);

    let mut transaction = only_row(&daemon, "SELECT * FROM credit_transactions WHERE type = 'DEDUCT'");
    assert_uuid_v7(&taken(&mut transaction, "id"));
    assert_stamp(&taken(&mut transaction, "createdAt"));
    let expected = json!({ "userId": user, "type": "DEDUCT", "amount": -3, "balance": 997, "ref": record_id,
        "desc": "gpt-4" });
    assert_eq!(json!(transaction), expected);

    let mut log = only_row(&daemon, "SELECT * FROM webhook_logs WHERE eventId = 'evt-rows'");
    assert_uuid_v7(&taken(&mut log, "id"));
    assert_stamp(&taken(&mut log, "processedAt"));
    assert_stamp(&taken(&mut log, "createdAt"));
    let expected = json!({ "eventId": "evt-rows", "payload": usage.json(), "status": "processed", "errorMsg": null });
    assert_eq!(json!(log), expected);
    assert_account(&daemon, &user, 997, 860, "after 0.2 and 3.66 credits");
    assert_sound(&daemon);
}

#[test]
fn a_price_in_credits_is_written_without_a_quota() {
    let daemon = daemon_of_that_day();
    customer(&daemon, "dave", 100, 4);
    charge(&daemon, &Usage::new("evt-12").remote_key(4).credit_cost(12).at_millis(CALLED_AT_MILLIS));
    let row = only_row(&daemon, "SELECT creditCost, costUsd, rawMeta FROM usage_records");
    let meta: Value = serde_json::from_str(row["rawMeta"].as_str().unwrap()).expect("rawMeta is JSON");
    assert_eq!((&row["creditCost"], &row["costUsd"]), (&json!(12), &json!(0.012)), "at 1,000 credits a dollar");
    assert_eq!((&meta["price"], meta.get("quota")), (&json!("12"), None));
    assert_sound(&daemon);
}

#[test]
fn a_keys_last_use_moves_forward_only() {
    let daemon = daemon_of_that_day();
    let user = daemon.add_user("erin@example.com", 100);
    let (key, other) = (daemon.add_key(&user, 5), daemon.add_key(&user, 6));
    let last_use = |key: &str| {
        let sql = format!("SELECT lastUsedAt FROM api_keys WHERE id = {}", quoted(key));
        only_row(&daemon, &sql)["lastUsedAt"].as_str().map(str::to_owned)
    };
    assert_eq!(last_use(&key), None);
    let call = |event_id: &str, token: i64, at: i64| {
        charge(&daemon, &Usage::new(event_id).remote_key(token).quota(1).at_millis(at));
    };
    call("first", 5, CALLED_AT_MILLIS);
    assert_eq!(last_use(&key).as_deref(), Some(CALLED_AT));
    call("earlier", 5, CALLED_AT_MILLIS - 3_600_000);
    assert_eq!(last_use(&key).as_deref(), Some(CALLED_AT), "a late delivery of an earlier call");
    call("later", 5, CALLED_AT_MILLIS + 877);
    assert_eq!(last_use(&key).as_deref(), Some("2025-12-21 06:53:21.000"));
    call("seconds", 5, 1_766_300_002);
    assert_eq!(last_use(&key).as_deref(), Some("2025-12-21 06:53:22.000"));
    assert_eq!(last_use(&other), None, "another key of the same user");
    assert_sound(&daemon);
}

#[test]
fn a_long_model_is_cut_in_shared_tables_and_whole_in_claims() {
    let daemon = daemon_of_that_day();
    customer(&daemon, "frank", 100, 7);
    let model: String = "模型-x".chars().cycle().take(5000).collect();
    let long = Usage::new("long").remote_key(7).model(&model).quota(500).at_millis(CALLED_AT_MILLIS);
    charge(&daemon, &long);
    let cut: String = model.chars().take(191).collect();
    let books = daemon.books();
    assert_eq!(books.scalar_text("SELECT model FROM usage_records"), cut);
    assert_eq!(books.scalar_text("SELECT `desc` FROM credit_transactions WHERE type = 'DEDUCT'"), cut);
    assert_eq!(books.scalar_text("SELECT model FROM hookledger_claims"), model);
    // What differs beyond the cut differs: the same id with it is another event.
    let other = long.model(&format!("{model}y"));
    assert_eq!(daemon.post(other.json()).status, 409);
    assert_sound(&daemon);
}

#[test]
fn a_model_of_odd_characters_is_kept() {
    let daemon = daemon_of_that_day();
    customer(&daemon, "grace", 100, 8);
    let models = [
        "it's; DROP TABLE users;--",
        "a\\b\"c",
        "two\nlines\ttab\r",
        "👩‍🚀 émoji \u{1F600}",
        "  spaced  ",
        "%s?1$2:x{}",
        "\u{202E}\u{FEFF}\u{1}",
    ];
    for (number, model) in models.iter().enumerate() {
        let usage = Usage::new(format!("odd-{number}")).remote_key(8).model(model).quota(500);
        charge(&daemon, &usage.at_millis(CALLED_AT_MILLIS));
    }
    let column = |sql: &str| {
        let rows = daemon.books().rows(sql);
        rows.iter().map(|row| row["model"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(column("SELECT model FROM usage_records ORDER BY id"), models);
    assert_eq!(column("SELECT `desc` AS model FROM credit_transactions WHERE type = 'DEDUCT' ORDER BY id"), models);
    assert_eq!(column("SELECT model FROM hookledger_claims ORDER BY claim_id"), models);
    assert_sound(&daemon);
}

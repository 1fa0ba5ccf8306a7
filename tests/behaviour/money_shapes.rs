//! Bodies as senders of different ages write them: each moves exactly its credits.

use serde_json::json;

use super::{PROCESSED, assert_account, assert_answer, assert_sound, customer};
use crate::kit::clock::{now_millis, now_secs};
use crate::kit::daemon::{Daemon, DaemonOptions};

/// A body, its event's id, whose it is (0 to 2), and his credits and thousandths carried after it.
type Case = (&'static str, &'static str, usize, i64, i64);

/// Users 0, 1 and 2 own the tokens 11, 12 and 13 and begin with 100 credits each. `NOW` and `MILLIS` become the time.
const CASES: &[Case] = &[
    // The sender of today writes its fields in the order of the alphabet.
    (
        r#"{"data":{"completionTokens":12,"cost":0.000226,"model":"gpt-4o","promptTokens":57,"remoteKeyId":11,"totalTokens":69},"eventId":"b1d6c0de-7c53-4a5c-8d36-4f0e6a2b9c01","eventType":"usage","timestamp":NOW}"#,
        "b1d6c0de-7c53-4a5c-8d36-4f0e6a2b9c01",
        0,
        100,
        226,
    ),
    (
        r#"{"data":{"completionTokens":6,"cost":0.000012,"model":"gpt-4o-mini","promptTokens":48,"remoteKeyId":12,"totalTokens":54},"eventId":"b1d6c0de-7c53-4a5c-8d36-4f0e6a2b9c02","eventType":"usage","timestamp":NOW}"#,
        "b1d6c0de-7c53-4a5c-8d36-4f0e6a2b9c02",
        1,
        100,
        12,
    ),
    (
        r#"{"data":{"completionTokens":41,"cost":0.00366,"model":"gpt-4","promptTokens":40,"remoteKeyId":13,"totalTokens":81},"eventId":"b1d6c0de-7c53-4a5c-8d36-4f0e6a2b9c03","eventType":"usage","timestamp":NOW}"#,
        "b1d6c0de-7c53-4a5c-8d36-4f0e6a2b9c03",
        2,
        97,
        660,
    ),
    // The older sender: a price in credits, and the key's id as a string. It leaves the remainder alone.
    (
        r#"{"eventId":"evt_of_the_older_sender","eventType":"usage","timestamp":NOW,"data":{"remoteKeyId":"11","model":"gpt-4","promptTokens":100,"completionTokens":50,"totalTokens":150,"creditCost":12}}"#,
        "evt_of_the_older_sender",
        0,
        88,
        226,
    ),
    // White space, text beyond ASCII, milliseconds, an exponent, a field nobody knows, no total.
    (
        "{\n\t\"eventId\" : \"evt-空白-α\",\r\n \"eventType\":\"usage\" , \"timestamp\":MILLIS,\n \"data\" : \
         {\"remoteKeyId\":12,\"model\":\"通义千问-plus\",\"promptTokens\":1,\"completionTokens\":0,\"cost\":2e-06,\
         \"extra\":{\"a\":[1,{\"cost\":7}]}}\n}\n",
        "evt-空白-α",
        1,
        100,
        14,
    ),
    // The newer sender: of several prices the quota decides.
    (
        r#"{"eventId":"01940000-0000-7000-8000-0000000000aa","eventType":"usage","timestamp":NOW,"data":{"remoteKeyId":13,"model":"gpt-4","promptTokens":44,"completionTokens":39,"totalTokens":83,"quota":1830,"cost":9.99,"creditCost":500,"requestId":"20251221065320000000000000000000OWN","logId":136}}"#,
        "01940000-0000-7000-8000-0000000000aa",
        2,
        93,
        320,
    ),
    // Cost goes before creditCost, and nothing is owed for nothing.
    (
        r#"{"eventId":"cost-first","eventType":"usage","timestamp":NOW,"data":{"remoteKeyId":13,"model":"m","promptTokens":1,"completionTokens":1,"creditCost":500,"cost":0.00068}}"#,
        "cost-first",
        2,
        92,
        0,
    ),
    (
        r#"{"eventId":"free","eventType":"usage","timestamp":NOW,"data":{"remoteKeyId":13,"model":"m","promptTokens":0,"completionTokens":0,"quota":0,"cost":1}}"#,
        "free",
        2,
        92,
        0,
    ),
];

#[test]
fn every_shape_of_a_body_moves_exactly_its_credits() {
    let daemon = Daemon::start(DaemonOptions::new());
    let users: Vec<String> =
        (0..3).map(|number| customer(&daemon, &format!("user{number}"), 100, 11 + number)).collect();
    let (seconds, millis) = (now_secs().to_string(), now_millis().to_string());
    let filled = |body: &str| body.replace("NOW", &seconds).replace("MILLIS", &millis);
    for (body, event_id, user, credits, thousandths) in CASES {
        assert_answer(&daemon.post(filled(body)), 200, true, PROCESSED, event_id);
        assert_account(&daemon, &users[*user], *credits, *thousandths, &format!("after {event_id}"));
    }
    let books = daemon.books();
    let payloads = books.rows("SELECT eventId, payload, status, errorMsg FROM webhook_logs ORDER BY id");
    let expected: Vec<_> = CASES.iter().map(|(body, event_id, ..)| (*event_id, filled(body))).collect();
    let found: Vec<_> = payloads
        .iter()
        .map(|row| (row["eventId"].as_str().unwrap(), row["payload"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!(found, expected, "the inbox keeps every body byte for byte");
    assert!(payloads.iter().all(|row| row["status"] == "processed" && row["errorMsg"].is_null()));
    assert_eq!(books.count("usage_records"), 8, "also the free call has a record");
    assert_sound(&daemon);
}

#[test]
fn a_notification_is_logged_and_charges_nobody() {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = customer(&daemon, "user", 100, 1);
    let body = r#"{"type":"quota_exceed","title":"额度即将用尽","content":"{{value}} 剩余 {{value}}","values":["…","＄0.7"],"timestamp":TIME}"#;
    let body = body.replace("TIME", &now_secs().to_string());
    let first = daemon.post(&body);
    let event_id = first.json()["eventId"].as_str().expect("an id is derived from the content").to_owned();
    assert_answer(&first, 200, false, "Unknown event type: quota_exceed", &event_id);
    assert_answer(&daemon.post(&body), 200, false, "Unknown event type: quota_exceed", &event_id);
    let rows = daemon.books().rows("SELECT eventId, payload, status, errorMsg FROM webhook_logs");
    let expected = json!([{ "eventId": event_id, "payload": body, "status": "processed",
        "errorMsg": "Unknown event type: quota_exceed" }]);
    assert_eq!(json!(rows), expected, "logged once");
    assert_account(&daemon, &user, 100, 0, "after a notification");
    assert_eq!(daemon.books().count("usage_records"), 0);
    assert_sound(&daemon);
}

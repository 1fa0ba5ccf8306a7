//! Every good event in each of its forms: charged, and booked as it was told.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::rig::{
    Body, CHARGED, CHARGED_NO_CREDIT, Counts, Intake, NOTHING, WAITING, blames, events_request, processed,
    stored_uncharged, unknown_key,
};
use crate::kit::clock::{now_millis, now_secs};
use crate::kit::sign::signature;
use crate::kit::wire::Response;

/// An event, what it leaves, and what must stand in its claim and its usage record.
struct Good {
    event_id: &'static str,
    body: Body,
    left: Counts,
    booked: BTreeMap<&'static str, Value>,
}

impl Good {
    /// A call of token 1 that costs one credit, booked as such.
    fn new(event_id: &'static str) -> Self {
        let booked = [
            ("remote_key_id", json!(1)),
            ("model", json!("gpt-4")),
            ("shownModel", json!("gpt-4")),
            ("prompt_tokens", json!(100)),
            ("completion_tokens", json!(50)),
            ("totalTokens", json!(150)),
            ("price_units", json!(500)),
            ("credits_moved", json!(1)),
            ("creditCost", json!(1)),
            ("request_id", Value::Null),
            ("log_id", Value::Null),
            ("source", json!("webhook")),
        ];
        Good { event_id, body: Body::usage(event_id), left: CHARGED, booked: booked.into() }
    }

    fn set(self, path: &str, json: impl ToString) -> Self {
        Good { body: self.body.set(path, json.to_string()), ..self }
    }

    fn without(self, path: &str) -> Self {
        Good { body: self.body.without(path), ..self }
    }

    fn books(mut self, column: &'static str, value: impl Into<Value>) -> Self {
        self.booked.insert(column, value.into());
        self
    }

    fn costs(self, units: impl Into<Value>, credits: i64) -> Self {
        let left = if credits == 0 { CHARGED_NO_CREDIT } else { CHARGED };
        let good = self.books("price_units", units).books("credits_moved", credits).books("creditCost", credits);
        Good { left, ..good }
    }

    #[track_caller]
    fn check(self, intake: &mut Intake) {
        intake.check_body(self.event_id, self.body.json(), &processed(self.event_id), self.left);
        let charge = intake.charge(self.event_id);
        for (column, value) in self.booked {
            assert_eq!(charge[column], value, "{column} of {}", self.event_id);
        }
        assert_eq!(intake.logged(self.event_id), ("processed".to_owned(), None), "{}", self.event_id);
    }
}

#[test]
fn prices() {
    let mut intake = Intake::start();
    let unpriced = |event_id| Good::new(event_id).without("data.quota");
    let rows = [
        unpriced("a cost of 0").set("data.cost", "0").costs(0, 0),
        unpriced("a cost of 0.0").set("data.cost", "0.0").costs(0, 0),
        unpriced("a cost of -0").set("data.cost", "-0").costs(0, 0),
        unpriced("a cost below half a unit").set("data.cost", "1e-300").costs(0, 0),
        unpriced("a cost of one unit").set("data.cost", "2e-06").costs(1, 0),
        unpriced("a cost as the guide shows it").set("data.cost", "0.0123").costs(6150, 12),
        unpriced("a cost with an exponent").set("data.cost", "1.23E-2").costs(6150, 12),
        unpriced("a whole cost").set("data.cost", "1").costs(500_000, 1000),
        unpriced("a cost that floats spoil").set("data.cost", "0.30000000000000004").costs(150_000, 300),
        unpriced("a price in credits").set("data.creditCost", "7").costs(Value::Null, 7),
        unpriced("a price of no credits").set("data.creditCost", "0").costs(Value::Null, 0),
        Good::new("a quota of 0").set("data.quota", "0").costs(0, 0),
        Good::new("a quota with a fraction of zero").set("data.quota", "1000.0").costs(1000, 2),
        Good::new("quota before cost").set("data.cost", "5").set("data.quota", "1500").costs(1500, 3),
        Good::new("quota before both").set("data.creditCost", "9").set("data.cost", "5").costs(500, 1),
        unpriced("cost before credits").set("data.creditCost", "9").set("data.cost", "0.5").costs(250_000, 500),
        Good::new("a quota of null").set("data.quota", "null").set("data.cost", "0.002").costs(1000, 2),
        unpriced("all but one null").set("data.cost", "null").set("data.creditCost", "4").costs(Value::Null, 4),
    ];
    let moved: i64 = rows.iter().filter_map(|good| good.booked["credits_moved"].as_i64()).sum();
    for good in rows {
        good.check(&mut intake);
    }
    assert_eq!(intake.daemon.books().balance(&intake.user), 1_000_000 - moved, "a whole credit for each booked one");
    intake.finish();
}

#[test]
fn keys_tokens_and_identities() {
    let mut intake = Intake::start();
    let long_model = "模".repeat(300);
    let request_id = "r".repeat(191);
    let rows = [
        Good::new("a key in digits").set("data.remoteKeyId", "\"1\""),
        Good::new("a total of null").set("data.totalTokens", "null"),
        Good::new("a total that is the sum").set("data.totalTokens", "150"),
        Good::new("a total of its own").set("data.totalTokens", "151").books("totalTokens", 151),
        Good::new("no tokens")
            .set("data.promptTokens", "0")
            .set("data.completionTokens", "0")
            .books("prompt_tokens", 0)
            .books("completion_tokens", 0)
            .books("totalTokens", 0),
        Good::new("as many tokens as fit")
            .set("data.promptTokens", "2147483647")
            .set("data.completionTokens", "0")
            .books("prompt_tokens", 2_147_483_647)
            .books("completion_tokens", 0)
            .books("totalTokens", 2_147_483_647),
        Good::new("a request id").set("data.requestId", "\"req-1\"").books("request_id", "req-1"),
        Good::new("a long request id")
            .set("data.requestId", format!("\"{request_id}\""))
            .books("request_id", request_id),
        Good::new("a request id of null").set("data.requestId", "null"),
        Good::new("a log id").set("data.logId", "9007199254740993").books("log_id", 9_007_199_254_740_993_i64),
        Good::new("a log id of null").set("data.logId", "null"),
        Good::new("a model longer than the column")
            .set("data.model", format!("\"{long_model}\""))
            .books("model", long_model.clone())
            .books("shownModel", "模".repeat(191)),
        Good::new("a model with spaces")
            .set("data.model", "\" a b \"")
            .books("model", " a b ")
            .books("shownModel", " a b "),
        Good::new("unknown fields").set("extra", "[{}]").set("data.extra", "{\"quota\":1}").set("data", ""),
    ];
    for good in rows {
        good.check(&mut intake);
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "nonsense", ""] {
        let what = format!("Content-Type {content_type:?}");
        let body = Body::usage(&what).json();
        let right = signature(crate::kit::daemon::SECRET, body.as_bytes());
        let headers = [("Content-Type", content_type), (super::rig::SIGNATURE, right.as_str())];
        intake.check(&what, &events_request(&headers, &body), &processed(&what), CHARGED);
    }
    intake.finish();
}

#[test]
fn event_ids_are_opaque_and_told_apart_by_their_bytes() {
    let mut intake = Intake::start();
    let longest = ["x", "é", "通", "🦀"].map(|character| character.repeat(191));
    let alike =
        ["e", "E", "e ", " e", "é", "e\u{301}", "ｅ", "🦀", "🦞", "null", "0", "00", "%00", "' OR 1=1", "\u{1}"];
    for event_id in longest.iter().map(String::as_str).chain(alike) {
        let what = format!("{event_id:.10} of {} characters", event_id.chars().count());
        intake.check_body(&what, Body::usage(event_id).json(), &processed(event_id), CHARGED);
        assert_eq!(intake.charge(event_id)["event_id"], event_id, "{what}");
    }
    intake.finish();
}

#[test]
fn what_cannot_be_charged_is_kept_and_waits() {
    let mut intake = Intake::start();
    for (remote_key_id, told) in
        [("0", "0"), ("\"0\"", "0"), ("77", "77"), ("9223372036854775807", "9223372036854775807")]
    {
        let event_id = format!("of key {remote_key_id}");
        let body = Body::usage(&event_id).set("data.remoteKeyId", remote_key_id).json();
        intake.check_body(&event_id, body, &unknown_key(told, &event_id), WAITING);
        let message = format!("API Key not found for remoteKeyId: {told}");
        assert_eq!(intake.logged(&event_id), ("failed".to_owned(), Some(message)));
    }
    // Prices that are read, and that no column of credits can hold at the present rate.
    for (path, json) in
        [("data.quota", "9223372036854775807"), ("data.cost", "1000000000"), ("data.quota", "1073741824000")]
    {
        let event_id = format!("{path} of {json}");
        let body = Body::usage(&event_id).without("data.quota").set(path, json).json();
        intake.check_body(&event_id, body, &stored_uncharged(&event_id), WAITING);
        let (status, reason) = intake.logged(&event_id);
        assert_eq!(status, "failed", "{event_id}");
        assert!(reason.is_some_and(|reason| !reason.is_empty()), "{event_id} has no reason");
    }
    assert_eq!(intake.daemon.books().balance(&intake.user), 1_000_000);
    intake.finish();
}

#[test]
fn the_tolerance_of_timestamps() {
    const DAY_SECS: i64 = 86_400;
    let mut intake = Intake::start();
    let now = now_secs();
    for (event_id, timestamp, millis) in [
        ("of yesterday", now - DAY_SECS + 60, (now - DAY_SECS + 60) * 1000),
        ("of yesterday in milliseconds", (now - DAY_SECS + 60) * 1000, (now - DAY_SECS + 60) * 1000),
        ("in seconds", now, now * 1000),
        ("in milliseconds", now * 1000 + 7, now * 1000 + 7),
        ("four minutes ahead", now + 240, (now + 240) * 1000),
    ] {
        Good::new(event_id).set("timestamp", timestamp).books("event_at_ms", millis).check(&mut intake);
    }
    let now = now_secs();
    for (what, timestamp, millis) in [
        ("six minutes ahead", now + 360, (now + 360) * 1000),
        ("a minute too old", now - DAY_SECS - 60, (now - DAY_SECS - 60) * 1000),
        ("a minute too old in milliseconds", (now - DAY_SECS - 60) * 1000, (now - DAY_SECS - 60) * 1000),
        ("of 1970", 0, 0),
        ("of 2001", 1_000_000_000, 1_000_000_000_000),
        ("the last second before milliseconds", 99_999_999_999, 99_999_999_999_000),
        ("the first millisecond after seconds", 100_000_000_000, 100_000_000_000),
        ("the last millisecond that fits", 253_402_300_799_999, 253_402_300_799_999),
    ] {
        let request = intake.daemon.signed_request(Body::usage("never").set("timestamp", timestamp).json());
        intake.check(what, &request, &blames("imestamp"), NOTHING);
        let answer = intake.daemon.connection().request(&request).expect("an answer");
        assert_tells_both_times(what, &answer, millis);
    }
    intake.finish();
}

/// A refusal for its time names the event's and ours.
#[track_caller]
fn assert_tells_both_times(what: &str, answer: &Response, event_millis: i64) {
    let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
    let words = message.split_whitespace().map(|word| word.trim_end_matches([',', ';', '.', ')']));
    let times: Vec<i64> = words
        .filter_map(|word| chrono::DateTime::parse_from_rfc3339(word).ok())
        .map(|time| time.timestamp_millis())
        .collect();
    assert!(times.contains(&event_millis), "{what}: {message} does not tell the event's time {event_millis}");
    let now = now_millis();
    assert!(times.iter().any(|time| (now - time).abs() < 60_000), "{what}: {message} does not tell our time {now}");
}

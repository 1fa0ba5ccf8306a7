//! Every field, missing and wrong in every way: refused with its name, and nothing kept.

use super::rig::{Body, Intake, NOTHING, blames};
use crate::kit::clock::now_secs;

const HUGE: &str = "99999999999999999999999999999";

/// JSON texts that are wrong for a field that wants a text.
const NO_TEXT: &[&str] = &["5", "-1", "1.5", "true", "{}", "[]", "[\"a\"]"];

/// JSON texts that are wrong for a field that wants a whole number of zero or more, up to 2^63 - 1.
const NO_WHOLE: &[&str] = &[
    "\"5\"",
    "\"\"",
    "true",
    "false",
    "{}",
    "[]",
    "[5]",
    "-1",
    "-0.5",
    "-1e-9",
    "0.5",
    "1.5",
    "1e-1",
    "1e300",
    "1e400",
    "9223372036854775808",
    "18446744073709551617",
    HUGE,
    "-9223372036854775809",
];

/// JSON texts that are beyond a 32-bit column.
const BEYOND_32_BITS: &[&str] = &["2147483648", "4294967296", "4294967297", "9223372036854775807", "2.147483648e9"];

/// Sends an event with each of these values in that field: each is refused, with the field's name.
#[track_caller]
fn assert_refused<T: AsRef<str>>(intake: &mut Intake, path: &str, values: &[T]) {
    for json in values {
        let json = json.as_ref();
        let body = Body::usage("never").set(path, json).json();
        let shown: String = json.chars().take(40).collect();
        intake.check_body(&format!("{path}: {shown}"), body, &blames(path), NOTHING);
    }
}

#[track_caller]
fn assert_required(intake: &mut Intake, path: &str) {
    let body = Body::usage("never").without(path).json();
    intake.check_body(&format!("no {path}"), body, &blames(path), NOTHING);
    assert_refused(intake, path, &["null"]);
}

/// Texts that no id may be.
fn wrong_ids() -> Vec<String> {
    let long = ["x", "é", "通", "🦀"].map(|character| format!("\"{}\"", character.repeat(192)));
    let odd = [r#""\u0000""#, r#""a\u0000b""#, r#""\ud800""#, r#""\udc00a""#, r#""\x41""#, r#""\u12""#];
    long.into_iter().chain(odd.map(str::to_owned)).collect()
}

#[test]
fn the_envelope() {
    let mut intake = Intake::start();
    for path in ["eventId", "eventType", "timestamp", "data"] {
        assert_required(&mut intake, path);
    }
    assert_refused(&mut intake, "eventId", NO_TEXT);
    assert_refused(&mut intake, "eventId", &["\"\""]);
    for json in wrong_ids() {
        let body = Body::usage("never").set("eventId", &json).json();
        // An escape that is no JSON at all is wrong before any field is.
        let blamed = if json.contains(r"\x") || json.ends_with("12\"") { "" } else { "eventId" };
        intake.check_body(&format!("eventId: {json:.40}"), body, &blames(blamed), NOTHING);
    }
    assert_refused(&mut intake, "eventType", NO_TEXT);
    assert_refused(&mut intake, "eventType", &[r#""\ud800""#]);
    assert_refused(&mut intake, "data", &["5", "\"{}\"", "true", "[]", "[1,\"gpt-4\",100,50]", "\"\""]);
    for (what, body) in [("an empty object", "{}"), ("a type that is no text", r#"{"type":5}"#)] {
        intake.check_body(what, body, &blames("eventId"), NOTHING);
    }
    let typed = r#"{"type":"quota_exceed","eventId":"never"}"#;
    intake.check_body("a notification with an eventId", typed, &blames("eventType"), NOTHING);
    let typed = r#"{"type":"quota_exceed","eventType":"usage"}"#;
    intake.check_body("a notification with an eventType", typed, &blames("eventId"), NOTHING);
    intake.finish();
}

#[test]
fn the_timestamp() {
    let mut intake = Intake::start();
    let quoted_now = format!("\"{}\"", now_secs());
    let fractional = format!("{}.5", now_secs());
    assert_refused(&mut intake, "timestamp", &[quoted_now.as_str(), "\"2026-11-24T02:31:00Z\"", &fractional]);
    assert_refused(&mut intake, "timestamp", NO_WHOLE);
    // The first millisecond of the year 10000, microseconds, nanoseconds.
    assert_refused(&mut intake, "timestamp", &["253402300800000", "1766300000000000", "1766300000000000000"]);
    intake.finish();
}

#[test]
fn the_key() {
    let mut intake = Intake::start();
    assert_required(&mut intake, "data.remoteKeyId");
    let no_whole: Vec<&str> = NO_WHOLE.iter().copied().filter(|json| *json != "\"5\"").collect();
    assert_refused(&mut intake, "data.remoteKeyId", &no_whole);
    for text in [
        "",
        "007",
        "01",
        "00",
        " 7",
        "7 ",
        "\t7",
        "7\n",
        "+7",
        "-7",
        "-0",
        "7.0",
        "7e0",
        "0x7",
        "seven",
        "1,000",
        "7\0",
        "９",
        "٧",
        "9223372036854775808",
    ] {
        assert_refused(&mut intake, "data.remoteKeyId", &[super::rig::json_text(text)]);
    }
    intake.finish();
}

#[test]
fn the_model_and_the_identities() {
    let mut intake = Intake::start();
    assert_required(&mut intake, "data.model");
    assert_refused(&mut intake, "data.model", NO_TEXT);
    assert_refused(&mut intake, "data.model", &["\"\"", r#""\u0000""#, r#""gpt\u0000-4""#, r#""\ud83e""#]);
    assert_refused(&mut intake, "data.requestId", NO_TEXT);
    for json in wrong_ids() {
        if !json.contains(r"\x") && !json.ends_with("12\"") {
            assert_refused(&mut intake, "data.requestId", &[json]);
        }
    }
    assert_refused(&mut intake, "data.logId", NO_WHOLE);
    intake.finish();
}

#[test]
fn the_token_counts() {
    let mut intake = Intake::start();
    for path in ["data.promptTokens", "data.completionTokens"] {
        assert_required(&mut intake, path);
        assert_refused(&mut intake, path, NO_WHOLE);
        assert_refused(&mut intake, path, BEYOND_32_BITS);
    }
    assert_refused(&mut intake, "data.totalTokens", NO_WHOLE);
    assert_refused(&mut intake, "data.totalTokens", BEYOND_32_BITS);
    for (prompt, completion) in [(2_147_483_647, 1), (1, 2_147_483_647), (2_147_483_647, 2_147_483_647)] {
        let body = Body::usage("never").set("data.promptTokens", prompt).set("data.completionTokens", completion);
        intake.check_body("a sum beyond the column", body.json(), &blames("data.totalTokens"), NOTHING);
    }
    intake.finish();
}

#[test]
fn the_price_in_dollars() {
    let mut intake = Intake::start();
    let wrong = [
        "\"0.1\"",
        "\"\"",
        "true",
        "{}",
        "[]",
        "[0.1]",
        "-1",
        "-0.1",
        "-1e-30",
        "-2e-06",
        "1e308",
        "1e400",
        "1e18",
        "9999999999",
        HUGE,
        "0.12345678901234567890123456789",
    ];
    assert_refused(&mut intake, "data.cost", &wrong);
    for json in ["NaN", "Infinity", "-Infinity", "nan", ".5", "5.", "+1", "00.1", "0x1", "1e", "1_000"] {
        let body = Body::usage("never").without("data.quota").set("data.cost", json).json();
        // No number of JSON's: the body is wrong as a whole, or the field is.
        intake.check_body(&format!("cost {json}"), body, &blames("JSON"), NOTHING);
    }
    intake.finish();
}

#[test]
fn the_prices_in_whole_numbers() {
    let mut intake = Intake::start();
    assert_refused(&mut intake, "data.quota", NO_WHOLE);
    assert_refused(&mut intake, "data.creditCost", NO_WHOLE);
    assert_refused(&mut intake, "data.creditCost", BEYOND_32_BITS);
    let unpriced = Body::usage("never").without("data.quota");
    for body in [unpriced.clone(), unpriced.set("data.quota", "null").set("data.cost", "null")] {
        for field in ["data.quota", "data.cost", "data.creditCost"] {
            intake.check_body(&format!("no price: {field}"), body.json(), &blames(field), NOTHING);
        }
    }
    // A price that would be used does not excuse one that is wrong.
    for (path, json) in [("data.cost", "-1"), ("data.creditCost", "1.5"), ("data.quota", "-1")] {
        let all = Body::usage("never").set("data.quota", 1).set("data.cost", 1).set("data.creditCost", 1);
        let body = all.set(path, json).json();
        intake.check_body(&format!("{path} beside good prices"), body, &blames(path), NOTHING);
    }
    intake.finish();
}

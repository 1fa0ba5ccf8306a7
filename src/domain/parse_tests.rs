//! Unit tests of the door: what it reads out of a body, and which field it blames.

use super::*;

fn usage_of(body: &str) -> UsageEvent {
    match parse_body(body.as_bytes()) {
        Ok(Delivery::Usage(event)) => event,
        other => panic!("{body}: {other:?}"),
    }
}

fn with_data(data: &str) -> String {
    format!(r#"{{"eventId":"e","eventType":"usage","timestamp":1766300000,"data":{{{data}}}}}"#)
}

const CALL: &str = r#""remoteKeyId":7,"model":"m","promptTokens":1,"completionTokens":2"#;

#[test]
fn prices_have_a_precedence() {
    let price = |fields: &str| usage_of(&with_data(&format!("{CALL},{fields}"))).content.price;
    let quota = Price::Quota(QuotaUnits::new(1830).unwrap());
    assert_eq!(price(r#""creditCost":9,"cost":0.5,"quota":1830"#), quota);
    assert_eq!(price(r#""creditCost":9,"cost":2e-06"#), Price::CostUsd(Decimal::parse("0.000002").unwrap()));
    assert_eq!(price(r#""creditCost":9"#), Price::CreditCost(Credits::new(9)));
    assert_eq!(price(r#""quota":null,"creditCost":9"#), Price::CreditCost(Credits::new(9)));
}

#[test]
fn seconds_and_milliseconds_are_one_instant() {
    let at = |timestamp: &str| {
        let body = with_data(&format!("{CALL},\"quota\":1")).replace("1766300000", timestamp);
        usage_of(&body).content.called_at
    };
    assert_eq!(at("1766300000"), at("1766300000000"));
    assert_eq!(at("99999999999"), UnixMillis::new(99_999_999_999_000));
}

#[test]
fn identity_survives_byte_for_byte() {
    let event = usage_of(&with_data(&format!("{CALL},\"quota\":1")).replace(r#""e""#, r#""évt-\u2603 ""#));
    assert_eq!(event.event_id.as_str(), "évt-☃ ");
    assert!(event.payload.contains(r"\u2603"), "the payload stays as it came");
}

#[test]
fn the_sum_stands_in_for_an_absent_total() {
    let tokens = usage_of(&with_data(&format!("{CALL},\"quota\":1"))).content.tokens;
    assert_eq!(tokens, Tokens { prompt: 1, completion: 2, total: 3 });
    let stated = usage_of(&with_data(&format!("{CALL},\"totalTokens\":9,\"quota\":1"))).content.tokens;
    assert_eq!(stated.total, 9);
}

#[test]
fn a_notification_gets_an_id_from_its_bytes() {
    let parse = |body: &str| match parse_body(body.as_bytes()) {
        Ok(Delivery::Notice(notice)) => notice,
        other => panic!("{other:?}"),
    };
    let first = parse(r#"{"type":"quota_exceed","timestamp":1}"#);
    assert_eq!(first.kind.message().as_deref(), Some("Unknown event type: quota_exceed"));
    assert_eq!(first.event_id, parse(r#"{"type":"quota_exceed","timestamp":1}"#).event_id);
    assert_ne!(first.event_id, parse(r#"{"type":"quota_exceed","timestamp":2}"#).event_id);
    let unknown = parse(r#"{"eventId":"u","eventType":"refund"}"#);
    assert_eq!(unknown.kind.message().as_deref(), Some("Unknown event type: refund"));
}

#[test]
fn refusals_name_the_field() {
    let blamed = |body: String| match parse_body(body.as_bytes()) {
        Err(problem) => problem.to_string(),
        Ok(parsed) => panic!("{body}: {parsed:?}"),
    };
    for (data, blame) in [
        (r#""model":"m","promptTokens":1,"completionTokens":2,"quota":1"#, "Missing field: data.remoteKeyId"),
        (r#""remoteKeyId":"07","model":"m""#, "data.remoteKeyId"),
        (r#""remoteKeyId":-7,"model":"m""#, "data.remoteKeyId: must not be negative"),
        (r#""remoteKeyId":7,"model":5"#, "data.model: must be a string"),
        (r#""remoteKeyId":7,"model":"""#, "data.model"),
        (r#""remoteKeyId":7,"model":"m","promptTokens":1.5"#, "data.promptTokens: must be a whole number"),
        (r#""remoteKeyId":7,"remoteKeyId":7"#, "duplicate field `remoteKeyId`"),
    ] {
        let message = blamed(with_data(data));
        assert!(message.contains(blame), "{message} should blame {blame}");
    }
    for (fields, blame) in [
        ("", "Missing field: data.quota, data.cost or data.creditCost"),
        (r#","cost":-0.1"#, "data.cost: must not be negative"),
        (r#","cost":1e308"#, "data.cost"),
        (r#","cost":"0.1""#, "data.cost: must be a number"),
        (r#","cost":true"#, "data.cost"),
        (r#","quota":1,"cost":-1"#, "data.cost"),
        (r#","creditCost":2147483648"#, "data.creditCost"),
        (r#","creditCost":1.5"#, "data.creditCost: must be a whole number"),
        (r#","quota":9223372036854775808"#, "data.quota: is too large"),
        (r#","quota":1,"totalTokens":-1"#, "data.totalTokens"),
        (r#","quota":1,"logId":"x""#, "data.logId"),
    ] {
        let message = blamed(with_data(&format!("{CALL}{fields}")));
        assert!(message.contains(blame), "{message} should blame {blame}");
    }
}

#[test]
fn what_is_no_object_is_refused_whole() {
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    for body in ["", "text", "[]", "{", r#""{}""#, "{}x", "{\"eventId\":\"\0\"}", &deep] {
        assert!(matches!(parse_body(body.as_bytes()), Err(Malformed::NotAnObject(_))), "{body:.40}");
    }
    assert!(matches!(parse_body(b"{\"eventId\":\"\xff\"}"), Err(Malformed::NotAnObject(_))));
    let nested = with_data(&format!("{CALL},\"quota\":1,\"unknown\":{deep}"));
    assert_eq!(usage_of(&nested).event_id.as_str(), "e", "unknown fields are skipped, however deep");
}

#[test]
fn a_lone_surrogate_is_no_text() {
    let body = with_data(&format!("{CALL},\"quota\":1")).replace(r#""e""#, r#""\ud800""#);
    assert!(matches!(parse_body(body.as_bytes()), Err(Malformed::Invalid { field: "eventId", .. })));
}

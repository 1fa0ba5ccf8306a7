//! The body of an event, as the Receiver parses it: what is accepted is within its limits, and written out again it is
//! the same event.

#![no_main]

use hookledger::domain::event::{Delivery, UsageEvent};
use hookledger::domain::ids::MAX_ID_CHARS;
use hookledger::domain::parse::parse_body;
use hookledger::domain::pricing::Price;
use hookledger::domain::signature::{Verifier, sign};
use hookledger::domain::time::UnixMillis;
use libfuzzer_sys::fuzz_target;
use serde_json::json;

const SECRET: &str = "fuzz-secret-0123456789abcdef0123456789";
const OTHER: &str = "other-secret-0123456789abcdef0123456789";

fuzz_target!(|body: &[u8]| {
    check_signature(body);
    match parse_body(body) {
        Ok(Delivery::Usage(event)) => {
            assert_eq!(event.payload.as_bytes(), body, "kept byte for byte");
            check(&event);
        }
        Ok(Delivery::Notice(notice)) => {
            assert_eq!(notice.payload.as_bytes(), body, "kept byte for byte");
            check_id(notice.event_id.as_str());
            assert!(notice.kind.message().is_none_or(|message| !message.is_empty()));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

fn check_signature(body: &[u8]) {
    let verifier = Verifier::new([SECRET]);
    let right = sign(SECRET, body);
    assert!(verifier.verify(body, right.as_bytes()));
    assert!(!verifier.verify(body, sign(OTHER, body).as_bytes()), "another's secret");
    assert!(!Verifier::new([]).verify(body, right.as_bytes()), "no secret");
    // The input itself may look like a signature.
    assert!(!verifier.verify(b"{}", body), "a guess");
    if let Some((first, rest)) = body.split_first() {
        let changed = [&[first ^ 1], rest].concat();
        assert!(!verifier.verify(&changed, right.as_bytes()), "a changed body");
    }
}

fn check_id(id: &str) {
    let length = id.chars().count();
    assert!((1..=MAX_ID_CHARS).contains(&length) && !id.contains('\0'), "{id:?}");
}

fn check(event: &UsageEvent) {
    let content = &event.content;
    check_id(event.event_id.as_str());
    event.request_id.iter().for_each(|id| check_id(id.as_str()));
    assert!(event.log_id.is_none_or(|id| id > 0));
    assert!(content.remote_key_id.get() >= 0);
    assert!(!content.model.is_empty() && !content.model.contains('\0'));
    let tokens = content.tokens;
    assert!(tokens.prompt >= 0 && tokens.completion >= 0 && tokens.total >= 0, "{tokens:?}");
    assert!((0..=UnixMillis::MAX.as_millis()).contains(&content.called_at.as_millis()));
    let (name, price) = match content.price {
        Price::Quota(units) => ("quota", units.get().to_string()),
        Price::CostUsd(cost) => {
            assert!(cost.times_rounded(1).is_ok_and(|dollars| (0..=1_000_000_000).contains(&dollars)), "{cost}");
            ("cost", cost.to_string())
        }
        Price::CreditCost(credits) => {
            assert!((0..=i64::from(i32::MAX)).contains(&credits.get()), "{credits}");
            ("creditCost", credits.to_string())
        }
    };
    let millis = content.called_at.as_millis();
    // Small numbers are seconds.
    let timestamp = if millis < 100_000_000_000 { millis / 1000 } else { millis };
    let data = json!({
        "remoteKeyId": content.remote_key_id.to_string(), "model": &*content.model, "promptTokens": tokens.prompt,
        "completionTokens": tokens.completion, "totalTokens": tokens.total, "logId": event.log_id,
        "requestId": event.request_id.as_ref().map(|id| id.as_str()), name: 0,
    });
    let again =
        json!({ "eventId": event.event_id.as_str(), "eventType": "usage", "timestamp": timestamp, "data": data });
    // As it was written: no price passes through a float.
    let again = again.to_string().replacen(&format!("\"{name}\":0"), &format!("\"{name}\":{price}"), 1);
    match parse_body(again.as_bytes()) {
        Ok(Delivery::Usage(same)) => {
            assert_eq!(same.content, event.content, "{again}");
            assert_eq!(same.event_id, event.event_id, "{again}");
            assert_eq!((same.request_id, same.log_id), (event.request_id.clone(), event.log_id), "{again}");
        }
        other => panic!("{again}: {other:?}"),
    }
}

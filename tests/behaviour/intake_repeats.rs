//! The same event again, and the same id with other content.

use super::rig::{
    Body, CHARGED, Expected, Intake, LOGGED, NOTHING, WAITING, conflict, processed, repeated, unknown_key, working,
};
use crate::kit::clock::{now_millis, now_secs};
use crate::kit::events::ping;

#[track_caller]
fn assert_conflicts(intake: &Intake, expected: usize) {
    let counted = intake.daemon.metric(r#"hookledger_webhook_requests_total{outcome="conflict"}"#);
    assert_eq!(counted.map(|count| count.round() as usize), Some(expected), "conflicts counted");
}

/// Each of these changes makes other content of an event.
fn changed(body: &Body, at_secs: i64) -> Vec<(&'static str, Body)> {
    vec![
        ("another key", body.clone().set("data.remoteKeyId", 2)),
        ("an unknown key", body.clone().set("data.remoteKeyId", 77)),
        ("another model", body.clone().set("data.model", "\"gpt-4o\"")),
        ("the model in other letters", body.clone().set("data.model", "\"GPT-4\"")),
        ("the model and a space", body.clone().set("data.model", "\"gpt-4 \"")),
        ("more prompt tokens", body.clone().set("data.promptTokens", 101)),
        ("fewer completion tokens", body.clone().set("data.completionTokens", 49)),
        ("tokens exchanged", body.clone().set("data.promptTokens", 50).set("data.completionTokens", 100)),
        ("another total", body.clone().set("data.totalTokens", 151)),
        ("one unit more", body.clone().set("data.quota", 501)),
        ("no price", body.clone().set("data.quota", 0)),
        ("a price in dollars", body.clone().without("data.quota").set("data.cost", "0.5")),
        ("a price in credits", body.clone().without("data.quota").set("data.creditCost", 2)),
        ("a second later", body.clone().set("timestamp", at_secs + 1)),
        ("a second earlier", body.clone().set("timestamp", at_secs - 1)),
        ("a millisecond later", body.clone().set("timestamp", at_secs * 1000 + 1)),
    ]
}

/// The event is settled as `first` says; its repeats are answered as `again` says, and other content is refused.
#[track_caller]
fn assert_remembered(intake: &mut Intake, body: &Body, at_secs: i64, again: &Expected) -> usize {
    for turn in ["once more", "and once more"] {
        intake.check_body(turn, body.json(), again, NOTHING);
    }
    let changes = changed(body, at_secs);
    for (what, changed) in &changes {
        intake.check_body(what, changed.json(), &conflict(), NOTHING);
    }
    let event_id = "remembered";
    intake.check_body("a ping under its id", ping(event_id), &working(), NOTHING);
    intake.check_body("the event itself after all that", body.json(), again, NOTHING);
    changes.len()
}

#[test]
fn a_charged_event_is_charged_once_and_other_content_never() {
    let mut intake = Intake::start();
    let at_secs = now_secs() - 10;
    let body = Body::usage("remembered").set("timestamp", at_secs);
    intake.check_body("the event", body.json(), &processed("remembered"), CHARGED);
    let conflicts = assert_remembered(&mut intake, &body, at_secs, &repeated("remembered"));
    assert_conflicts(&intake, conflicts);
    assert_eq!(intake.daemon.books().balance(&intake.user), 1_000_000 - 1);
    intake.finish();
}

#[test]
fn a_failed_event_is_remembered_too() {
    let mut intake = Intake::start();
    let at_secs = now_secs() - 10;
    let body = Body::usage("remembered").set("timestamp", at_secs).set("data.remoteKeyId", 66);
    let failed = unknown_key("66", "remembered");
    intake.check_body("the event", body.json(), &failed, WAITING);
    let conflicts = assert_remembered(&mut intake, &body, at_secs, &failed);
    assert_conflicts(&intake, conflicts);
    let message = "API Key not found for remoteKeyId: 66".to_owned();
    assert_eq!(intake.logged("remembered"), ("failed".to_owned(), Some(message)));
    assert_eq!(intake.daemon.books().balance(&intake.user), 1_000_000);
    intake.finish();
}

#[test]
fn an_event_under_the_id_of_something_else_is_not_charged() {
    let mut intake = Intake::start();
    intake.check_body("a ping", ping("taken"), &working(), LOGGED);
    intake.check_body("a call under its id", Body::usage("taken").json(), &conflict(), NOTHING);
    let refund = r#"{"eventType":"refund","eventId":"also taken"}"#;
    intake.check_body("an unknown type", refund, &super::rig::unknown_type("refund", "also taken"), LOGGED);
    intake.check_body("a call under its id", Body::usage("also taken").json(), &conflict(), NOTHING);
    assert_conflicts(&intake, 2);
    assert_eq!(intake.daemon.books().balance(&intake.user), 1_000_000);
    intake.finish();
}

#[test]
fn equal_content_is_a_repeat_however_it_is_written() {
    let mut intake = Intake::start();
    let at_secs = now_secs() - 10;
    let body = Body::usage("same").set("timestamp", at_secs).without("data.quota").set("data.cost", "0.0123");
    intake.check_body("as first written", body.json(), &processed("same"), CHARGED);
    let backwards = format!(
        r#"{{ "data" : {{ "cost" : 0.0123 , "completionTokens" : 50 , "promptTokens" : 100 , "model" : "gpt-4" ,
           "remoteKeyId" : 1 }} , "timestamp" : {at_secs} , "eventType" : "usage" , "eventId" : "same" }}"#
    );
    let rewritten = [
        ("in another order, with spaces", backwards),
        ("in milliseconds", body.clone().set("timestamp", at_secs * 1000).json()),
        ("seconds with an exponent", body.clone().set("timestamp", format!("{at_secs}.0")).json()),
        ("cost with an exponent", body.clone().set("data.cost", "1.23e-2").json()),
        ("cost with zeros behind", body.clone().set("data.cost", "0.012300").json()),
        ("cost with a capital exponent", body.clone().set("data.cost", "123E-4").json()),
        ("key as text", body.clone().set("data.remoteKeyId", "\"1\"").json()),
        ("the total written out", body.clone().set("data.totalTokens", 150).json()),
        ("a total of null", body.clone().set("data.totalTokens", "null").json()),
        ("tokens with an exponent", body.clone().set("data.promptTokens", "1e2").json()),
        ("a cheaper price field beside it", body.clone().set("data.creditCost", 99).json()),
        ("escaped letters", body.json().replace("gpt-4", r"g\u0070t-4").replace("same", r"s\u0061me")),
        ("unknown fields", body.clone().set("attempt", 2).set("data.extra", "null").json()),
        ("a request id", body.clone().set("data.requestId", "\"r\"").json()),
        ("framed by spaces", format!("\n {} \n", body.json())),
    ];
    for (what, body) in rewritten {
        intake.check_body(what, body, &repeated("same"), NOTHING);
    }
    let sql = "SELECT hex(payload) FROM webhook_logs WHERE eventId = 'same'";
    let kept = intake.daemon.books().scalar_text(sql);
    assert_eq!(kept, hex::encode_upper(body.json()), "the first delivery is kept");
    intake.finish();
}

#[test]
fn a_call_of_the_same_content_under_another_id_is_another_call() {
    let mut intake = Intake::start();
    let body = Body::usage("first").set("timestamp", now_millis()).set("data.quota", 1000);
    for event_id in ["first", "second", "third"] {
        let body = body.clone().set("eventId", super::rig::json_text(event_id)).json();
        intake.check_body(event_id, body, &processed(event_id), CHARGED);
    }
    assert_eq!(intake.daemon.books().balance(&intake.user), 1_000_000 - 3 * 2);
    intake.finish();
}

//! What moves no credits: pings, unknown types, notifications to users, and a webhook that is switched off.

use super::rig::{
    Body, Expected, Intake, LOGGED, NOTHING, blames, disabled, notified, turned_away, unknown_type, working,
};
use crate::kit::clock::now_secs;
use crate::kit::events::{notification, ping};

/// A rightly signed body whose repeat must be answered alike, and leave nothing more.
#[track_caller]
fn assert_logged_once(intake: &mut Intake, what: &str, body: &str, expected: &Expected) {
    intake.check_body(what, body, expected, LOGGED);
    intake.check_body(&format!("{what}, again"), body, expected, NOTHING);
}

#[track_caller]
fn assert_logged(intake: &Intake, event_id: &str, message: Option<&str>) {
    assert_eq!(intake.logged(event_id), ("processed".to_owned(), message.map(str::to_owned)), "{event_id}");
}

#[test]
fn a_ping_is_answered_logged_and_never_charged() {
    let mut intake = Intake::start();
    assert_logged_once(&mut intake, "a ping", &ping("ping"), &working());
    assert_logged(&intake, "ping", None);
    for (event_id, timestamp) in [("old", 0_i64), ("of 2001", 1_000_000_000), ("of 2100", 4_102_444_800_000)] {
        let body = Body::usage(event_id).set("eventType", "\"ping\"").set("timestamp", timestamp).without("data");
        assert_logged_once(&mut intake, event_id, &body.json(), &working());
        assert_logged(&intake, event_id, None);
    }
    let priced = Body::usage("with data").set("eventType", "\"ping\"").json();
    assert_logged_once(&mut intake, "a ping with data", &priced, &working());
    let odd = Body::usage("odd data").set("eventType", "\"ping\"").set("data", "5").json();
    assert_logged_once(&mut intake, "a ping with data that is none", &odd, &working());

    let wrong = Body::usage("never").set("eventType", "\"ping\"");
    for path in ["timestamp", "eventId"] {
        let body = wrong.clone().without(path).json();
        intake.check_body(&format!("a ping without {path}"), body, &blames(path), NOTHING);
    }
    let body = wrong.set("timestamp", "\"now\"").json();
    intake.check_body("a ping with a wrong timestamp", body, &blames("timestamp"), NOTHING);
    assert_eq!(intake.daemon.books().balance(&intake.user), 1_000_000);
    intake.finish();
}

#[test]
fn an_unknown_type_is_answered_and_logged_once() {
    let mut intake = Intake::start();
    for kind in ["refund", "USAGE", "usage ", " ping", "Ping", "usages", "", "通义🦀", "quota_exceed"] {
        let event_id = format!("of type {kind:?}");
        let body = Body::usage(&event_id).set("eventType", super::rig::json_text(kind)).json();
        assert_logged_once(&mut intake, &event_id, &body, &unknown_type(kind, &event_id));
        assert_logged(&intake, &event_id, Some(&format!("Unknown event type: {kind}")));
    }
    let bare = r#"{"eventType":"refund","eventId":"bare"}"#;
    assert_logged_once(&mut intake, "only an id and a type", bare, &unknown_type("refund", "bare"));
    assert_logged(&intake, "bare", Some("Unknown event type: refund"));
    for (event_id, path, json) in [
        ("wrong time", "timestamp", "\"yesterday\""),
        ("old", "timestamp", "1"),
        ("wrong data", "data", "[]"),
        ("wrong key", "data.remoteKeyId", "-1"),
    ] {
        let body = Body::usage(event_id).set("eventType", "\"refund\"").set(path, json).json();
        assert_logged_once(&mut intake, event_id, &body, &unknown_type("refund", event_id));
    }
    let without_id = Body::usage("never").set("eventType", "\"refund\"").without("eventId").json();
    intake.check_body("without an id", without_id, &blames("eventId"), NOTHING);

    let long = "长".repeat(500);
    let body = Body::usage("long").set("eventType", format!("\"{long}\"")).json();
    let answer = intake.daemon.post(&body).json();
    assert_eq!((&answer["success"], &answer["eventId"]), (&false.into(), &"long".into()), "{answer}");
    let stored = intake.logged("long").1.unwrap_or_default();
    assert!(stored.starts_with("Unknown event type: 长") && stored.chars().count() <= 191, "{stored}");
    intake.assert_left("a type longer than the column", LOGGED);
    intake.finish();
}

#[test]
fn a_notification_is_logged_once_under_an_id_of_its_content() {
    let mut intake = Intake::start();
    let first = notification("quota_exceed");
    let rows = [
        ("as new-api sends it", first.clone(), "quota_exceed"),
        ("with other content", first.replace("\"v\"", "\"w\""), "quota_exceed"),
        ("of another type", first.replace("quota_exceed", "channel_update"), "channel_update"),
        ("with nulls for ids", first.replacen('{', r#"{"eventId":null,"eventType":null,"#, 1), "quota_exceed"),
        ("of only a type", r#"{"type":"test"}"#.to_owned(), "test"),
        ("old", r#"{"type":"quota_exceed","timestamp":1}"#.to_owned(), "quota_exceed"),
        ("with data", r#"{"type":"usage","data":{"remoteKeyId":1,"quota":500}}"#.to_owned(), "usage"),
    ];
    for (what, body, kind) in &rows {
        assert_logged_once(&mut intake, what, body, &notified(kind));
        let told = [intake.daemon.post(body).json(), intake.daemon.post(body).json()];
        assert_eq!(told[0], told[1], "{what}");
    }
    for (what, body, kind) in &rows {
        let sql = format!(
            "SELECT count(*) FROM webhook_logs WHERE hex(payload) = '{}' AND status = 'processed'
               AND errorMsg = 'Unknown event type: {kind}'",
            hex::encode_upper(body)
        );
        assert_eq!(intake.daemon.books().scalar_i64(&sql), 1, "rows of the notification {what}");
    }
    intake.finish();
}

#[test]
fn a_webhook_that_is_switched_off_takes_no_usage_and_records_none() {
    let mut intake = Intake::start_disabled();
    let usage = Body::usage("refused");
    intake.check_body("a good event", usage.json(), &disabled(), NOTHING);
    intake.check_body("the same again", usage.json(), &disabled(), NOTHING);
    let unknown = usage.clone().set("data.remoteKeyId", 77).json();
    intake.check_body("an event of an unknown key", unknown, &disabled(), NOTHING);
    let malformed = usage.clone().without("data.model").json();
    intake.check_body("a malformed event", malformed, &blames("data.model"), NOTHING);
    let old = usage.clone().set("timestamp", now_secs() - 2 * 86_400).json();
    intake.check_body("an old event", old, &blames("imestamp"), NOTHING);
    assert_logged_once(&mut intake, "a ping", &ping("ping"), &working());
    let refund = usage.set("eventId", "\"r\"").set("eventType", "\"refund\"").json();
    assert_logged_once(&mut intake, "an unknown type", &refund, &unknown_type("refund", "r"));
    assert_logged_once(&mut intake, "a notification", &notification("test"), &notified("test"));

    let health = intake.daemon.get("/api/webhooks/health");
    turned_away(503).assert_met("health", &health);
    turned_away(503).assert_met("readiness", &intake.daemon.get("/readyz"));
    assert_eq!(intake.daemon.get("/healthz").status, 200, "the process lives");
    assert_eq!(intake.daemon.books().balance(&intake.user), 1_000_000);
    intake.finish();
}

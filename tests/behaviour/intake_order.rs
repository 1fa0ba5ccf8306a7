//! Requests that are wrong in two ways: the check that comes first answers, and says nothing of the rest.

use super::rig::{
    Body, CHARGED, Expected, Intake, LOGGED, NOTHING, SIGNATURE, WAITING, badly_signed, blames, conflict, disabled,
    events_request, processed, repeated, turned_away, unknown_key, unknown_type, unsigned, working,
};
use crate::kit::clock::now_secs;
use crate::kit::sign::EVENTS_PATH;
use crate::kit::wire::http_request;

/// Seconds that `webhook.max_age` has passed by for long.
fn long_ago() -> i64 {
    now_secs() - 30 * 86_400
}

#[test]
fn nothing_is_told_of_the_content_before_the_signature_holds() {
    let mut intake = Intake::start();
    let charged = Body::usage("charged");
    intake.check_body("an event", charged.json(), &processed("charged"), CHARGED);
    let wrong = "0".repeat(64);
    let bodies = [
        ("empty", String::new()),
        ("malformed", "{".to_owned()),
        ("without a model", Body::usage("never").without("data.model").json()),
        ("expired", Body::usage("never").set("timestamp", long_ago()).json()),
        ("of an unknown key", Body::usage("never").set("data.remoteKeyId", 77).json()),
        ("of an unknown type", Body::usage("never").set("eventType", "\"refund\"").json()),
        ("a ping", crate::kit::events::ping("never")),
        ("a notification", crate::kit::events::notification("test")),
        ("charged before", charged.json()),
        ("charged before with other content", charged.set("data.quota", 501).json()),
        ("good", Body::usage("never").json()),
    ];
    for (what, body) in bodies {
        let badly = events_request(&[(SIGNATURE, &wrong)], &body);
        intake.check(&format!("{what}, badly signed"), &badly, &badly_signed(), NOTHING);
        intake.check(&format!("{what}, unsigned"), &events_request(&[], &body), &unsigned(), NOTHING);
    }
    intake.finish();
}

#[test]
fn path_and_method_and_size_come_before_the_signature() {
    let mut intake = Intake::start();
    let large = "x".repeat(65_537);
    let wrong = "0".repeat(64);
    let rows = [
        ("no such path, unsigned", http_request("POST", "/nope", &[], b"{"), 404),
        ("no such path, badly signed", http_request("POST", "/nope", &[(SIGNATURE, &wrong)], b"{"), 404),
        ("no such path, wrong method", http_request("PUT", "/nope", &[], b"{"), 404),
        ("no such path, too large", http_request("POST", "/nope", &[("Content-Length", "65537")], b"{"), 404),
        ("wrong method, unsigned", http_request("PUT", EVENTS_PATH, &[], b"{"), 405),
        ("wrong method, too large", http_request("PUT", EVENTS_PATH, &[("Content-Length", "65537")], b"{"), 405),
        ("too large, unsigned", events_request(&[], &large), 413),
        ("too large, badly signed", events_request(&[(SIGNATURE, &wrong)], &large), 413),
        ("declared too large, unsigned", events_request(&[("Content-Length", "65537")], "{"), 413),
    ];
    for (what, request, status) in rows {
        intake.check(what, &request, &turned_away(status), NOTHING);
    }
    intake.check_body("too large, malformed", &large, &turned_away(413), NOTHING);
    intake.finish();
}

#[test]
fn form_comes_before_type_and_type_before_time_and_time_before_memory() {
    let mut intake = Intake::start();
    let charged = Body::usage("charged");
    intake.check_body("an event", charged.json(), &processed("charged"), CHARGED);
    let old = Body::usage("never").set("timestamp", long_ago());
    let old_and_known = charged.clone().set("timestamp", long_ago());
    let unpriced = old.clone().without("data.quota");
    let refused: [(&str, Body, Expected); 5] = [
        ("malformed and expired", unpriced, blames("data.quota")),
        (
            "malformed and of an unknown key",
            { Body::usage("never").set("data.remoteKeyId", 77).set("data.cost", -1) },
            blames("data.cost"),
        ),
        ("expired and of an unknown key", old.clone().set("data.remoteKeyId", 77), blames("imestamp")),
        ("expired and known with other content", old_and_known, blames("imestamp")),
        ("of an unknown key and known with other content", charged.clone().set("data.remoteKeyId", 77), conflict()),
    ];
    for (what, body, expected) in refused {
        intake.check_body(what, body.json(), &expected, NOTHING);
    }
    let typed = |event_id: &str, kind: &str| {
        old.clone().set("eventId", format!("\"{event_id}\"")).set("eventType", format!("\"{kind}\"")).json()
    };
    intake.check_body("unknown type, expired", typed("u", "refund"), &unknown_type("refund", "u"), LOGGED);
    intake.check_body("ping, expired", typed("p", "ping"), &working(), LOGGED);
    let parked = Body::usage("parked").set("data.remoteKeyId", 77).json();
    intake.check_body("of an unknown key", parked, &unknown_key("77", "parked"), WAITING);
    intake.check_body("the first event again", charged.json(), &repeated("charged"), NOTHING);
    intake.finish();
}

#[test]
fn a_disabled_webhook_still_checks_what_comes_before() {
    let mut intake = Intake::start_disabled();
    let good = Body::usage("never");
    let wrong = "0".repeat(64);
    intake.check("unsigned", &events_request(&[], good.json()), &unsigned(), NOTHING);
    intake.check("badly signed", &events_request(&[(SIGNATURE, &wrong)], good.json()), &badly_signed(), NOTHING);
    intake.check("no such path", &http_request("POST", "/nope", &[], b"{"), &turned_away(404), NOTHING);
    intake.check("wrong method", &http_request("GET", EVENTS_PATH, &[], b""), &turned_away(405), NOTHING);
    intake.check_body("too large", "x".repeat(65_537), &turned_away(413), NOTHING);
    intake.check_body("malformed", good.clone().without("data").json(), &blames("data"), NOTHING);
    intake.check_body("expired", good.clone().set("timestamp", long_ago()).json(), &blames("imestamp"), NOTHING);
    intake.check_body("good", good.json(), &disabled(), NOTHING);
    intake.finish();
}

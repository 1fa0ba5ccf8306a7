//! Paths and methods: what is answered where, and that health is told.

use super::rig::{Body, CHARGED, Intake, NOTHING, processed, turned_away};
use crate::kit::clock::now_millis;
use crate::kit::daemon::SECRET;
use crate::kit::sign::{EVENTS_PATH, signature};
use crate::kit::wire::http_request;

const HEALTH_PATH: &str = "/api/webhooks/health";

/// A rightly signed event by another method, or to another place.
fn stray_request(method: &str, path: &str) -> Vec<u8> {
    let body = Body::usage("never").json();
    let right = signature(SECRET, body.as_bytes());
    http_request(method, path, &[(super::rig::SIGNATURE, &right)], body.as_bytes())
}

#[test]
fn a_path_that_is_none_is_404_by_any_method() {
    let mut intake = Intake::start();
    for path in [
        "/",
        "/api",
        "/api/webhooks",
        "/api/webhooks/",
        "/api/webhooks/event",
        "/api/webhooks/events/",
        "/api/webhooks/events/1",
        "/api/webhooks/EVENTS",
        "//api/webhooks/events",
        "/api/webhooks/../webhooks/events",
        "/api/webhooks/events%00",
        "/webhooks/events",
        "/health",
        "/metrics",
        "/admin/v1/users",
        "/admin/v1/credits/grants",
    ] {
        for method in ["POST", "GET", "PUT", "DELETE"] {
            let what = format!("{method} {path}");
            intake.check(&what, &stray_request(method, path), &turned_away(404), NOTHING);
        }
    }
    intake.finish();
}

#[test]
fn a_wrong_method_is_405_and_says_which_is_right() {
    let mut intake = Intake::start();
    let rows = [
        (EVENTS_PATH, "POST", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"]),
        (HEALTH_PATH, "GET", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
        ("/healthz", "GET", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
        ("/readyz", "GET", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"]),
    ];
    for (path, right, wrong) in rows {
        for method in wrong {
            let what = format!("{method} {path}");
            intake.check(&what, &stray_request(method, path), &turned_away(405), NOTHING);
            let answer = intake.daemon.connection().request(&stray_request(method, path)).expect("an answer");
            let allowed = answer.header("Allow").unwrap_or_default();
            assert!(allowed.split(", ").any(|method| method == right), "{what} allows {allowed:?}");
            assert!(!allowed.split(", ").any(|allowed| allowed == method), "{what} allows {allowed:?}");
        }
    }
    let head = http_request("HEAD", EVENTS_PATH, &[], b"");
    let answer = intake.daemon.connection().request(&head).expect("an answer");
    assert_eq!((answer.status, answer.header("Allow")), (405, Some("POST")), "HEAD");
    intake.assert_left("HEAD", NOTHING);
    intake.check_body("POST", Body::usage("right").json(), &processed("right"), CHARGED);
    intake.finish();
}

#[test]
fn health_is_told_without_authentication() {
    let mut intake = Intake::start();
    let answer = intake.daemon.get(HEALTH_PATH);
    let body = answer.json();
    assert_eq!(answer.status, 200, "{body}");
    assert_eq!((&body["success"], &body["message"]), (&true.into(), &"Webhook service is healthy".into()));
    let timestamp = body["timestamp"].as_str().unwrap_or_default();
    let time = chrono::DateTime::parse_from_rfc3339(timestamp).unwrap_or_else(|error| panic!("{timestamp}: {error}"));
    assert!((time.timestamp_millis() - now_millis()).abs() < 60_000, "{timestamp} is not now");
    assert!(timestamp.ends_with('Z') && timestamp.len() == "2026-11-24T02:31:00.000Z".len(), "{timestamp}");
    for path in ["/healthz", "/readyz"] {
        let answer = intake.daemon.get(path);
        assert_eq!((answer.status, &answer.json()["success"]), (200, &true.into()), "{path}: {}", answer.text());
    }
    intake.assert_left("asking for health", NOTHING);
    intake.finish();
}

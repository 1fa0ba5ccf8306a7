//! `events`: the inbox as people and programs see it, and every fact about one charge.

use serde_json::{Value, json};

use super::{failing, fine, migrated};
use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::{Usage, ping};

fn ids(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|event| event["eventId"].as_str().unwrap()).collect()
}

/// Three events: charged, failed, a ping. They stay when the daemon stops.
fn with_events() -> Daemon {
    let daemon = Daemon::start(DaemonOptions::new());
    let user = daemon.add_user("user@example.com", 100);
    daemon.add_key(&user, 1);
    let bodies = [
        Usage::new("evt-part").remote_key(1).quota(100).json(),
        Usage::new("evt-charged").remote_key(1).model("gpt-4").tokens(44, 39).quota(1830).at_secs(now_secs()).json(),
        Usage::new("evt-failed").remote_key(99).quota(500).json(),
        ping("evt-ping"),
    ];
    for body in bodies {
        assert_eq!(daemon.post(body).status, 200);
    }
    daemon
}

fn look(daemon: &Daemon) {
    let all = daemon.command_json(&["events", "list"]);
    assert_eq!(ids(&all), ["evt-ping", "evt-failed", "evt-charged", "evt-part"], "newest first");
    let of = |status: &str| daemon.command_json(&["events", "list", "--status", status]);
    assert_eq!(ids(&of("failed")), ["evt-failed"]);
    assert_eq!(ids(&of("processed")), ["evt-ping", "evt-charged", "evt-part"]);
    assert_eq!((of("pending"), of("dead")), (json!([]), json!([])));
    assert_eq!(ids(&daemon.command_json(&["events", "list", "--limit", "2"])), ["evt-ping", "evt-failed"]);
    let failed = &of("failed")[0];
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["errorMessage"], "API Key not found for remoteKeyId: 99");
    for name in ["createdAt", "processedAt"] {
        assert_eq!(failed[name].as_str().map(str::len), Some(23), "{failed}");
    }
    let table = fine(daemon, &["events", "list", "--status", "failed"]);
    assert!(table.contains("evt-failed") && table.contains("API Key not found for remoteKeyId: 99"), "{table}");
    assert!(!table.contains("evt-charged"), "{table}");
    assert_eq!(fine(daemon, &["events", "list", "--status", "dead"]), "", "no result is no line");
    failing(daemon, &["events", "list", "--status", "lost"], 2);
}

fn show(daemon: &Daemon) {
    let shown = daemon.command_json(&["events", "show", "evt-charged"]);
    assert_eq!((&shown["eventId"], &shown["status"]), (&json!("evt-charged"), &json!("processed")));
    let body: Value = serde_json::from_str(shown["payload"].as_str().expect("the body")).unwrap();
    assert_eq!(body["data"]["quota"], 1830);
    let record = "SELECT id FROM usage_records WHERE creditCost <> 0";
    let (books, charge) = (daemon.books(), &shown["charge"]);
    let expected = json!({ "id": books.scalar_text(record), "userId": books.scalar_text("SELECT id FROM users"),
        "keyId": books.scalar_text("SELECT id FROM api_keys"), "model": "gpt-4", "promptTokens": 44,
        "completionTokens": 39, "quota": 1830, "price": "3.66", "usdToCredits": "1000", "quotaPerUnit": 500_000,
        "credits": 3, "unpaid": 0, "remainderBefore": "0.2", "remainderAfter": "0.86", "refunded": "0",
        "source": "webhook", "eventId": "evt-charged", "requestId": null, "logId": null,
        "remoteKeyId": charge["remoteKeyId"], "calledAt": charge["calledAt"], "settledAt": charge["settledAt"] });
    assert_eq!(charge, &expected);
    let times = ["calledAt", "settledAt"].map(|name| charge[name].as_str().map(str::len));
    assert_eq!((times, charge["remoteKeyId"].is_i64()), ([Some(23), Some(23)], true), "{charge}");
    let failed = daemon.command_json(&["events", "show", "evt-failed"]);
    assert_eq!((&failed["status"], &failed["charge"]), (&json!("failed"), &json!(null)));
    let text = fine(daemon, &["events", "show", "evt-charged"]);
    for word in ["evt-charged", "processed", "3.66", "0.2", "0.86", "1830", "gpt-4"] {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    let complaint = failing(daemon, &["events", "show", "evt-unknown"], 1);
    assert!(complaint.contains("evt-unknown"), "{complaint}");
    failing(daemon, &["events", "show", "EVT-CHARGED"], 1);
}

#[test]
fn events_are_listed_and_shown_while_the_daemon_runs() {
    let daemon = with_events();
    look(&daemon);
    show(&daemon);
}

#[test]
fn events_are_listed_and_shown_without_a_daemon() {
    let daemon = with_events();
    assert_eq!(daemon.terminate(), 0);
    look(&daemon);
    show(&daemon);
}

#[test]
fn a_restored_copy_is_only_looked_at() {
    let daemon = with_events();
    assert_eq!(daemon.terminate(), 0);
    let dump = || daemon.books().rows("SELECT * FROM webhook_logs ORDER BY id");
    let before = dump();
    for arguments in [&["events", "list"] as &[&str], &["events", "show", "evt-failed"], &["user", "list"]] {
        fine(&daemon, arguments);
    }
    assert_eq!(dump(), before, "looking settles nothing");
}

#[test]
fn empty_books_are_empty_lists() {
    let daemon = migrated(DaemonOptions::new());
    for arguments in [&["events", "list"] as &[&str], &["user", "list"], &["key", "list"]] {
        assert_eq!(daemon.command_json(arguments), json!([]), "{arguments:?}");
        assert_eq!(fine(&daemon, arguments), "", "{arguments:?}");
    }
}

#[test]
fn an_events_id_cannot_steer_the_terminal() {
    let daemon = Daemon::start(DaemonOptions::new());
    let odd = "evt\n\u{1b}[2Jfake  processed\r";
    assert_eq!(daemon.post(Usage::new(odd).remote_key(9).model("\u{1b}]0;x\u{7}").quota(1).json()).status, 200);
    for arguments in [&["events", "list"] as &[&str], &["events", "show", odd]] {
        let text = fine(&daemon, arguments);
        let steering = text.chars().find(|letter| letter.is_control() && *letter != '\n');
        assert_eq!(steering, None, "{arguments:?}: {text:?}");
    }
    assert_eq!(fine(&daemon, &["events", "list"]).lines().count(), 2, "a header and one line");
    assert_eq!(ids(&daemon.command_json(&["events", "list"])), [odd], "a program gets it as it is");
}

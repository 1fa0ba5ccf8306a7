//! Who writes users, keys and credits: beside the embedded database the commands do, on a platform's own database only
//! where the operator says that this is meant.

use serde_json::json;

use crate::admin_api::asked_on_socket;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::database::is_sqlite;

const COMMANDS: &[&[&str]] = &[
    &["user", "add", "--email", "new@example.com"],
    &["key", "add", "--user", "user@example.com", "--remote-id", "7"],
    &["key", "ignore", "8"],
    &["credits", "grant", "--user", "user@example.com", "--amount", "5"],
    &["credits", "adjust", "--user", "user@example.com", "--amount=-2", "--reason", "a test"],
];

fn routes() -> [(&'static str, serde_json::Value); 5] {
    [
        ("/admin/v1/users", json!({ "email": "newer@example.com" })),
        ("/admin/v1/keys", json!({ "user": "user@example.com", "remoteId": 9 })),
        ("/admin/v1/keys/ignored", json!({ "remoteId": 10 })),
        ("/admin/v1/credits/grants", json!({ "user": "user@example.com", "amount": 5 })),
        ("/admin/v1/credits/adjustments", json!({ "user": "user@example.com", "amount": -2, "reason": "a test" })),
    ]
}

/// Users, keys, ignored tokens and credits.
fn written(daemon: &Daemon) -> [i64; 4] {
    let books = daemon.books();
    let credits = books.scalar_i64("SELECT sum(currentCredits) FROM user_credit_balances");
    [books.count("users"), books.count("api_keys"), books.count("hookledger_ignored_tokens"), credits]
}

#[test]
fn a_platforms_users_keys_and_credits_are_written_only_where_that_is_meant() {
    let daemon = Daemon::start(DaemonOptions::new());
    daemon.add_user("user@example.com", 100);
    assert_eq!(written(&daemon), [1, 0, 0, 100]);
    for arguments in COMMANDS {
        let output = daemon.command_unmeant(arguments);
        let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(if is_sqlite() { 0 } else { 1 }), "{arguments:?}: {complaint}");
        assert!(is_sqlite() || complaint.contains("--platform-database"), "{arguments:?}: {complaint}");
    }
    for (path, body) in routes() {
        let answer = asked_on_socket(&daemon, "POST", path, body.to_string().as_bytes());
        assert_eq!(answer.status, if is_sqlite() { 200 } else { 409 }, "{path}: {}", answer.text());
    }
    assert_eq!(written(&daemon), if is_sqlite() { [3, 2, 2, 106] } else { [1, 0, 0, 100] });
    if !is_sqlite() {
        for arguments in COMMANDS {
            let output = daemon.command(arguments);
            assert!(output.status.success(), "{arguments:?} with --platform-database: {output:?}");
        }
        for (path, mut body) in routes() {
            body["platformDatabase"] = json!(true);
            let answer = asked_on_socket(&daemon, "POST", path, body.to_string().as_bytes());
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        }
        assert_eq!(written(&daemon), [3, 2, 2, 106]);
    }
}

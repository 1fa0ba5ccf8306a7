//! The operators' routes: who may ask where, what is refused, and that nothing of the token is ever told.

use serde_json::{Value, json};

use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::database::is_sqlite;
use crate::kit::events::Usage;
use crate::kit::wire::{Response, http_request};

const TOKEN: &str = "admin-token-of-the-kit-0123456789abcdef";

pub fn with_token() -> DaemonOptions {
    DaemonOptions::new().set("HOOKLEDGER__ADMIN__TOKEN", TOKEN)
}

#[track_caller]
pub fn asked_on_socket(daemon: &Daemon, method: &str, target: &str, body: &[u8]) -> Response {
    daemon.admin_connection().request(&http_request(method, target, &[], body)).expect("an answer")
}

#[track_caller]
pub fn asked_on_server(daemon: &Daemon, method: &str, target: &str, body: &[u8]) -> Response {
    asked_with(daemon, method, target, &[("Authorization", &format!("Bearer {TOKEN}"))], body)
}

#[track_caller]
fn asked_with(daemon: &Daemon, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    daemon.connection().request(&http_request(method, target, headers, body)).expect("an answer")
}

#[track_caller]
fn assert_refused(answer: &Response, status: u16) -> String {
    let body = answer.json();
    let message = body["message"].as_str().unwrap_or_default().to_owned();
    assert!(!message.is_empty(), "{body}");
    assert_eq!((answer.status, body), (status, json!({ "success": false, "message": message })));
    message
}

/// Every byte that is not plain, encoded.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(byte).collect()
}

const PATHS: [&str; 6] = [
    "/admin/v1/status",
    "/admin/v1/users",
    "/admin/v1/events/replay",
    "/admin/v1/events/e-1",
    "/admin/v1/openapi.json",
    "/admin/v1/nothing",
];

#[test]
fn without_a_token_no_path_exists_on_the_server() {
    let daemon = Daemon::start(DaemonOptions::new());
    let unknown = daemon.get("/no/such/path");
    for path in PATHS.into_iter().chain(["/admin/v1", "/admin/v1/", "/admin"]) {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            for headers in [&[][..], &[("Authorization", "Bearer ")], &[("Authorization", "Bearer anything")]] {
                let answer = asked_with(&daemon, method, path, headers, b"");
                assert_eq!((answer.status, &answer.body), (404, &unknown.body), "{method} {path}");
                assert_eq!(answer.header("WWW-Authenticate"), None, "{method} {path}");
            }
        }
    }
    assert_eq!(asked_on_socket(&daemon, "GET", "/admin/v1/users", b"").json(), json!([]), "the socket asks no token");
}

#[test]
fn only_the_token_opens_the_server() {
    let daemon = Daemon::start(with_token());
    for path in PATHS {
        let answer = asked_with(&daemon, "GET", path, &[], b"");
        assert_refused(&answer, 401);
        assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"), "{path}");
    }
    for header in ["", "Bearer", "Bearer ", TOKEN, &format!("Basic {TOKEN}"), &format!("Bearer {}", &TOKEN[1..])] {
        let answer = asked_with(&daemon, "GET", "/admin/v1/users", &[("Authorization", header)], b"");
        assert_refused(&answer, 401);
        assert_eq!(answer.header("WWW-Authenticate"), Some("Bearer"), "{header:?}");
    }
    // Nothing is read before the token holds: the answer does not wait for the body.
    let mut connection = daemon.connection();
    connection.send(&http_request("POST", "/admin/v1/users", &[("Content-Length", "1000000")], b"")).unwrap();
    assert_refused(&connection.read_response().unwrap(), 401);
    let user = json!({ "email": "new@example.com", "platformDatabase": !is_sqlite() }).to_string();
    assert_refused(&asked_with(&daemon, "POST", "/admin/v1/users", &[], user.as_bytes()), 401);
    assert_eq!(asked_on_server(&daemon, "GET", "/admin/v1/users", b"").json(), json!([]));
    assert_eq!(asked_on_server(&daemon, "POST", "/admin/v1/users", user.as_bytes()).status, 200);
    let users = asked_on_socket(&daemon, "GET", "/admin/v1/users", b"").json();
    assert_eq!(users[0]["email"], "new@example.com", "both listeners show the same books");
    // The other doors stay shut to it.
    let answer = daemon.post_with(&[("Authorization", &format!("Bearer {TOKEN}"))], Usage::new("e").quota(1).json());
    assert_eq!(answer.status, 400, "an event needs its signature");
    let headers = [("X-API-Key", TOKEN)];
    assert_eq!(asked_with(&daemon, "GET", "/api/api-keys/remote/1/credit-balance", &headers, b"").status, 404);
}

#[test]
fn wrong_tokens_use_up_their_allowance_and_right_ones_never() {
    let options = with_token().set("HOOKLEDGER__RATE_LIMIT__BAD_PER_SECOND", 1);
    let daemon = Daemon::start(options.set("HOOKLEDGER__RATE_LIMIT__BAD_BURST", 3));
    let wrong = [("Authorization", "Bearer wrong-token-of-somebody-0123456789")];
    let mut statuses = Vec::new();
    for _ in 0..20 {
        let answer = asked_with(&daemon, "GET", "/admin/v1/users", &wrong, b"");
        if answer.status == 429 {
            let wait: u64 = answer.header("Retry-After").expect("how long to wait").parse().unwrap();
            assert!((1..=10).contains(&wait), "{wait}");
        }
        assert_refused(&answer, answer.status);
        statuses.push(answer.status);
        assert_eq!(asked_on_server(&daemon, "GET", "/admin/v1/users", b"").status, 200, "after {statuses:?}");
    }
    assert_eq!(statuses[..3], [401, 401, 401]);
    assert!(statuses[3..].contains(&429) && statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
}

#[test]
fn the_senders_list_does_not_concern_operators() {
    let elsewhere = |options: DaemonOptions| options.set("HOOKLEDGER__WEBHOOK__ALLOW_SOURCES", "192.0.2.1");
    let daemon = Daemon::start(elsewhere(with_token()));
    assert_eq!(asked_on_server(&daemon, "GET", "/admin/v1/users", b"").status, 200);
    assert_eq!(asked_with(&daemon, "GET", "/admin/v1/users", &[], b"").status, 401);
    assert_eq!(asked_on_server(&daemon, "GET", "/admin/v2/users", b"").status, 403);
    let daemon = Daemon::start(elsewhere(DaemonOptions::new()));
    assert_eq!(asked_on_server(&daemon, "GET", "/admin/v1/users", b"").status, 403, "as any unknown path");
}

#[test]
fn what_is_not_understood_is_refused_and_told_where() {
    let daemon = Daemon::start(DaemonOptions::new());
    let ask = |method: &str, target: &str, body: &str| asked_on_socket(&daemon, method, target, body.as_bytes());
    for (target, body, word) in [
        ("/admin/v1/users", "", "line 1"),
        ("/admin/v1/users", "{\n  \"email\": }", "line 2 column 12"),
        ("/admin/v1/users", r#"{"email":"a@b","colour":1}"#, "unknown field `colour`"),
        ("/admin/v1/users", r#"{"credits":1}"#, "missing field `email`"),
        ("/admin/v1/users", r#"{"email":"a@b","credits":1.5}"#, "1.5"),
        ("/admin/v1/users", "\u{feff}{}", "line 1"),
        ("/admin/v1/users?dry=1", r#"{"email":"a@b"}"#, "unknown field `dry`"),
        ("/admin/v1/keys", r#"{"user":"a@b","remoteId":99999999999999999999}"#, "line 1"),
        ("/admin/v1/events/replay", r#"{"all":true}"#, "unknown field `all`"),
    ] {
        let message = assert_refused(&ask("POST", target, body), 400);
        assert!(message.contains(word), "{target} {body}: {message}");
    }
    for (target, word) in [
        ("/admin/v1/users?limit=0", "between 1 and 100000"),
        ("/admin/v1/users?limit=100001", "between 1 and 100000"),
        ("/admin/v1/users?limit=-1", "between 1 and 100000"),
        ("/admin/v1/users?limit=", "between 1 and 100000"),
        ("/admin/v1/users?limit=1&limit=2", "duplicate field"),
        ("/admin/v1/users?Limit=1", "unknown field `Limit`"),
        ("/admin/v1/events?status=lost", "`pending`"),
        ("/admin/v1/status?x", "unknown field `x`"),
    ] {
        let message = assert_refused(&ask("GET", target, ""), 400);
        assert!(message.contains(word), "{target}: {message}");
    }
    let large = format!(r#"{{"email":"{}"}}"#, "x".repeat(70_000));
    assert_refused(&ask("POST", "/admin/v1/users", &large), 413);
    assert_eq!(ask("GET", "/admin/v1/users", "").json(), json!([]), "nothing was written");
}

#[test]
fn a_wrong_method_is_told_the_right_ones_and_an_unknown_path_is_not_found() {
    let daemon = Daemon::start(with_token());
    type Ask = fn(&Daemon, &str, &str, &[u8]) -> Response;
    for ask in [asked_on_socket as Ask, asked_on_server as Ask] {
        for (method, target, allowed) in [
            ("DELETE", "/admin/v1/users", "GET, POST"),
            ("POST", "/admin/v1/status", "GET"),
            ("GET", "/admin/v1/credits/a/b", ""),
            ("PUT", "/admin/v1/credits/a", "GET"),
            ("PUT", "/admin/v1/events/replay", "POST, GET"),
            ("POST", "/admin/v1/events/a%2Fb", "GET"),
            ("GET", "/admin/v1/events/", ""),
            ("GET", "/admin/v1/", ""),
            ("GET", "/admin/v1", ""),
            ("GET", "/admin/v1/Users", ""),
            ("POST", "/admin/v1/users/", ""),
        ] {
            let answer = ask(&daemon, method, target, b"");
            assert_refused(&answer, if allowed.is_empty() { 404 } else { 405 });
            assert_eq!(answer.header("Allow").unwrap_or_default(), allowed, "{method} {target}");
        }
    }
}

#[test]
fn an_event_is_found_by_its_id_whatever_it_holds() {
    let daemon = Daemon::start(DaemonOptions::new());
    daemon.add_user("user@example.com", 100);
    daemon.add_key("user@example.com", 1);
    for id in
        ["plain", "a/b", "/", "..", "replay", "a b?c=d&e#f", "100%", "%2F", "a+b", "通义\"\\", "evt\u{7}\n", "{x}"]
    {
        assert_eq!(daemon.post(Usage::new(id).remote_key(1).quota(5).json()).status, 200, "{id:?}");
        let shown = asked_on_socket(&daemon, "GET", &format!("/admin/v1/events/{}", encoded(id)), b"");
        assert_eq!((shown.status, &shown.json()["eventId"]), (200, &Value::from(id)), "{id:?}: {}", shown.text());
        assert_eq!(shown.json()["charge"]["quota"], 5, "{id:?}");
    }
}

#[test]
fn what_the_command_line_shows_is_what_the_routes_answer() {
    let daemon = Daemon::start(with_token());
    let user = daemon.add_user("user@example.com", 100);
    daemon.add_key(&user, 1);
    daemon.post(Usage::new("e-1").remote_key(1).quota(700).json());
    for (arguments, target) in [
        (&["user", "list"][..], "/admin/v1/users".to_owned()),
        (&["key", "list", "--user", &user], format!("/admin/v1/keys?user={user}")),
        (&["credits", "show", &user], "/admin/v1/credits/user%40example.com".to_owned()),
        (&["credits", "history", &user], format!("/admin/v1/credits/{user}/history")),
        (&["key", "unmatched"], "/admin/v1/keys/unmatched".to_owned()),
        (&["charges", "list"], "/admin/v1/charges".to_owned()),
        (&["charges", "show", "--event", "e-1"], "/admin/v1/charges/find?event=e-1".to_owned()),
        (&["events", "list"], "/admin/v1/events".to_owned()),
        (&["events", "show", "e-1"], "/admin/v1/events/e-1".to_owned()),
    ] {
        let answer = asked_on_server(&daemon, "GET", &target, b"");
        assert_eq!((answer.status, answer.json()), (200, daemon.command_json(arguments)), "{target}");
    }
}

#[test]
fn nothing_of_the_token_is_ever_told() {
    let daemon = Daemon::start(with_token().set("HOOKLEDGER__LOG__LEVEL", "trace"));
    let mut shown = String::new();
    for path in PATHS {
        for header in [format!("Bearer {TOKEN}"), format!("Bearer {TOKEN}x"), format!("Basic {TOKEN}")] {
            for method in ["GET", "POST"] {
                shown += &asked_with(&daemon, method, path, &[("Authorization", &header)], b"{}").text();
            }
        }
    }
    for arguments in [&["check-config"][..], &["check-config", "--json"], &["status"], &["status", "--json"]] {
        let output = daemon.command(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        shown += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
    }
    let refused = daemon.command_with(&["serve"], &[("HOOKLEDGER__ADMIN__TOKEN", &TOKEN[..31])]);
    assert_eq!(refused.status.code(), Some(2), "a short token");
    shown += &String::from_utf8_lossy(&refused.stderr);
    shown += &daemon.metrics();
    assert_eq!(daemon.terminate(), 0);
    let output = daemon.output();
    shown += &format!("{}{}", output.stdout, output.stderr);
    assert!(shown.contains("admin.token") && shown.contains("operator's request was refused"), "much was shown");
    assert!(!shown.contains(&TOKEN[..31]), "the token is shown");
}

#[test]
fn a_reload_opens_rotates_and_closes_the_server() {
    let daemon = Daemon::prepare(DaemonOptions::new().config_file());
    daemon.write_config("");
    daemon.launch();
    daemon.wait_ready();
    let statuses = || {
        let status = |token: &str| {
            let headers = [("Authorization", &*format!("Bearer {token}"))];
            asked_with(&daemon, "GET", "/admin/v1/users", &headers, b"").status
        };
        (status(TOKEN), status(&TOKEN.to_uppercase()))
    };
    let on_server =
        || asked_on_socket(&daemon, "GET", "/admin/v1/status", b"").json()["listeners"]["adminOnServer"].clone();
    assert_eq!((statuses(), on_server()), ((404, 404), json!(false)));
    for (text, expected) in [
        (format!("admin.token = \"{TOKEN}\""), (200, 401)),
        (format!("admin.token = \"{}\"", TOKEN.to_uppercase()), (401, 200)),
        (String::new(), (404, 404)),
    ] {
        daemon.write_config(&text);
        assert!(daemon.reload(), "refused: {}", daemon.output().stderr);
        assert_eq!((statuses(), on_server()), (expected, json!(expected != (404, 404))), "{text}");
    }
    assert!(!daemon.output().stderr.contains(TOKEN), "told when it was changed");
}

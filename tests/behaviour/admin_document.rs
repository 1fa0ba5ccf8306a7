//! The OpenAPI document is true: every path and method in it is asked on both listeners, every answer is what it says,
//! and nothing is served that it does not tell of.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use serde_json::{Value, json};

use crate::admin_api::{asked_on_server, asked_on_socket, with_token};
use crate::kit::books::quoted;
use crate::kit::clock::now_secs;
use crate::kit::daemon::Daemon;
use crate::kit::database::is_sqlite;
use crate::kit::events::Usage;
use crate::kit::schema::Schemas;
use crate::kit::wait::wait_until;
use crate::kit::wire::Response;

/// A question, and the status that it must be answered with.
struct Sample {
    method: &'static str,
    /// As in the document.
    path: &'static str,
    /// As it is asked, query included.
    target: String,
    body: Option<Value>,
    status: u16,
}

fn sample(method: &'static str, path: &'static str, target: &str, body: Option<Value>, status: u16) -> Sample {
    Sample { method, path, target: format!("/admin/v1{target}"), body, status }
}

const ACCEPTED: &str = "/admin/v1/audit/accepted";
const ADJUSTMENTS: &str = "/admin/v1/credits/adjustments";
const IGNORED: &str = "/admin/v1/keys/ignored";
const SYNC: &str = "/admin/v1/sync";

/// At least one success for each method of each path, and what can go wrong. `turn` keeps new names apart; `charge` is
/// the id of one that was not given back yet.
fn samples(turn: &str, charge: &str) -> Vec<Sample> {
    const QUOTA_CHANGES: &str = "/admin/v1/prices/quota-changes";
    const USERS: &str = "/admin/v1/users";
    const KEYS: &str = "/admin/v1/keys";
    const GRANTS: &str = "/admin/v1/credits/grants";
    const CREDITS: &str = "/admin/v1/credits/{user}";
    const HISTORY: &str = "/admin/v1/credits/{user}/history";
    const EVENTS: &str = "/admin/v1/events";
    const EVENT: &str = "/admin/v1/events/{eventId}";
    const REPLAY: &str = "/admin/v1/events/replay";
    let email = format!("{turn}@example.com");
    let new_user = || Some(json!({ "email": email, "name": "New", "credits": 3 }));
    let token: i64 = turn.bytes().map(i64::from).sum();
    let grant = |amount: i64| Some(json!({ "user": "one@example.com", "amount": amount, "idempotencyKey": turn }));
    let mut samples = samples_of_charges(turn, charge);
    samples.extend(samples_of_disputes());
    samples.extend([
        sample("GET", "/admin/v1/status", "/status", None, 200),
        sample("GET", "/admin/v1/status", "/status?verbose=1", None, 400),
        sample("POST", "/admin/v1/repair", "/repair", Some(json!({ "dryRun": true })), 200),
        sample("POST", ACCEPTED, "/audit/accepted", Some(json!({ "id": "0123456789abcdef", "reason": turn })), 200),
        sample("POST", ACCEPTED, "/audit/accepted", Some(json!({ "id": "0123456789abcdef" })), 400),
        sample("GET", "/admin/v1/prices", "/prices", None, 200),
        sample("POST", QUOTA_CHANGES, "/prices/quota-changes", Some(json!({ "atSecond": 1500 })), 200),
        sample("POST", QUOTA_CHANGES, "/prices/quota-changes", Some(json!({ "atSecond": 1501 })), 409),
        sample("POST", QUOTA_CHANGES, "/prices/quota-changes", Some(json!({})), 400),
        sample("GET", "/admin/v1/openapi.json", "/openapi.json", None, 200),
        sample("POST", SYNC, "/sync", Some(json!({ "dryRun": true, "key": "1" })), 200),
        sample("GET", SYNC, "/sync", None, 200),
        sample("GET", SYNC, "/sync?id=none", None, 404),
        sample("GET", SYNC, "/sync?verbose=1", None, 400),
        sample("POST", SYNC, "/sync", Some(json!({ "since": 1 })), 400),
        sample("GET", USERS, "/users", None, 200),
        sample("GET", USERS, "/users?limit=1", None, 200),
        sample("GET", USERS, "/users?limit=0", None, 400),
        sample("POST", USERS, "/users", new_user(), 200),
        sample("POST", USERS, "/users", new_user(), 409),
        sample("POST", USERS, "/users", Some(json!({ "email": "x@example.com", "colour": 1 })), 400),
        sample("POST", USERS, "/users", Some(json!({ "email": "x".repeat(70_000) })), 413),
        sample("GET", KEYS, "/keys", None, 200),
        sample("GET", KEYS, "/keys?user=one@example.com&limit=5", None, 200),
        sample("GET", KEYS, "/keys?user=nobody", None, 404),
        sample("POST", KEYS, "/keys", Some(json!({ "user": email, "remoteId": token, "label": "k" })), 200),
        sample("POST", KEYS, "/keys", Some(json!({ "user": email, "remoteId": 1 })), 409),
        sample("POST", KEYS, "/keys", Some(json!({ "user": "nobody", "remoteId": 999 })), 404),
        sample("POST", GRANTS, "/credits/grants", grant(5), 200),
        sample("POST", GRANTS, "/credits/grants", grant(6), 409),
        sample("POST", GRANTS, "/credits/grants", Some(json!({ "user": "nobody", "amount": 1 })), 404),
        sample("GET", CREDITS, "/credits/one@example.com", None, 200),
        sample("GET", CREDITS, "/credits/grants", None, 404),
        sample("GET", HISTORY, "/credits/one@example.com/history?limit=10", None, 200),
        sample("GET", HISTORY, "/credits/nobody/history", None, 404),
        sample("GET", EVENTS, "/events", None, 200),
        sample("GET", EVENTS, "/events?status=failed&limit=2", None, 200),
        sample("GET", EVENTS, "/events?status=lost", None, 400),
        sample("GET", EVENT, "/events/charged", None, 200),
        sample("GET", EVENT, "/events/uncharged", None, 200),
        sample("GET", EVENT, "/events/replay", None, 404),
        sample("POST", REPLAY, "/events/replay", Some(json!({ "dryRun": true })), 200),
        sample("POST", REPLAY, "/events/replay", Some(json!({ "dryRun": "perhaps" })), 400),
    ]);
    // What a platform's own database refuses unless it is meant.
    let of_platform = [USERS, KEYS, GRANTS, ADJUSTMENTS, IGNORED];
    for body in
        samples.iter_mut().filter(|sample| of_platform.contains(&sample.path)).filter_map(|sample| sample.body.as_mut())
    {
        body["platformDatabase"] = json!(!is_sqlite());
    }
    samples
}

fn samples_of_charges(turn: &str, charge: &str) -> Vec<Sample> {
    const CHARGES: &str = "/admin/v1/charges";
    const FIND: &str = "/admin/v1/charges/find";
    const CHARGE: &str = "/admin/v1/charges/{chargeId}";
    const REFUNDS: &str = "/admin/v1/charges/refunds";
    const REVERSALS: &str = "/admin/v1/charges/reversals";
    const UNMATCHED: &str = "/admin/v1/keys/unmatched";
    let refund = |charge: &str, amount: &str| {
        Some(json!({ "charge": charge, "amount": amount, "reason": "a test", "idempotencyKey": turn }))
    };
    let reversal = |filter: Value| Some(json!({ "filter": filter, "reason": "a test", "idempotencyKey": turn }));
    let adjustment = |amount: i64| {
        Some(
            json!({ "user": "one@example.com", "amount": amount, "reason": "r", "idempotencyKey": format!("{turn} adjusts") }),
        )
    };
    let one = format!("/charges/{charge}");
    vec![
        sample("GET", CHARGES, "/charges", None, 200),
        sample("GET", CHARGES, "/charges?user=one@example.com&remoteId=1&sinceMs=0&limit=3", None, 200),
        sample("GET", CHARGES, "/charges?remoteId=one", None, 400),
        sample("GET", CHARGES, "/charges?user=nobody", None, 404),
        sample("GET", FIND, "/charges/find?event=charged", None, 200),
        sample("GET", FIND, "/charges/find?request=none", None, 404),
        sample("GET", FIND, "/charges/find?event=charged&request=none", None, 400),
        sample("GET", CHARGE, &one, None, 200),
        sample("GET", CHARGE, "/charges/none", None, 404),
        sample("POST", REFUNDS, "/charges/refunds", refund(charge, "0.25"), 200),
        sample("POST", REFUNDS, "/charges/refunds", refund(charge, "0.5"), 409),
        sample("POST", REFUNDS, "/charges/refunds", refund("none", "0.5"), 404),
        sample("GET", CHARGE, &one, None, 200),
        sample("POST", REVERSALS, "/charges/reversals", reversal(json!({ "model": "none" })), 200),
        sample("POST", REVERSALS, "/charges/reversals", reversal(json!({ "model": "another" })), 409),
        sample("POST", REVERSALS, "/charges/reversals", reversal(json!({ "colour": 1 })), 400),
        sample("POST", ADJUSTMENTS, "/credits/adjustments", adjustment(-5), 200),
        sample("POST", ADJUSTMENTS, "/credits/adjustments", adjustment(5), 409),
        sample("GET", UNMATCHED, "/keys/unmatched?limit=5", None, 200),
        sample("POST", IGNORED, "/keys/ignored", Some(json!({ "remoteId": 77 })), 200),
        sample("GET", IGNORED, "/keys/ignored", None, 200),
        sample("POST", IGNORED, "/keys/ignored", Some(json!({ "remoteId": 77, "undo": true })), 200),
    ]
}

fn samples_of_disputes() -> Vec<Sample> {
    const DISPUTES: &str = "/admin/v1/disputes";
    const TIE: &str = "/admin/v1/disputes/tie";
    const CHARGE: &str = "/admin/v1/disputes/charge";
    const DISMISS: &str = "/admin/v1/disputes/dismiss";
    let about = |id: &str| Some(json!({ "id": id }));
    vec![
        sample("GET", DISPUTES, "/disputes", None, 200),
        sample("GET", DISPUTES, "/disputes?user=one@example.com&remoteId=1&limit=2", None, 200),
        sample("GET", DISPUTES, "/disputes?user=nobody", None, 404),
        sample("GET", DISPUTES, "/disputes?remoteId=one", None, 400),
        sample("POST", TIE, "/disputes/tie", about(&row_named("disputed")), 200),
        sample("POST", TIE, "/disputes/tie", about(&row_named("refund_open")), 409),
        sample("POST", TIE, "/disputes/tie", about("none"), 404),
        sample("POST", TIE, "/disputes/tie", Some(json!({ "with": "none" })), 400),
        sample("POST", CHARGE, "/disputes/charge", about(&row_named("failed")), 200),
        sample("POST", CHARGE, "/disputes/charge", about("uncharged"), 409),
        sample("POST", CHARGE, "/disputes/charge", about("none"), 404),
        sample(
            "POST",
            DISMISS,
            "/disputes/dismiss",
            Some(json!({ "id": row_named("refund_open"), "reason": "r" })),
            200,
        ),
        sample("POST", DISMISS, "/disputes/dismiss", about("charged"), 409),
        sample("POST", DISMISS, "/disputes/dismiss", about("none"), 404),
        sample("GET", DISPUTES, "/disputes?limit=1", None, 200),
    ]
}

/// A second of which rows were read; on a platform's books, after they were taken over.
static ROW_SECOND: LazyLock<i64> = LazyLock::new(|| now_secs() + 240);

/// The digest of a row tells its state here.
fn digest_of(state: &str) -> String {
    format!("{:032x}", state.len())
}

fn row_named(state: &str) -> String {
    format!("row:{}:{}:0", *ROW_SECOND, digest_of(state))
}

/// Rows that a person must decide about, as a reading left them.
fn insert_rows(daemon: &Daemon) {
    let second = *ROW_SECOND;
    for (state, kind, prompt) in [("disputed", 2, 7), ("failed", 2, 8), ("refund_open", 6, 9)] {
        let content = json!({ "second": second, "type": kind, "token": 1, "token_name": "k", "model": "m",
            "prompt_tokens": prompt, "completion_tokens": 3, "quota": 400 });
        let (content, digest) = (quoted(&content.to_string()), digest_of(state));
        daemon.books().execute(&format!(
            "INSERT INTO hookledger_rows (source, row_second, row_digest, row_nth, state, open_token, content, reason,
               units, is_refund, read_at_ms)
             VALUES ('default', {second}, '{digest}', 0, '{state}', 1, {content}, 'a test', 400, {}, 0)",
            i64::from(kind == 6)
        ));
    }
}

/// Users, a key, and events of both kinds, so that no list is empty.
fn furnished() -> Daemon {
    // A gateway that nobody reaches: what is asked of it begins, and fails at once.
    let options = with_token().set("HOOKLEDGER__NEWAPI__BASE_URL", "http://127.0.0.1:1");
    let options = options.set("HOOKLEDGER__NEWAPI__ACCESS_TOKEN", "a-token-of-an-administrator-in-new-api");
    let options = options.set("HOOKLEDGER__NEWAPI__USER_ID", "1").set("HOOKLEDGER__NEWAPI__MAX_RETRIES", "0");
    let daemon = Daemon::start(options.set("HOOKLEDGER__POLLING__MODE", "off"));
    daemon.add_user("one@example.com", 100);
    daemon.add_key("one@example.com", 1);
    assert_eq!(daemon.post(Usage::new("charged").remote_key(1).quota(700).json()).status, 200);
    assert_eq!(daemon.post(Usage::new("uncharged").remote_key(9).quota(700).json()).status, 200);
    insert_rows(&daemon);
    daemon.books().execute(
        "INSERT INTO hookledger_quota_holds (from_second, until_second, quota_before, quota_after) \
         VALUES (1000, 2000, 500000, 250000)",
    );
    let told_twice = Usage::new("told twice").remote_key(1).model("m").tokens(7, 3).quota(500).at_secs(*ROW_SECOND);
    assert_eq!(daemon.post(told_twice.json()).status, 200);
    daemon
}

fn charge_of(daemon: &Daemon) -> String {
    let event = asked_on_socket(daemon, "GET", "/admin/v1/events/charged", b"").json();
    event["charge"]["id"].as_str().expect("it was charged").to_owned()
}

fn document(daemon: &Daemon) -> Schemas {
    let answer = asked_on_socket(daemon, "GET", "/admin/v1/openapi.json", b"");
    assert_eq!(answer.header("Content-Type"), Some("application/json"));
    Schemas::of(answer.json())
}

/// What is wrong with an answer by the document.
fn problems(schemas: &Schemas, method: &str, path: &str, answer: &Response) -> Vec<String> {
    let operation = &schemas.document()["paths"][path][method.to_lowercase()];
    let described = &operation["responses"][answer.status.to_string()];
    if described.is_null() {
        return vec![format!("status {} is not described: {}", answer.status, answer.text())];
    }
    let schema = &described["content"]["application/json"]["schema"];
    if schema.is_null() {
        return vec![format!("the body of status {} is not described", answer.status)];
    }
    schemas.problems(schema, &answer.json())
}

/// One at a time.
fn wait_for_the_last_sync(daemon: &Daemon) {
    let state = || asked_on_socket(daemon, "GET", "/admin/v1/sync", b"").json()["state"].clone();
    let has_ended = || !["waiting", "reading"].iter().any(|under_way| state() == *under_way);
    wait_until("the last sync has ended", Duration::from_secs(20), || has_ended().then_some(()));
}

fn described_routes(document: &Value) -> BTreeSet<(String, String)> {
    let paths = document["paths"].as_object().unwrap().iter();
    let routes = paths.flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())).collect::<Vec<_>>()
    });
    routes.collect()
}

#[test]
fn every_answer_is_what_the_document_says() {
    let daemon = furnished();
    let schemas = document(&daemon);
    let charge = charge_of(&daemon);
    let mut succeeded = BTreeSet::new();
    let mut offenders = Vec::new();
    type Ask = fn(&Daemon, &str, &str, &[u8]) -> Response;
    for (listener, ask) in [("socket", asked_on_socket as Ask), ("server", asked_on_server as Ask)] {
        for Sample { method, path, target, body, status } in samples(listener, &charge) {
            let body = body.map(|body| body.to_string()).unwrap_or_default();
            if (method, path) == ("POST", SYNC) {
                wait_for_the_last_sync(&daemon);
            }
            let answer = ask(&daemon, method, &target, body.as_bytes());
            assert_eq!(answer.status, status, "{method} {target} on the {listener}: {}", answer.text());
            let found = problems(&schemas, method, path, &answer);
            offenders
                .extend(found.into_iter().map(|problem| format!("{method} {target} on the {listener}: {problem}")));
            if status == 200 {
                succeeded.insert((listener, method.to_owned(), path.to_owned()));
            }
        }
    }
    assert!(offenders.is_empty(), "the document is not true:\n  {}", offenders.join("\n  "));
    for (method, path) in described_routes(schemas.document()) {
        for listener in ["socket", "server"] {
            let route = (listener, method.clone(), path.clone());
            assert!(succeeded.contains(&route), "no sample asks {route:?} with success");
        }
    }
}

#[test]
fn a_body_that_the_document_refuses_is_refused_and_the_others_fit() {
    let daemon = furnished();
    let schemas = document(&daemon);
    for Sample { method, path, target, body, status } in samples("bodies", &charge_of(&daemon)) {
        let Some(body) = body else { continue };
        let operation = &schemas.document()["paths"][path][method.to_lowercase()];
        let found = schemas.problems(&operation["requestBody"]["content"]["application/json"]["schema"], &body);
        assert_eq!(found.is_empty(), status != 400, "{method} {target} with {body}: {found:?}");
    }
}

#[test]
fn the_document_tells_of_all_that_is_served() {
    let daemon = Daemon::start(with_token());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/admin");
    let source = fs::read_to_string(folder.join("mod.rs")).unwrap();
    let mut resources = 0;
    for file in fs::read_dir(&folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains(".route("), "routes are made of the table alone");
        resources += text.matches("web::resource(").count();
    }
    assert_eq!(resources, 1, "routes are made of the table alone");
    // The table of the source: METHOD "path" => handler.
    let routed: BTreeSet<(String, String)> = source
        .lines()
        .filter_map(|line| {
            let (route, _) = line.trim().strip_suffix(';')?.split_once(" => ")?;
            let (method, path) = route.split_once(' ')?;
            Some((method.to_owned(), path.strip_prefix('"')?.strip_suffix('"')?.to_owned()))
        })
        .collect();
    assert!(routed.len() > 10, "the table was found: {routed:?}");
    assert_eq!(described_routes(document(&daemon).document()), routed);
}

#[test]
fn everything_in_the_document_is_described() {
    let daemon = Daemon::start(with_token());
    let schemas = document(&daemon);
    let document = schemas.document();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["components"]["securitySchemes"]["adminToken"]["scheme"], "bearer");
    assert_eq!(document["security"], json!([{ "adminToken": [] }]));
    let mut offenders = Vec::new();
    let mut names = BTreeSet::new();
    let is_told = |value: &Value| value["description"].as_str().is_some_and(|text| !text.is_empty());
    for (method, path) in described_routes(document) {
        let operation = &document["paths"][&path][method.to_lowercase()];
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let undescribed = parameters.filter(|parameter| !is_told(parameter)).map(|parameter| &parameter["name"]);
        offenders.extend(undescribed.map(|name| format!("{method} {path}: {name}")));
        let name = operation["operationId"].as_str().unwrap().to_owned();
        assert!(names.insert(name.clone()), "{name} names two operations");
        if operation["summary"].as_str().is_none_or(str::is_empty) {
            offenders.push(format!("{method} {path}"));
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        if !is_told(schema) {
            offenders.push(name.clone());
        }
        let parts = schema["allOf"].as_array().cloned().unwrap_or_default();
        for part in parts.iter().chain([schema]) {
            for (field, property) in part["properties"].as_object().into_iter().flatten() {
                let mut choices = property["oneOf"].as_array().into_iter().flatten().chain([property]);
                // A reference is described where it leads.
                if !choices.any(|choice| is_told(choice) || choice.get("$ref").is_some()) {
                    offenders.push(format!("{name}.{field}"));
                }
            }
        }
    }
    assert!(offenders.is_empty(), "not described:\n  {}", offenders.join("\n  "));
}

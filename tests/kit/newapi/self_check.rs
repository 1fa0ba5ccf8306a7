//! The fake new-api judged on its own, by a raw client: its keeping, its calls and tasks, its journal and clock.

use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::clock::MovableClock;
use super::super::folder::TestFolder;
use super::super::wire::{Connection, Response, http_request};
use super::rows::{CONSUMPTION, ERROR, REFUND};
use super::{Call, Called, Endpoint, NewApi, NewApiHandle, Role, Row, Task, Token, User};

pub const TIMEOUT: Duration = Duration::from_secs(10);
pub const SECOND: i64 = 1_750_000_000;

pub fn connect(fake: &NewApiHandle) -> Connection {
    Connection::open(fake.address(), TIMEOUT).expect("the fake takes connections")
}

/// As root, on a connection of its own.
pub fn ask(fake: &NewApiHandle, method: &str, target: &str, body: &str) -> Response {
    connect(fake).request(&as_root(fake, method, target, body)).expect("the fake answers")
}

pub fn as_root(fake: &NewApiHandle, method: &str, target: &str, body: &str) -> Vec<u8> {
    let token = fake.root_access_token();
    http_request(method, target, &[("Authorization", &token), ("New-Api-User", "1")], body.as_bytes())
}

/// The rows of an answer with pages.
pub fn items(fake: &NewApiHandle, query: &str) -> Vec<Value> {
    let answer = ask(fake, "GET", &format!("/api/log/?{query}"), "").json();
    answer["data"]["items"].as_array().unwrap_or_else(|| panic!("{answer} has items")).clone()
}

pub fn ids(fake: &NewApiHandle, query: &str) -> Vec<i64> {
    items(fake, query).iter().map(|row| row["id"].as_i64().expect("an id is a number")).collect()
}

/// With tokens 1 `one` and 2 `two`.
pub fn with_tokens() -> NewApi {
    let fake = NewApi::start();
    fake.add_token(Token::new(1, "one"));
    fake.add_token(Token::new(2, "two"));
    fake
}

/// So many calls of token 1, one a second from [`SECOND`] on.
pub fn with_calls(count: i64) -> NewApi {
    let fake = with_tokens();
    for number in 0..count {
        fake.call(&Call::new(1, "gpt-4o", SECOND + number).quota(10 + number));
    }
    fake
}

#[test]
fn a_connection_is_kept_and_ends_with_the_fake() {
    let fake = NewApi::start();
    let mut connection = connect(&fake);
    for _ in 0..3 {
        let answer = connection.request(&http_request("GET", "/api/status", &[], b"")).unwrap();
        assert_eq!((answer.status, answer.json()["data"]["quota_per_unit"].as_i64()), (200, Some(500_000)));
    }
    let last = connection.request(&http_request("GET", "/api/status", &[("Connection", "close")], b"")).unwrap();
    assert_eq!((last.status, connection.read_to_end().unwrap()), (200, Vec::new()));
    let mut odd = connect(&fake);
    odd.send(b"nonsense\r\n\r\n").unwrap();
    assert!(odd.read_to_end().unwrap().starts_with(b"HTTP/1.1 400 "));

    let mut open = connect(&fake);
    open.request(&http_request("GET", "/api/status", &[], b"")).unwrap();
    let address = fake.address();
    drop(fake);
    assert_eq!(open.read_to_end().unwrap(), b"", "closed, and in time");
    super::super::wait::wait_until("nobody listens", TIMEOUT, || TcpStream::connect(address).is_err().then_some(()));
}

#[test]
fn a_call_leaves_a_row_and_its_sender_knows_it() {
    let fake = with_tokens();
    let call = Call::new(2, "gpt-4o", SECOND).tokens(54, 9).quota(113);
    let called: Called = fake.call(&call);
    let row = &items(&fake, "type=2")[0];
    let sent: Value = serde_json::from_str(&called.usage("e-1").json()).unwrap();
    for (of_event, of_row) in [
        ("remoteKeyId", "token_id"),
        ("model", "model_name"),
        ("promptTokens", "prompt_tokens"),
        ("completionTokens", "completion_tokens"),
        ("quota", "quota"),
        ("requestId", "request_id"),
        ("logId", "id"),
    ] {
        assert_eq!(sent["data"][of_event], row[of_row], "{of_event}");
    }
    assert_eq!((&sent["timestamp"], &row["token_name"]), (&row["created_at"], &json!("two")));
    assert!(called.usage_by_cost("e-2").json().contains(r#""cost":0.000226}"#), "{called:?}");
    assert_eq!((fake.token(2).used_quota, fake.token(2).accessed_time), (113, SECOND), "the token has paid");

    let again = fake.call(&call);
    assert_ne!((again.request_id, again.log_id), (called.request_id, called.log_id), "another call");
    let shared = fake.call(&call.clone().request_id("shared"));
    fake.call(&call.request_id("shared"));
    assert_eq!(items(&fake, "request_id=shared").len(), 2, "a request id is not unique");
    assert_eq!(shared.request_id, "shared");
}

fn latest(fake: &NewApiHandle) -> (Value, Value) {
    let row = items(fake, "p=1&page_size=1").remove(0);
    let other = serde_json::from_str(row["other"].as_str().unwrap()).unwrap();
    (row, other)
}

#[test]
fn tasks_are_charged_settled_and_given_back() {
    let fake = with_tokens();
    let submit = |id: &str, at| -> Task { fake.submit_task(id, &Call::new(1, "sora-2", at).quota(100_000)) };
    let task = submit("task_1", SECOND);
    let (row, other) = latest(&fake);
    assert_eq!(json!([row["type"], row["quota"], row["prompt_tokens"], row["token_id"]]), json!([2, 100_000, 0, 1]));
    assert!(other["is_task"] == true && other.get("task_id").is_none(), "{other}");

    fake.fail_task(&task, SECOND + 1);
    let (row, other) = latest(&fake);
    assert_eq!(json!([row["type"], row["quota"], row["token_name"]]), json!([REFUND, 100_000, "one"]));
    assert_eq!((&other["task_id"], &other["reason"]), (&json!("task_1"), &json!("upstream failed")));

    let dearer = submit("task_2", SECOND + 2);
    fake.settle_task(&dearer, 120_000, SECOND + 3).unwrap();
    let (row, other) = latest(&fake);
    assert_eq!(json!([row["type"], row["quota"], other["task_id"]]), json!([CONSUMPTION, 20_000, "task_2"]));
    assert_eq!(json!([other["pre_consumed_quota"], other["actual_quota"]]), json!([100_000, 120_000]));
    assert_ne!(row["request_id"], dearer.submission.request_id.as_str(), "a request id of its own");

    fake.settle_task(&submit("task_3", SECOND + 4), 70_000, SECOND + 5).unwrap();
    let (row, other) = latest(&fake);
    assert_eq!(json!([row["type"], row["quota"], other["actual_quota"]]), json!([REFUND, 30_000, 70_000]));
    assert_eq!(fake.settle_task(&task, 100_000, SECOND + 6), None, "nothing to settle");

    fake.refund_as_negative(&task, SECOND + 7).unwrap();
    let (row, other) = latest(&fake);
    assert_eq!(json!([row["type"], row["quota"], other["task_id"]]), json!([2, -100_000, "task_1"]));

    fake.refund_midjourney(50_000, SECOND + 8);
    let (row, _) = latest(&fake);
    assert_eq!(json!([row["type"], row["quota"], row["token_id"], row["token_name"]]), json!([6, 50_000, 0, ""]));

    fake.submit_task_with_id("task_4", &Call::new(1, "sora-2", SECOND + 9).quota(1));
    assert_eq!(latest(&fake).1["task_id"], "task_4");

    fake.test_channel("gpt-4o", 256, SECOND + 10).unwrap();
    assert_eq!(json!([latest(&fake).0["token_id"], latest(&fake).0["quota"]]), json!([0, 256]));
}

#[test]
fn without_a_log_of_consumption_refunds_alone_are_written() {
    let fake = with_tokens();
    let task = fake.submit_task("t", &Call::new(1, "sora-2", SECOND).quota(5));
    fake.log_consumption(false);
    let called = fake.call(&Call::new(1, "gpt-4o", SECOND + 1).quota(7));
    assert_eq!((called.log_id, called.usage("e").json().contains("logId")), (None, false));
    assert!(!called.request_id.is_empty(), "the call was made all the same");
    assert_eq!(fake.refund_as_negative(&task, SECOND + 2), None);
    assert_eq!(fake.test_channel("gpt-4o", 1, SECOND + 2), None);
    fake.fail_task(&task, SECOND + 3);
    let kinds: Vec<_> = items(&fake, "p=1").iter().map(|row| row["type"].clone()).collect();
    assert_eq!(kinds, [REFUND, CONSUMPTION]);
}

#[test]
fn the_journal_tells_every_request() {
    let fake = with_tokens();
    ask(&fake, "GET", "/api/log/?type=2&token_name=a+b%26c&p=1", "");
    ask(&fake, "GET", "/api/log/stat?type=2", "");
    ask(&fake, "PUT", "/api/token/?status_only=1", r#"{"id":1,"status":2}"#);
    ask(&fake, "GET", "/nowhere", "");
    let first = &fake.requests_to(Endpoint::LogRows)[0];
    assert_eq!(first.request.parameter("token_name"), Some("a b&c"));
    assert_eq!((first.request.header("new-api-user"), first.status), (Some("1"), Some(200)));
    let update = &fake.requests_to(Endpoint::TokenUpdate)[0].request;
    assert_eq!((update.method.as_str(), &update.body[..]), ("PUT", &br#"{"id":1,"status":2}"#[..]));
    assert_eq!(fake.requests_to(Endpoint::Other)[0].status, Some(404));
    assert_eq!((fake.count_of_log(), fake.count(Endpoint::Other), fake.count_of_all()), (2, 1, 4));
    fake.forget_requests();
    assert_eq!((fake.count_of_all(), fake.requests().len()), (0, 0));
    ask(&fake, "GET", "/api/status", "");
    fake.wait_for_requests(Endpoint::Status, 1, TIMEOUT);
}

#[test]
fn users_may_do_what_their_role_says() {
    let fake = with_tokens();
    fake.add_user(User::new(2, "ann", Role::Admin));
    fake.add_user(User::new(3, "tom", Role::Common));
    fake.add_token(Token::new(9, "toms").owned_by(3));
    let status_of = |name: &str, id: &str, method: &str, target: &str, body: &str| {
        let token = format!("access-token-of-{name}");
        let headers = [("Authorization", token.as_str()), ("New-Api-User", id)];
        let answer = connect(&fake).request(&http_request(method, target, &headers, body.as_bytes())).unwrap();
        (answer.status, answer.json()["success"] == true)
    };
    assert_eq!(status_of("ann", "2", "GET", "/api/log/", ""), (200, true));
    assert_eq!(status_of("ann", "2", "GET", "/api/option/", ""), (200, false), "root alone");
    assert_eq!(status_of("tom", "3", "GET", "/api/log/", ""), (200, false));
    assert_eq!(status_of("tom", "3", "GET", "/api/log/stat", ""), (200, false));
    assert_eq!(status_of("tom", "3", "GET", "/api/token/", ""), (200, true));
    let switch = |id: i64| format!(r#"{{"id":{id},"status":2}}"#);
    assert_eq!(status_of("tom", "3", "PUT", "/api/token/?status_only=1", &switch(9)), (200, true));
    assert_eq!(status_of("tom", "3", "PUT", "/api/token/?status_only=1", &switch(1)), (200, false), "not his");
    assert_eq!((fake.token(9).status, fake.token(1).status), (2, 1));
    fake.set_role(3, Role::Root);
    assert_eq!(status_of("tom", "3", "PUT", "/api/option/", r#"{"key":"webhook_url","value":""}"#), (200, true));
    fake.set_access_token(3, "another");
    assert_eq!(status_of("tom", "3", "GET", "/api/log/", ""), (200, false), "the old one is wrong now");
}

#[test]
fn its_clock_is_what_the_test_says() {
    let fake = with_calls(2);
    fake.set_now_secs(SECOND + 61);
    let statistics = |fake: &NewApiHandle| ask(fake, "GET", "/api/log/stat", "").json()["data"].clone();
    assert_eq!(statistics(&fake), json!({ "quota": 21, "rpm": 1, "tpm": 150 }), "the rates are of a minute");
    let folder = TestFolder::new();
    let clock = MovableClock::at(&folder.path().join("clock"));
    clock.set_offset_millis(-1_000_000_000_000);
    fake.follow(&clock);
    let before = clock.now_secs();
    let told = fake.now_secs();
    assert!((before..=clock.now_secs()).contains(&told));
    fake.insert(Row::new(ERROR, SECOND));
    assert_eq!(items(&fake, "type=5").len(), 1, "rows bring their own second");
}

//! Each fault of the fake new-api, seen by a raw client.

use std::io::ErrorKind;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::wire::http_request;
use super::self_check::{SECOND, TIMEOUT, as_root, ask, connect, ids, items, with_calls, with_tokens};
use super::{Call, Dialect, Endpoint, Fault, LogStore, NewApi, RateLimit, Row, rows};

const ROWS: &str = "/api/log/?type=2&p=1&page_size=100";

#[test]
fn a_late_row_is_seen_later_under_an_earlier_second_and_id() {
    let fake = with_tokens();
    let late = fake.call(&Call::new(1, "m", SECOND).late()).log_id.unwrap();
    let early = fake.call(&Call::new(1, "m", SECOND + 1)).log_id.unwrap();
    assert_eq!((late < early, ids(&fake, "type=2")), (true, vec![early]));
    fake.log(|log| log.reveal(late));
    assert_eq!(ids(&fake, "type=2"), [early, late]);
    fake.log(|log| log.hide(early));
    assert_eq!(ids(&fake, "type=2"), [late], "any row can be late");
    let row = Row::new(rows::REFUND, SECOND);
    let third = fake.log(|log| log.insert_hidden_for_reads(row, 2));
    let seen: Vec<usize> = (0..3).map(|_| ids(&fake, "type=6").len()).collect();
    assert_eq!(seen, [0, 0, 1], "after two answers without row {third}");
}

#[test]
fn rows_that_come_and_go_between_pages_shift_them() {
    let fake = with_calls(6);
    let page = |number| ids(&fake, &format!("type=2&p={number}&page_size=3"));
    fake.before_page(2, |log| {
        log.insert(Row::new(rows::CONSUMPTION, SECOND + 100));
    });
    assert_eq!((page(1), page(2)), (vec![6, 5, 4], vec![4, 3, 2]), "a row is seen twice");
    fake.before_page(2, |log| log.delete(7));
    assert_eq!((page(1), page(2), page(2)), (vec![7, 6, 5], vec![3, 2, 1], vec![3, 2, 1]), "a row is missed");
}

#[test]
fn deleted_truncated_and_moved_rows_have_other_ids_or_none() {
    let fake = with_calls(5);
    fake.log(|log| log.delete_before(SECOND + 2));
    assert_eq!(ids(&fake, "type=2"), [5, 4, 3]);
    let next = fake.call(&Call::new(1, "m", SECOND + 9)).log_id;
    assert_eq!(next, Some(6), "ids go on");
    let before: Vec<Value> = items(&fake, "type=2").iter().map(|row| row["request_id"].clone()).collect();
    fake.log(|log| log.renumber(1001));
    assert_eq!(ids(&fake, "type=2"), [1004, 1003, 1002, 1001]);
    let after: Vec<Value> = items(&fake, "type=2").iter().map(|row| row["request_id"].clone()).collect();
    assert_eq!(before, after, "the same rows");
    fake.log(|log| log.change(1004, |row| row.quota = 77));
    assert_eq!(items(&fake, "type=2")[0]["quota"], 77);
    fake.log(super::Log::truncate);
    assert_eq!(ids(&fake, "type=2"), [0; 0]);
    assert_eq!(fake.call(&Call::new(1, "m", SECOND + 10)).log_id, Some(1), "ids begin anew");
}

#[test]
fn clickhouse_makes_ids_up_for_each_answer() {
    let fake = with_calls(4);
    fake.keep_log_in(LogStore::ClickHouse);
    assert_eq!(ids(&fake, "type=2&p=1&page_size=2"), [1, 2]);
    assert_eq!(ids(&fake, "type=2&p=2&page_size=2"), [1, 2]);
    let quotas: Vec<Value> = items(&fake, "type=2").iter().map(|row| row["quota"].clone()).collect();
    assert_eq!(quotas, [13, 12, 11, 10], "the rows are what they were");
}

#[test]
fn older_versions_answer_in_their_own_ways() {
    let fake = with_calls(12);
    let old = fake.insert(Row::new(rows::CONSUMPTION, SECOND - 50));
    fake.speak(Dialect::Of2025);
    let data = ask(&fake, "GET", "/api/log/?type=2&p=0&page_size=5", "").json()["data"].clone();
    assert_eq!((&data["page"], &data["total"]), (&json!(1), &json!(13)));
    assert_eq!((&data["items"][0]["id"], data["items"][0].get("request_id")), (&json!(old), None), "by id alone");

    fake.speak(Dialect::BareList);
    let page = |number: i64| {
        let answer = ask(&fake, "GET", &format!("/api/log/?type=2&p={number}&page_size=100"), "").json();
        answer["data"].as_array().expect("a bare list").clone()
    };
    assert_eq!((page(0).len(), page(1).len(), page(2).len()), (10, 3, 0));
    assert_eq!(page(0)[0]["id"], old);
    assert!(page(0).iter().all(|row| row.get("request_id").is_none() && row["token_id"].is_i64()));
    let asked = ask(&fake, "GET", "/api/log/?type=2&p=0&request_id=none", "").json();
    assert_eq!(asked["data"].as_array().map(Vec::len), Some(10), "a filter that it does not know");
    assert_eq!(ask(&fake, "GET", "/api/log/stat", "").json()["data"], json!({ "quota": 186 }));
}

#[test]
fn a_fault_befalls_whom_the_script_names() {
    let fake = with_calls(1);
    let status_of = |target: &str| ask(&fake, "GET", target, "").status;
    fake.fail(Fault::ServerError.on(Endpoint::LogRows).after(1).times(2));
    let statuses: Vec<u16> = (0..4).map(|_| status_of(ROWS)).collect();
    assert_eq!((statuses, status_of("/api/status")), (vec![200, 500, 500, 200], 200));
    fake.fail_next(1, Fault::TooManyRequests);
    fake.fail_next(1, Fault::Html(502));
    assert_eq!([status_of(ROWS), status_of("/api/status"), status_of(ROWS)], [429, 502, 200], "one after the other");
    fake.fail(Fault::TooManyRequests);
    assert_eq!([status_of(ROWS), status_of(ROWS)], [429, 429], "until it is healed");
    fake.heal();
    assert_eq!(status_of(ROWS), 200);
    assert_eq!(fake.requests_to(Endpoint::LogRows).iter().filter(|entry| entry.status == Some(429)).count(), 3);
}

#[test]
fn answers_that_are_no_answers_of_the_gateway() {
    let fake = with_calls(1);
    fake.fail_next(1, Fault::TooManyRequests);
    let limited = ask(&fake, "GET", ROWS, "");
    assert_eq!((limited.status, limited.body.len()), (429, 0));
    let headers = ["Retry-After", "Content-Type", "X-Oneapi-Request-Id"].map(|name| limited.header(name).is_some());
    assert_eq!(headers, [false, false, true]);

    for status in [502, 200] {
        fake.fail_next(1, Fault::Html(status));
        let page = ask(&fake, "GET", ROWS, "");
        assert_eq!((page.status, page.text().starts_with("<html>")), (status, true));
        assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
        assert_eq!(page.header("X-Oneapi-Request-Id"), None);
    }
    fake.fail_next(1, Fault::ServerError);
    let panic = ask(&fake, "GET", ROWS, "");
    assert_eq!((panic.status, panic.json().get("success")), (500, None));
    fake.fail_next(1, Fault::Refused("database is locked".to_owned()));
    let refused = ask(&fake, "GET", ROWS, "");
    assert_eq!(refused.json(), json!({ "success": false, "message": "database is locked" }));
    assert_eq!(refused.status, 200);

    let elsewhere = NewApi::start();
    fake.fail_next(1, Fault::Redirect(elsewhere.url()));
    let moved = ask(&fake, "GET", ROWS, "");
    assert_eq!((moved.status, moved.header("Location")), (302, Some(format!("{}{ROWS}", elsewhere.url()).as_str())));
}

#[test]
fn answers_that_break_off_hang_or_come_late() {
    let fake = with_calls(30);
    fake.fail_next(1, Fault::HalfABody);
    let broken = connect(&fake).request(&as_root(&fake, "GET", ROWS, "")).unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::UnexpectedEof);
    fake.fail_next(1, Fault::HalfABody);
    let broken = connect(&fake).request(&http_request("GET", "/api/status", &[], b"")).unwrap_err();
    assert_eq!(broken.kind(), ErrorKind::UnexpectedEof, "of a counted body");
    fake.fail_next(1, Fault::Cut);
    let cut = connect(&fake).request(&as_root(&fake, "GET", ROWS, "")).unwrap_err();
    assert!(matches!(cut.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset), "{cut}");

    for (fault, is_answered) in [(Fault::Hang, false), (Fault::Delay(Duration::from_secs(3600)), true)] {
        fake.fail(fault.clone());
        fake.forget_requests();
        let mut waiting = connect(&fake);
        waiting.send(&as_root(&fake, "GET", ROWS, "")).unwrap();
        fake.wait_for_requests(Endpoint::LogRows, 1, TIMEOUT);
        waiting.set_timeout(Duration::from_millis(50));
        assert_eq!(waiting.read_response().unwrap_err().kind(), ErrorKind::TimedOut, "{fault:?}");
        fake.heal();
        waiting.set_timeout(TIMEOUT);
        assert_eq!(waiting.read_response().is_ok(), is_answered, "{fault:?}");
    }
    fake.fail_next(1, Fault::Delay(Duration::from_millis(20)));
    assert_eq!(ask(&fake, "GET", ROWS, "").status, 200, "it passes by itself");

    fake.fail(Fault::Hang);
    fake.forget_requests();
    let mut hanging = connect(&fake);
    hanging.send(&as_root(&fake, "GET", ROWS, "")).unwrap();
    fake.wait_for_requests(Endpoint::LogRows, 1, TIMEOUT);
    drop(fake);
    assert!(hanging.read_response().is_err(), "it ends with the fake");
}

#[test]
fn an_oversized_body_is_as_long_as_it_says() {
    let fake = with_calls(1);
    fake.fail_next(1, Fault::Oversized(3_000_000));
    let answer = ask(&fake, "GET", ROWS, "");
    assert!(answer.body.len() > 3_000_000 && answer.header("Content-Length").is_none());
    assert_eq!(answer.json()["success"], true);
    fake.fail_next(1, Fault::Oversized(1_000_000_000));
    let mut left = connect(&fake);
    left.send(&as_root(&fake, "GET", ROWS, "")).unwrap();
    fake.wait_for_requests(Endpoint::LogRows, 2, TIMEOUT);
    drop(left); // who leaves in the middle holds nobody up
    assert_eq!(ask(&fake, "GET", ROWS, "").status, 200);
}

#[test]
fn statistics_and_filters_that_lie() {
    let fake = with_calls(3);
    fake.fail_next(2, Fault::StatisticsOfZero);
    let statistics = || ask(&fake, "GET", "/api/log/stat", "").json();
    assert_eq!(ids(&fake, "type=2").len(), 3, "rows are no statistics, and use no script up");
    for _ in 0..2 {
        let zero = json!({ "data": { "quota": 0, "rpm": 0, "tpm": 0 }, "message": "", "success": true });
        assert_eq!(statistics(), zero);
    }
    assert_eq!(statistics()["data"]["quota"], 33);
    let window = format!("type=2&start_timestamp={SECOND}&end_timestamp={SECOND}");
    fake.fail(Fault::TimesIgnored);
    assert_eq!(ids(&fake, &window), [3, 2, 1]);
    assert_eq!(ask(&fake, "GET", &format!("/api/log/stat?{window}"), "").json()["data"]["quota"], 33);
    fake.heal();
    assert_eq!(ids(&fake, &window), [1]);
}

#[test]
fn the_limit_of_calls_is_the_real_one() {
    let fake = with_tokens();
    fake.set_now_secs(SECOND);
    fake.limit_calls(Some(RateLimit::REAL));
    let mut connection = connect(&fake);
    let mut status = || connection.request(&http_request("GET", "/api/status", &[], b"")).unwrap().status;
    let statuses: Vec<u16> = (0..360).map(|_| status()).collect();
    assert_eq!(statuses.iter().position(|status| *status == 429), Some(359), "the 360th is refused");
    fake.set_now_secs(SECOND + 179);
    assert_eq!(status(), 429);
    fake.set_now_secs(SECOND + 180);
    assert_eq!(status(), 200);
    fake.limit_calls(Some(RateLimit { calls: 0, window_secs: 1 }));
    assert_eq!(status(), 429);
    fake.limit_calls(None);
    assert_eq!(status(), 200);
}

#[test]
fn its_date_can_be_off_or_missing() {
    let fake = NewApi::start();
    fake.set_now_secs(1_766_300_000);
    let date = || ask(&fake, "GET", "/api/status", "").header("Date").map(str::to_owned);
    assert_eq!(date().as_deref(), Some("Sun, 21 Dec 2025 06:53:20 GMT"));
    fake.skew_date_secs(-90);
    assert_eq!(date().as_deref(), Some("Sun, 21 Dec 2025 06:51:50 GMT"));
    fake.send_no_date();
    assert_eq!(date(), None);
}

#[test]
fn a_cut_is_felt_by_everybody_who_is_connected() {
    let fake = NewApi::start();
    let mut connection = connect(&fake);
    let request = http_request("GET", "/api/status", &[], b"");
    assert_eq!(connection.request(&request).unwrap().status, 200);
    fake.cut();
    assert!(connection.request(&request).is_err());
    assert_eq!(ask(&fake, "GET", "/api/status", "").status, 200, "a new one is taken");
}

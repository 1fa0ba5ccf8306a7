//! Requests that lie about themselves, bombs of headers, and many requests at once on one connection.

use super::rig::{Siege, closed, eventually, health, impatient};
use crate::intake::rig::{SIGNATURE, events_request, processed, turned_away};
use crate::kit::daemon::{DaemonOptions, SECRET};
use crate::kit::sign::signature;
use crate::kit::wire::http_request;

/// Connections of each kind at once.
const CROWD: usize = 60;

/// Just below what a head may be long.
const LONG_HEAD_BYTES: usize = 120_000;

#[test]
fn bombs_of_headers_are_refused() {
    let mut siege = Siege::begin(DaemonOptions::new());
    let names: Vec<String> = (0..2000).map(|number| format!("X-Bomb-{number}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let huge = "x".repeat(400_000);
    for (what, bomb) in [
        ("two thousand headers", http_request("GET", "/healthz", &many, b"")),
        ("a hundred headers", http_request("GET", "/healthz", &many[..100], b"")),
        ("one huge header", http_request("GET", "/healthz", &[("X-Bomb", &huge)], b"")),
        ("a huge path", http_request("GET", &format!("/{huge}"), &[], b"")),
        ("a huge name", http_request("GET", "/healthz", &[(&huge, "1")], b"")),
        ("no end of blank lines", b"\r\n".repeat(100_000)),
    ] {
        let mut connection = siege.daemon.connection();
        // The server may close before it has taken all of it.
        drop(connection.send(&bomb));
        connection.finish_sending().ok();
        let answer = String::from_utf8(closed(&mut connection, what)).expect("text");
        let is_refused = answer.is_empty() || ["400", "414", "431"].iter().any(|code| answer[9..].starts_with(code));
        assert!(is_refused, "{what}: {}", &answer[..answer.len().min(200)]);
        siege.good(&format!("after {what}"));
    }
    assert_eq!(
        siege.daemon.connection().request(&http_request("GET", "/healthz", &many[..40], b"")).unwrap().status,
        200
    );
    siege.end();
}

#[test]
fn long_heads_without_an_end_cost_their_own_bytes_and_not_for_long() {
    let mut siege = Siege::begin(impatient());
    let long = format!("GET /healthz HTTP/1.1\r\nHost: h\r\nX-Bomb: {}", "x".repeat(LONG_HEAD_BYTES));
    let crowd = siege.crowd(CROWD, long.as_bytes());
    for round in 0..5 {
        siege.good(&format!("round {round}, beside long heads"));
        siege.assert_within(CROWD);
    }
    siege.wait_alone("long heads");
    drop(crowd);
    siege.end();
}

#[test]
fn bodies_that_claim_more_than_they_send_reserve_nothing() {
    let mut siege = Siege::begin(impatient());
    let right = signature(SECRET, b"{}");
    let claims = |length: &str| events_request(&[(SIGNATURE, right.as_str()), ("Content-Length", length)], "{}");
    for length in ["65537", "1000000000000", "18446744073709551615"] {
        let mut connection = siege.daemon.connection();
        let answer = connection.request(&claims(length)).expect("an answer");
        turned_away(413).assert_met(length, &answer);
        assert!(answer.closes(), "{length}: what would follow is never read");
    }
    for length in ["18446744073709551616", "-1", "0x10", "2, 2"] {
        let mut connection = siege.daemon.connection();
        connection.send(&claims(length)).expect("it is taken");
        let answer = String::from_utf8(closed(&mut connection, length)).expect("text");
        assert!(answer.starts_with("HTTP/1.1 400"), "{length}: {answer}");
    }
    let chunked = |size: &str| {
        let headers = [(SIGNATURE, right.as_str()), ("Transfer-Encoding", "chunked")];
        events_request(&headers, format!("{size}\r\n{{}}"))
    };
    for size in ["FFFFFFFFFFFFFFFF", "10000000000000000", "-2", "zz"] {
        let mut connection = siege.daemon.connection();
        connection.send(&chunked(size)).expect("it is taken");
        let answer = String::from_utf8(closed(&mut connection, size)).expect("text");
        assert!(["400", "408", "413"].iter().any(|code| answer[9..].starts_with(code)), "{size}: {answer}");
    }
    let crowd = siege.crowd(2 * CROWD, &claims("65536"));
    siege.good("beside claims");
    siege.assert_within(2 * CROWD);
    siege.wait_alone("claims");
    drop(crowd);
    siege.end();
}

#[test]
fn what_is_sent_beyond_a_body_is_a_request_of_its_own() {
    let mut siege = Siege::begin(impatient().set("HOOKLEDGER__SERVER__KEEP_ALIVE", "4s"));
    let (event, event_id) = siege.next_event();
    for (what, surplus) in [("junk", b"x".repeat(1_000_000)), ("an unfinished request", b"GET / HTTP/1.1\r\n".to_vec())]
    {
        let mut connection = siege.daemon.connection();
        let (mut good, mut good_id) = (event.clone(), event_id.clone());
        if what != "junk" {
            (good, good_id) = siege.next_event();
        }
        drop(connection.send(&[good, surplus].concat()));
        let answer = connection.read_response().expect("the event is answered");
        processed(&good_id).assert_met(&format!("before {what}"), &answer);
        let rest = String::from_utf8(closed(&mut connection, what)).expect("text");
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 4"), "{what}: {rest}");
    }
    siege.end();
}

#[test]
fn requests_that_come_while_others_wait_are_answered_too() {
    // More than the server looks at while one is at work.
    const FIRST: usize = 40;
    let mut siege = Siege::begin(DaemonOptions::new());
    let events: Vec<(Vec<u8>, String)> = (0..2 * FIRST).map(|_| siege.next_event()).collect();
    let mut connection = siege.daemon.connection();
    for some in events.chunks(FIRST) {
        let packet: Vec<u8> = some.iter().flat_map(|(request, _)| request.clone()).collect();
        connection.send(&packet).expect("they are taken");
    }
    for (_, event_id) in &events {
        processed(event_id).assert_met(event_id, &connection.read_response().expect("an answer"));
    }
    siege.end();
}

#[test]
fn many_requests_at_once_are_each_answered_in_their_order() {
    const EVENTS: usize = 300;
    let mut siege = Siege::begin(DaemonOptions::new());
    let events: Vec<(Vec<u8>, String)> = (0..EVENTS).map(|_| siege.next_event()).collect();
    let packet: Vec<u8> = events.iter().flat_map(|(request, _)| request.clone()).collect();
    let mut connection = siege.daemon.connection();
    let mut sent = 0;
    let mut answered = events.iter();
    let mut take = |connection: &mut crate::kit::wire::Connection| {
        let (_, event_id) = answered.next().expect("as many answers as requests");
        processed(event_id).assert_met(event_id, &connection.read_response().expect("an answer"));
    };
    let mut taken = 0;
    eventually("all are sent", || {
        let more = connection.send_some(&packet[sent..]).expect("the connection is open");
        sent += more;
        if more == 0 && sent < packet.len() {
            take(&mut connection);
            taken += 1;
        }
        sent == packet.len()
    });
    (taken..EVENTS).for_each(|_| take(&mut connection));

    // And as many as fit, of the smallest, with one kind among them that is refused.
    let small = [health(), http_request("GET", "/nope", &[], b"")].concat();
    connection.send(&small.repeat(500)).expect("they are taken");
    for number in 0..1000 {
        let status = connection.read_response().expect("an answer").status;
        assert_eq!(status, if number % 2 == 0 { 200 } else { 404 }, "request {number}");
    }
    siege.good("after pipelines");
    siege.end();
}

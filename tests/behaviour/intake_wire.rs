//! Raw HTTP: many requests on one connection, bodies in pieces, and connections that break.

use super::rig::{
    Body, CHARGED, Counts, Expected, Intake, NOTHING, SIGNATURE, badly_signed, blames, chunked_request, conflict,
    events_request, processed, repeated, turned_away, unfinished_chunks, unsigned,
};
use crate::kit::daemon::SECRET;
use crate::kit::sign::{EVENTS_PATH, signature};
use crate::kit::wire::{Connection, http_request};

fn split_head(request: &[u8]) -> (&[u8], &[u8]) {
    let end = request.windows(4).position(|window| window == b"\r\n\r\n").expect("a request has a head") + 4;
    request.split_at(end)
}

#[track_caller]
fn assert_next_answer(connection: &mut Connection, what: &str, expected: &Expected) {
    let answer = connection.read_response().unwrap_or_else(|error| panic!("{what}: no answer: {error}"));
    expected.assert_met(what, &answer);
}

#[test]
fn requests_in_one_packet_are_answered_one_by_one_in_their_order() {
    let mut intake = Intake::start();
    let good = |event_id: &str| intake.daemon.signed_request(Body::usage(event_id).json());
    let script: Vec<(&str, Vec<u8>, Expected)> = vec![
        ("first", good("first"), processed("first")),
        ("second", good("second"), processed("second")),
        ("unsigned", events_request(&[], "{}"), unsigned()),
        ("no such path", http_request("GET", "/nope", &[], b""), turned_away(404)),
        ("the first again", good("first"), repeated("first")),
        ("third", good("third"), processed("third")),
    ];
    let packet: Vec<u8> = script.iter().flat_map(|(_, request, _)| request.clone()).collect();
    let mut connection = intake.daemon.connection();
    connection.send(&packet).expect("the packet is taken");
    for (what, _, expected) in &script {
        assert_next_answer(&mut connection, what, expected);
    }
    intake.assert_left("six requests in one packet", CHARGED + CHARGED + CHARGED);
    intake.finish();
}

#[test]
fn a_connection_outlives_refusals() {
    let mut intake = Intake::start();
    let signed = |body: &Body| intake.daemon.signed_request(body.json());
    let good = Body::usage("good");
    let wrong = "0".repeat(64);
    let script: Vec<(&str, Vec<u8>, Expected)> = vec![
        ("good", signed(&good), processed("good")),
        ("400 unsigned", events_request(&[], good.json()), unsigned()),
        ("403", events_request(&[(SIGNATURE, &wrong)], good.json()), badly_signed()),
        ("400 malformed", signed(&good.clone().without("data.model")), blames("data.model")),
        ("409", signed(&good.clone().set("data.quota", 501)), conflict()),
        ("404", http_request("GET", "/nope", &[], b""), turned_away(404)),
        ("405", http_request("GET", EVENTS_PATH, &[], b""), turned_away(405)),
        ("good again", signed(&good), repeated("good")),
        ("another", signed(&Body::usage("another")), processed("another")),
    ];
    let mut connection = intake.daemon.connection();
    for (what, request, expected) in &script {
        connection.send(request).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_next_answer(&mut connection, what, expected);
    }
    intake.assert_left("nine requests on one connection", CHARGED + CHARGED);
    intake.finish();
}

#[test]
fn a_body_that_nobody_reads_is_never_taken_for_a_request() {
    let mut intake = Intake::start();
    let inner = intake.daemon.signed_request(Body::usage("smuggled").json());
    for (what, outer, status) in [
        ("no such path", http_request("POST", "/nope", &[], &inner), 404),
        ("wrong method", http_request("PUT", EVENTS_PATH, &[], &inner), 405),
        ("health", http_request("GET", "/healthz", &[("Content-Length", &inner.len().to_string())], &inner), 200),
        ("unsigned", events_request(&[], &inner), 400),
    ] {
        let mut connection = intake.daemon.connection();
        let answer = connection.request(&outer).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        // Either the connection goes on behind the body, or the answer says that it does not.
        match connection.request(&events_request(&[], "probe")) {
            Ok(answer) => unsigned().assert_met(&format!("after {what}"), &answer),
            Err(error) => assert!(answer.closes(), "after {what}: {error}, and the answer did not say so"),
        }
        intake.assert_left(what, NOTHING);
    }
    intake.finish();
}

#[test]
fn headers_are_found_in_any_case() {
    let mut intake = Intake::start();
    for (what, names) in [
        ("lower case", ["x-webhook-signature", "content-length"]),
        ("upper case", ["X-WEBHOOK-SIGNATURE", "CONTENT-LENGTH"]),
        ("mixed case", ["x-WebHook-sIGNATURE", "cOntent-lEngth"]),
    ] {
        let body = Body::usage(what).json();
        let (right, length) = (signature(SECRET, body.as_bytes()), body.len().to_string());
        let request = events_request(&[(names[0], &right), (names[1], &length)], &body);
        intake.check(what, &request, &processed(what), CHARGED);
    }
    intake.finish();
}

#[test]
fn a_body_may_come_in_pieces() {
    let mut intake = Intake::start();
    let long = Body::usage("one byte a chunk").set("data.extra", format!("\"{}\"", "é".repeat(500)));
    let chunked = chunked_request(SECRET, long.json().as_bytes(), 1);
    intake.check("one byte a chunk", &chunked, &processed("one byte a chunk"), CHARGED);
    let chunked = chunked_request(SECRET, Body::usage("one chunk").json().as_bytes(), 100_000);
    intake.check("one chunk", &chunked, &processed("one chunk"), CHARGED);

    let request = intake.daemon.signed_request(Body::usage("one byte a packet").json());
    let mut connection = intake.daemon.connection();
    for byte in &request {
        connection.send(&[*byte]).expect("the byte is taken");
    }
    assert_next_answer(&mut connection, "one byte a packet", &processed("one byte a packet"));
    intake.assert_left("one byte a packet", CHARGED);
    intake.finish();
}

#[test]
fn a_sender_may_wait_for_leave_to_send_its_body() {
    let mut intake = Intake::start();
    let body = Body::usage("waited").json();
    let right = signature(SECRET, body.as_bytes());
    let request = events_request(&[("Expect", "100-continue"), (SIGNATURE, &right)], &body);
    let (head, body) = split_head(&request);
    let mut connection = intake.daemon.connection();
    connection.send(head).expect("the head is taken");
    assert_eq!(connection.read_response().expect("leave to go on").status, 100);
    connection.send(body).expect("the body is taken");
    assert_next_answer(&mut connection, "the body after leave", &processed("waited"));
    intake.assert_left("a body after leave", CHARGED);

    let headers = [("Expect", "100-continue"), ("Content-Length", "65537"), (SIGNATURE, right.as_str())];
    connection.send(&events_request(&headers, "")).expect("the head is taken");
    let mut answer = connection.read_response().expect("an answer");
    if answer.status == 100 {
        answer = connection.read_response().expect("an answer after the leave");
    }
    turned_away(413).assert_met("leave for too large a body", &answer);
    intake.assert_left("leave for too large a body", NOTHING);
    intake.finish();
}

/// Sends what there is, says that no more will come, and waits until the server has closed as well.
#[track_caller]
fn assert_cut(intake: &mut Intake, what: &str, sent: &[u8]) {
    let mut connection = intake.daemon.connection();
    connection.send(sent).unwrap_or_else(|error| panic!("{what}: {error}"));
    connection.finish_sending().unwrap_or_else(|error| panic!("{what}: {error}"));
    let answer = connection.read_to_end().unwrap_or_else(|error| panic!("{what}: not closed: {error}"));
    assert!(!answer.starts_with(b"HTTP/1.1 2"), "{what}: {}", String::from_utf8_lossy(&answer));
    intake.assert_left(what, NOTHING);
}

#[test]
fn a_request_that_breaks_off_leaves_nothing() {
    let mut intake = Intake::start();
    let request = intake.daemon.signed_request(Body::usage("cut").json());
    let (head, body) = split_head(&request);
    let (head_bytes, all_bytes) = (head.len(), request.len());
    for (what, kept_bytes) in [
        ("nothing", 0),
        ("half the head", head_bytes / 2),
        ("the head but for its last byte", head_bytes - 1),
        ("the head", head_bytes),
        ("one byte of the body", head_bytes + 1),
        ("half the body", head_bytes + body.len() / 2),
        ("all but the last byte", all_bytes - 1),
    ] {
        assert_cut(&mut intake, what, &request[..kept_bytes]);
    }
    // Whole and rightly signed, but more was announced.
    let right = signature(SECRET, body);
    let longer = (body.len() + 1).to_string();
    let request = events_request(&[(SIGNATURE, &right), ("Content-Length", &longer)], body);
    assert_cut(&mut intake, "one byte less than announced", &request);
    let headers = [(SIGNATURE, right.as_str()), ("Transfer-Encoding", "chunked")];
    for (what, chunks) in [
        ("chunks without an end", unfinished_chunks(body, 50)),
        ("a chunk cut short", unfinished_chunks(body, 50)[..80].to_vec()),
        ("the start of the last chunk", [unfinished_chunks(body, 50), b"0\r\n".to_vec()].concat()),
    ] {
        assert_cut(&mut intake, what, &events_request(&headers, chunks));
    }
    intake.finish();
}

#[test]
fn a_head_that_can_be_read_in_two_ways_is_refused() {
    let mut intake = Intake::start();
    let body = Body::usage("ambiguous").json();
    let right = signature(SECRET, body.as_bytes());
    let length = body.len().to_string();
    let long_header = "x".repeat(300_000);
    let rows: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("two lengths", vec![("Content-Length", &length), ("Content-Length", "5")]),
        ("a length and chunks", vec![("Content-Length", &length), ("Transfer-Encoding", "chunked")]),
        ("a length with a sign", vec![("Content-Length", "+5")]),
        ("a negative length", vec![("Content-Length", "-5")]),
        ("a length that is no number", vec![("Content-Length", "all")]),
        ("a head without an end", vec![("X-Filler", &long_header), ("Content-Length", &length)]),
    ];
    for (what, headers) in rows {
        let headers = [vec![(SIGNATURE, right.as_str())], headers].concat();
        let mut connection = intake.daemon.connection();
        // The server may close before it has taken all of it.
        drop(connection.send(&events_request(&headers, &body)));
        if let Ok(answer) = connection.read_response() {
            assert!((400..500).contains(&answer.status), "{what}: {} {}", answer.status, answer.text());
        }
        intake.assert_left(what, Counts::default());
    }
    intake.finish();
}

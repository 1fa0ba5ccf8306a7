//! Clients that are slow or silent: no connection outlives its deadlines, on its first request or on a later one.

use super::rig::{Siege, closed, health, impatient, trickle_until_closed};
use crate::intake::rig::{SIGNATURE, events_request};
use crate::kit::wire::http_request;

/// Connections of each kind at once.
const CROWD: usize = 60;

/// The start of a head, and the rest of it byte by byte.
const HALF_A_HEAD: &[u8] = b"POST /api/webhooks/events HTTP/1.1\r\nHost: h\r\nX-Filler: ";

#[test]
fn a_head_has_its_deadline_on_later_requests_too() {
    let siege = Siege::begin(impatient());
    let mut connection = siege.daemon.connection();
    assert_eq!(connection.request(&health()).expect("an answer").status, 200);
    connection.send(HALF_A_HEAD).expect("the start is taken");
    closed(&mut connection, "half of a second head, and silence");

    let mut connection = siege.daemon.connection();
    assert_eq!(connection.request(&health()).expect("an answer").status, 200);
    connection.send(HALF_A_HEAD).expect("the start is taken");
    assert!(trickle_until_closed(&mut connection, b"x"), "a second head byte by byte");

    // In one packet with a whole request.
    let mut connection = siege.daemon.connection();
    connection.send(&[&health(), HALF_A_HEAD].concat()).expect("both are taken");
    assert_eq!(connection.read_response().expect("an answer").status, 200);
    assert!(trickle_until_closed(&mut connection, b"x"), "what came with a whole request, byte by byte");
    siege.end();
}

#[test]
fn a_body_that_nobody_reads_does_not_come_for_ever() {
    let siege = Siege::begin(impatient());
    for (what, head) in [
        ("chunks to no such path", http_request("POST", "/nope", &[("Transfer-Encoding", "chunked")], b"")),
        ("chunks to health", http_request("GET", "/healthz", &[("Transfer-Encoding", "chunked")], b"")),
        ("a long body to no such path", http_request("POST", "/nope", &[("Content-Length", "60000")], b"")),
        ("a long body, wrong method", http_request("PUT", "/api/webhooks/events", &[("Content-Length", "60000")], b"")),
    ] {
        let mut connection = siege.daemon.connection();
        connection.send(&head).expect("the head is taken");
        assert!(trickle_until_closed(&mut connection, b"1\r\nx\r\n"), "{what}");
    }
    siege.end();
}

#[test]
fn slow_senders_hold_up_nobody_and_are_given_up() {
    let mut siege = Siege::begin(impatient());
    let wrong = "0".repeat(64);
    let head = events_request(&[(SIGNATURE, &wrong), ("Content-Length", "4000")], "");
    let mut heads = siege.crowd(CROWD, HALF_A_HEAD);
    let mut bodies = siege.crowd(CROWD, &head);
    for round in 0..10 {
        heads.iter_mut().chain(&mut bodies).for_each(|slow| drop(slow.send(b"x")));
        siege.good(&format!("round {round}, beside {} slow senders", 2 * CROWD));
        siege.assert_within(2 * CROWD);
    }
    for slow in &mut heads {
        let answer = String::from_utf8(closed(slow, "a slow head")).expect("text");
        assert!(answer.starts_with("HTTP/1.1 408") || answer.is_empty(), "a slow head: {answer}");
    }
    for slow in &mut bodies {
        let answer = String::from_utf8(closed(slow, "a slow body")).expect("text");
        assert!(answer.starts_with("HTTP/1.1 408") || answer.is_empty(), "a slow body: {answer}");
    }
    siege.wait_alone("slow senders");
    siege.end();
}

/// A client that is gone without a word looks like one that says nothing: its packets are only missing.
#[test]
fn who_says_nothing_more_is_given_up_wherever_he_stopped() {
    let mut siege = Siege::begin(impatient().set("HOOKLEDGER__SERVER__KEEP_ALIVE", "4s"));
    let signed = siege.daemon.signed_request("[]");
    let kinds: Vec<(&str, Vec<u8>)> = vec![
        ("without a byte", Vec::new()),
        ("in a head", HALF_A_HEAD.to_vec()),
        ("after a head", events_request(&[("Content-Length", "500")], "")),
        ("in a body", events_request(&[("Content-Length", "500")], "{")),
        ("after a request", health()),
        ("after a refusal", signed),
    ];
    let crowds: Vec<_> = kinds.iter().map(|(_, sent)| siege.crowd(CROWD / 3, sent)).collect();
    siege.good("beside silent clients");
    siege.assert_within(kinds.len() * CROWD / 3);
    siege.wait_alone("silent clients");
    siege.good("after silent clients");
    for ((what, _), crowd) in kinds.iter().zip(crowds) {
        crowd.into_iter().for_each(|mut connection| drop(closed(&mut connection, what)));
    }
    siege.end();
}

#[test]
fn who_takes_no_answers_is_given_up_and_holds_little() {
    let mut siege = Siege::begin(impatient());
    // What is answered at once, and what is answered a moment later.
    let small = http_request("GET", "/x", &[("Host", "h")], b"");
    let requests = [small.repeat(100), events_request(&[("Host", "h")], "").repeat(100)].concat().repeat(800);
    let mut crowd = siege.crowd(CROWD, b"");
    let mut sent = vec![0; CROWD];
    // Up to where the daemon takes no more and answers no more: its answers have nowhere to go.
    let (mut in_vain, mut answered) = (0, 0);
    while in_vain < 20 {
        let mut taken = 0;
        for (connection, sent) in crowd.iter_mut().zip(&mut sent) {
            let bytes = connection.send_some(&requests[*sent..]).unwrap_or_default();
            *sent += bytes;
            taken += bytes;
        }
        siege.good("beside clients that take no answers");
        siege.assert_within(CROWD);
        let before = std::mem::replace(&mut answered, unsigned_answers(&siege));
        in_vain = if taken == 0 && answered == before { in_vain + 1 } else { 0 };
    }
    assert!(sent.iter().all(|sent| *sent > 100_000), "they have sent much: {sent:?}");
    // The kernel keeps little of what nobody takes: of these answers and as many small ones some 300 kB each.
    assert!(answered < 2_000 * CROWD, "{answered} events were answered, to {CROWD} clients who take none");
    siege.wait_alone("clients that take no answers");
    drop(crowd);
    siege.end();
}

/// How many events without a signature were answered so far.
#[track_caller]
fn unsigned_answers(siege: &Siege) -> usize {
    let name = r#"hookledger_webhook_requests_total{outcome="missing_signature"}"#;
    siege.daemon.metric(name).expect("it is counted") as usize
}

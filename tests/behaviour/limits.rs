//! What a source may do: how often, from where, how large, how slowly, and how many at once.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crate::intake::rig::{
    Body, CHARGED, Counts, Intake, NOTHING, SIGNATURE, blames, events_request, processed, turned_away,
};
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::sign::{EVENTS_PATH, signature};
use crate::kit::wait::{poll, wait_until};
use crate::kit::wire::{Connection, Response, http_request};

const FORWARDED_FOR: &str = "X-Forwarded-For";
const TIMEOUT: Duration = Duration::from_secs(60);

/// Requests that are sent before the first answer is read.
const PIPELINED: usize = 25;

/// A wrongly signed request, as if from there.
fn forged(from: Option<&str>) -> Vec<u8> {
    request_from(&"0".repeat(64), "[]", from)
}

/// A rightly signed request, as if from there. It is malformed, so that nothing but its source is counted.
fn authentic(from: Option<&str>) -> Vec<u8> {
    request_from(&signature(SECRET, b"[]"), "[]", from)
}

fn request_from(signature: &str, body: &str, from: Option<&str>) -> Vec<u8> {
    let mut headers = vec![(SIGNATURE, signature)];
    headers.extend(from.map(|address| (FORWARDED_FOR, address)));
    events_request(&headers, body)
}

/// Sends all requests over one connection, as fast as they are taken.
#[track_caller]
fn flood(daemon: &Daemon, requests: &[Vec<u8>]) -> Vec<Response> {
    let mut connection = daemon.connection();
    let mut answers = Vec::new();
    for some in requests.chunks(PIPELINED) {
        connection.send(&some.concat()).expect("the requests are taken");
        answers.extend(some.iter().map(|_| connection.read_response().expect("each request is answered")));
    }
    answers
}

/// How often each status was answered. Each 429 must be whole.
#[track_caller]
fn statuses(answers: &[Response]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.status).or_default() += 1;
        if answer.status == 429 {
            turned_away(429).assert_met("too many", answer);
            assert_retry_after(answer);
        }
    }
    counts
}

#[track_caller]
fn assert_retry_after(answer: &Response) {
    let seconds = answer.header("Retry-After").and_then(|value| value.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds >= 1), "Retry-After is {:?}", answer.header("Retry-After"));
}

/// How many of twice its allowance a source got through before it was told to wait.
#[track_caller]
fn admitted(daemon: &Daemon, request: Vec<u8>, allowance: usize) -> usize {
    let answers = flood(daemon, &vec![request; 2 * allowance]);
    let counts = statuses(&answers);
    let refused = counts.get(&429).copied().unwrap_or_default();
    assert!(refused > 0, "nobody was told to wait: {counts:?}");
    2 * allowance - refused
}

/// A daemon that allows each source 20 wrongly signed requests, and then one a second.
fn few_forgeries() -> DaemonOptions {
    DaemonOptions::new().set("HOOKLEDGER__RATE_LIMIT__BAD_PER_SECOND", 1).set("HOOKLEDGER__RATE_LIMIT__BAD_BURST", 20)
}

fn behind_proxy(options: DaemonOptions, proxies: &str) -> DaemonOptions {
    options.set("HOOKLEDGER__SERVER__TRUSTED_PROXIES", proxies)
}

#[test]
fn a_source_over_its_rate_is_told_to_wait_and_then_served() {
    let options = DaemonOptions::new().set("HOOKLEDGER__RATE_LIMIT__PER_SECOND", 1);
    let daemon = Daemon::start(options.set("HOOKLEDGER__RATE_LIMIT__BURST", 10));
    let user = daemon.add_user("a@example.com", 1000);
    daemon.add_key(&user, 1);
    let before = Counts::of(&daemon.books());
    let bodies: Vec<String> = (0..30).map(|number| Body::usage(&format!("e{number}")).json()).collect();
    let requests: Vec<Vec<u8>> = bodies.iter().map(|body| daemon.signed_request(body)).collect();
    let answers = flood(&daemon, &requests);
    let counts = statuses(&answers);
    assert!(answers[..10].iter().all(|answer| answer.status == 200), "the burst is served: {counts:?}");
    let served = counts[&200];
    assert!((10..25).contains(&served) && counts[&429] == 30 - served, "{counts:?}");
    let charged = (0..served).fold(before, |sum, _| sum + CHARGED);
    assert_eq!(Counts::of(&daemon.books()), charged, "only what was answered 200 is charged");

    // Its rate comes before its form: a malformed request is told to wait as well.
    assert!(admitted(&daemon, authentic(None), 10) < 10, "malformed requests have no allowance of their own");
    let late = wait_until("the source may send again", TIMEOUT, || {
        let answer = daemon.post(Body::usage("late").json());
        (answer.status != 429).then_some(answer)
    });
    processed("late").assert_met("after the wait", &late);
    daemon.books().assert_whole();
}

#[test]
fn forgeries_use_up_an_allowance_of_their_own() {
    let daemon = Daemon::start(few_forgeries());
    let user = daemon.add_user("a@example.com", 1000);
    daemon.add_key(&user, 1);
    let answers = flood(&daemon, &vec![forged(None); 60]);
    let counts = statuses(&answers);
    assert!(answers[..20].iter().all(|answer| answer.status == 403), "the burst is told it is wrong: {counts:?}");
    for answer in answers.iter().filter(|answer| answer.status == 403) {
        crate::intake::rig::badly_signed().assert_met("within the allowance", answer);
    }
    assert!(counts[&429] > 20, "{counts:?}");
    for number in 0..20 {
        let event_id = format!("good-{number}");
        let answers = flood(&daemon, &[forged(None), daemon.signed_request(Body::usage(&event_id).json())]);
        processed(&event_id).assert_met("rightly signed, amid forgeries", &answers[1]);
    }
    assert_eq!(daemon.books().balance(&user), 1000 - 20);
    daemon.books().assert_whole();
}

#[test]
fn a_rate_of_zero_limits_nothing() {
    let options = DaemonOptions::new().set("HOOKLEDGER__RATE_LIMIT__PER_SECOND", 0);
    let daemon = Daemon::start(options.set("HOOKLEDGER__RATE_LIMIT__BAD_PER_SECOND", 0));
    assert_eq!(statuses(&flood(&daemon, &vec![authentic(None); 300])), [(400, 300)].into());
    assert_eq!(statuses(&flood(&daemon, &vec![forged(None); 300])), [(403, 300)].into());
}

#[test]
fn behind_a_trusted_proxy_each_forwarded_address_is_a_source() {
    let daemon = Daemon::start(behind_proxy(few_forgeries(), "127.0.0.0/8,10.0.0.0/8"));
    let admitted_from = |from: &str| admitted(&daemon, forged(Some(from)), 20);
    assert!(admitted_from("203.0.113.1") >= 20, "the first source");
    assert!(admitted_from("203.0.113.2") >= 20, "another source has its own allowance");
    assert!(admitted_from("203.0.113.1") < 20, "the first one's stays used up");
    for same in [
        "198.51.100.7, 203.0.113.1",
        "6.6.6.6, 7.7.7.7, 203.0.113.1",
        "nonsense, 203.0.113.1",
        "203.0.113.9, 203.0.113.1, 10.1.2.3",
        "203.0.113.1:4711",
        "  203.0.113.1  ",
        "::ffff:203.0.113.1",
    ] {
        assert!(admitted_from(same) < 20, "{same:?} is the first source");
    }
    assert!(admitted_from("203.0.113.1, 203.0.113.3") >= 20, "the last address counts");
}

#[test]
fn a_header_twice_is_one_list() {
    let daemon = Daemon::start(behind_proxy(few_forgeries(), "127.0.0.1"));
    assert!(admitted(&daemon, forged(Some("203.0.113.1")), 20) >= 20);
    let wrong = "0".repeat(64);
    let headers = [(FORWARDED_FOR, "6.6.6.6"), (FORWARDED_FOR, "203.0.113.1"), (SIGNATURE, wrong.as_str())];
    assert!(admitted(&daemon, events_request(&headers, "[]"), 20) < 20, "what the proxy added last counts");
}

#[test]
fn nobody_else_is_believed() {
    for options in [few_forgeries(), behind_proxy(few_forgeries(), "10.0.0.0/8,::1")] {
        let daemon = Daemon::start(options);
        assert!(admitted(&daemon, forged(Some("203.0.113.1")), 20) >= 20);
        assert!(admitted(&daemon, forged(Some("203.0.113.2")), 20) < 20, "the header is ignored");
        assert!(admitted(&daemon, forged(None), 20) < 20, "as is its absence");
    }
}

#[test]
fn an_ipv6_network_is_one_source() {
    let daemon = Daemon::start(behind_proxy(few_forgeries(), "127.0.0.1"));
    let admitted_from = |from: &str| admitted(&daemon, forged(Some(from)), 20);
    assert!(admitted_from("2001:db8:1:2::1") >= 20);
    for same in ["2001:db8:1:2::2", "2001:db8:1:2:ffff:ffff:ffff:ffff", "[2001:db8:1:2::3]:443", "[2001:db8:1:2::4]"] {
        assert!(admitted_from(same) < 20, "{same} is in the same /64");
    }
    for other in ["2001:db8:1:3::1", "2001:db8:1:1:2::1", "2001:db8::1"] {
        assert!(admitted_from(other) >= 20, "{other} is in another /64");
    }
}

#[test]
fn rightly_signed_requests_are_counted_per_source_too() {
    let options = DaemonOptions::new().set("HOOKLEDGER__RATE_LIMIT__PER_SECOND", 1);
    let options = options.set("HOOKLEDGER__RATE_LIMIT__BURST", 20);
    let daemon = Daemon::start(behind_proxy(options, "127.0.0.1"));
    assert!(admitted(&daemon, authentic(Some("203.0.113.1")), 20) >= 20);
    assert!(admitted(&daemon, authentic(Some("203.0.113.1, 203.0.113.2")), 20) >= 20);
    assert!(admitted(&daemon, authentic(Some("203.0.113.2, 203.0.113.1")), 20) < 20);
}

#[test]
fn only_allowed_sources_may_send() {
    let options = DaemonOptions::new().set("HOOKLEDGER__WEBHOOK__ALLOW_SOURCES", "203.0.113.0/24,2001:db8::/32");
    let daemon = Daemon::start(behind_proxy(options, "127.0.0.1"));
    let user = daemon.add_user("a@example.com", 1000);
    daemon.add_key(&user, 1);
    let right = |body: &str| signature(SECRET, body.as_bytes());
    let send = |request: Vec<u8>| daemon.connection().request(&request).expect("an answer");
    let before = Counts::of(&daemon.books());
    let body = Body::usage("never").json();
    let strangers = [
        None,
        Some("198.51.100.1"),
        Some("203.0.114.1"),
        Some("203.0.113.1, 198.51.100.1"),
        Some("2001:db9::1"),
        Some("nonsense"),
    ];
    for from in strangers {
        let answer = send(request_from(&right(&body), &body, from));
        turned_away(403).assert_met(&format!("from {from:?}"), &answer);
    }
    let large = "x".repeat(65_537);
    let from = [(FORWARDED_FOR, "198.51.100.1")];
    for (what, request) in [
        ("malformed", request_from(&right("{"), "{", Some("198.51.100.1"))),
        ("badly signed", forged(Some("198.51.100.1"))),
        ("unsigned", events_request(&from, &body)),
        ("too large", events_request(&from, &large)),
        ("no such path", http_request("POST", "/nope", &from, b"{}")),
        ("wrong method", http_request("PUT", EVENTS_PATH, &from, b"{}")),
    ] {
        turned_away(403).assert_met(&format!("{what}, from a stranger"), &send(request));
    }
    assert_eq!(Counts::of(&daemon.books()), before, "rows after the strangers");
    for path in ["/healthz", "/readyz", "/api/webhooks/health"] {
        assert_eq!(send(http_request("GET", path, &from, b"")).status, 200, "{path} is open to all");
    }
    for from in ["203.0.113.1", "::ffff:203.0.113.2", "2001:db8:1::1", "198.51.100.1, 203.0.113.3"] {
        let body = Body::usage(from).json();
        processed(from).assert_met(&format!("from {from}"), &send(request_from(&right(&body), &body, Some(from))));
    }
    blames("JSON").assert_met("malformed, from a friend", &send(authentic(Some("203.0.113.1"))));
}

#[test]
fn a_flood_of_addresses_is_told_apart_up_to_a_bound() {
    const BOUND: usize = 50;
    const BURST: usize = 60;
    let options = DaemonOptions::new().set("HOOKLEDGER__RATE_LIMIT__MAX_SOURCES", BOUND);
    let options = options.set("HOOKLEDGER__RATE_LIMIT__PER_SECOND", 1).set("HOOKLEDGER__RATE_LIMIT__BURST", BURST);
    let daemon = Daemon::start(behind_proxy(options, "127.0.0.1"));
    // The first fill every place, and have so much to wait for that they are remembered for as long as this takes.
    for number in 0..BOUND {
        let request = authentic(Some(&format!("203.0.113.{number}")));
        assert_eq!(statuses(&flood(&daemon, &vec![request; BURST - 1])), [(400, BURST - 1)].into(), "source {number}");
    }
    let strangers: Vec<Vec<u8>> =
        (0..2000).map(|number| authentic(Some(&format!("198.18.{}.{}", number / 250, number % 250)))).collect();
    let counts = statuses(&flood(&daemon, &strangers));
    let admitted = counts.get(&400).copied().unwrap_or_default();
    assert!((BURST..2 * BURST).contains(&admitted), "2,000 new sources share one allowance of {BURST}: {counts:?}");
    let remembered = wait_until("the sources are counted", TIMEOUT, || {
        daemon.metric("hookledger_rate_limit_sources").filter(|count| *count > 0.0)
    });
    assert!(remembered <= BOUND as f64, "{remembered} sources are remembered, at most {BOUND} may be");
    assert_eq!(daemon.get("/readyz").status, 200);
}

/// A rightly signed event that is at work, and whose body was sent but for its last bytes: these.
#[track_caller]
fn half_sent(daemon: &Daemon, event_id: &str) -> (Connection, Vec<u8>) {
    let body = Body::usage(event_id).json();
    let right = signature(SECRET, body.as_bytes());
    let request = events_request(&[(SIGNATURE, &right), ("Expect", "100-continue")], &body);
    let (head, _) = request.split_at(request.len() - body.len());
    let (first, rest) = body.as_bytes().split_at(body.len() - 100);
    let mut connection = daemon.connection();
    connection.send(head).expect("the head is taken");
    assert_eq!(connection.read_response().expect("leave to send the body").status, 100);
    connection.send(first).expect("the first half is taken");
    (connection, rest.to_vec())
}

#[test]
fn more_requests_than_may_be_at_work_are_told_to_come_back() {
    let options = DaemonOptions::new().set("HOOKLEDGER__SERVER__MAX_IN_FLIGHT", 1).answers_late();
    let mut intake = Intake::start_with(options.fail_points("store.settle.begin=1*sleep(6000)"));
    let mut held = intake.daemon.connection();
    let request = intake.daemon.signed_request(Body::usage("held").json());
    held.send(&request).expect("it is taken");
    held.set_timeout(Duration::from_millis(1));
    wait_until("one is at work", TIMEOUT, || {
        // Where a question of ours had the place as it came, it was told to come back, and does.
        if let Ok(answer) = held.read_response() {
            assert_eq!(answer.status, 503, "{}", answer.text());
            held.send(&request).expect("it is taken again");
        }
        (intake.daemon.post("[]").status == 503).then_some(())
    });
    held.set_timeout(TIMEOUT);
    for (what, body) in [("a malformed one", "[]".to_owned()), ("a good one", Body::usage("refused").json())] {
        let busy = intake.daemon.post(body);
        turned_away(503).assert_met(&format!("{what} beside the held one"), &busy);
        assert_retry_after(&busy);
    }
    for path in ["/healthz", "/readyz", "/api/webhooks/health"] {
        assert_eq!(intake.daemon.get(path).status, 200, "{path} is answered meanwhile");
    }
    let answer = held.read_response().expect("the held request is answered");
    processed("held").assert_met("the held request", &answer);
    wait_until("its place is free", TIMEOUT, || (intake.daemon.post("[]").status == 400).then_some(()));
    intake.assert_left("one held and some refused", CHARGED);
    intake.finish();
}

#[test]
fn who_sends_slowly_takes_nobodys_place() {
    let mut intake = Intake::start_with(DaemonOptions::new().set("HOOKLEDGER__SERVER__MAX_IN_FLIGHT", 1));
    let (mut slow, rest) = half_sent(&intake.daemon, "slow");
    let (given_up, _) = half_sent(&intake.daemon, "given up");
    intake.check_body("beside slow senders", Body::usage("quick").json(), &processed("quick"), CHARGED);
    drop(given_up);
    slow.send(&rest).expect("the rest is taken");
    processed("slow").assert_met("the slow one", &slow.read_response().expect("an answer"));
    intake.assert_left("a slow one", CHARGED);
    intake.finish();
}

/// Sends `rest` byte by byte until an answer comes or the connection is closed; what was read.
#[track_caller]
fn trickle(connection: &mut Connection, rest: &[u8]) -> io::Result<Response> {
    connection.set_timeout(Duration::from_millis(50)); // the pace
    let mut bytes = rest.iter();
    let read = poll(TIMEOUT, || {
        if let Err(error) = connection.send(&[*bytes.next().expect("the rest outlasts the timeout")]) {
            return Some(Err(error));
        }
        match connection.read_response() {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => None,
            read => Some(read),
        }
    });
    read.unwrap_or_else(|| panic!("nothing came of it within {TIMEOUT:?}"))
}

#[test]
fn a_body_that_does_not_come_in_time_is_given_up() {
    let options = DaemonOptions::new().set("HOOKLEDGER__SERVER__BODY_TIMEOUT", "2s");
    let mut intake = Intake::start_with(options);
    let (mut connection, _) = half_sent(&intake.daemon, "silent");
    let answer = connection.read_response().expect("a silent sender is answered");
    turned_away(408).assert_met("half a body, and silence", &answer);
    assert!(connection.read_to_end().is_ok_and(|rest| rest.is_empty()), "and then the connection is closed");
    intake.assert_left("half a body, and silence", NOTHING);

    let (mut connection, rest) = half_sent(&intake.daemon, "trickling");
    let answer = trickle(&mut connection, &rest).expect("a slow sender is answered");
    turned_away(408).assert_met("a body byte by byte", &answer);
    intake.assert_left("a body byte by byte", NOTHING);
    intake.finish();
}

#[test]
fn a_head_that_does_not_come_in_time_closes_the_connection() {
    let options = DaemonOptions::new().set("HOOKLEDGER__SERVER__HEADER_TIMEOUT", "3s");
    let mut intake = Intake::start_with(options);
    let request = intake.daemon.signed_request(Body::usage("slow").json());
    let mut connection = intake.daemon.connection();
    connection.send(&request[..60]).expect("the start is taken");
    let read = connection.read_to_end().expect("the connection is closed");
    assert!(read.is_empty() || read.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&read));
    intake.assert_left("half a head, and silence", NOTHING);

    let mut connection = intake.daemon.connection();
    match trickle(&mut connection, &request) {
        Ok(answer) => assert_eq!(answer.status, 408, "a head byte by byte: {}", answer.text()),
        Err(error) => assert_ne!(error.kind(), io::ErrorKind::TimedOut, "a head byte by byte"),
    }
    intake.assert_left("a head byte by byte", NOTHING);
    intake.finish();
}

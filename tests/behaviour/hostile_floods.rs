//! Many clients at once: forgers from everywhere, and more connections than there may be.

use std::net::Ipv4Addr;
use std::thread;

use super::rig::{Siege, TIMEOUT, eventually, health};
use crate::intake::rig::{SIGNATURE, events_request};
use crate::kit::daemon::DaemonOptions;
use crate::kit::wire::Connection;

/// Sources that are told apart, and sources that forge.
const BOUND: usize = 40;
const FORGERS: usize = 120;

const BURST: usize = 60;
/// Of each forger: more than his burst.
const FORGERIES: usize = BURST + 20;

fn source(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, (number / 250) as u8, (number % 250 + 1) as u8)
}

/// Sends many forgeries from one address; how often each status was answered.
fn forge(siege: &Siege, number: usize) -> Vec<u16> {
    let wrong = format!("{number:064x}");
    let forgery = events_request(&[(SIGNATURE, &wrong)], "{}");
    let opened = Connection::open_from(source(number), siege.daemon.address(), TIMEOUT);
    let mut connection = opened.expect("a connection from there");
    connection.send(&forgery.repeat(FORGERIES)).expect("they are taken");
    (0..FORGERIES).map(|_| connection.read_response().expect("an answer").status).collect()
}

#[test]
fn forgers_from_everywhere_are_told_apart_up_to_a_bound() {
    let options = DaemonOptions::new().set("HOOKLEDGER__RATE_LIMIT__MAX_SOURCES", BOUND);
    let options = options.set("HOOKLEDGER__RATE_LIMIT__BAD_PER_SECOND", 1);
    let mut siege = Siege::begin(options.set("HOOKLEDGER__RATE_LIMIT__BAD_BURST", BURST));
    let answers = thread::scope(|scope| {
        let forge_all = |first: usize| -> Vec<u16> {
            (first..FORGERS).step_by(4).flat_map(|number| forge(&siege, number)).collect()
        };
        let forgers: Vec<_> = (0..4).map(|first| scope.spawn(move || forge_all(first))).collect();
        forgers.into_iter().flat_map(|forger| forger.join().expect("each is answered")).collect::<Vec<u16>>()
    });
    assert_eq!(answers.len(), FORGERIES * FORGERS);
    let refused = answers.iter().filter(|status| **status == 403).count();
    let told_to_wait = answers.iter().filter(|status| **status == 429).count();
    assert_eq!(refused + told_to_wait, answers.len(), "nothing else is answered");
    assert!(refused >= BURST * BOUND, "those that are told apart have an allowance each: {refused}");
    assert!(refused < 2 * BURST * BOUND, "the others share one: {refused}");
    siege.assert_within(0);
    let remembered = siege.daemon.metric("hookledger_rate_limit_sources").unwrap_or_default();
    assert!(remembered <= 2.0 * BOUND as f64, "{remembered} sources are remembered");
    siege.good("after forgers, from an address that shares their allowance");
    siege.end();
}

#[test]
fn good_events_get_through_a_flood_of_forgeries() {
    let mut siege = Siege::begin(DaemonOptions::new());
    let wrong = "0".repeat(64);
    let forgery = events_request(&[(SIGNATURE, &wrong)], "x".repeat(60_000));
    let address = siege.daemon.address();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        for forger in 0..4 {
            let (forgery, is_over) = (&forgery, &is_over);
            scope.spawn(move || {
                let mut connection = Connection::open_from(source(forger), address, TIMEOUT).expect("a connection");
                while !is_over.load(std::sync::atomic::Ordering::SeqCst) {
                    let status = connection.request(forgery).expect("an answer").status;
                    assert!([403, 429].contains(&status), "{status}");
                }
            });
        }
        for number in 0..50 {
            siege.good(&format!("event {number} amid forgeries"));
        }
        is_over.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    siege.end();
}

#[test]
fn more_connections_than_there_may_be_shut_nobody_out() {
    const MOST: usize = 40;
    let options = DaemonOptions::new().set("HOOKLEDGER__SERVER__MAX_CONNECTIONS", MOST);
    // Long: nobody may have to wait for it.
    let mut siege = Siege::begin(options.set("HOOKLEDGER__SERVER__KEEP_ALIVE", "10m"));
    let mut kept = siege.daemon.connection();
    siege.good_on(&mut kept, "the first of a connection that is kept");
    // Each has made a request, so that it may be kept; nobody makes another.
    let mut idle = Vec::new();
    for number in 0..3 * MOST {
        let mut connection = siege.daemon.connection();
        let answer = connection.request(&health()).unwrap_or_else(|error| panic!("connection {number}: {error}"));
        assert_eq!(answer.status, 200, "connection {number}");
        idle.push(connection);
        siege.assert_within(MOST);
    }
    siege.good("on a new connection, beside more idle ones than there may be");
    siege.good_on(&mut kept, "on a connection that was there before");
    drop(idle);
    siege.end();
}

#[test]
fn connections_without_a_word_make_room_within_the_deadline() {
    const MOST: usize = 40;
    let options = DaemonOptions::new().set("HOOKLEDGER__SERVER__MAX_CONNECTIONS", MOST);
    let mut siege = Siege::begin(options.set("HOOKLEDGER__SERVER__HEADER_TIMEOUT", "4s"));
    let silent = siege.crowd(3 * MOST, b"");
    siege.assert_within(MOST);
    siege.good("on a new connection, behind silent ones");
    siege.assert_within(MOST);
    eventually("the silent ones are gone", || siege.daemon.is_ready());
    drop(silent);
    siege.end();
}

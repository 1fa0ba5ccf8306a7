//! Figures of a daemon under siege, for a person: `make bench-hostile`. They print what they measured, and assert that every
//! good event was taken and that the books are right.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::rig::{Siege, health};
use crate::intake::rig::{SIGNATURE, events_request};
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::process::{open_descriptors, resident_kib};
use crate::kit::wait::{Deadline, pause};
use crate::kit::wire::Connection;

/// Connections that have made one request and make no other.
const IDLE: usize = 10_000;

/// Good events of each row, paced, and on so many connections.
const EVENTS: i64 = 1000;
const PER_SECOND: &str = "100";
const SENDERS: &str = "8";

/// Slow senders of each kind, and between two bytes of theirs.
const SLOW: usize = 500;
const PACE: Duration = Duration::from_millis(250);

const LONG: Duration = Duration::from_secs(60);

/// Sends good events, and prints a row: their latencies, and what the daemon holds meanwhile.
fn measure(daemon: &Daemon, is_over: &AtomicBool, name: &str, attacks: impl FnOnce() -> (usize, &'static str)) {
    let events = EVENTS.to_string();
    let arguments = ["send", "--remote-key-id", "1", "--count", &events, "--per-second", PER_SECOND];
    let sent = daemon.command_json(&[&arguments[..], &["--concurrency", SENDERS, "--retry"]].concat());
    let (kib, descriptors) = (resident_kib(daemon.pid()), open_descriptors(daemon.pid()));
    is_over.store(true, Ordering::SeqCst);
    assert_eq!(sent["ok"], sent["sent"], "{sent}");
    let (attacks, unit) = attacks();
    let latency = |part: &str| sent["latencyMs"][part].as_f64().expect("a latency");
    println!(
        "| {name} | {:.1} | {:.1} | {:.1} | {} | {descriptors} | {attacks} {unit} |",
        latency("p50"),
        latency("p99"),
        latency("max"),
        kib / 1024
    );
}

/// The same with two attackers, each of which goes on until it is over.
fn measure_under(daemon: &Daemon, name: &str, unit: &'static str, attack: impl Fn(usize, SocketAddr) -> usize + Sync) {
    let (is_over, attacks) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for attacker in 0..2 {
            let (is_over, attacks, attack) = (&is_over, &attacks, &attack);
            scope.spawn(move || {
                let mut rounds = (attacker..).step_by(2);
                while !is_over.load(Ordering::SeqCst) {
                    attacks.fetch_add(attack(rounds.next().unwrap_or_default(), daemon.address()), Ordering::SeqCst);
                }
            });
        }
        measure(daemon, &is_over, name, || (attacks.load(Ordering::SeqCst), unit));
    });
}

fn source(number: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 1, (number / 250 % 250) as u8, (number % 250 + 1) as u8)
}

/// One address forges twenty times; what it may after that is wait.
fn forge(number: usize, address: SocketAddr) -> usize {
    let wrong = format!("{number:064x}");
    let forgery = events_request(&[(SIGNATURE, &wrong)], "x".repeat(4000));
    let mut connection = Connection::open_from(source(number), address, LONG).expect("a connection");
    (0..20).filter(|_| connection.request(&forgery).is_ok()).count()
}

/// Twenty heads of 120 kB that do not end, a few hundred each second.
fn bomb(number: usize, address: SocketAddr) -> usize {
    pause(PACE);
    let long = format!("GET / HTTP/1.1\r\nHost: h\r\nX-{number}: {}", "x".repeat(120_000));
    let mut bombs = Vec::new();
    for _ in 0..20 {
        let mut connection = Connection::open(address, LONG).expect("a connection");
        drop(connection.send(long.as_bytes()));
        bombs.push(connection);
    }
    bombs.len()
}

/// A pipeline of small requests on each of twenty connections, whose answers nobody takes.
fn never_read(_: usize, address: SocketAddr) -> usize {
    let requests = [health(), events_request(&[], "{}")].concat().repeat(1000);
    let mut crowd: Vec<_> = (0..20).map(|_| Connection::open(address, LONG).expect("a connection")).collect();
    let mut sent = vec![0; crowd.len()];
    for _ in 0..20 {
        for (connection, sent) in crowd.iter_mut().zip(&mut sent) {
            let from = *sent % requests.len();
            *sent += connection.send_some(&requests[from..]).unwrap_or_default();
        }
        pause(Duration::from_millis(50));
    }
    sent.iter().sum::<usize>() / 1_000_000
}

/// Slow heads and slow bodies, opened again where they were given up.
fn trickle(_: usize, address: SocketAddr) -> usize {
    let wrong = "0".repeat(64);
    let body = events_request(&[(SIGNATURE, &wrong), ("Content-Length", "4000")], "");
    let start = |number: usize| {
        let mut connection = Connection::open(address, LONG).expect("a connection");
        let head = &b"POST /api/webhooks/events HTTP/1.1\r\nX: "[..];
        connection.send(if number.is_multiple_of(2) { head } else { &body }).expect("the start is taken");
        connection
    };
    let mut slow: Vec<_> = (0..SLOW).map(start).collect();
    let until = Deadline::after(Duration::from_secs(8));
    let mut given_up = 0;
    while !until.has_passed() {
        for (number, connection) in slow.iter_mut().enumerate() {
            if connection.send(b"x").is_err() {
                *connection = start(number);
                given_up += 1;
            }
        }
        pause(PACE);
    }
    given_up
}

fn crowd_of(count: usize, daemon: &Daemon) -> Vec<Connection> {
    let open = |number: usize| {
        let mut connection = Connection::open_from(source(number), daemon.address(), LONG).expect("a connection");
        assert_eq!(connection.request(&health()).expect("an answer").status, 200);
        connection
    };
    (0..count).map(open).collect()
}

#[test]
#[ignore = "a measurement: make bench-hostile"]
fn figures_under_siege() {
    let options = DaemonOptions::new().set("HOOKLEDGER__SERVER__MAX_CONNECTIONS", IDLE + IDLE / 4);
    // Idle ones stay for as long as this takes.
    let mut siege = Siege::begin(options.set("HOOKLEDGER__SERVER__KEEP_ALIVE", "10m"));
    let none = || (0, "");
    println!("\n| good events | p50, ms | p99, ms | longest, ms | memory, MiB | descriptors | attacks meanwhile |");
    println!("|---|---|---|---|---|---|---|");
    let daemon = &siege.daemon;
    measure(daemon, &AtomicBool::new(false), "(warming up)", none);
    measure(daemon, &AtomicBool::new(false), "alone", none);
    let idle = crowd_of(IDLE, daemon);
    measure(daemon, &AtomicBool::new(false), "beside 10,000 idle connections", none);
    drop(idle);
    measure(daemon, &AtomicBool::new(false), "after them", none);
    measure_under(daemon, "beside 1,000 slow senders", "given up", trickle);
    measure_under(daemon, "beside forgers from everywhere", "forgeries", forge);
    measure_under(daemon, "beside heads without an end", "bombs", bomb);
    measure_under(daemon, "beside clients that take no answers", "MB of requests", never_read);
    measure(daemon, &AtomicBool::new(false), "afterwards", none);
    siege.sent_elsewhere(9 * EVENTS);
    siege.good("in the end");
    siege.assert_charged();
    // The kit's own rules take minutes over so many events.
    assert!(siege.daemon.command(&["audit"]).status.success(), "the books agree");
}

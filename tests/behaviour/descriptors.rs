//! File descriptors run out: connections wait, nothing spins, nobody ends; and all of it goes on when some are free again.

use std::fs;
use std::process::Command;
use std::time::Duration;

use crate::crashes::{assert_charged_once, patient, usage_bodies, with_users};
use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::database::is_sqlite;
use crate::kit::process::run;
use crate::kit::sender::deliver;
use crate::kit::wait::{pause, wait_until};
use crate::kit::wire::{Connection, http_request};
use crate::two_channels::{PULL, Rig};

const PATIENCE: Duration = Duration::from_secs(30);

/// Of the process: as the kernel tells it.
fn limit(daemon: &Daemon) -> u64 {
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

fn set_limit(daemon: &Daemon, descriptors: u64) {
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={descriptors}:")).arg(format!("--pid={}", daemon.pid()));
    assert!(run(&mut command, b"", PATIENCE).status.success());
}

fn open_descriptors(daemon: &Daemon) -> u64 {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count() as u64
}

/// Connections of the process to its database file.
fn open_databases(daemon: &Daemon) -> usize {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap();
    let file = fs::canonicalize(daemon.database_file()).unwrap();
    descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).filter(|target| *target == file).count()
}

/// Hundredths of a second that the process worked so far.
fn worked(daemon: &Daemon) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap();
    let behind: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    behind[11].parse::<u64>().unwrap() + behind[12].parse::<u64>().unwrap()
}

/// It does next to nothing for a while.
fn assert_does_not_spin(daemon: &Daemon) {
    let before = worked(daemon);
    pause(Duration::from_secs(2));
    let hundredths = worked(daemon) - before;
    assert!(hundredths < 100, "it worked for {hundredths} hundredths of a second in two seconds");
}

#[test]
fn the_limit_is_raised_as_far_as_the_connections_need_it() {
    for (limits, raised, words) in [
        ("--nofile=100:4096", 4096, "no more than 3840 connections"),
        ("--nofile=100:20000", 10_256, "hookledger is listening"),
        ("--nofile=20000:20000", 20_000, "hookledger is listening"),
    ] {
        let daemon = Daemon::start(DaemonOptions::new().wrapper(&["prlimit", limits]));
        assert_eq!(limit(&daemon), raised, "{limits}");
        wait_until(words, PATIENCE, || daemon.output().stderr.contains(words).then_some(()));
        let log = daemon.output().stderr;
        assert_eq!(log.contains("LimitNOFILE="), raised < 10_256, "{limits}: {log}");
    }
}

/// A reader that comes later has a new thread with a new heap: a daemon that renews them grows for hours.
#[test]
fn those_of_all_readers_are_taken_at_the_start() {
    only_on_sqlite!();
    const READERS: usize = 5;
    let daemon = Daemon::start(DaemonOptions::new().set("HOOKLEDGER__DATABASE__MAX_CONNECTIONS", READERS));
    // For the daemon itself and for those who ask for a balance; and the writer's.
    wait_until("all of them", PATIENCE, || (open_databases(&daemon) > 2 * READERS).then_some(()));
}

#[test]
fn connections_that_take_every_descriptor_for_senders_leave_the_rest() {
    const ROOM: usize = 44;
    let options =
        DaemonOptions::new().set("HOOKLEDGER__SERVER__HEADER_TIMEOUT", "5m").wrapper(&["prlimit", "--nofile=300:300"]);
    let daemon = Daemon::start(options);
    with_users(&daemon);
    let mut kept = daemon.connection();
    let event = |id: &str| daemon.signed_request(usage_bodies(1, id).remove(0));
    assert_eq!(kept.request(&event("kept-1")).unwrap().status, 200);
    let idle: Vec<Connection> = (0..3 * ROOM).map(|_| daemon.connection()).collect();
    let before = open_descriptors(&daemon);
    assert_does_not_spin(&daemon);
    assert!(open_descriptors(&daemon) <= 300 - 100, "{before}, then {}", open_descriptors(&daemon));
    // Who is connected, the operators and Prometheus go on; new ones wait.
    assert_eq!(kept.request(&event("kept-2")).unwrap().status, 200);
    assert!(daemon.command(&["status"]).status.success());
    assert!(daemon.metric("process_open_fds").is_some());
    let mut waiting = Connection::open(daemon.address(), Duration::from_millis(500)).unwrap();
    assert!(waiting.request(&http_request("GET", "/healthz", &[], b"")).is_err(), "nobody has taken it");
    drop((idle, waiting));
    deliver(daemon.address(), SECRET, usage_bodies(10, "after"), 4, patient()).assert_all_acknowledged();
    assert_charged_once(&daemon.books(), 12);
}

#[test]
fn without_a_free_descriptor_it_waits_for_one() {
    let rig = Rig::start(&[PULL]);
    rig.wait_for_a_pass();
    let daemon = &rig.daemon;
    let pid = daemon.pid();
    let mut kept = daemon.connection();
    let called = |tokens: i64| rig.newapi.call(&rig.call(now_secs()).tokens(tokens, 1));
    let event = |tokens: i64| daemon.signed_request(called(tokens).usage(&format!("e-{tokens}")).json());
    assert_eq!(kept.request(&event(1)).unwrap().status, 200);
    let before = limit(daemon);
    set_limit(daemon, 3);
    assert_does_not_spin(daemon);
    // What is open goes on working, and the log of new-api is read when it can be.
    let answer = kept.request(&event(2)).unwrap();
    assert!([200, 202, 503].contains(&answer.status), "{}", answer.text());
    if !is_sqlite() {
        // The server ends our sessions, and there is no descriptor for another.
        let account = daemon.guest().platform();
        daemon.guest().admin().execute(None, &format!("KILL USER '{account}'"));
    }
    let repeated = event(3);
    let answer = kept.request(&repeated).unwrap();
    assert!([200, 202, 503].contains(&answer.status), "{}", answer.text());
    let mut waiting = Connection::open(daemon.address(), Duration::from_millis(500)).unwrap();
    assert!(waiting.request(&http_request("GET", "/healthz", &[], b"")).is_err(), "there is none for it");
    assert!(daemon.is_running(), "{}", daemon.output().stderr);
    set_limit(daemon, before);
    wait_until("it is ready again", PATIENCE, || daemon.is_ready().then_some(()));
    assert_eq!(daemon.connection().request(&repeated).unwrap().status, 200);
    rig.wait_for_charges(3);
    rig.wait_for_a_pass();
    assert_eq!(daemon.pid(), pid);
    rig.assert_billed(3);
}

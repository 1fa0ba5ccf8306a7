//! Faults that only an operating system can make: syncs that do not happen, writes that fail.

use std::collections::HashSet;
use std::time::Duration;

use crate::crashes::{usage_bodies, with_users};
use crate::disk_writes::FILES;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::sender::{Retry, start_delivery};
use crate::kit::strace::Fault;
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);
const EVENTS_TRACED: usize = 20;

/// Answers that left before the sync of the write-ahead log that covers them, in a trace of a daemon that was sent
/// one event at a time.
fn answers_before_their_sync(trace: &str) -> (usize, usize) {
    let (mut answers, mut too_early, mut syncs_since_answer) = (0, 0, 0);
    let mut syncing: HashSet<&str> = HashSet::new();
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        let is_sync = call.starts_with("fdatasync(") || call.starts_with("fsync(");
        if is_sync && call.contains("-wal>") {
            if call.contains("<unfinished") {
                syncing.insert(thread);
            } else if call.ends_with("= 0") {
                syncs_since_answer += 1;
            }
        } else if call.starts_with("<...") && call.contains("sync resumed") && call.ends_with("= 0") {
            if syncing.remove(thread) {
                syncs_since_answer += 1;
            }
        } else if call.contains("Event processed successfully") && call.contains("TCP:[") {
            answers += 1;
            too_early += usize::from(syncs_since_answer == 0);
            syncs_since_answer = 0;
        }
    }
    (answers, too_early)
}

/// Sends events one at a time to a traced daemon; answers how many answers there were, and how many came too early.
fn trace_of_single_events(synchronous: Option<&str>) -> (usize, usize) {
    let strace = ["strace", "-f", "-yy", "-s", "400", "-o", "{folder}/trace", "-e"];
    let calls = ["trace=fdatasync,fsync,write,writev,sendto,sendmsg"];
    let mut options = DaemonOptions::new().wrapper(&[&strace[..], &calls[..]].concat());
    if let Some(mode) = synchronous {
        options = options.set("HOOKLEDGER_TEST_SYNCHRONOUS", mode);
    }
    let daemon = Daemon::start(options);
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, 1);
    for number in 0..EVENTS_TRACED {
        let response = daemon.post(Usage::new(format!("e-{number}")).remote_key(1).quota(700).json());
        assert_eq!(response.status, 200);
    }
    // strace writes its file in its own time.
    let trace_file = daemon.folder().join("trace");
    wait_until("the trace holds every answer", PATIENCE, || {
        let found = answers_before_their_sync(&std::fs::read_to_string(&trace_file).unwrap());
        (found.0 >= EVENTS_TRACED).then_some(found)
    })
}

#[test]
fn no_answer_leaves_before_its_sync() {
    only_on_sqlite!();
    let (answers, too_early) = trace_of_single_events(None);
    assert_eq!((answers, too_early), (EVENTS_TRACED, 0), "no answer left before the disk had its event");
    let (answers, too_early) = trace_of_single_events(Some("OFF"));
    // The very first may be covered by a sync of the start.
    assert_eq!(answers, EVENTS_TRACED);
    assert!(too_early + 1 >= answers, "without syncs the same look finds the answers too early: {too_early}");
}

#[test]
fn a_full_disk_costs_time_and_nothing_else() {
    only_on_sqlite!();
    const EVENTS: usize = 40;
    let daemon = Daemon::start(DaemonOptions::new());
    with_users(&daemon);
    let mut events = 0;
    for first_failing in (1..=24).chain([30, 40, 60]) {
        let disk = Fault::new("pwrite64", "error=ENOSPC", format!("{first_failing}+"), &FILES).begin(&daemon);
        let bodies = usage_bodies(EVENTS, &format!("full-{first_failing}"));
        let retry = Retry::until(PATIENCE, Duration::from_millis(20));
        let ongoing = start_delivery(daemon.address(), SECRET, bodies, 4, retry);
        // The disk is full until somebody was told so, or all were taken before the fault was reached.
        wait_until("the disk is full or not needed", PATIENCE, || {
            let is_told = daemon.output().stderr.contains(&format!("full-{first_failing}-"));
            (ongoing.is_finished() || is_told || !daemon.is_ready()).then_some(())
        });
        drop(disk);
        let report = ongoing.finish();
        report.assert_all_acknowledged();
        for status in report.statuses().keys() {
            assert!([200, 202, 503].contains(status), "undocumented answer: {:?}", report.statuses());
        }
        events += EVENTS as i64;
        let books = daemon.books();
        wait_until("nothing is pending", PATIENCE, || (books.count("hookledger_inbox") == 0).then_some(()));
        assert_eq!(books.count("hookledger_claims"), events, "from write {first_failing} on");
    }
    assert!(daemon.output().stderr.contains("disk is full"), "the disk was full at least once");
    daemon.books().assert_whole();
    daemon.books().assert_carried_exactly();
}

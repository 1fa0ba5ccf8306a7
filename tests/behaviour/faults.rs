//! Faults that only an operating system can make: syncs that do not happen, writes that fail.

use std::collections::HashSet;
use std::time::Duration;

use crate::crashes::usage_bodies;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::sender::{Retry, deliver};
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

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
        } else if call.contains("HTTP/1.1 20") && call.contains("TCP:[") {
            answers += 1;
            too_early += usize::from(syncs_since_answer == 0);
            syncs_since_answer = 0;
        }
    }
    (answers, too_early)
}

/// Sends events one at a time to a traced daemon; answers how many answers there were, and how many came too early.
fn trace_of_single_events(synchronous: Option<&str>) -> (usize, usize) {
    let strace = ["strace", "-f", "-yy", "-s", "64", "-o", "{folder}/trace", "-e"];
    let calls = ["trace=fdatasync,fsync,write,writev,sendto,sendmsg"];
    let mut options = DaemonOptions::new().wrapper(&[&strace[..], &calls[..]].concat());
    if let Some(mode) = synchronous {
        options = options.set("HOOKLEDGER_TEST_SYNCHRONOUS", mode);
    }
    let daemon = Daemon::start(options);
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, 1);
    let trace_file = daemon.folder().join("trace");
    let answered = |trace: &str| answers_before_their_sync(trace).0;
    let before = answered(&std::fs::read_to_string(&trace_file).unwrap());
    for number in 0..20 {
        let response = daemon.post(&Usage::new(&format!("e-{number}")).remote_key(1).quota(700).json());
        assert_eq!(response.status, 200);
    }
    // strace writes its file in its own time.
    let trace = wait_until("the trace holds every answer", PATIENCE, || {
        let trace = std::fs::read_to_string(&trace_file).unwrap();
        (answered(&trace) >= before + 20).then_some(trace)
    });
    // Only the events count: health checks and command-line answers need no sync.
    let from = trace.lines().collect::<Vec<_>>();
    let first_event = from.iter().position(|line| line.contains("Event processed")).unwrap_or(from.len());
    let events: Vec<&str> = from[first_event..].iter().filter(|line| is_event_or_sync(line)).copied().collect();
    answers_before_their_sync(&events.join("\n"))
}

fn is_event_or_sync(line: &str) -> bool {
    line.contains("sync") || line.contains("HTTP/1.1 200")
}

#[test]
fn no_answer_leaves_before_its_sync() {
    let (answers, too_early) = trace_of_single_events(None);
    assert!(answers >= 19, "the trace shows the answers: {answers}");
    // The first answer of the cut trace has its sync before the cut.
    assert!(too_early <= 1, "{too_early} of {answers} answers left before the disk had them");
    let (answers, too_early) = trace_of_single_events(Some("OFF"));
    assert!(too_early + 1 >= answers, "without syncs the same look finds every answer too early: {too_early}");
}

#[test]
fn a_full_disk_costs_time_and_nothing_else() {
    const EVENTS: usize = 40;
    for first_failing in [1, 2, 3, 5, 8, 12, 17, 23, 30, 38] {
        let fault = format!("inject=pwrite64:error=ENOSPC:when={first_failing}..{}", first_failing + 6);
        let strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e", &fault];
        let mut daemon = Daemon::start(DaemonOptions::new());
        for token in 1..=5 {
            let user = daemon.add_user(&format!("user-{token}@example.com"), 1000);
            daemon.add_key(&user, token);
        }
        daemon.set_wrapper(&strace);
        daemon.restart();
        let retry = Retry::until(PATIENCE, Duration::from_millis(20));
        let report = deliver(daemon.address(), SECRET, usage_bodies(EVENTS, "full"), 4, retry);
        report.assert_all_acknowledged();
        for status in report.statuses().keys() {
            assert!([0, 200, 202, 503].contains(status), "undocumented answer: {:?}", report.statuses());
        }
        let books = daemon.books();
        wait_until("nothing is pending", PATIENCE, || (books.count("hookledger_inbox") == 0).then_some(()));
        assert_eq!(books.count("hookledger_claims"), EVENTS as i64, "from write {first_failing} on");
        books.assert_whole();
        books.assert_carried_exactly();
    }
}

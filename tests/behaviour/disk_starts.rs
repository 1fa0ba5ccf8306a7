//! The disk fails while the daemon starts, stops or gives up: it says so or gets over it, and the next start on a disk that
//! works finds everything that was acknowledged.
//!
//! `make test` takes a few of the system calls by chance; `HOOKLEDGER_TEST_FAULTS=all` takes each.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::crashes::assert_charged_once;
use crate::disk_writes::{FILES, takes_all};
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;
use crate::kit::random::Random;
use crate::kit::strace::Fault;
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a start may fail at, and where: everything that it keeps beside the database.
const CALLS: [&str; 9] =
    ["openat", "pwrite64", "fdatasync", "fsync", "ftruncate", "write", "linkat", "unlink,unlinkat", "rename"];
const ALL_FILES: [&str; 8] = [
    FILES[0],
    FILES[1],
    FILES[2],
    "hookledger.db-journal",
    "hookledger.db.lock",
    "hookledger.db.installation",
    "hookledger.db.installation-draft",
    "",
];

/// More than a start ever makes of one kind.
const MOST_CALLS: u32 = 200;

fn event(id: &str) -> String {
    Usage::new(id).remote_key(1).quota(700).json()
}

/// Each further try has a thread of its own, and meets the same fault again.
fn impatient() -> DaemonOptions {
    DaemonOptions::new().set("HOOKLEDGER__DATABASE__START_TIMEOUT", "1s")
}

/// Starts it under the fault. It gets ready all the same, or says that it waits for its disk, or ends with 3 and says why. Whether the fault was met.
fn start_under(daemon: &mut Daemon, fault: &Fault) -> bool {
    let trace = daemon.folder().join("trace");
    fs::remove_file(&trace).ok();
    fs::write(daemon.folder().join("stderr"), "").unwrap();
    let mut wrapper = vec!["strace".to_owned(), "-o".to_owned(), trace.display().to_string()];
    wrapper.extend(fault.arguments(daemon.folder()));
    daemon.set_wrapper(&wrapper.iter().map(String::as_str).collect::<Vec<_>>());
    daemon.launch();
    let runs = || daemon.is_ready() || daemon.output().stderr.contains("the database does not take writes");
    let code = wait_until("it is ready, waits for its disk, or has ended", PATIENCE, || match runs() {
        true => Some(None),
        false => daemon.wait_exit(Duration::ZERO).map(Some),
    });
    if let Some(code) = code {
        assert_eq!(code, 3, "{fault:?}: {}", daemon.output().stderr);
        assert!(daemon.output().stderr.contains("hookledger cannot start"), "{fault:?}");
    }
    daemon.kill();
    daemon.set_wrapper(&[]);
    fs::read_to_string(&trace).unwrap().contains("(INJECTED)")
}

/// The kinds of calls with the turns that are to fail: each, or one by chance.
fn turns(random: &mut Random, calls: &str) -> Vec<u32> {
    if takes_all() {
        return (1..=MOST_CALLS).collect();
    }
    let most = match calls {
        "pwrite64" => 20,
        "openat" => 8,
        _ => 2,
    };
    vec![1 + random.below(most) as u32]
}

/// Starts again and again under the fault in turn, and once without it after each.
fn sweep(mut prepared: impl FnMut() -> Daemon, is_whole: impl Fn(&Daemon)) {
    let random = &mut Random::new();
    let error = if random.chance(1, 2) { "error=ENOSPC" } else { "error=EIO" };
    for calls in CALLS {
        let mut met = 0;
        for when in turns(random, calls) {
            let mut daemon = prepared();
            if !start_under(&mut daemon, &Fault::new(calls, error, when, &ALL_FILES)) {
                break;
            }
            met += 1;
            daemon.launch();
            daemon.wait_ready();
            is_whole(&daemon);
        }
        println!("{calls} {error}: {met} calls of a start failed, one after another");
    }
}

#[test]
fn a_first_start_at_which_the_disk_fails_is_made_up_for_by_the_next() {
    only_on_sqlite!();
    sweep(
        || Daemon::prepare(impatient()),
        |daemon| {
            let marker = fs::read_to_string(daemon.folder().join("hookledger.db.installation")).unwrap();
            let own = daemon.books().scalar_text("SELECT value FROM hookledger_meta WHERE name = 'installation_id'");
            assert_eq!(marker.trim(), own);
            let user = daemon.add_user("user@example.com", 1000);
            daemon.add_key(&user, 1);
            assert_eq!(daemon.post(event("first")).status, 200);
            assert_charged_once(&daemon.books(), 1);
        },
    );
}

#[test]
fn a_later_start_at_which_the_disk_fails_loses_nothing() {
    only_on_sqlite!();
    sweep(
        || {
            let daemon = Daemon::start(impatient());
            let user = daemon.add_user("user@example.com", 1000);
            daemon.add_key(&user, 1);
            assert_eq!(daemon.post(event("before")).status, 200);
            // Its log is left beside the database.
            daemon.kill();
            daemon
        },
        |daemon| assert_charged_once(&daemon.books(), 1),
    );
}

#[test]
fn a_stop_at_which_the_disk_fails_loses_nothing() {
    only_on_sqlite!();
    let daemon = Daemon::start(DaemonOptions::new());
    let user = daemon.add_user("user@example.com", 1000);
    daemon.add_key(&user, 1);
    let mut events = 0;
    for calls in ["pwrite64", "fdatasync", "ftruncate", "unlink"] {
        for error in ["error=ENOSPC", "error=EIO"] {
            events += 1;
            assert_eq!(daemon.post(event(&format!("e-{events}"))).status, 200);
            let injection = Fault::new(calls, error, "1+", &FILES).begin(&daemon);
            assert_eq!(daemon.terminate(), 0, "{calls} {error}");
            drop(injection);
            daemon.launch();
            daemon.wait_ready();
            assert_charged_once(&daemon.books(), events);
        }
    }
}

#[test]
fn a_give_up_that_no_disk_keeps_is_one_all_the_same() {
    let fails_at_once = DaemonOptions::new()
        .set("HOOKLEDGER__SUPERVISOR__MAX_RESTARTS", 0)
        .set("HOOKLEDGER__SUPERVISOR__HEARTBEAT", "100ms")
        .fail_points("supervisor.look=5*off->return(error)");
    let mut daemon = Daemon::prepare(fails_at_once);
    let state_folder = daemon.state_folder();
    let draft = state_folder.join("gave-up.draft");
    let draft = draft.strip_prefix(daemon.folder()).unwrap_or(Path::new("gave-up.draft")).display().to_string();
    for calls in ["openat", "write", "fsync", "rename"] {
        let fault = Fault::new(calls, "error=ENOSPC", "1+", &[&draft]);
        let mut wrapper = vec!["strace".to_owned(), "-o".to_owned(), "{folder}/trace".to_owned()];
        wrapper.extend(fault.arguments(daemon.folder()));
        daemon.set_wrapper(&wrapper.iter().map(String::as_str).collect::<Vec<_>>());
        daemon.launch();
        assert_eq!(daemon.wait_exit(PATIENCE), Some(70), "{calls}");
        assert!(!state_folder.join("gave-up.json").exists(), "{calls}");
        let log = daemon.output().stderr;
        assert!(
            log.contains("the supervisor gives up") && log.contains("the next start will not wait"),
            "{calls}: {log}"
        );
        fs::write(daemon.folder().join("stderr"), "").unwrap();
    }
    daemon.unset_environment("FAILPOINTS");
    daemon.set_wrapper(&[]);
    daemon.launch();
    daemon.wait_ready();
}

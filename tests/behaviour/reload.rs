//! SIGHUP: a right configuration holds from now on, without one good event refused; a wrong one changes nothing.

#[path = "reload_effects.rs"]
mod effects;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::time::Duration;

use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::process::run;
use crate::kit::sender::{Ongoing, Report, Retry, start_delivery};
use crate::kit::sign::{EVENTS_PATH, signature, signed_request};
use crate::kit::wait::wait_until;
use crate::kit::wire::http_request;

const NEW_SECRET: &str = "the-next-secret-0123456789abcdef01234567";
const PATIENCE: Duration = Duration::from_secs(30);
const SUCCESSFUL: &str = "hookledger_config_last_reload_successful";
const RELOADED_AT: &str = "hookledger_config_last_reload_timestamp_seconds";

/// More events than any of these tests gets to.
const PLENTY: usize = 200_000;

/// `open` of a pipe that nobody reads yet fails instead of waiting.
const NONBLOCKING: i32 = 0o4000;

fn secrets(secrets: &[&str]) -> String {
    format!("webhook.secrets = {secrets:?}\n")
}

/// Takes its secrets from its file, and whatever else the file says.
fn options() -> DaemonOptions {
    DaemonOptions::new().config_file().without("WEBHOOK_SECRET")
}

fn started(options: DaemonOptions, text: &str) -> Daemon {
    let daemon = Daemon::prepare(options);
    daemon.write_config(text);
    daemon.launch();
    daemon.wait_ready();
    daemon
}

/// The same, with a customer who has token 1; his id.
fn started_with_customer(options: DaemonOptions, text: &str) -> (Daemon, String) {
    let daemon = started(options, text);
    let user = daemon.add_user("user@example.com", 1_000_000);
    daemon.add_key(&user, 1);
    (daemon, user)
}

#[track_caller]
fn reload_with(daemon: &Daemon, text: &str) {
    daemon.write_config(text);
    assert!(daemon.reload(), "refused: {}", daemon.output().stderr);
}

/// A call of one credit.
fn credit(event_id: impl Into<String>) -> String {
    Usage::new(event_id).quota(500).at_secs(now_secs()).json()
}

/// The status of a good event that is signed with a secret of one's choice.
#[track_caller]
fn status_signed(daemon: &Daemon, secret: &str, event_id: &str) -> u16 {
    let answer = daemon.connection().request(&signed_request(secret, credit(event_id).as_bytes()));
    answer.expect("an answer").status
}

/// A sender under way: its first events are charged.
#[track_caller]
fn load(daemon: &Daemon, secret: &str, name: &str) -> Ongoing {
    let bodies = (0..PLENTY).map(|number| credit(format!("{name}-{number}"))).collect();
    let sender = start_delivery(daemon.address(), secret, bodies, 4, Retry::never());
    wait_more(&sender);
    sender
}

/// Lets a load go on for some events.
#[track_caller]
fn wait_more(sender: &Ongoing) {
    let before = sender.acknowledged();
    wait_until("more events are charged", PATIENCE, || (sender.acknowledged() > before + 50).then_some(()));
}

/// Ends a load: each event that was sent got a 2xx at its first try.
#[track_caller]
fn end_unrefused(sender: Ongoing) -> Report {
    assert!(!sender.is_finished(), "the load was there to the end");
    sender.stop();
    let report = sender.finish();
    let refused = report.deliveries.iter().find(|sent| !sent.attempts.is_empty() && !sent.is_acknowledged());
    assert!(refused.is_none(), "{:?}, {refused:?}", report.statuses());
    report
}

fn log_of(daemon: &Daemon) -> String {
    daemon.output().stderr
}

#[test]
fn the_secret_rotates_under_load_without_one_refused_good_event() {
    let (daemon, user) = started_with_customer(options(), &secrets(&[SECRET]));
    let old_sender = load(&daemon, SECRET, "old");
    reload_with(&daemon, &secrets(&[NEW_SECRET, SECRET]));
    wait_more(&old_sender);
    let new_sender = load(&daemon, NEW_SECRET, "new");
    for _ in 0..10 {
        assert!(daemon.reload());
        wait_more(&new_sender);
    }
    let old = end_unrefused(old_sender).acknowledged();
    reload_with(&daemon, &secrets(&[NEW_SECRET]));
    assert_eq!(status_signed(&daemon, SECRET, "too late"), 403);
    wait_more(&new_sender);
    let new = end_unrefused(new_sender).acknowledged();

    let charged = i64::try_from(old.len() + new.len()).unwrap();
    wait_until("what was taken is charged", PATIENCE, || {
        (daemon.books().count("hookledger_claims") == charged).then_some(())
    });
    assert_eq!(daemon.books().balance(&user), 1_000_000 - charged);
    assert_eq!(daemon.books().inbox("too late"), None);
    daemon.books().assert_whole();
    let log = log_of(&daemon);
    assert!(log.contains("changed: webhook.secrets"), "{log}");
    assert!(!log.contains(SECRET) && !log.contains(NEW_SECRET), "the log holds a secret");
}

#[test]
fn a_wrong_file_changes_nothing_says_why_and_can_be_mended() {
    let (daemon, _) = started_with_customer(options(), &secrets(&[SECRET]));
    assert_eq!(daemon.metric(SUCCESSFUL), Some(1.0), "a start counts");
    let since = daemon.metric(RELOADED_AT).expect("a start counts");
    assert!((since - now_secs() as f64).abs() < 120.0, "{since}");
    let sender = load(&daemon, SECRET, "good");
    let file = daemon.config_file().display().to_string();
    daemon.write_config(&format!("{}webhook.max_age = \"soon\"\nserver.lisen = 1", secrets(&[NEW_SECRET])));
    assert!(!daemon.reload());
    wait_more(&sender);
    assert_eq!((daemon.metric(SUCCESSFUL), daemon.metric(RELOADED_AT)), (Some(0.0), Some(since)));
    assert_eq!(status_signed(&daemon, NEW_SECRET, "not yet"), 403, "nothing of a wrong file is taken");
    let log = log_of(&daemon);
    for told in ["webhook.max_age", "server.lisen", "did you mean server.listen?"] {
        let is_told =
            log.lines().any(|line| line.contains("stays as it was") && line.contains(told) && line.contains(&file));
        assert!(is_told, "{told}: {log}");
    }
    daemon.write_config("webhook.secrets = [\"a secret with a forgotten quote ................]");
    assert!(!daemon.reload());
    assert!(!log_of(&daemon).contains("forgotten"), "what is no TOML may hold a secret");

    reload_with(&daemon, &secrets(&[SECRET, NEW_SECRET]));
    assert_eq!((daemon.metric(SUCCESSFUL), daemon.reloads()), (Some(1.0), (1, 2)));
    assert_eq!(status_signed(&daemon, NEW_SECRET, "now"), 200);
    end_unrefused(sender);
    daemon.books().assert_whole();
}

#[test]
fn a_file_that_is_gone_changes_nothing() {
    let (daemon, _) = started_with_customer(options(), &secrets(&[SECRET]));
    fs::remove_file(daemon.config_file()).unwrap();
    assert!(!daemon.reload());
    let log = log_of(&daemon);
    assert!(log.contains(&daemon.config_file().display().to_string()) && log.contains("No such file"), "{log}");
    assert_eq!(status_signed(&daemon, SECRET, "still"), 200);
    reload_with(&daemon, &secrets(&[SECRET]));
    assert!(log_of(&daemon).contains("nothing that a reload can change has changed"));
}

/// The daemon reads a pipe here, so that the test knows when it is at its configuration.
#[test]
fn a_hang_up_during_the_start_ends_nothing_and_is_not_missed() {
    let daemon = Daemon::prepare(options());
    let made = run(Command::new("mkfifo").arg(daemon.config_file()), b"", PATIENCE);
    assert!(made.status.success(), "{made:?}");
    daemon.launch();
    let mut pipe: File = wait_until("the daemon reads its configuration", PATIENCE, || {
        OpenOptions::new().write(true).custom_flags(NONBLOCKING).open(daemon.config_file()).ok()
    });
    daemon.write_config(&secrets(&[NEW_SECRET]));
    assert!(daemon.signal("HUP"));
    pipe.write_all(secrets(&[SECRET]).as_bytes()).unwrap();
    drop(pipe);
    daemon.wait_ready();
    wait_until("the reload is over", PATIENCE, || (daemon.reloads() == (1, 0)).then_some(()));
    assert_eq!(status_signed(&daemon, SECRET, "old"), 403);
    assert_eq!(status_signed(&daemon, NEW_SECRET, "new"), 200);
}

#[test]
fn many_hang_ups_at_once_end_with_the_last_file() {
    let (daemon, _) = started_with_customer(options(), &secrets(&[SECRET]));
    let sender = load(&daemon, SECRET, "good");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..10).for_each(|_| assert!(daemon.signal("HUP"))));
        }
        for _ in 0..10 {
            daemon.write_config(&secrets(&[SECRET, NEW_SECRET]));
            daemon.write_config(&secrets(&[SECRET]));
        }
    });
    reload_with(&daemon, &secrets(&[SECRET, NEW_SECRET]));
    // That may have been the end of one that had read the file before; this one reads it now.
    assert!(daemon.reload());
    assert_eq!(status_signed(&daemon, NEW_SECRET, "after all"), 200);
    assert_eq!(daemon.reloads().1, 0);
    end_unrefused(sender);
    assert_eq!(daemon.terminate(), 0, "a reload does not keep it from stopping");
}

#[test]
fn a_reload_that_hangs_holds_up_neither_events_nor_the_end() {
    let (daemon, _) = started_with_customer(options(), &secrets(&[SECRET]));
    fs::remove_file(daemon.config_file()).unwrap();
    let made = run(Command::new("mkfifo").arg(daemon.config_file()), b"", PATIENCE);
    assert!(made.status.success(), "{made:?}");
    assert!(daemon.signal("HUP"));
    // The pipe is open for writing as soon as the reload reads from it, and gives nothing until it is closed.
    let pipe = wait_until("the reload reads", PATIENCE, || {
        OpenOptions::new().write(true).custom_flags(NONBLOCKING).open(daemon.config_file()).ok()
    });
    assert_eq!(status_signed(&daemon, SECRET, "meanwhile"), 200);
    assert_eq!(daemon.terminate(), 0);
    drop(pipe);
}

#[test]
fn what_needs_a_restart_is_named_and_stays_as_it_is() {
    let options = options().without("HOOKLEDGER__SERVER__LISTEN");
    let daemon = Daemon::prepare(options);
    let text = |address: &str, more: &str| format!("{}server.listen = \"{address}\"\n{more}", secrets(&[SECRET]));
    daemon.write_config(&text(&daemon.address().to_string(), ""));
    daemon.launch();
    daemon.wait_ready();
    let elsewhere = text("127.0.0.1:1", "server.workers = 3\nserver.max_body_bytes = 2000\n");
    for _ in 0..2 {
        let lines = log_of(&daemon).lines().count();
        reload_with(&daemon, &elsewhere);
        let warned = log_of(&daemon).lines().skip(lines).any(|line| {
            line.contains("takes effect at the next start: server.listen, server.workers") && line.contains("WARN")
        });
        assert!(warned, "each time until the start: {}", log_of(&daemon));
    }
    assert!(log_of(&daemon).contains("changed: server.max_body_bytes"));
    assert!(daemon.is_ready(), "it listens where it did");
    assert_eq!(daemon.post("x".repeat(2001)).status, 413, "the rest of the file holds");
}

#[test]
fn a_request_under_way_keeps_the_rules_it_began_with() {
    let (daemon, _) = started_with_customer(options(), &secrets(&[SECRET]));
    let body = credit("slow");
    let signature = signature(SECRET, body.as_bytes());
    let length = body.len().to_string();
    let headers = [("X-Webhook-Signature", &*signature), ("Expect", "100-continue"), ("Content-Length", &*length)];
    let mut slow = daemon.connection();
    slow.send(&http_request("POST", EVENTS_PATH, &headers, b"")).unwrap();
    assert_eq!(slow.read_response().unwrap().status, 100, "its head has been read");
    reload_with(&daemon, &secrets(&[NEW_SECRET]));
    assert_eq!(status_signed(&daemon, SECRET, "too late"), 403);
    slow.send(body.as_bytes()).unwrap();
    let answer = slow.read_response().unwrap();
    assert_eq!((answer.status, answer.json()["success"].as_bool()), (200, Some(true)), "{}", answer.text());
}

//! Sockets that outlive the daemon: a restart, or a crash, refuses no connection.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::kit::clock::now_secs;
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::events::Usage;
use crate::kit::ports::listen;
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(30);

/// Connections that are open at once.
const SENDERS: usize = 4;

fn credit(event_id: String) -> String {
    Usage::new(event_id).quota(500).at_secs(now_secs()).json()
}

/// A daemon that will take over the socket for senders, and who keeps it.
fn with_socket(name: &str) -> Daemon {
    let mut daemon = Daemon::prepare(DaemonOptions::new());
    let socket = listen(daemon.address());
    daemon.hand_over(socket, name);
    daemon
}

#[test]
fn it_serves_a_socket_that_was_open_before_it() {
    for name in ["webhook", ""] {
        let daemon = with_socket(name);
        daemon.launch();
        daemon.wait_ready();
        assert_eq!(daemon.post(credit("evt".to_owned())).status, 200);
        let server = daemon.command_json(&["status"])["listeners"]["server"].clone();
        assert_eq!(server, daemon.address().to_string());
        assert_eq!(daemon.terminate(), 0);
    }
}

#[test]
fn who_connects_while_it_is_away_is_answered_when_it_is_back() {
    let daemon = with_socket("webhook");
    let (answer, connected) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut connection = daemon.connection();
            connected.store(true, Ordering::SeqCst);
            let request = daemon.signed_request(credit("early".to_owned()));
            answer.store(connection.request(&request).expect("an answer").status.into(), Ordering::SeqCst);
        });
        wait_until("it is connected", PATIENCE, || connected.load(Ordering::SeqCst).then_some(()));
        daemon.launch();
        daemon.wait_ready();
    });
    assert_eq!(answer.into_inner(), 200);
}

/// Each event comes over a connection of its own, as it would through most proxies.
#[test]
fn a_restart_under_load_refuses_no_connection() {
    let daemon = with_socket("webhook");
    daemon.launch();
    daemon.wait_ready();
    let user = daemon.add_user("user@example.com", 1_000_000);
    daemon.add_key(&user, 1);
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let restarts = 3;
    thread::scope(|scope| {
        let send_all = |sender: usize| {
            let mut numbers = 0..;
            while !is_over.load(Ordering::SeqCst) {
                let event_id = format!("evt-{sender}-{}", numbers.next().unwrap_or_default());
                match daemon.try_post(credit(event_id)) {
                    Ok(answer) if [200, 202].contains(&answer.status) => answered.fetch_add(1, Ordering::SeqCst),
                    Ok(answer) => return Err(format!("{}: {}", answer.status, answer.text())),
                    Err(error) => return Err(error.to_string()),
                };
            }
            Ok(())
        };
        let senders: Vec<_> = (0..SENDERS).map(|sender| scope.spawn(move || send_all(sender))).collect();
        let go_on = || {
            let before = answered.load(Ordering::SeqCst);
            wait_until("more are answered", PATIENCE, || {
                let is_more = answered.load(Ordering::SeqCst) > before + 20;
                (is_more || senders.iter().any(|sender| sender.is_finished())).then_some(())
            });
        };
        go_on();
        for _ in 0..restarts {
            assert_eq!(daemon.terminate(), 0);
            daemon.launch();
            go_on();
        }
        is_over.store(true, Ordering::SeqCst);
        for sender in senders {
            assert_eq!(sender.join().unwrap(), Ok(()));
        }
    });
    let answered = answered.into_inner();
    wait_until("all are charged", PATIENCE, || {
        (daemon.books().count("usage_records") == answered as i64).then_some(())
    });
    daemon.books().assert_whole();
    assert_eq!(daemon.books().balance(&user), 1_000_000 - answered as i64);
}

#[test]
fn a_killed_daemon_leaves_its_port_open() {
    let daemon = with_socket("webhook");
    daemon.launch();
    daemon.wait_ready();
    daemon.kill();
    thread::scope(|scope| {
        let answer = scope.spawn(|| daemon.post(credit("between".to_owned())));
        daemon.launch();
        assert_eq!(answer.join().unwrap().status, 200);
    });
}

#[test]
fn metrics_can_have_a_socket_of_their_own() {
    let mut daemon = Daemon::prepare(DaemonOptions::new());
    let socket = listen(daemon.metrics_address());
    // Switched off in the settings, so that nothing else can serve them.
    daemon.set_environment("HOOKLEDGER__METRICS__LISTEN", "");
    daemon.hand_over(socket, "metrics");
    daemon.launch();
    daemon.wait_ready();
    assert!(daemon.metrics().contains("hookledger_build_info"));
}

#[test]
fn a_socket_that_nobody_knows_ends_the_start() {
    let daemon = with_socket("gopher");
    daemon.launch();
    assert_eq!(daemon.wait_exit(PATIENCE), Some(2));
    let log = daemon.output().stderr;
    assert!(log.contains("gopher") && log.contains("FileDescriptorName="), "{log}");
}

#[test]
fn another_address_than_the_settings_is_told() {
    let mut daemon = Daemon::prepare(DaemonOptions::new().set("HOOKLEDGER__SERVER__LISTEN", "127.0.0.1:4999"));
    let socket = listen(daemon.address());
    daemon.hand_over(socket, "webhook");
    daemon.launch();
    daemon.wait_ready();
    assert!(daemon.output().stderr.contains("server.listen is not the address of the socket"));
}

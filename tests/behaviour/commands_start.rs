//! How a daemon begins: what it makes, what it finds again, what it prints, and why it may refuse.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::{fine, json_of, ran, without_secret};
use crate::kit::books::Books;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::database::{migrations_folder, unreachable_url};
use crate::kit::ports::{is_listened_on, listen};
use crate::kit::wait::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

#[test]
fn migrate_makes_the_database_and_a_second_run_keeps_it() {
    let daemon = Daemon::prepare(DaemonOptions::new());
    let printed = fine(&daemon, &["migrate"]);
    assert!(printed.contains(&daemon.database_name()), "{printed}");
    for table in ["users", "webhook_logs", "hookledger_claims", "hookledger_migrations"] {
        daemon.books().count(table);
    }
    let installation = "SELECT value FROM hookledger_meta WHERE name = 'installation_id'";
    let first = daemon.books().scalar_text(installation);
    let user = daemon.add_user("user@example.com", 7);
    let database = daemon.command_json(&["migrate"])["database"].as_str().expect("its address").to_owned();
    assert!(printed.contains(&database), "{database} is not in {printed}");
    assert_eq!((daemon.books().balance(&user), daemon.books().scalar_text(installation)), (7, first));
    daemon.launch();
    daemon.wait_ready();
    fine(&daemon, &["migrate"]); // also beside a running daemon
    assert_eq!(daemon.books().balance(&user), 7);
}

#[test]
fn two_migrations_at_once_make_one_database() {
    let daemon = Daemon::prepare(DaemonOptions::new());
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| ran(&daemon, &["migrate"], &[]))).collect();
        for run in runs {
            let ran = run.join().unwrap();
            assert_eq!(ran.code, 0, "{ran:?}");
        }
    });
    let versions = daemon.books().rows("SELECT version FROM hookledger_migrations");
    let migrations = fs::read_dir(migrations_folder()).unwrap();
    assert_eq!(versions.len(), migrations.count(), "each once");
    assert_eq!(daemon.books().scalar_i64("SELECT count(*) FROM hookledger_meta WHERE name = 'installation_id'"), 1);
}

#[test]
fn serve_makes_a_missing_folder_for_its_user_alone() {
    only_on_sqlite!();
    let url = "sqlite://{folder}/not/there/yet/books.db";
    let daemon = Daemon::start(DaemonOptions::new().set("HOOKLEDGER__DATABASE__URL", url));
    let state = daemon.folder().join("not/there/yet");
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("admin.sock")), 0o600, "the socket lies beside the database");
    fine(&daemon, &["user", "add", "--email", "user@example.com"]);
    assert_eq!(Books::at(&state.join("books.db")).count("users"), 1);
}

#[test]
fn nothing_set_but_ports_is_enough() {
    only_on_sqlite!();
    let mut options = without_secret();
    options.without.push("HOOKLEDGER__DATABASE__URL".to_owned());
    // Without a command, the daemon is meant.
    let daemon = Daemon::start(options);
    let state = daemon.folder().join("hookledger-data");
    assert_eq!((mode(&state), mode(&state.join("webhook-secret"))), (0o700, 0o600));
    fine(&daemon, &["user", "add", "--email", "user@example.com", "--credits", "10"]);
    fine(&daemon, &["key", "add", "--user", "user@example.com", "--remote-id", "42"]);
    fine(&daemon, &["send", "--remote-key-id", "42", "--quota", "1830"]);
    assert_eq!(daemon.command_json(&["credits", "show", "user@example.com"])["credits"], 7);
}

#[test]
fn a_second_run_finds_its_secret_and_its_data() {
    only_on_sqlite!();
    let daemon = Daemon::start(without_secret());
    let file = daemon.folder().join("webhook-secret");
    let secret = fs::read_to_string(&file).unwrap();
    let digits = secret.strip_suffix('\n').expect("one line");
    assert!(digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    assert_eq!(mode(&file), 0o600);
    let user = daemon.add_user("user@example.com", 10);
    daemon.add_key(&user, 1);
    let send = ["send", "--remote-key-id", "1", "--quota", "600"];
    fine(&daemon, &send);
    assert_eq!(daemon.terminate(), 0);

    daemon.launch();
    daemon.wait_ready();
    assert_eq!(fs::read_to_string(&file).unwrap(), secret, "the secret is still the same");
    fine(&daemon, &send);
    let shown = daemon.command_json(&["credits", "show", &user]);
    assert_eq!((&shown["credits"], &shown["remainder"]), (&json!(8), &json!("0.4")), "1.2 and 1.2 of 10 credits");
    let left: Vec<_> = fs::read_dir(daemon.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".webhook-secret")), "no draft: {left:?}");
}

#[test]
fn a_configured_secret_is_not_written_down() {
    let daemon = Daemon::start(DaemonOptions::new());
    assert!(!daemon.state_folder().join("webhook-secret").exists());
    fine(&daemon, &["send", "--ping"]);
}

#[test]
fn print_setup_prints_what_new_api_needs_on_standard_output() {
    let mut options = DaemonOptions::new();
    options.arguments = vec!["--print-setup".to_owned()];
    let daemon = Daemon::start(options);
    let printed = wait_until("the setup is printed", PATIENCE, || {
        Some(daemon.output().stdout).filter(|text| text.contains("webhook_secret"))
    });
    let value = |name: &str| {
        let line = printed.lines().find(|line| line.trim_start().starts_with(name)).expect(name);
        line.split_whitespace().nth(1).expect("a value").to_owned()
    };
    assert_eq!(value("webhook_url"), format!("http://{}/api/webhooks/events", daemon.address()));
    assert_eq!(value("webhook_secret"), SECRET);
    assert!(printed.contains(&format!("host.docker.internal:{}", daemon.address().port())), "{printed}");
    assert!(printed.contains(&daemon.database_name()), "{printed}");
    assert!(!daemon.output().stderr.contains(SECRET), "the log never shows it");
}

#[test]
fn print_setup_shows_a_generated_secret_and_where_it_lies() {
    only_on_sqlite!();
    let mut options = without_secret();
    options.arguments = vec!["--print-setup".to_owned()];
    let daemon = Daemon::start(options);
    let file = daemon.folder().join("webhook-secret");
    let secret = fs::read_to_string(&file).unwrap();
    wait_until("the setup is printed", PATIENCE, || {
        let text = daemon.output().stdout;
        (text.contains(secret.trim_end()) && text.contains(&file.display().to_string())).then_some(())
    });
}

#[test]
fn without_print_setup_standard_output_stays_empty() {
    let daemon = Daemon::start(DaemonOptions::new());
    fine(&daemon, &["send", "--ping"]);
    assert_eq!(daemon.terminate(), 0);
    assert_eq!(daemon.output().stdout, "");
}

/// Starts it where it cannot run; its log.
#[track_caller]
fn refused_start(daemon: &Daemon) -> String {
    daemon.launch();
    let code = daemon.wait_exit(PATIENCE);
    let log = daemon.output().stderr;
    assert_eq!(code, Some(2), "{log}");
    log
}

#[test]
fn a_port_in_use_is_named() {
    let daemon = Daemon::prepare(DaemonOptions::new());
    let other = listen(daemon.address());
    let log = refused_start(&daemon);
    let address = daemon.address().to_string();
    assert!(log.contains(&address) && log.contains("server.listen"), "{log}");
    assert!(log.contains("another program"), "{log}");
    assert!(!daemon.admin_socket().exists());
    drop(other);
    // A program that another test is just starting holds it for an instant.
    wait_until("nobody listens there", PATIENCE, || (!is_listened_on(daemon.address())).then_some(()));
    daemon.launch();
    daemon.wait_ready();
}

#[test]
fn a_port_of_the_metrics_in_use_is_named() {
    let daemon = Daemon::prepare(DaemonOptions::new());
    let _other = listen(daemon.metrics_address());
    let log = refused_start(&daemon);
    let address = daemon.metrics_address().to_string();
    assert!(log.contains(&address) && log.contains("metrics.listen"), "{log}");
}

#[test]
fn a_second_daemon_on_the_same_folder_is_refused_and_disturbs_nothing() {
    only_on_sqlite!();
    let first = Daemon::start(DaemonOptions::new());
    let url = first.database_url();
    let second = Daemon::prepare(DaemonOptions::new().set("HOOKLEDGER__DATABASE__URL", url));
    let log = refused_start(&second);
    assert!(log.contains(&first.database_file().display().to_string()), "{log}");
    let socket = first.admin_socket().display().to_string();
    assert!(first.is_ready());
    let socket = [("HOOKLEDGER__DATABASE__URL", unreachable_url()), ("HOOKLEDGER__ADMIN__SOCKET", &socket)];
    let added = ran(&first, &["user", "add", "--email", "user@example.com", "--json"], &socket);
    assert_eq!(added.code, 0, "the first one's socket still works: {added:?}");
    json_of(&added);
}

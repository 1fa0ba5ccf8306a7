//! What the start asks of a server: what breaks a promise is refused, and what the sessions need they set themselves.

use std::time::Duration;

use crate::crashes::{usage_bodies, with_users};
use crate::kit::books::Books;
use crate::kit::daemon::{Daemon, DaemonOptions, SECRET};
use crate::kit::events::Usage;
use crate::kit::mariadb::PrivateServer;
use crate::kit::sender::{Retry, deliver, start_delivery};

const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a daemon that is to be refused; its log since then.
#[track_caller]
fn refused(daemon: &Daemon, code: i32) -> String {
    let before = daemon.output().stderr.len();
    daemon.launch();
    let end = daemon.wait_exit(PATIENCE);
    let log = daemon.output().stderr[before..].to_owned();
    assert_eq!(end, Some(code), "{log}");
    log
}

#[test]
fn a_server_that_breaks_a_promise_is_refused_with_the_setting_to_change() {
    only_on_a_server!();
    let server = PrivateServer::start();
    let daemon = Daemon::prepare(DaemonOptions::new().on(&server));
    for value in [0, 2] {
        server.admin().execute(None, &format!("SET GLOBAL innodb_flush_log_at_trx_commit = {value}"));
        let log = refused(&daemon, 2);
        assert!(log.contains("innodb_flush_log_at_trx_commit") && log.contains("set it to 1"), "{log}");
    }
    server.admin().execute(None, "SET GLOBAL innodb_flush_log_at_trx_commit = 1");
    daemon.books().execute("ALTER TABLE options ENGINE = MyISAM");
    let log = refused(&daemon, 2);
    assert!(log.contains("options") && log.contains("InnoDB"), "{log}");
    daemon.books().execute("ALTER TABLE options ENGINE = InnoDB");
    server.admin().execute(None, "SET GLOBAL max_allowed_packet = 1048576");
    daemon.launch();
    daemon.wait_ready();
    let log = daemon.output().stderr;
    let warned = log.lines().any(|line| line.contains("WARN") && line.contains("max_allowed_packet"));
    assert!(warned, "it warns of what weakens: {log}");
}

#[test]
fn our_sessions_are_ours_whatever_the_server_is_set_to() {
    only_on_a_server!();
    let server = PrivateServer::start();
    server.admin().execute(
        None,
        "SET GLOBAL sql_mode = ''; SET GLOBAL time_zone = '+08:00'; SET GLOBAL TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    );
    let slow = DaemonOptions::new().fail_points("store.settle.written=1*sleep(6000)->off").answers_late();
    let daemon = Daemon::start(slow.on(&server));
    with_users(&daemon);
    let books = daemon.books();
    let posted = start_delivery(daemon.address(), SECRET, usage_bodies(1, "e"), 1, Retry::never());
    let settlement = books.wait_for_transaction("trx_rows_modified > 0", PATIENCE);
    assert_eq!(settlement["trx_isolation_level"], "READ COMMITTED");
    posted.finish().assert_all_acknowledged();
    let retry = Retry::until(PATIENCE, Duration::from_millis(20));
    deliver(daemon.address(), SECRET, usage_bodies(20, "more"), 2, retry).assert_all_acknowledged();
    assert_times_are_utc(&books);
    // A value that does not fit is refused, and not made to fit.
    books.execute("ALTER TABLE usage_records MODIFY model VARCHAR(12) NOT NULL");
    let long = Usage::new("long").remote_key(1).model("a-model-of-a-long-name").quota(700).json();
    assert_eq!(daemon.post(&long).json()["success"], false);
    let (status, message) = books.inbox("long").unwrap();
    assert_eq!(status, "failed");
    assert!(message.unwrap_or_default().contains("model"));
    let user = books.scalar_text("SELECT userId FROM api_keys WHERE remoteKeyId = '1'");
    books.execute(&format!("UPDATE user_credit_balances SET currentCredits = -2147483647 WHERE userId = '{user}'"));
    let beyond = Usage::new("beyond").remote_key(1).quota(50_000).json();
    assert_eq!(daemon.post(&beyond).json()["success"], false, "100 credits more are beyond an INTEGER");
    assert_eq!(books.balance(&user), -2_147_483_647, "it was refused, not clamped");
    assert_eq!(books.inbox("beyond").unwrap().0, "failed");
}

fn assert_times_are_utc(books: &Books) {
    for (table, column) in [
        ("webhook_logs", "createdAt"),
        ("webhook_logs", "processedAt"),
        ("usage_records", "timestamp"),
        ("credit_transactions", "createdAt"),
        ("user_credit_balances", "updatedAt"),
        ("api_keys", "lastUsedAt"),
    ] {
        let off = books.scalar_i64(&format!(
            "SELECT CAST(max(abs(TIMESTAMPDIFF(SECOND, {column}, UTC_TIMESTAMP()))) AS SIGNED) FROM {table}
             WHERE {column} IS NOT NULL"
        ));
        assert!(off < 300, "{table}.{column} is {off} seconds off");
    }
}

/// The statements that a refusal lists, as a person copies them out of the log.
fn grants(log: &str) -> Vec<String> {
    let lines = log.replace("\\n", "\n");
    let grants = lines.lines().filter_map(|line| line.find("GRANT ").map(|at| &line[at..]));
    grants.map(|line| line[..=line.find(';').expect("a statement ends")].to_owned()).collect()
}

#[test]
fn missing_privileges_are_named_by_the_statements_that_give_them() {
    only_on_a_server!();
    let daemon = Daemon::prepare(DaemonOptions::new());
    let guest = daemon.guest();
    let account = format!("'{}'@'%'", guest.platform());
    let administrator = guest.admin().clone();
    let (platform, state) = (guest.platform().to_owned(), guest.state().to_owned());
    administrator.execute(None, &format!("REVOKE ALL PRIVILEGES, GRANT OPTION FROM {account}"));
    let all = grants(&refused(&daemon, 2));
    assert_eq!(all.len(), 8, "one a table, and one for our own: {all:?}");
    administrator.execute(None, &all.join("\n"));
    daemon.launch();
    daemon.wait_ready();
    assert_eq!(daemon.terminate(), 0);
    for (taken, given) in [
        (format!("DELETE ON `{platform}`.webhook_logs"), format!("`{platform}`.`webhook_logs`")),
        (format!("SELECT ON `{platform}`.options"), format!("`{platform}`.`options`")),
        (format!("UPDATE (lastUsedAt) ON `{platform}`.api_keys"), format!("`{platform}`.`api_keys`")),
        (format!("ALL PRIVILEGES ON `{state}`.*"), format!("`{state}`.*")),
    ] {
        administrator.execute(None, &format!("REVOKE {taken} FROM {account}"));
        let missing = grants(&refused(&daemon, 2));
        assert!(missing.len() == 1 && missing[0].contains(&given), "{taken}: {missing:?}");
        administrator.execute(None, &missing[0]);
        daemon.launch();
        daemon.wait_ready();
        assert_eq!(daemon.terminate(), 0);
    }
}

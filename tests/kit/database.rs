//! Which database the suite is run on, and a fresh one of it for each daemon.
//!
//! `HOOKLEDGER_TEST_DATABASE` chooses: `sqlite` (as without it) for a file in the daemon's folder, `mariadb` for a
//! private server of this run, `mysql://user:password@host:port/` for any server, as its administrator.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::clock::now_millis;
use super::mariadb::{Login, shared_server};

const VARIABLE: &str = "HOOKLEDGER_TEST_DATABASE";

/// Set, it lets the databases of a failed test stay where they are.
const KEEP: &str = "HOOKLEDGER_TEST_KEEP";

/// The platform's tables, as an existing LetAiCode has them.
const PLATFORM_TABLES: &str = include_str!("letaicode.sql");

/// What the daemon needs where it is a guest: PLATFORM is the platform's database, STATE our own beside it.
const GUEST_GRANTS: &[&str] = &[
    "SELECT ON PLATFORM.users",
    "SELECT, UPDATE (lastUsedAt) ON PLATFORM.api_keys",
    "SELECT ON PLATFORM.options",
    "SELECT, INSERT, UPDATE, DELETE ON PLATFORM.webhook_logs",
    "SELECT, INSERT, UPDATE (costUsd, creditCost) ON PLATFORM.usage_records",
    "SELECT, INSERT ON PLATFORM.credit_transactions",
    "SELECT, INSERT, UPDATE ON PLATFORM.user_credit_balances",
    "ALL PRIVILEGES ON STATE.*",
];

/// What `user add` and `key add` need beyond that.
const COMMAND_GRANTS: &[&str] = &["INSERT ON PLATFORM.users", "INSERT ON PLATFORM.api_keys"];

#[derive(Debug)]
enum Choice {
    Sqlite,
    Server(Login),
}

fn choice() -> &'static Choice {
    static CHOICE: OnceLock<Choice> = OnceLock::new();
    CHOICE.get_or_init(|| match std::env::var(VARIABLE).unwrap_or_default().as_str() {
        "" | "sqlite" => Choice::Sqlite,
        "mariadb" => Choice::Server(shared_server().admin().clone()),
        url => Choice::Server(Login::parse(url)),
    })
}

/// Whether the suite runs on the embedded database.
pub fn is_sqlite() -> bool {
    matches!(choice(), Choice::Sqlite)
}

/// The SQL files that make the database of this run.
pub fn migrations_folder() -> PathBuf {
    let name = if is_sqlite() { "sqlite" } else { "mysql" };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(name)
}

/// A database of the kind under test that nobody can reach.
pub fn unreachable_url() -> &'static str {
    if is_sqlite() { "sqlite:///nonexistent/x.db" } else { "mysql://nobody:none@127.0.0.1:1/none" }
}

/// First line of a test that is about SQLite itself: anywhere else it says so, past the test harness, and ends.
/// docs/TESTING.md lists these tests.
macro_rules! only_on_sqlite {
    () => {
        if !$crate::kit::database::is_sqlite() {
            $crate::kit::database::tell_not_run("only on SQLite");
            return;
        }
    };
}

/// First line of a test that is about a server: on SQLite it says so, past the test harness, and ends.
/// docs/TESTING.md lists these tests.
macro_rules! only_on_a_server {
    () => {
        if $crate::kit::database::is_sqlite() {
            $crate::kit::database::tell_not_run("only on a server");
            return;
        }
    };
}

/// Not caught by the test harness, which keeps what a passing test prints to itself.
pub fn tell_not_run(why: &str) {
    use std::io::Write;
    let thread = std::thread::current();
    let line = format!("{why}: {}\n", thread.name().unwrap_or("a test"));
    drop(std::io::stderr().write_all(line.as_bytes()));
}

/// One daemon's database.
#[derive(Debug)]
pub enum Database {
    File(PathBuf),
    Guest(Guest),
}

impl Database {
    /// A fresh one of the kind under test; `file` is where it lies if that is a file's.
    #[track_caller]
    pub fn fresh(file: PathBuf) -> Self {
        match choice() {
            Choice::Sqlite => Database::File(file),
            Choice::Server(admin) => Database::Guest(Guest::new(admin)),
        }
    }
}

/// A platform's database with its tables and nothing in them, an account that may do what a guest needs, and the
/// name of a state schema, which the guest makes. All gone with this value.
#[derive(Debug)]
pub struct Guest {
    admin: Login,
    guest: Login,
    platform: String,
    state: String,
}

impl Guest {
    #[track_caller]
    pub fn new(admin: &Login) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::SeqCst);
        // Of its own among all runs on this server. No underscore: GRANT takes that for any letter.
        let platform = format!("hl{}n{number}t{:x}", std::process::id(), now_millis());
        let state = format!("{platform}state");
        let password = format!("{:032x}", rand::random::<u128>());
        let grants: Vec<String> = [GUEST_GRANTS, COMMAND_GRANTS]
            .concat()
            .iter()
            .map(|grant| {
                let grant = grant.replace("PLATFORM", &format!("`{platform}`")).replace("STATE", &format!("`{state}`"));
                format!("GRANT {grant} TO '{platform}'@'%';")
            })
            .collect();
        admin.execute(
            None,
            &format!(
                "CREATE DATABASE `{platform}` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci; USE `{platform}`;
             {PLATFORM_TABLES} CREATE USER '{platform}'@'%' IDENTIFIED BY '{password}'; {}",
                grants.join("\n")
            ),
        );
        let guest = admin.of(&platform, &password);
        Guest { admin: admin.clone(), guest, platform, state }
    }

    pub fn admin(&self) -> &Login {
        &self.admin
    }

    /// The platform's database.
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// The schema of our own tables.
    pub fn state(&self) -> &str {
        &self.state
    }

    /// As the daemon connects.
    pub fn login(&self) -> &Login {
        &self.guest
    }

    pub fn url(&self) -> String {
        self.guest.url(&self.platform)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let Guest { platform, state, .. } = self;
        let has_failed = std::thread::panicking();
        if has_failed && std::env::var_os(KEEP).is_some() {
            eprintln!("kept the databases {platform} and {state}");
            return;
        }
        let sql = format!(
            "DROP DATABASE IF EXISTS `{platform}`; DROP DATABASE IF EXISTS `{state}`; DROP USER IF EXISTS '{platform}'@'%'"
        );
        // A panic here would hide the test's own.
        let dropped = std::panic::catch_unwind(|| self.admin.execute(None, &sql));
        assert!(dropped.is_ok() || has_failed, "the databases {platform} and {state} are still there");
    }
}

//! Servers that speak MySQL: private ones of this test run, and the administrator's way into any other.
//!
//! A private server belongs to a guard, which `scripts/mariadb.sh` is: it ends the server and removes its folder when
//! its standard input ends. That happens when this process ends, however it does.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::folder::unused_path_in_memory;
use super::process::run;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/mariadb.sh");
const TIMEOUT: Duration = Duration::from_secs(120);

/// Standard SQL where the two databases would else read the same text differently: `||` joins texts, `"name"` is a
/// name, and a backslash is one. Strict, so that no value is changed in passing. Hashed joins for the rules of the
/// books, whose own side has no index.
const SESSION: &str = "SET SESSION /*M! join_cache_level = 8, */ time_zone = '+00:00', sql_mode =
  'STRICT_ALL_TABLES,PIPES_AS_CONCAT,ANSI_QUOTES,NO_BACKSLASH_ESCAPES,NO_ENGINE_SUBSTITUTION';
SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;";

/// An account on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
    pub host: String,
    pub port: u16,
}

impl Login {
    /// Reads `mysql://user:password@host:port/`; the letters of user and password may be percent-encoded.
    #[track_caller]
    pub fn parse(url: &str) -> Self {
        let parsed = || {
            let (login, place) = url.trim().strip_prefix("mysql://")?.trim_end_matches('/').rsplit_once('@')?;
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let (host, port) = place.split_once(':').unwrap_or((place, "3306"));
            let (user, password) = (percent_decoded(user)?, percent_decoded(password)?);
            Some(Login { user, password, host: host.to_owned(), port: port.parse().ok()? })
        };
        parsed().expect("the server is given as mysql://user:password@host:port/")
    }

    /// The same server for somebody else.
    pub fn of(&self, user: &str, password: &str) -> Self {
        Login { user: user.to_owned(), password: password.to_owned(), ..self.clone() }
    }

    /// For accounts of the kit's own, whose names and passwords need no encoding.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://{}:{}@{}:{}/{database}", self.user, self.password, self.host, self.port)
    }

    /// Runs statements in one session of the `mariadb` client; what it printed, in XML, and how it ended.
    #[track_caller]
    pub fn ask(&self, database: Option<&str>, sql: &str) -> Output {
        run(&mut self.client(database), format!("{SESSION}\n{sql}\n;\n").as_bytes(), TIMEOUT)
    }

    /// Runs statements that must succeed.
    #[track_caller]
    pub fn execute(&self, database: Option<&str>, sql: &str) {
        let output = self.ask(database, sql);
        assert!(output.status.success(), "{sql:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The client, without the start-up files of whoever runs the tests.
    pub fn client(&self, database: Option<&str>) -> Command {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--batch", "--xml", "--binary-mode", "--unbuffered", "--protocol=tcp"]);
        command.arg("--default-character-set=utf8mb4");
        command.arg(format!("--host={}", self.host)).arg(format!("--port={}", self.port));
        command.arg(format!("--user={}", self.user)).env("MYSQL_PWD", &self.password);
        command.args(database.map(|name| format!("--database={name}")));
        command
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first == b'%' {
            let (digits, after) = rest.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = after;
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).ok()
}

/// A server of our own, durable, in a folder of its own.
#[derive(Debug)]
pub struct PrivateServer {
    folder: PathBuf,
    admin: Login,
    guard: Mutex<Guard>,
}

#[derive(Debug)]
struct Guard {
    process: Child,
    /// Absent once the guard was told to end.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl PrivateServer {
    #[track_caller]
    pub fn start() -> Self {
        let folder = unused_path_in_memory();
        let mut command = Command::new(SCRIPT);
        command.arg("guard").arg(&folder).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut process = command.spawn().unwrap_or_else(|error| panic!("cannot run {SCRIPT}: {error}"));
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("piped"));
        let mut guard = Guard { process, orders, answers };
        let url = guard.answer();
        PrivateServer { folder, admin: Login::parse(&url), guard: Mutex::new(guard) }
    }

    pub fn admin(&self) -> &Login {
        &self.admin
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Starts it again with more lines in its file of settings, in which `{folder}` stands for its folder.
    #[track_caller]
    pub fn configure(&self, lines: &str) {
        self.stop();
        let file = self.folder.join("my.cnf");
        let settings = fs::read_to_string(&file).expect("the server has a file of settings");
        let lines = lines.replace("{folder}", &self.folder.display().to_string());
        fs::write(&file, format!("{settings}{lines}\n")).expect("it can be written");
        self.start_again();
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends the server as a power cut would.
    #[track_caller]
    pub fn kill(&self) {
        self.order("kill");
    }

    /// Ends the server as its operator would.
    #[track_caller]
    pub fn stop(&self) {
        self.order("stop");
    }

    /// Starts it again on the same files and port, and waits until it answers.
    #[track_caller]
    pub fn start_again(&self) {
        self.order("start");
    }

    #[track_caller]
    fn order(&self, word: &str) {
        let mut guard = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let orders = guard.orders.as_mut().expect("the guard is there");
        writeln!(orders, "{word}").expect("the guard listens");
        assert_eq!(guard.answer().trim(), format!("{word}: done"));
    }
}

impl Guard {
    #[track_caller]
    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the guard prints text");
        assert!(!line.is_empty(), "the guard of a private MariaDB ended; what it said stands above");
        line
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        let guard = self.guard.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(guard.orders.take());
        drop(guard.process.wait());
    }
}

/// The server that all tests of this process share, started by the first that needs it. A static is never dropped:
/// the guard ends it with the process.
pub fn shared_server() -> &'static PrivateServer {
    static SHARED: OnceLock<PrivateServer> = OnceLock::new();
    SHARED.get_or_init(PrivateServer::start)
}

//! Runs the real binary in a folder of its own: starts it, kills it, and starts it again on the same files.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::database::{Database, Guest};
use super::folder::TestFolder;
use super::mariadb::{Login, PrivateServer};
use super::ports::{free_address, is_listened_on};
use super::process::{exit_code, send_signal, send_signal_to_group};
use super::wait::{poll, wait_until};
use super::wire::{Connection, DEFAULT_TIMEOUT, http_request};

/// What every daemon is signed to with, unless a test wants another.
pub const SECRET: &str = "kit-secret-0123456789abcdef0123456789";

const DATABASE_URL: &str = "HOOKLEDGER__DATABASE__URL";
/// The binary beside these tests; measurements name another one, of a release.
const BINARY: &str = env!("CARGO_BIN_EXE_hookledger");
const OTHER_BINARY: &str = "HOOKLEDGER_TEST_BINARY";
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Above `server.shutdown_timeout`.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of its log a failed test shows.
const SHOWN_LINES: usize = 30;

/// How to run it. In values and in the wrapper, `{folder}` stands for the daemon's folder.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    pub secret: String,
    /// Laid over the kit's own variables.
    pub environment: BTreeMap<String, String>,
    /// Variables of the kit's own that this daemon does not get.
    pub without: Vec<String>,
    /// Comes before the binary, as in `strace -f -o {folder}/trace`.
    pub wrapper: Vec<String>,
    /// Comes after `serve`.
    pub arguments: Vec<String>,
    /// Comes after every command: where the file of settings is.
    pub config: Vec<String>,
    /// The administrator of the server on which it is a guest, whatever the suite runs on.
    pub server: Option<Login>,
}

impl Default for DaemonOptions {
    fn default() -> Self {
        DaemonOptions {
            secret: SECRET.to_owned(),
            environment: BTreeMap::new(),
            without: Vec::new(),
            wrapper: Vec::new(),
            arguments: Vec::new(),
            config: Vec::new(),
            server: None,
        }
    }
}

impl DaemonOptions {
    pub fn new() -> Self {
        DaemonOptions::default()
    }

    /// Sets a variable, as in `set("HOOKLEDGER__LEDGER__ROUNDING", "nearest")`.
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.insert(name.to_owned(), value.to_string());
        self
    }

    /// Makes it a guest on a server of the test's own.
    pub fn on(mut self, server: &PrivateServer) -> Self {
        self.server = Some(server.admin().clone());
        self
    }

    /// Sets `FAILPOINTS`, as in `fail_points("ledger.reply=1*return(kill)")`.
    pub fn fail_points(self, places: &str) -> Self {
        self.set("FAILPOINTS", places)
    }

    /// However slow the machine, no event is answered 202 because its settlement took long: 200 then tells what it came to.
    pub fn answers_late(self) -> Self {
        self.set("HOOKLEDGER__SERVER__ACK_TIMEOUT", "9s")
    }

    /// Gives the daemon and its commands the file that [`Daemon::write_config`] writes.
    pub fn config_file(mut self) -> Self {
        self.config = ["--config", "{folder}/hookledger.toml"].map(str::to_owned).to_vec();
        self
    }

    /// Takes a variable of the kit's own away, so that a file can say what it said.
    pub fn without(mut self, name: &str) -> Self {
        self.without.push(name.to_owned());
        self
    }

    /// Lets [`Daemon::clock`] move the daemon's time.
    pub fn movable_clock(self) -> Self {
        self.set("HOOKLEDGER_TEST_CLOCK_FILE", "{folder}/clock")
    }

    pub fn wrapper(mut self, words: &[&str]) -> Self {
        self.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }
}

/// Everything that it printed, over all its starts.
#[derive(Debug, Clone)]
pub struct DaemonOutput {
    pub stdout: String,
    pub stderr: String,
}

/// A daemon, running or not, and its files. Killed when it goes out of scope.
#[derive(Debug)]
pub struct Daemon {
    pub(super) options: DaemonOptions,
    server: SocketAddr,
    metrics: SocketAddr,
    process: Mutex<Process>,
    /// A listener of the test's own, which the wrapper hands over as the daemon starts.
    kept_socket: Option<TcpListener>,
    // Last, so that they go last.
    pub(super) database: Database,
    pub(super) folder: TestFolder,
}

#[derive(Debug, Default)]
struct Process {
    /// Absent before the first start.
    child: Option<Child>,
    /// Present once it has ended.
    exit_code: Option<i32>,
}

impl Daemon {
    /// Starts a daemon and waits until it can take events.
    #[track_caller]
    pub fn start(options: DaemonOptions) -> Self {
        let daemon = Daemon::prepare(options);
        daemon.launch();
        daemon.wait_ready();
        daemon
    }

    /// A daemon that was not started: a folder, ports and settings, for commands or for a later [`Daemon::launch`].
    pub fn prepare(options: DaemonOptions) -> Self {
        let folder = TestFolder::new();
        let database = match &options.server {
            Some(admin) => Database::Guest(Guest::new(admin)),
            None => Database::fresh(folder.path().join("hookledger.db")),
        };
        let (server, metrics) = (free_address(), free_address());
        Daemon { options, server, metrics, process: Mutex::default(), kept_socket: None, database, folder }
    }

    /// Starts the process and waits for nothing.
    #[track_caller]
    pub fn launch(&self) {
        assert!(!self.is_running(), "the daemon runs already");
        let append = |name: &str| File::options().create(true).append(true).open(self.folder().join(name));
        let mut command = self.wrapped_command();
        command.arg("serve").args(self.options.arguments.iter().map(|text| self.filled(text)));
        command.args(self.config_arguments());
        command.stdin(match &self.kept_socket {
            Some(socket) => Stdio::from(OwnedFd::from(socket.try_clone().expect("a socket can be cloned"))),
            None => Stdio::null(),
        });
        command.stdout(append("stdout").expect("stdout can be kept"));
        command.stderr(append("stderr").expect("stderr can be kept"));
        command.process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        *self.process() = Process { child: Some(child), exit_code: None };
    }

    /// Waits until `/readyz` says 200; panics with the log if the daemon ends instead, or takes too long.
    #[track_caller]
    pub fn wait_ready(&self) {
        let end = poll(READY_TIMEOUT, || match self.end() {
            Some(code) => Some(Err(code)),
            None => self.is_ready().then_some(Ok(())),
        });
        match end {
            Some(Ok(())) => {}
            Some(Err(code)) => panic!("the daemon ended with {code} instead of getting ready:\n{}", self.log_tail()),
            None => panic!("the daemon was not ready within {READY_TIMEOUT:?}:\n{}", self.log_tail()),
        }
    }

    pub fn is_ready(&self) -> bool {
        let answer = Connection::open(self.server, DEFAULT_TIMEOUT)
            .and_then(|mut connection| connection.request(&http_request("GET", "/readyz", &[], b"")));
        answer.is_ok_and(|answer| answer.status == 200)
    }

    /// Starts it again on the same files and ports, with whatever the options are by now; kills it first if it runs.
    #[track_caller]
    pub fn restart(&self) {
        self.kill();
        self.launch();
        self.wait_ready();
    }

    /// Changes a variable for the next start.
    pub fn set_environment(&mut self, name: &str, value: impl ToString) {
        self.options.environment.insert(name.to_owned(), value.to_string());
    }

    /// Takes back a variable that the options set, for the next start.
    pub fn unset_environment(&mut self, name: &str) {
        self.options.environment.remove(name);
    }

    /// Changes the program that runs the daemon (`strace`, say), for the next start.
    pub fn set_wrapper(&mut self, words: &[&str]) {
        self.options.wrapper = words.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Gives each of its starts this socket as standard input; it stays open while the daemon is away.
    pub(super) fn keep_socket(&mut self, socket: TcpListener) {
        self.kept_socket = Some(socket);
    }

    /// Ends it as a power cut would, wrapper and all. Nothing happens if it does not run.
    #[track_caller]
    pub fn kill(&self) {
        if !self.is_running() {
            return;
        }
        let is_wrapped = !self.options.wrapper.is_empty();
        let frees_its_port = self.kept_socket.is_none();
        if let Some(child) = &mut self.process().child {
            // Not yet waited for, so the number is still its own, and its group's.
            if is_wrapped {
                send_signal_to_group("KILL", child.id());
            } else {
                child.kill().expect("a child can be killed");
            }
        }
        wait_until("the killed daemon is gone", KILL_TIMEOUT, || self.end());
        if is_wrapped && frees_its_port {
            // The wrapper is gone; the daemon itself is when its port is.
            wait_until("its port is free", KILL_TIMEOUT, || (!is_listened_on(self.server)).then_some(()));
        }
    }

    /// Asks it to stop and waits until it has; the exit code.
    #[track_caller]
    pub fn terminate(&self) -> i32 {
        assert!(self.signal("TERM"), "the daemon does not run:\n{}", self.log_tail());
        let code = self.wait_exit(STOP_TIMEOUT);
        code.unwrap_or_else(|| panic!("the daemon did not stop within {STOP_TIMEOUT:?}:\n{}", self.log_tail()))
    }

    /// Sends a signal to the daemon itself (not its wrapper); false if it does not run.
    pub fn signal(&self, signal: &str) -> bool {
        self.is_running() && send_signal(signal, self.pid())
    }

    /// Its exit code, 128 + number for an end by signal; nothing if it still runs after `timeout`.
    pub fn wait_exit(&self, timeout: Duration) -> Option<i32> {
        poll(timeout, || self.end())
    }

    pub fn is_running(&self) -> bool {
        self.process().child.is_some() && self.end().is_none()
    }

    /// The process of the daemon itself, under whatever wrapper. Panics if it was never started.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let started = self.process().child.as_ref().map(Child::id).expect("the daemon was started");
        if self.options.wrapper.is_empty() {
            return started;
        }
        // A wrapper either became the daemon or runs it as its child.
        let children = fs::read_to_string(format!("/proc/{started}/task/{started}/children")).unwrap_or_default();
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(started)
    }

    pub fn address(&self) -> SocketAddr {
        self.server
    }

    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// The binary in the daemon's environment and folder, with no arguments yet.
    pub(super) fn bare_command(&self) -> Command {
        self.in_environment(Command::new(binary()))
    }

    fn wrapped_command(&self) -> Command {
        let Some((program, words)) = self.options.wrapper.split_first() else {
            return self.bare_command();
        };
        let mut command = Command::new(program);
        command.args(words.iter().map(|word| self.filled(word))).arg(binary());
        self.in_environment(command)
    }

    fn in_environment(&self, mut command: Command) -> Command {
        command.current_dir(self.folder()).env_clear();
        let own = [
            ("PATH", std::env::var("PATH").unwrap_or_default()),
            ("HOOKLEDGER__SERVER__LISTEN", self.server.to_string()),
            ("HOOKLEDGER__METRICS__LISTEN", self.metrics.to_string()),
            ("HOOKLEDGER__LOG__FORMAT", "json".to_owned()),
            ("WEBHOOK_SECRET", self.options.secret.clone()),
        ];
        let is_wanted = |name: &str| !self.options.without.iter().any(|unwanted| unwanted == name);
        command.envs(own.into_iter().filter(|(name, _)| is_wanted(name)));
        if self.options.config.is_empty() {
            // Twice the default: a busy machine answers late. A file says its own.
            command.env("HOOKLEDGER__SERVER__ACK_TIMEOUT", "6s");
        }
        // A test that leads the daemon elsewhere says all of it.
        if is_wanted(DATABASE_URL) && !self.options.environment.contains_key(DATABASE_URL) {
            command.env(DATABASE_URL, self.database_url());
            if let Database::Guest(guest) = &self.database {
                command.env("HOOKLEDGER__DATABASE__STATE_SCHEMA", guest.state());
            }
        }
        command.envs(self.options.environment.iter().map(|(name, value)| (name, self.filled(value))));
        command
    }

    /// What leads a command to the daemon's file of settings, where the options say that there is one.
    pub(super) fn config_arguments(&self) -> impl Iterator<Item = String> {
        self.options.config.iter().map(|text| self.filled(text))
    }

    pub(super) fn filled(&self, text: &str) -> String {
        text.replace("{folder}", &self.folder().display().to_string())
    }

    /// How the started process ended; nothing while it runs or before it was started.
    fn end(&self) -> Option<i32> {
        let mut process = self.process();
        if process.exit_code.is_none()
            && let Some(child) = &mut process.child
        {
            process.exit_code = child.try_wait().expect("a child can be waited for").map(exit_code);
        }
        process.exit_code
    }

    fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.stderr.lines().collect();
        lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
    }
}

fn binary() -> OsString {
    std::env::var_os(OTHER_BINARY).unwrap_or_else(|| BINARY.into())
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the daemon's log ends with:\n{}", self.log_tail());
        }
        if self.is_running() {
            let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
            if let Some(child) = &mut process.child {
                send_signal_to_group("KILL", child.id());
                drop(child.wait()); // a panic here would hide the test's own
            }
        }
    }
}

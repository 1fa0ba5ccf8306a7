//! What a test asks of a daemon: events, the command line, the admin socket and metrics.

use std::io;
use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use super::daemon::Daemon;
use super::database::is_sqlite;
use super::exposition::sample;
use super::process::run;
use super::sign::{EVENTS_PATH, signed_request};
use super::wait::wait_until;
use super::wire::{Connection, DEFAULT_TIMEOUT, Response, http_request};

/// What a daemon refuses on a platform's own database unless it is told that this is meant. The tests always mean it.
const PLATFORM_COMMANDS: &[&[&str]] =
    &[&["user", "add"], &["key", "add"], &["key", "ignore"], &["credits", "grant"], &["credits", "adjust"]];

const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

impl Daemon {
    /// Posts a body, rightly signed, on a connection of its own.
    #[track_caller]
    pub fn post(&self, body: impl AsRef<[u8]>) -> Response {
        answered(self.try_post(body))
    }

    pub fn try_post(&self, body: impl AsRef<[u8]>) -> io::Result<Response> {
        let request = signed_request(&self.options.secret, body.as_ref());
        Connection::open(self.address(), DEFAULT_TIMEOUT)?.request(&request)
    }

    /// Posts a body with these headers, and no signature but one among them.
    #[track_caller]
    pub fn post_with(&self, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Response {
        answered(self.connection().request(&http_request("POST", EVENTS_PATH, headers, body.as_ref())))
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        answered(self.connection().request(&http_request("GET", path, &[], b"")))
    }

    /// A rightly signed request, to be sent whole or in parts.
    pub fn signed_request(&self, body: impl AsRef<[u8]>) -> Vec<u8> {
        signed_request(&self.options.secret, body.as_ref())
    }

    #[track_caller]
    pub fn connection(&self) -> Connection {
        let opened = Connection::open(self.address(), DEFAULT_TIMEOUT);
        opened.unwrap_or_else(|error| panic!("cannot connect to {}: {error}", self.address()))
    }

    #[track_caller]
    pub fn admin_connection(&self) -> Connection {
        let socket = self.admin_socket();
        let opened = Connection::open_unix(&socket, DEFAULT_TIMEOUT);
        opened.unwrap_or_else(|error| panic!("cannot connect to {}: {error}", socket.display()))
    }

    /// A command of the binary in the daemon's environment, to be run by the test itself.
    pub fn any_command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.bare_command();
        command.env_remove("FAILPOINTS").args(arguments).args(self.config_arguments());
        command
    }

    /// Runs a command of the binary in the daemon's environment, whether the daemon runs or not. `FAILPOINTS` is
    /// left out: faults are meant for the daemon.
    #[track_caller]
    pub fn command(&self, arguments: &[&str]) -> Output {
        self.command_with(arguments, &[])
    }

    /// The same, with more variables (`FAILPOINTS` among them, if the command itself is to fail).
    #[track_caller]
    pub fn command_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        let is_platforms = |command: &&[&str]| arguments.starts_with(command);
        let is_to_be_meant = !is_sqlite() && PLATFORM_COMMANDS.iter().any(is_platforms);
        self.ran(arguments, is_to_be_meant.then_some("--platform-database"), variables)
    }

    /// Runs a command as it stands, though it may have to be said on this database that it is meant.
    #[track_caller]
    pub fn command_unmeant(&self, arguments: &[&str]) -> Output {
        self.ran(arguments, None, &[])
    }

    #[track_caller]
    fn ran(&self, arguments: &[&str], last: Option<&str>, variables: &[(&str, &str)]) -> Output {
        let mut command = self.bare_command();
        command.env_remove("FAILPOINTS").envs(variables.iter().copied());
        command.args(arguments).args(self.config_arguments()).args(last);
        run(&mut command, b"", COMMAND_TIMEOUT)
    }

    /// Runs a command with `--json` behind it, which must succeed; what it prints.
    #[track_caller]
    pub fn command_json(&self, arguments: &[&str]) -> Value {
        let output = self.command(&[arguments, &["--json"]].concat());
        let printed = String::from_utf8_lossy(&output.stdout);
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?} failed with {}: {printed}{complaint}", output.status);
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {printed}{complaint}"))
    }

    /// Adds a user who has these credits; the new id.
    #[track_caller]
    pub fn add_user(&self, email: &str, credits: i64) -> String {
        let credits = credits.to_string();
        id_of(&self.command_json(&["user", "add", "--email", email, "--credits", &credits]))
    }

    /// Gives a token of new-api to a user (id or email); the new key's id.
    #[track_caller]
    pub fn add_key(&self, user: &str, remote_id: i64) -> String {
        let remote_id = remote_id.to_string();
        id_of(&self.command_json(&["key", "add", "--user", user, "--remote-id", &remote_id]))
    }

    /// Adds credits to a user (id or email); the new transaction's id.
    #[track_caller]
    pub fn grant(&self, user: &str, amount: i64) -> String {
        let amount = amount.to_string();
        id_of(&self.command_json(&["credits", "grant", "--user", user, "--amount", &amount]))
    }

    /// Sends SIGHUP and waits until the daemon has reloaded; whether it took the configuration.
    #[track_caller]
    pub fn reload(&self) -> bool {
        let before = self.reloads();
        assert!(self.signal("HUP"), "the daemon does not run");
        wait_until("the reload is over", DEFAULT_TIMEOUT, || {
            let after = self.reloads();
            (after != before).then_some(after.0 > before.0)
        })
    }

    /// How many reloads were applied, and how many refused.
    #[track_caller]
    pub fn reloads(&self) -> (u64, u64) {
        let metrics = self.metrics();
        let count =
            |outcome: &str| sample(&metrics, &format!("hookledger_config_reloads_total{{outcome=\"{outcome}\"}}"));
        (count("applied").unwrap_or_default() as u64, count("refused").unwrap_or_default() as u64)
    }

    /// What Prometheus would scrape.
    #[track_caller]
    pub fn metrics(&self) -> String {
        let answer = Connection::open(self.metrics_address(), DEFAULT_TIMEOUT)
            .and_then(|mut connection| connection.request(&http_request("GET", "/metrics", &[], b"")));
        let answer = answered(answer);
        assert_eq!(answer.status, 200, "metrics: {}", answer.text());
        answer.text()
    }

    /// One value of them, by its full name and all its labels: `hookledger_events{status="failed"}`.
    #[track_caller]
    pub fn metric(&self, name_with_labels: &str) -> Option<f64> {
        sample(&self.metrics(), name_with_labels)
    }
}

#[track_caller]
fn answered(answer: io::Result<Response>) -> Response {
    answer.unwrap_or_else(|error| panic!("the daemon did not answer: {error}"))
}

#[track_caller]
fn id_of(printed: &Value) -> String {
    printed["id"].as_str().unwrap_or_else(|| panic!("no id in {printed}")).to_owned()
}

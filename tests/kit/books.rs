//! Looks at the database as any other program would: through the `sqlite3` command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Map, Value};

use super::process::run;

pub type Row = Map<String, Value>;

/// A database that is busy is asked this often, each time for as long as `BUSY`.
const ATTEMPTS: usize = 3;
const BUSY: &str = ".timeout 5000";
const TIMEOUT: Duration = Duration::from_secs(60);

/// The database file of one daemon, running or not.
#[derive(Debug, Clone)]
pub struct Books {
    file: PathBuf,
}

impl Books {
    pub fn at(file: &Path) -> Self {
        Books { file: file.to_owned() }
    }

    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What one statement finds, all of it as of one instant.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Row> {
        let printed = self.ask(&["-readonly", "-json"], sql);
        if printed.trim().is_empty() {
            return Vec::new(); // how `sqlite3 -json` prints no rows
        }
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error} in what {sql:?} printed: {printed}"))
    }

    /// The single number that a statement finds.
    #[track_caller]
    pub fn scalar_i64(&self, sql: &str) -> i64 {
        let value = self.scalar(sql);
        value.as_i64().unwrap_or_else(|| panic!("{sql:?} found {value}, which is no whole number"))
    }

    /// The single text that a statement finds.
    #[track_caller]
    pub fn scalar_text(&self, sql: &str) -> String {
        let value = self.scalar(sql);
        value.as_str().unwrap_or_else(|| panic!("{sql:?} found {value}, which is no text")).to_owned()
    }

    #[track_caller]
    fn scalar(&self, sql: &str) -> Value {
        let rows = self.rows(sql);
        let mut values = rows.iter().flat_map(Row::values);
        match (rows.len(), values.next(), values.next()) {
            (1, Some(value), None) => value.clone(),
            _ => panic!("{sql:?} found {rows:?}, which is no single value"),
        }
    }

    /// Writes as another program would: one transaction if `sql` says so.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        self.ask(&["-cmd", "PRAGMA foreign_keys = ON"], sql);
    }

    #[track_caller]
    pub fn count(&self, table: &str) -> i64 {
        self.scalar_i64(&format!("SELECT count(*) FROM {table}"))
    }

    /// A user's credits; 0 for one without a balance row.
    #[track_caller]
    pub fn balance(&self, user_id: &str) -> i64 {
        let user_id = quoted(user_id);
        self.scalar_i64(&format!(
            "SELECT coalesce((SELECT currentCredits FROM user_credit_balances WHERE userId = {user_id}), 0)"
        ))
    }

    /// `status` and `errorMsg` of an event in the inbox, if it is there.
    #[track_caller]
    pub fn inbox(&self, event_id: &str) -> Option<(String, Option<String>)> {
        let event_id = quoted(event_id);
        let rows = self.rows(&format!("SELECT status, errorMsg FROM webhook_logs WHERE eventId = {event_id}"));
        let row = rows.first()?;
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        Some((text("status").expect("a status is a text"), text("errorMsg")))
    }

    #[track_caller]
    fn ask(&self, options: &[&str], sql: &str) -> String {
        assert!(self.file.exists(), "there is no database at {}", self.file.display());
        let mut complaint = String::new();
        for _ in 0..ATTEMPTS {
            let output = self.ask_once(options, sql);
            complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() && complaint.is_empty() {
                return String::from_utf8(output.stdout).expect("sqlite3 prints UTF-8");
            }
            if !complaint.contains("locked") && !complaint.contains("busy") {
                break;
            }
        }
        panic!("{sql:?} on {}: {complaint}", self.file.display());
    }

    #[track_caller]
    fn ask_once(&self, options: &[&str], sql: &str) -> Output {
        let mut command = Command::new("sqlite3");
        command.args(["-batch", "-bail", "-cmd", BUSY]).args(options).arg(&self.file);
        // No start-up file of whoever runs the tests.
        command.env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME");
        run(&mut command, format!("{sql};\n").as_bytes(), TIMEOUT)
    }
}

/// A text as SQL writes it.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

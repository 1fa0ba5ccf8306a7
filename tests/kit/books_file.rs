//! Books in one file, through the `sqlite3` command line.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::books::Row;
use super::process::run;

/// A database that is busy is asked this often, each time for as long as `BUSY`.
const ATTEMPTS: usize = 3;
const BUSY: &str = ".timeout 5000";
const TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug, Clone)]
pub struct BooksFile {
    file: PathBuf,
    /// Comes before the client, for a file that lies where only it leads.
    wrapper: Vec<String>,
}

impl fmt::Display for BooksFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.file.display().fmt(formatter)
    }
}

impl BooksFile {
    pub fn at(file: &Path) -> Self {
        BooksFile { file: file.to_owned(), wrapper: Vec::new() }
    }

    pub fn behind(file: &Path, wrapper: Vec<String>) -> Self {
        BooksFile { file: file.to_owned(), wrapper }
    }

    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Row> {
        let printed = self.ask(&["-readonly", "-json"], sql);
        if printed.trim().is_empty() {
            return Vec::new(); // how `sqlite3 -json` prints no rows
        }
        serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error} in what {sql:?} printed: {printed}"))
    }

    #[track_caller]
    pub fn execute(&self, sql: &str) {
        self.ask(&[], sql);
    }

    #[track_caller]
    fn ask(&self, options: &[&str], sql: &str) -> String {
        assert!(self.file.exists() || !self.wrapper.is_empty(), "there is no database at {self}");
        let mut complaint = String::new();
        for _ in 0..ATTEMPTS {
            let mut command = self.client();
            command.args(["-bail", "-cmd", BUSY]).args(options);
            let output = run(&mut command, format!("{sql};\n").as_bytes(), TIMEOUT);
            complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            if output.status.success() && complaint.is_empty() {
                return String::from_utf8(output.stdout).expect("sqlite3 prints UTF-8");
            }
            if !complaint.contains("locked") && !complaint.contains("busy") {
                break;
            }
        }
        panic!("{sql:?} on {self}: {complaint}");
    }

    /// `sqlite3` on this file, without the start-up file of whoever runs the tests.
    pub fn client(&self) -> Command {
        let mut words = self.wrapper.iter().map(String::as_str).chain(["sqlite3"]);
        let mut command = Command::new(words.next().expect("the client is the last of them"));
        command.args(words).arg("-batch").arg(&self.file).env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME");
        command
    }
}

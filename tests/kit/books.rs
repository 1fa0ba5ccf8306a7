//! Looks at the books as any other program would: through the command line of the database, whichever it is.
//!
//! Statements of tests run on all of them: backticks around names, `||`, `coalesce`, window functions, `CAST(… AS
//! SIGNED)` mean the same everywhere here. Our own tables are written as if they lay beside the platform's.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use serde_json::{Map, Value};

use super::books_file::BooksFile;
use super::books_server::BooksServer;
use super::database::Guest;
use super::wait::{pause, wait_until};

pub type Row = Map<String, Value>;

/// The books of one daemon, running or not.
#[derive(Debug, Clone)]
pub enum Books {
    File(BooksFile),
    Server(BooksServer),
}

impl fmt::Display for Books {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Books::File(books) => books.fmt(formatter),
            Books::Server(books) => books.fmt(formatter),
        }
    }
}

impl Books {
    pub fn at(file: &Path) -> Self {
        Books::File(BooksFile::at(file))
    }

    /// The same where only this wrapper leads to it.
    pub fn behind(file: &Path, wrapper: Vec<String>) -> Self {
        Books::File(BooksFile::behind(file, wrapper))
    }

    /// The books of a guest, seen by the server's administrator.
    pub fn of(guest: &Guest) -> Self {
        Books::Server(BooksServer::of(guest))
    }

    pub fn is_sqlite(&self) -> bool {
        matches!(self, Books::File(_))
    }

    /// What one statement finds, all of it as of one instant. It names what it computes.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Row> {
        match self {
            Books::File(books) => books.rows(sql),
            Books::Server(books) => books.rows(sql),
        }
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
        let rows = match self {
            Books::File(books) => books.rows(sql),
            Books::Server(books) => books.rows(&format!("WITH found (value) AS ({sql}) SELECT value FROM found")),
        };
        let mut values = rows.iter().flat_map(Row::values);
        match (rows.len(), values.next(), values.next()) {
            (1, Some(value), None) => value.clone(),
            _ => panic!("{sql:?} found {rows:?}, which is no single value"),
        }
    }

    /// Writes as another program would: one transaction if `sql` says so.
    #[track_caller]
    pub fn execute(&self, sql: &str) {
        match self {
            Books::File(books) => books.execute(&format!("PRAGMA foreign_keys = ON; {sql}")),
            Books::Server(books) => books.execute(sql),
        }
    }

    /// Writes what references forbid, as a careless restore does.
    #[track_caller]
    pub fn execute_unchecked(&self, sql: &str) {
        match self {
            Books::File(books) => books.execute(&format!("PRAGMA foreign_keys = OFF; {sql}")),
            Books::Server(books) => books.execute(&format!("SET SESSION foreign_key_checks = 0; {sql}")),
        }
    }

    /// Lets nobody else write until what this returns goes out of scope; looking goes on.
    #[track_caller]
    pub fn hold_writers(&self) -> Hold {
        match self {
            Books::File(books) => Hold::take(books.client(), ".timeout 10000\nBEGIN IMMEDIATE;\nSELECT 'held';\n"),
            Books::Server(books) => {
                Hold::take(books.client(), &format!("LOCK TABLES {};\nSELECT 'held';\n", books.shared_tables(" READ")))
            }
        }
    }

    /// Another program's session on a server, in the middle of a transaction, until what this returns goes out of scope.
    #[track_caller]
    pub fn hold(&self, statements: &str) -> Hold {
        let Books::Server(books) = self else { panic!("another program's transaction locks all of SQLite") };
        Hold::take(books.client(), &format!("START TRANSACTION;\n{statements};\nSELECT 'held';\n"))
    }

    /// Waits until a transaction is under way on the server for which `condition` over `innodb_trx` holds. On a server
    /// of the test's own: InnoDB shows its transactions anew only when nobody has looked for a tenth of a second.
    #[track_caller]
    pub fn wait_for_transaction(&self, condition: &str, timeout: Duration) -> Row {
        let sql = format!("SELECT * FROM information_schema.innodb_trx WHERE {condition}");
        wait_until(&format!("a transaction is under way with {condition}"), timeout, || {
            pause(Duration::from_millis(150));
            self.rows(&sql).pop()
        })
    }

    /// Adds a user without a balance, as the platform may.
    #[track_caller]
    pub fn insert_user(&self, id: &str, email: &str) {
        let values = [id, email, STAMP].map(quoted).join(", ");
        self.execute(&format!("INSERT INTO users (id, email, updatedAt) VALUES ({values})"));
    }

    /// Adds a key as the platform does: `status` is `ACTIVE`, `DISABLED` or `DELETED`.
    #[track_caller]
    pub fn insert_key(&self, id: &str, user_id: &str, remote_id: &str, status: &str) {
        self.execute(&key_statement(id, user_id, remote_id, status));
    }

    /// Adds a key of a user who is not there.
    #[track_caller]
    pub fn insert_orphaned_key(&self, id: &str, remote_id: &str) {
        self.execute_unchecked(&key_statement(id, "nobody", remote_id, "ACTIVE"));
    }

    /// Sets an option as the platform's console does.
    #[track_caller]
    pub fn set_option(&self, key: &str, value: &str) {
        let values = [key, value, STAMP].map(quoted).join(", ");
        self.execute(&format!("REPLACE INTO options (`key`, value, updatedAt) VALUES ({values})"));
    }

    /// Another program's rule that nobody can know of: no usage record is of this model.
    #[track_caller]
    pub fn refuse_model(&self, model: &str, words: &str) {
        let (model, words) = (quoted(model), quoted(words));
        self.execute(&match self {
            Books::File(_) => format!(
                "CREATE TRIGGER no_such_model BEFORE INSERT ON usage_records WHEN NEW.model = {model}
                   BEGIN SELECT RAISE(ABORT, {words}); END"
            ),
            Books::Server(_) => format!(
                "DELIMITER //
CREATE TRIGGER no_such_model BEFORE INSERT ON usage_records FOR EACH ROW
  IF NEW.model = {model} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = {words}; END IF//
DELIMITER ;
DO 0"
            ),
        });
    }

    /// Says that a version of hookledger that nobody has yet brought the tables up to date.
    #[track_caller]
    pub fn insert_newer_version(&self) {
        self.execute(match self {
            Books::File(_) => {
                "INSERT INTO hookledger_migrations (version, description, success, checksum, execution_time)
                   SELECT 9999, 'from the future', 1, checksum, 0 FROM hookledger_migrations LIMIT 1"
            }
            Books::Server(_) => {
                "INSERT INTO hookledger_migrations (version, description, installed_at_ms)
                   VALUES (9999, 'from the future', 0)"
            }
        });
    }

    #[track_caller]
    pub fn count(&self, table: &str) -> i64 {
        self.scalar_i64(&format!("SELECT count(*) FROM {table}"))
    }

    /// The columns with which a row of a table is written, as a list in SQL: all but what the database computes.
    #[track_caller]
    pub fn written_columns(&self, table: &str) -> String {
        self.scalar_text(&if self.is_sqlite() {
            format!("SELECT group_concat('`' || name || '`', ', ') FROM pragma_table_info('{table}')")
        } else {
            format!(
                "SELECT GROUP_CONCAT(DISTINCT '`', column_name, '`' SEPARATOR ', ') FROM information_schema.columns
                   WHERE table_name = '{table}' AND coalesce(generation_expression, '') = ''
                     AND table_schema NOT IN ('information_schema', 'performance_schema', 'mysql', 'sys')"
            )
        })
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
}

/// Another program in the middle of something.
#[derive(Debug)]
pub struct Hold {
    holder: Child,
    /// Absent once the program was told to end.
    input: Option<ChildStdin>,
}

impl Hold {
    /// Runs statements of which the last prints `held`, and stays.
    #[track_caller]
    fn take(mut client: Command, statements: &str) -> Self {
        client.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = client.spawn().unwrap_or_else(|error| panic!("cannot run {client:?}: {error}"));
        let mut input = holder.stdin.take().expect("piped");
        input.write_all(statements.as_bytes()).expect("the client reads");
        let output = BufReader::new(holder.stdout.take().expect("piped"));
        let is_held = output.lines().map_while(Result::ok).any(|line| line.contains("held"));
        assert!(is_held, "{statements:?} did not work");
        Hold { holder, input: Some(input) }
    }
}

impl Hold {
    /// Lets it do this as well before it ends.
    pub fn and_then(&mut self, statements: &str) {
        let input = self.input.as_mut().expect("it goes on");
        input.write_all(format!("{statements};\n").as_bytes()).expect("the client reads");
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // The end of its input ends the client, and with it what it holds.
        drop(self.input.take());
        drop(self.holder.wait());
    }
}

/// When what the kit adds was last changed, where the platform has no default for that.
const STAMP: &str = "2026-11-24 02:31:00.000";

fn key_statement(id: &str, user_id: &str, remote_id: &str, status: &str) -> String {
    let values = [id, user_id, "by another program", "", "", remote_id, status, STAMP].map(quoted).join(", ");
    format!(
        "INSERT INTO api_keys (id, userId, label, maskedValue, fullValue, remoteKeyId, status, updatedAt)
           VALUES ({values})"
    )
}

/// A text as SQL writes it.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

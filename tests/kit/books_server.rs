//! Books in two schemas of one server, through the `mariadb` command line.

use std::fmt;
use std::process::Command;

use serde_json::Value;

use super::books::Row;
use super::database::Guest;
use super::mariadb::Login;

/// What another session holds is waited for this often.
const ATTEMPTS: usize = 3;

const SHARED_TABLES: &[&str] =
    &["users", "api_keys", "usage_records", "credit_transactions", "user_credit_balances", "options", "webhook_logs"];

/// The names of our own tables begin with this; every other table is the platform's.
const OWN: &str = "hookledger_";

#[derive(Debug, Clone)]
pub struct BooksServer {
    admin: Login,
    platform: String,
    state: String,
}

impl fmt::Display for BooksServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} with {} on port {}", self.platform, self.state, self.admin.port)
    }
}

impl BooksServer {
    pub fn of(guest: &Guest) -> Self {
        BooksServer {
            admin: guest.admin().clone(),
            platform: guest.platform().to_owned(),
            state: guest.state().to_owned(),
        }
    }

    #[track_caller]
    pub fn rows(&self, sql: &str) -> Vec<Row> {
        let sql = sql.trim().trim_end_matches(';');
        // The client prints values without their types: a table of the same columns tells those.
        let printed = self.ask(&format!(
            "CREATE TEMPORARY TABLE kit_columns AS SELECT * FROM ({sql}) AS found LIMIT 0;
             SHOW COLUMNS FROM kit_columns; START TRANSACTION READ ONLY; {sql}"
        ));
        let sets: Vec<&str> = printed.split("<resultset ").skip(1).collect();
        let [columns, found] = sets[..] else { panic!("{sql:?} is no single question: it printed {printed}") };
        let types: Vec<(String, String)> = records_of(columns).into_iter().map(name_and_type).collect();
        let typed = |record: Record| {
            let names = record.iter().zip(&types).all(|((name, _), (expected, _))| name == expected);
            assert!(names && record.len() == types.len(), "{record:?} has not the columns {types:?}");
            record.into_iter().zip(&types).map(|((name, text), (_, kind))| (name, value_of(text, kind))).collect()
        };
        records_of(found).into_iter().map(typed).collect()
    }

    #[track_caller]
    pub fn execute(&self, sql: &str) {
        self.ask(sql);
    }

    pub fn client(&self) -> Command {
        self.admin.client(Some(&self.platform))
    }

    /// All tables of the platform, each with this behind its name.
    pub fn shared_tables(&self, behind: &str) -> String {
        SHARED_TABLES.iter().map(|table| format!("{table}{behind}")).collect::<Vec<_>>().join(", ")
    }

    #[track_caller]
    fn ask(&self, sql: &str) -> String {
        let qualified = qualified(sql, &self.state);
        let mut complaint = String::new();
        for _ in 0..ATTEMPTS {
            let output = self.admin.ask(Some(&self.platform), &qualified);
            if output.status.success() {
                return String::from_utf8(output.stdout).expect("mariadb prints UTF-8");
            }
            complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            // A lock that was not given in time, a deadlock.
            if !complaint.contains("ERROR 1205") && !complaint.contains("ERROR 1213") {
                break;
            }
        }
        panic!("{qualified:?} on {self}: {complaint}");
    }
}

/// Puts the state schema before the names of our own tables, wherever they stand outside of quotes.
fn qualified(sql: &str, state: &str) -> String {
    let is_of_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut written = String::new();
    let mut quote = None;
    for (at, letter) in sql.char_indices() {
        match quote {
            Some(open) if letter == open => quote = None,
            None if ['\'', '"', '`'].contains(&letter) => quote = Some(letter),
            None if sql[at..].starts_with(OWN) => {
                let before = sql[..at].chars().next_back();
                if !before.is_some_and(|before| is_of_name(before) || before == '.') {
                    written.push_str(&format!("`{state}`."));
                }
            }
            _ => {}
        }
        written.push(letter);
    }
    written
}

/// Names and texts of one row; no text is NULL.
type Record = Vec<(String, Option<String>)>;

/// The rows of one result, as the client prints it with `--xml`. Inside of values it encodes what is markup.
#[track_caller]
fn records_of(printed: &str) -> Vec<Record> {
    let rows = printed.split("<row>").skip(1);
    rows.map(|row| row.split("<field name=\"").skip(1).map(field_of).collect()).collect()
}

#[track_caller]
fn field_of(printed: &str) -> (String, Option<String>) {
    let parts = || {
        let (name, rest) = printed.split_once('"')?;
        if rest.starts_with(" xsi:nil=\"true\"") {
            return Some((decoded(name), None));
        }
        let (text, _) = rest.strip_prefix('>')?.split_once("</field>")?;
        Some((decoded(name), Some(decoded(text))))
    };
    parts().unwrap_or_else(|| panic!("{printed:?} is no field"))
}

fn decoded(text: &str) -> String {
    text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&")
}

/// What SHOW COLUMNS says of one.
#[track_caller]
fn name_and_type(record: Record) -> (String, String) {
    let mut texts = record.into_iter().map(|(_, text)| text.expect("a column has a name and a type"));
    (texts.next().expect("a name comes first"), texts.next().expect("a type comes second"))
}

/// As `sqlite3 -json` shows it: numbers as numbers, all else as texts.
#[track_caller]
fn value_of(text: Option<String>, kind: &str) -> Value {
    let Some(text) = text else { return Value::Null };
    let name = kind.split(['(', ' ']).next().unwrap_or_default();
    let is_whole = name.ends_with("int") || (name == "decimal" && kind.contains(",0)"));
    if is_whole && let Ok(number) = text.parse::<i64>() {
        Value::from(number)
    } else if is_whole || ["decimal", "double", "float"].contains(&name) {
        text.parse::<f64>().map(Value::from).unwrap_or_else(|_| panic!("{text} is no {kind}"))
    } else {
        Value::from(text)
    }
}

#[test]
fn own_tables_are_found_in_their_schema() {
    let rows = [
        ("SELECT count(*) FROM hookledger_claims", "SELECT count(*) FROM `s`.hookledger_claims"),
        ("SELECT hookledger_claims.id, x.hookledger_id", "SELECT `s`.hookledger_claims.id, x.hookledger_id"),
        (
            "SELECT 'hookledger_x''hookledger_y' FROM my_hookledger_z",
            "SELECT 'hookledger_x''hookledger_y' FROM my_hookledger_z",
        ),
        ("\"hookledger_a\"`hookledger_b`,hookledger_c", "\"hookledger_a\"`hookledger_b`,`s`.hookledger_c"),
    ];
    for (written, expected) in rows {
        assert_eq!(qualified(written, "s"), expected);
    }
}

//! Everything that lies in the books, to be held against what lies there later.

use std::collections::BTreeMap;
use std::fs;

use super::books::Books;
use super::database::migrations_folder;

/// The platform's, which no migration of ours makes.
const SHARED: [&str; 7] =
    ["users", "api_keys", "options", "webhook_logs", "usage_records", "credit_transactions", "user_credit_balances"];

/// Rows of each table, sorted.
pub type Dump = BTreeMap<String, Vec<String>>;

fn tables() -> Vec<String> {
    let mut tables: Vec<String> = SHARED.map(str::to_owned).to_vec();
    for file in fs::read_dir(migrations_folder()).expect("the migrations are there") {
        let text = fs::read_to_string(file.expect("a file").path()).expect("a migration can be read");
        for rest in text.split("CREATE TABLE ").skip(1) {
            let name = rest.trim_start_matches("IF NOT EXISTS ").split([' ', '(']).next().unwrap_or_default();
            tables.push(name.to_owned());
        }
    }
    tables.sort();
    tables.dedup();
    assert!(tables.len() > 20, "the tables were found: {tables:?}");
    tables
}

impl Books {
    #[track_caller]
    pub fn dump(&self) -> Dump {
        let rows = |table: &String| {
            let rows = self.rows(&format!("SELECT * FROM {table}")).into_iter();
            let mut rows: Vec<String> = rows.map(|row| format!("{row:?}")).collect();
            rows.sort();
            rows
        };
        tables().into_iter().map(|table| (table.clone(), rows(&table))).collect()
    }
}

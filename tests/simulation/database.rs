//! A fresh database for each scenario, the store opened on it, and a connection of our own beside it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hookledger::clock::SharedClock;
use hookledger::domain::matching::Windows;
use hookledger::domain::pricing::{Overdraft, Rounding};
use hookledger::domain::retry::RetryPolicy;
use hookledger::domain::settlement::LedgerPolicy;
use hookledger::storage::Store;
use hookledger::storage::mysql::MysqlStore;
use hookledger::storage::sqlite::{DatabaseLock, Role, SqliteOptions, SqliteStore, migrate};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row, SqliteConnection};
use tokio::sync::OnceCell;

use super::scenario::Rules;
use super::server::{STATE, Server, server};

/// A migrated and empty database, made once in each process.
static TEMPLATE: OnceCell<Vec<u8>> = OnceCell::const_new();

/// Scenarios run on a private MariaDB instead.
const VARIABLE: &str = "SIMULATE_DATABASE";

/// One scenario's database; gone with this value.
pub enum Fresh {
    File(File),
    Server(&'static Server),
}

/// A file, and what lies beside it.
pub struct File {
    path: PathBuf,
}

pub fn is_on_a_server() -> bool {
    std::env::var(VARIABLE).is_ok_and(|name| name == "mariadb")
}

fn unused_path() -> PathBuf {
    static MADE: AtomicU64 = AtomicU64::new(0);
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    folder.join(format!("hookledger-simulation-{}-{}.db", std::process::id(), MADE.fetch_add(1, Ordering::SeqCst)))
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(seconds.max(0) as u64)
}

pub fn policy(rules: &Rules) -> LedgerPolicy {
    LedgerPolicy {
        rounding: if rules.rounds_to_nearest { Rounding::Nearest } else { Rounding::Carry },
        overdraft: if rules.refuses_overdraft { Overdraft::Refuse } else { Overdraft::Allow },
        key_grace: seconds(rules.key_grace_secs),
        retry: RetryPolicy { max_attempts: 10, base_delay: seconds(2), max_delay: seconds(600) },
        reads_log: true,
        windows: Windows {
            match_window: seconds(rules.match_window_secs),
            dispute_window: seconds(rules.dispute_window_secs),
        },
    }
}

fn options(path: &Path, policy: LedgerPolicy) -> SqliteOptions {
    SqliteOptions { path: path.to_owned(), lock_wait: seconds(5), max_readers: 1, policy }
}

async fn template(rules: &Rules) -> Vec<u8> {
    let fresh = File { path: unused_path() };
    let options = options(&fresh.path, policy(rules));
    let lock = DatabaseLock::take(&options, Role::Command, Duration::ZERO).await.unwrap();
    migrate(&options, &lock).await.unwrap();
    std::fs::read(&fresh.path).unwrap()
}

impl Fresh {
    pub async fn new(rules: &Rules, clock: SharedClock) -> Self {
        if is_on_a_server() {
            let server = server(policy(rules), clock).await;
            server.empty().await;
            return Fresh::Server(server);
        }
        let bytes = TEMPLATE.get_or_init(|| template(rules)).await;
        let fresh = File { path: unused_path() };
        std::fs::write(&fresh.path, bytes).unwrap();
        Fresh::File(fresh)
    }

    pub async fn open(&self, rules: &Rules, clock: SharedClock) -> Arc<dyn Store> {
        match self {
            Fresh::File(file) => {
                Arc::new(SqliteStore::open(options(&file.path, policy(rules)), clock).await.unwrap()) as Arc<dyn Store>
            }
            Fresh::Server(server) => Arc::new(MysqlStore::open(server.options(policy(rules)), clock).await.unwrap()),
        }
    }

    pub async fn connect(&self) -> Own {
        match self {
            Fresh::File(file) => {
                let options = SqliteConnectOptions::new().filename(&file.path).foreign_keys(true);
                Own::File(SqliteConnection::connect_with(&options.busy_timeout(seconds(5))).await.unwrap())
            }
            Fresh::Server(server) => Own::Server(server.connect_to_books().await),
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        for ending in ["", "-wal", "-shm", "-journal", ".lock", ".installation"] {
            let mut name = self.path.clone().into_os_string();
            name.push(ending);
            std::fs::remove_file(PathBuf::from(name)).ok();
        }
    }
}

/// Our own way into the database: as the platform writes it, and as the oracle reads it.
pub enum Own {
    File(SqliteConnection),
    Server(MySqlConnection),
}

/// Our own tables lie beside the platform's, or in a schema of their own.
fn on_server(sql: &str) -> String {
    sql.replace("hookledger_", &format!("{STATE}.hookledger_"))
}

impl Own {
    pub async fn execute(&mut self, sql: &str) {
        let done = match self {
            Own::File(own) => sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(own).await.map(drop),
            Own::Server(own) => sqlx::raw_sql(AssertSqlSafe(on_server(sql))).execute(own).await.map(drop),
        };
        done.unwrap_or_else(|error| panic!("{error}: {sql}"));
    }

    /// Every column is a text, or nothing: statements cast what they select.
    pub async fn rows(&mut self, sql: &str) -> Vec<Vec<Option<String>>> {
        let rows = match self {
            Own::File(own) => sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_all(own).await.map(texts),
            Own::Server(own) => sqlx::query(AssertSqlSafe(on_server(sql))).fetch_all(own).await.map(texts),
        };
        rows.unwrap_or_else(|error| panic!("{error}: {sql}"))
    }
}

fn texts<R: Row>(rows: Vec<R>) -> Vec<Vec<Option<String>>>
where
    usize: sqlx::ColumnIndex<R>,
    for<'r> Option<String>: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    rows.iter().map(|row| (0..row.len()).map(|column| row.get(column)).collect()).collect()
}

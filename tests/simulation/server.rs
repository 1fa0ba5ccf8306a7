//! A private MariaDB of this process, for scenarios that run on a server: one pair of schemas, emptied for each of them.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use hookledger::clock::SharedClock;
use hookledger::domain::settlement::LedgerPolicy;
use hookledger::storage::mysql::{MysqlOptions, TlsMode, migrate};
use secrecy::SecretString;
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{AssertSqlSafe, Connection, MySqlConnection, Row};
use tokio::sync::OnceCell;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/mariadb.sh");
const PLATFORM_TABLES: &str = include_str!("../kit/letaicode.sql");
const PLATFORM: &str = "simulated";
pub const STATE: &str = "simulatedstate";

/// The server with its schemas: what empties them, and where it listens.
pub struct Server {
    user: String,
    password: String,
    port: u16,
    empties: String,
    /// While its standard input is open, the server lives.
    _guard: Mutex<(Child, ChildStdin)>,
}

static SERVER: OnceCell<Server> = OnceCell::const_new();

pub async fn server(policy: LedgerPolicy, clock: SharedClock) -> &'static Server {
    SERVER.get_or_init(|| Server::start(policy, clock)).await
}

impl Server {
    async fn start(policy: LedgerPolicy, clock: SharedClock) -> Self {
        let folder = std::env::temp_dir().join(format!("hookledger-simulation-{}", std::process::id()));
        let mut command = Command::new(SCRIPT);
        command.arg("guard").arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (input, mut output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut url = String::new();
        output.read_line(&mut url).unwrap();
        // mysql://user:password@host:port/
        let login = url.trim().trim_start_matches("mysql://").trim_end_matches('/');
        let (who, place) = login.split_once('@').unwrap();
        let ((user, password), (_, port)) = (who.split_once(':').unwrap(), place.split_once(':').unwrap());
        let mut server = Server {
            user: user.to_owned(),
            password: password.to_owned(),
            port: port.parse().unwrap(),
            empties: String::new(),
            _guard: Mutex::new((child, input)),
        };
        server.set_up(policy, clock).await;
        server
    }

    async fn set_up(&mut self, policy: LedgerPolicy, clock: SharedClock) {
        let mut admin = self.connect(None).await;
        let make = format!(
            "CREATE DATABASE {PLATFORM} CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci; USE {PLATFORM}; {PLATFORM_TABLES}"
        );
        sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut admin).await.unwrap();
        migrate(&self.options(policy), &clock).await.unwrap();
        let tables = format!(
            "SELECT CONCAT('`', table_schema, '`.`', table_name, '`') FROM information_schema.tables \
             WHERE table_schema IN ('{PLATFORM}', '{STATE}') AND table_name NOT LIKE '%migrations%'"
        );
        let mut empties = "SET SESSION foreign_key_checks = 0; ".to_owned();
        for row in sqlx::query(AssertSqlSafe(tables)).fetch_all(&mut admin).await.unwrap() {
            empties += &format!("DELETE FROM {}; ", row.get::<String, _>(0));
        }
        let meta = format!("SELECT CAST(name AS CHAR), CAST(value AS CHAR) FROM {STATE}.hookledger_meta");
        for row in sqlx::query(AssertSqlSafe(meta)).fetch_all(&mut admin).await.unwrap() {
            let (name, value) = (row.get::<String, _>(0), row.get::<String, _>(1));
            empties += &format!("INSERT INTO {STATE}.hookledger_meta (name, value) VALUES ('{name}', '{value}'); ");
        }
        self.empties = empties;
    }

    pub async fn empty(&self) {
        let mut admin = self.connect(None).await;
        sqlx::raw_sql(AssertSqlSafe(self.empties.clone())).execute(&mut admin).await.unwrap();
    }

    pub async fn connect(&self, database: Option<&str>) -> MySqlConnection {
        let options = MySqlConnectOptions::new().host("127.0.0.1").port(self.port).username(&self.user);
        let options = options.password(&self.password).ssl_mode(MySqlSslMode::Disabled).timezone(Some("+00:00".into()));
        let options = match database {
            Some(name) => options.database(name),
            None => options,
        };
        MySqlConnection::connect_with(&options).await.unwrap()
    }

    pub async fn connect_to_books(&self) -> MySqlConnection {
        self.connect(Some(PLATFORM)).await
    }

    pub fn options(&self, policy: LedgerPolicy) -> MysqlOptions {
        MysqlOptions {
            host: "127.0.0.1".to_owned(),
            port: self.port,
            socket: None,
            user: self.user.clone(),
            password: Some(SecretString::from(self.password.clone())),
            database: PLATFORM.to_owned(),
            state_schema: STATE.to_owned(),
            tls: TlsMode::Off,
            ca_file: None,
            lock_wait: Duration::from_secs(5),
            max_connections: 2,
            shards: 2,
            policy,
        }
    }
}

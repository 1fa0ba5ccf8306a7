//! From settings to what a store is opened with: the one place that knows both.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::config::{DatabaseTls, DatabaseUrl, MysqlUrl, PollingMode, Settings};
use crate::domain::matching::Windows;
use crate::domain::settlement::LedgerPolicy;
use crate::storage::mysql::{MysqlOptions, TlsMode};
use crate::storage::open::DatabaseOptions;
use crate::storage::sqlite::{MigrateError, SqliteOptions};

/// How to open the database that the settings name.
pub fn database_options(settings: &Settings) -> DatabaseOptions {
    match &settings.database.url {
        DatabaseUrl::Sqlite(path) => DatabaseOptions::Sqlite(embedded(settings, path)),
        DatabaseUrl::Mysql(url) => DatabaseOptions::Mysql(Box::new(mysql_options(settings, url))),
    }
}

fn embedded(settings: &Settings, path: &Path) -> SqliteOptions {
    SqliteOptions {
        path: path.to_owned(),
        lock_wait: settings.database.lock_wait,
        max_readers: settings.database.max_connections,
        policy: ledger_policy(settings),
    }
}

/// How to open the embedded database that the settings name; an error if they name a server.
pub fn sqlite_options(settings: &Settings) -> Result<SqliteOptions, MigrateError> {
    settings.database.url.sqlite_path().map(|path| embedded(settings, path)).ok_or(MigrateError::Unsupported)
}

/// How to open the database at `url`, which the settings name.
pub fn mysql_options(settings: &Settings, url: &MysqlUrl) -> MysqlOptions {
    let database = &settings.database;
    MysqlOptions {
        host: url.host.clone(),
        port: url.port,
        socket: url.socket.clone(),
        user: url.user.clone(),
        password: url.password.clone(),
        database: url.database.clone(),
        state_schema: database.state_schema.clone(),
        tls: match database.tls {
            DatabaseTls::Off => TlsMode::Off,
            DatabaseTls::Prefer => TlsMode::Prefer,
            DatabaseTls::Require => TlsMode::Require,
            DatabaseTls::VerifyCa => TlsMode::VerifyCa,
            DatabaseTls::VerifyFull => TlsMode::VerifyFull,
        },
        ca_file: database.ca_file.clone(),
        lock_wait: database.lock_wait,
        max_connections: database.max_connections,
        shards: settings.ledger.shards,
        policy: ledger_policy(settings),
    }
}

pub(super) fn ledger_policy(settings: &Settings) -> LedgerPolicy {
    LedgerPolicy {
        rounding: settings.ledger.rounding,
        overdraft: settings.ledger.overdraft,
        key_grace: settings.ledger.key_grace,
        retry: settings.retry.policy(),
        reads_log: settings.newapi.access.is_some() && settings.polling.mode != PollingMode::Off,
        windows: Windows {
            match_window: settings.polling.match_window,
            dispute_window: settings.polling.dispute_window,
        },
    }
}

/// Makes the folder in which the admin socket will lie, for this user alone. The embedded database makes its own.
pub(super) fn make_state_folder(settings: &Settings) -> io::Result<()> {
    let folder = settings.database.url.state_folder();
    // A socket elsewhere leaves nothing to keep here, and the working folder may be one that nobody may write to.
    if matches!(settings.database.url, DatabaseUrl::Sqlite(_)) || !settings.admin.socket.starts_with(folder) {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use secrecy::ExposeSecret;

    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let secret = ("WEBHOOK_SECRET", "0123456789abcdef0123456789abcdef");
        let variables = variables.iter().chain([&secret]);
        let environment = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        crate::config::load(None, environment).unwrap().settings
    }

    fn options_of(settings: &Settings) -> MysqlOptions {
        match &settings.database.url {
            DatabaseUrl::Mysql(url) => mysql_options(settings, url),
            DatabaseUrl::Sqlite(path) => panic!("the embedded database {path:?}"),
        }
    }

    #[test]
    fn a_server_is_opened_as_the_settings_say() {
        let settings = settings(&[
            ("HOOKLEDGER__DATABASE__URL", "mysql://ledger:hunter2@[::1]:3307/books?socket=/run/mysqld.sock"),
            ("HOOKLEDGER__DATABASE__STATE_SCHEMA", "own"),
            ("HOOKLEDGER__DATABASE__LOCK_WAIT", "7s"),
            ("HOOKLEDGER__DATABASE__MAX_CONNECTIONS", "9"),
            ("HOOKLEDGER__LEDGER__SHARDS", "3"),
            ("HOOKLEDGER__LEDGER__KEY_GRACE", "11m"),
        ]);
        let options = options_of(&settings);
        assert_eq!((options.host.as_str(), options.port), ("::1", 3307));
        assert_eq!(options.socket.as_deref(), Some(Path::new("/run/mysqld.sock")));
        assert_eq!(
            (options.user.as_str(), options.database.as_str(), options.state_schema.as_str()),
            ("ledger", "books", "own")
        );
        assert_eq!(options.password.as_ref().map(ExposeSecret::expose_secret), Some("hunter2"));
        assert_eq!((options.lock_wait, options.max_connections, options.shards), (Duration::from_secs(7), 9, 3));
        assert_eq!((options.policy.key_grace, options.ca_file.as_deref()), (Duration::from_secs(660), None));
        assert!(!format!("{options:?}").contains("hunter2"));
        assert!(matches!(sqlite_options(&settings), Err(MigrateError::Unsupported)));
    }

    #[test]
    fn each_mode_of_tls_is_the_one_that_was_asked_for() {
        for (word, mode) in [
            ("off", TlsMode::Off),
            ("prefer", TlsMode::Prefer),
            ("require", TlsMode::Require),
            ("verify-full", TlsMode::VerifyFull),
        ] {
            let url = ("DATABASE_URL", "mysql://ledger@localhost/books");
            assert_eq!(options_of(&settings(&[url, ("HOOKLEDGER__DATABASE__TLS", word)])).tls, mode);
        }
    }
}

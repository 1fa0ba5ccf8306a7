//! What the operator decides: one struct per concern, read from defaults, file and environment, and checked before
//! anything starts.
//!
//! Nothing here opens a socket or a database. Whoever needs a setting gets its section as a value; no other module
//! reads the configuration file or an environment variable.

mod admin;
mod balance;
mod checks;
mod database;
mod error;
mod keys;
mod ledger;
mod live;
mod log;
mod metrics;
mod mysql;
mod mysql_url;
mod newapi;
mod polling;
mod rate_limit;
mod reader;
mod reload;
mod report;
mod retention;
mod retry;
mod secret;
mod server;
mod sources;
mod suggest;
mod supervisor;
mod token;
mod values;
mod webhook;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_admin;
#[cfg(test)]
mod tests_balance;
#[cfg(test)]
mod tests_database;
#[cfg(test)]
mod tests_mysql_url;
#[cfg(test)]
mod tests_newapi;
#[cfg(test)]
mod tests_polling;
#[cfg(test)]
mod tests_problems;
#[cfg(test)]
mod tests_reload;

use std::path::Path;

pub use admin::AdminSettings;
pub use balance::BalanceSettings;
pub use database::{DatabaseSettings, DatabaseUrl};
pub use error::{ConfigError, Problem};
pub use ledger::LedgerSettings;
pub use live::Live;
pub use log::{LogFormat, LogSettings};
pub use metrics::MetricsSettings;
pub use mysql::DatabaseTls;
pub use mysql_url::MysqlUrl;
pub use newapi::{NewApiAccess, NewApiSettings};
pub use polling::{CronExpression, PollingMode, PollingSettings, StartFrom};
pub use rate_limit::RateLimitSettings;
pub use reload::Reloaded;
pub use report::{Report, ReportEntry, ReportValue};
pub use retention::RetentionSettings;
pub use retry::RetrySettings;
pub use secret::{SECRET_FILE_NAME, ensure_secret, generate_secret, has_mode_bits};
pub use server::ServerSettings;
pub use supervisor::SupervisorSettings;
pub use webhook::WebhookSettings;

use reader::{Outcome, Reader};
use reload::Written;
use sources::Layers;

/// Read if no file is named and this one exists.
pub const DEFAULT_FILE: &str = "/etc/hookledger/hookledger.toml";

/// Everything that can be set, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    pub server: ServerSettings,
    pub webhook: WebhookSettings,
    pub rate_limit: RateLimitSettings,
    pub balance: BalanceSettings,
    pub database: DatabaseSettings,
    pub ledger: LedgerSettings,
    pub retry: RetrySettings,
    pub newapi: NewApiSettings,
    pub polling: PollingSettings,
    pub retention: RetentionSettings,
    pub supervisor: SupervisorSettings,
    pub metrics: MetricsSettings,
    pub admin: AdminSettings,
    pub log: LogSettings,
}

/// The outcome of a load without problems.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub settings: Settings,
    /// Settings that are legal and risky, one sentence each.
    pub warnings: Vec<String>,
    /// The effective value of each key, and where it came from.
    pub report: Report,
    written: Written,
}

/// Loads the defaults, then `file` (or the default one if it exists), then `environment`; later wins.
///
/// Writes nothing. All problems are returned at once.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    load_beside(Path::new(DEFAULT_FILE), file, environment)
}

/// `load` with the default file as a parameter, so that tests don't depend on the machine they run on.
fn load_beside(
    default_file: &Path,
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    read_all(Reader::new(Layers::collect(default_file, file, environment.into_iter().collect())))
}

fn read_all(mut reader: Reader) -> Result<Loaded, ConfigError> {
    let settings = read(&mut reader);
    let outcome = reader.finish();
    match settings {
        Some(settings) if outcome.problems.is_empty() => {
            let Outcome { warnings, report, written, .. } = outcome;
            Ok(Loaded { settings, warnings, report, written })
        }
        _ => Err(ConfigError::new(outcome.problems)),
    }
}

/// Every section is read before the first missing one ends it: the reader has all problems by then.
fn read(reader: &mut Reader) -> Option<Settings> {
    let server = ServerSettings::read(reader);
    let webhook = WebhookSettings::read(reader);
    let rate_limit = RateLimitSettings::read(reader);
    let balance = BalanceSettings::read(reader);
    let database = DatabaseSettings::read(reader);
    let ledger = LedgerSettings::read(reader);
    let retry = RetrySettings::read(reader);
    let newapi = NewApiSettings::read(reader);
    let polling = PollingSettings::read(reader);
    let retention = RetentionSettings::read(reader);
    let supervisor = SupervisorSettings::read(reader);
    let metrics = MetricsSettings::read(reader);
    let admin = AdminSettings::read(reader);
    let log = LogSettings::read(reader);
    checks::listeners_are_apart(reader);
    checks::public_listener_is_limited(reader);
    checks::socket_is_not_the_database(reader);
    checks::server_has_secrets(reader, webhook.as_ref());
    checks::shards_have_a_server(reader);
    checks::pulling_has_a_source(reader, newapi.as_ref(), polling.as_ref());
    Some(Settings {
        server: server?,
        webhook: webhook?,
        rate_limit: rate_limit?,
        balance: balance?,
        database: database?,
        ledger: ledger?,
        retry: retry?,
        newapi: newapi?,
        polling: polling?,
        retention: retention?,
        supervisor: supervisor?,
        metrics: metrics?,
        admin: admin?,
        log: log?,
    })
}

//! Why a command did not do what it was asked, in words that say what to do, and with which exit code.
//!
//! Every error of the layers below gets its exit code here, and nowhere else on the command line.

use crate::config::ConfigError;
use crate::storage::books::BooksError;
use crate::storage::open::OpenError;
use crate::storage::sqlite::{BackupError, MigrateError, RestoreError};

/// Done as asked.
pub const EXIT_FINE: u8 = 0;
/// The request failed or was refused.
pub const EXIT_FAILED: u8 = 1;
/// Wrong usage or configuration. clap uses the same code.
pub const EXIT_USAGE: u8 = 2;
/// The database is out of reach.
pub const EXIT_DATABASE: u8 = 3;

/// The end of a command that failed: a message for standard error, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub exit_code: u8,
    pub message: String,
}

impl Failure {
    pub fn refused(message: impl Into<String>) -> Self {
        Failure { exit_code: EXIT_FAILED, message: message.into() }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Failure { exit_code: EXIT_USAGE, message: message.into() }
    }

    pub fn database(message: impl Into<String>) -> Self {
        Failure { exit_code: EXIT_DATABASE, message: message.into() }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let problems: Vec<String> = error.problems().iter().map(|problem| format!("  {problem}")).collect();
        Failure::usage(format!("the configuration cannot be used:\n{}", problems.join("\n")))
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Sqlite(error) => error.into(),
            error if error.needs_a_person() => Failure::usage(error.to_string()),
            error => Failure::database(error.to_string()),
        }
    }
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Version(_) | MigrateError::Outdated(_) | MigrateError::Unsupported => {
                Failure::usage(error.to_string())
            }
            MigrateError::Held(_) => Failure::refused(error.to_string()),
            _ => Failure::database(error.to_string()),
        }
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        match error {
            BackupError::Database(error) => error.into(),
            _ => Failure::refused(error.to_string()),
        }
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Database(error) => error.into(),
            RestoreError::NotOurs(..)
            | RestoreError::InUse(..)
            | RestoreError::Damaged(..)
            | RestoreError::Version(..) => Failure::usage(error.to_string()),
            _ => Failure::refused(error.to_string()),
        }
    }
}

impl From<BooksError> for Failure {
    fn from(error: BooksError) -> Self {
        match error {
            BooksError::Store(_) => Failure::database(error.to_string()),
            _ => Failure::refused(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::StoreError;
    use crate::storage::sqlite::{Holder, Role};

    #[test]
    fn each_error_has_its_exit_code() {
        let code = |failure: Failure| failure.exit_code;
        assert_eq!(code(BooksError::Store(StoreError::Overloaded).into()), EXIT_DATABASE);
        assert_eq!(code(BooksError::NoSuchUser("a@b".to_owned()).into()), EXIT_FAILED);
        assert_eq!(code(BooksError::Invalid("no".to_owned()).into()), EXIT_FAILED);
        assert_eq!(code(MigrateError::Missing("/a".to_owned()).into()), EXIT_DATABASE);
        assert_eq!(code(MigrateError::Version("7".to_owned()).into()), EXIT_USAGE);
        assert_eq!(code(MigrateError::Outdated(vec![1]).into()), EXIT_USAGE);
        let holder = Holder { database: "/a".into(), pid: Some(7), role: Role::Daemon };
        assert_eq!(code(MigrateError::Held(holder.clone()).into()), EXIT_FAILED);
        assert_eq!(code(BackupError::Exists("/a".into()).into()), EXIT_FAILED);
        assert_eq!(code(BackupError::Database(MigrateError::Missing("/a".to_owned())).into()), EXIT_DATABASE);
        assert_eq!(code(RestoreError::Held(holder).into()), EXIT_FAILED);
        assert_eq!(code(RestoreError::InTheWay(vec!["/a".into()]).into()), EXIT_FAILED);
        assert_eq!(code(RestoreError::Damaged("/a".into(), "page 3".to_owned()).into()), EXIT_USAGE);
        assert_eq!(code(RestoreError::Version("/a".into(), vec![1]).into()), EXIT_USAGE);
    }

    #[test]
    fn all_problems_of_a_configuration_are_told() {
        let variables = [("HOOKLEDGER__SERVER__WORKERS", "many"), ("HOOKLEDGER__LOG__LEVEL", "loud")];
        let environment = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let failure = Failure::from(crate::config::load(None, environment).unwrap_err());
        assert_eq!(failure.exit_code, EXIT_USAGE);
        assert!(failure.message.contains("server.workers") && failure.message.contains("log.level"), "{failure:?}");
    }
}

//! The platform's own database, on MySQL or MariaDB, in which hookledger is a guest.

pub mod error;
mod options;

pub use options::{MysqlOptions, TlsMode};

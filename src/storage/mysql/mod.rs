//! The platform's own database, on MySQL or MariaDB, in which hookledger is a guest.

mod options;

pub use options::{MysqlOptions, TlsMode};

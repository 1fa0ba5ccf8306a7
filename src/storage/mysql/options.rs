//! How to reach the server and which databases on it are ours: everything that opening the store needs.
//!
//! Plain values, already checked. Where an operator writes them, and what may stand there, is `config`.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

use crate::domain::settlement::LedgerPolicy;

/// How to open the platform's database on MySQL or MariaDB. Debug shows no password.
#[derive(Debug, Clone)]
pub struct MysqlOptions {
    /// A name or an address, IPv6 without brackets. Beside a socket it only names whom a certificate must be for.
    pub host: String,
    pub port: u16,
    /// Unix socket of the server; if set, `port` is not used. Absolute.
    pub socket: Option<PathBuf>,
    pub user: String,
    pub password: Option<SecretString>,
    /// The platform's database: its tables are shared, and altered by the platform alone. Holds no backtick and no
    /// control character, and is no schema of the server itself.
    pub database: String,
    /// The database of our own tables on the same server: ASCII letters, digits, `_` and `$`, at most 64. Another than
    /// `database`, however the server compares names.
    pub state_schema: String,
    pub tls: TlsMode,
    /// PEM file of the authorities that are trusted beside those of the machine. Always set with `VerifyCa`.
    pub ca_file: Option<PathBuf>,
    /// How long a statement waits for a lock that another connection holds.
    pub lock_wait: Duration,
    /// Reading connections, at most; those that write are beside them.
    pub max_connections: u32,
    /// Connections that settle, each for its share of the users. 0: the store chooses.
    pub shards: usize,
    /// Holds until `set_policy`.
    pub policy: LedgerPolicy,
}

/// How far the way to the server must be protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// In the clear.
    Off,
    /// Encrypted if the server offers it, in the clear if not; its certificate is not checked.
    Prefer,
    /// Encrypted or not at all; the server's certificate is not checked.
    Require,
    /// The certificate must be of a trusted authority, for whichever host.
    VerifyCa,
    /// The certificate must be of a trusted authority, and for `host`.
    VerifyFull,
}

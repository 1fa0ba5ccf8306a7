//! The URL of a database on MySQL or MariaDB: taken apart once, and never shown with its password.
//!
//! No message repeats a part of it that could be a piece of a password; names of parameters are the exception, where
//! they look like names.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use secrecy::SecretString;
use url::{Host, ParseError, Url};

use super::admin::LONGEST_SOCKET_BYTES;
use super::values::{self, Parsed};

/// How one is written, for the end of a message.
pub(super) const FORM: &str = "mysql://user:password@host:3306/database";

const DEFAULT_PORT: u16 = 3306;

/// MySQL's own limit for names of databases.
pub(super) const LONGEST_NAME_CHARS: usize = 64;

/// What the server keeps for itself.
pub(super) const SYSTEM_SCHEMAS: [&str; 4] = ["information_schema", "mysql", "performance_schema", "sys"];

const STATE_FOLDER: &str = "hookledger-data";

const SOCKET_PARAMETER: &str = "socket";

/// Longest name of a parameter that a message repeats.
const SHOWN_PARAMETER_CHARS: usize = 40;

/// What other programs write into such a URL, in lower case without `-` and `_`, and which key says it here.
const KEYS_INSTEAD: [(&[&str], &str); 3] = [
    (
        &["ssl", "tls", "usessl", "requiressl", "sslmode", "sslaccept", "tlsmode", "verifyservercertificate"],
        "database.tls",
    ),
    (&["sslca", "sslcert", "sslrootcert", "tlsca"], "database.ca_file"),
    (&["connectionlimit", "maxconnections", "maxpoolsize", "poolsize"], "database.max_connections"),
];

/// Everything else is written with `%` when a URL is shown.
const SHOWN_AS_THEY_ARE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'$').remove(b'/');

/// Where the platform's database is, and as whom to open it. Displays as a URL whose password is masked; Debug shows
/// none either.
#[derive(Debug, Clone)]
pub struct MysqlUrl {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    pub port: u16,
    /// The server's Unix socket; if there is one, `port` is not used. Absolute.
    pub socket: Option<PathBuf>,
    pub user: String,
    /// From the URL, or from `database.password` or its file.
    pub password: Option<SecretString>,
    pub database: String,
    state_folder: PathBuf,
}

impl MysqlUrl {
    /// The URL behind `mysql://`, and the names of its parameters that mean nothing here.
    pub(super) fn parse(text: &str) -> Parsed<(MysqlUrl, Vec<String>)> {
        if text.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
            return Err("must be a URL without spaces and control characters".to_owned());
        }
        let url = Url::parse(&format!("mysql://{text}")).map_err(what_is_wrong)?;
        // What the URL's grammar takes for the end of host and port may have been meant as part of a password.
        if url.fragment().is_some() || [Some(url.path()), url.query()].iter().flatten().any(|part| part.contains('@')) {
            return Err(unescaped());
        }
        let (socket, foreign) = read_parameters(&url)?;
        let host = read_host(&url, socket.is_some())?;
        let user = decoded(url.username(), "user")?;
        if user.is_empty() {
            return Err(format!("must name the user: {FORM}"));
        }
        let password = decoded(url.password().unwrap_or_default(), "password")?;
        let port = url.port().unwrap_or(DEFAULT_PORT);
        if port == 0 {
            return Err("must have a port between 1 and 65535".to_owned());
        }
        let url = MysqlUrl {
            host,
            port,
            socket,
            user,
            password: (!password.is_empty()).then(|| SecretString::from(password)),
            database: read_database(&url)?,
            state_folder: values::absolute(STATE_FOLDER)?,
        };
        Ok((url, foreign))
    }

    /// The folder in which everything lies that the daemon keeps beside the database: the admin socket. Absolute.
    pub fn state_folder(&self) -> &Path {
        &self.state_folder
    }

    /// Whether what is said to the server stays on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.socket.is_some() || is_loopback(&self.host)
    }
}

impl fmt::Display for MysqlUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |text| utf8_percent_encode(text, SHOWN_AS_THEY_ARE);
        let mask = if self.password.is_some() { ":***" } else { "" };
        let host = match self.host.parse() {
            Ok(IpAddr::V6(address)) => format!("[{address}]"),
            _ => self.host.clone(),
        };
        write!(formatter, "mysql://{}{mask}@{host}", show(&self.user))?;
        match &self.socket {
            Some(socket) => {
                let socket = socket.to_string_lossy();
                write!(formatter, "/{}?{SOCKET_PARAMETER}={}", show(&self.database), show(&socket))
            }
            None => write!(formatter, ":{}/{}", self.port, show(&self.database)),
        }
    }
}

/// Names of parameters, each with the key that says the same, for a message.
pub(super) fn with_keys_instead(parameters: &[String]) -> String {
    let named = parameters.iter().map(|name| {
        let plain = name.replace(['-', '_'], "").to_lowercase();
        match KEYS_INSTEAD.iter().find(|(names, _)| names.contains(&plain.as_str())) {
            Some((_, key)) => format!("{name} (use {key})"),
            None => name.clone(),
        }
    });
    named.collect::<Vec<_>>().join(", ")
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn what_is_wrong(error: ParseError) -> String {
    match error {
        ParseError::InvalidPort => unescaped(),
        ParseError::EmptyHost => no_host(),
        ParseError::InvalidIpv6Address => {
            "must have an IPv6 address in brackets, such as [::1], as its host".to_owned()
        }
        _ => format!("must be a URL such as {FORM}"),
    }
}

fn no_host() -> String {
    format!("must name the host, an IPv6 address in brackets: {FORM}")
}

fn unescaped() -> String {
    format!(
        "must be {FORM}, with a port that is a number; `/`, `?`, `#` and `@` in the user's name or password are \
         written %2F, %3F, %23 and %40, or set database.password instead"
    )
}

/// As other programs read such URLs: a `%` without two hex digits behind it stands for itself.
fn decoded(part: &str, what: &str) -> Parsed<String> {
    let text = percent_decode_str(part)
        .decode_utf8()
        .map_err(|_| format!("must have a {what} whose escapes, such as %40, are UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(format!("must have a {what} without control characters"));
    }
    Ok(text.into_owned())
}

fn read_host(url: &Url, has_socket: bool) -> Parsed<String> {
    let host = match url.host() {
        Some(Host::Ipv6(address)) => return Ok(address.to_string()),
        Some(host) => decoded(&host.to_string(), "host")?,
        None => String::new(),
    };
    if host.is_empty() && has_socket {
        return Ok("localhost".to_owned());
    }
    if host.is_empty() {
        return Err(no_host());
    }
    if !host.chars().all(|letter| letter.is_alphanumeric() || "-_.".contains(letter)) {
        return Err("must have a name or an address as its host; a socket is written ?socket=/path".to_owned());
    }
    Ok(host)
}

fn read_database(url: &Url) -> Parsed<String> {
    let path = url.path().strip_prefix('/').unwrap_or_default();
    if path.is_empty() || path.contains('/') {
        return Err(format!("must name one database after the host: {FORM}"));
    }
    let database = decoded(path, "database")?;
    if database.contains('`') || database.chars().count() > LONGEST_NAME_CHARS {
        return Err(format!("must name a database of at most {LONGEST_NAME_CHARS} characters, without backticks"));
    }
    if is_system_schema(&database) {
        return Err("must name the platform's database, not one of the server's own".to_owned());
    }
    Ok(database)
}

pub(super) fn is_system_schema(name: &str) -> bool {
    SYSTEM_SCHEMAS.iter().any(|system| system.eq_ignore_ascii_case(name))
}

/// The socket, and the names of all other parameters.
fn read_parameters(url: &Url) -> Parsed<(Option<PathBuf>, Vec<String>)> {
    let (mut socket, mut foreign) = (None, Vec::new());
    for (name, value) in url.query_pairs() {
        if name == SOCKET_PARAMETER {
            socket = Some(read_socket(&value)?);
            continue;
        }
        let is_plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
        let is_name = is_plain && (1..=SHOWN_PARAMETER_CHARS).contains(&name.len());
        let shown = if is_name { name.into_owned() } else { "one without a plain name".to_owned() };
        if !foreign.contains(&shown) {
            foreign.push(shown);
        }
    }
    Ok((socket, foreign))
}

fn read_socket(path: &str) -> Parsed<PathBuf> {
    let wrong = |message: String| format!("must have the path of the server's socket after `socket=`: {message}");
    if !path.starts_with('/') {
        return Err(wrong("it begins with `/`".to_owned()));
    }
    if path.len() > LONGEST_SOCKET_BYTES {
        return Err(wrong(format!("it has at most {LONGEST_SOCKET_BYTES} bytes")));
    }
    values::absolute(path).map_err(wrong)
}

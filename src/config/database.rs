//! Settings of the database link. Opening and migrating it is `storage`; what only a server has is `mysql`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::config::ValueKind;

use super::keys::{Effect, Kind, SectionKeys};
use super::mysql::{self, DatabaseTls, ServerKeys};
use super::mysql_url::{self, MysqlUrl};
use super::reader::{Reader, Section};
use super::values::{self, Parsed};

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "database",
    keys: &[
        ("url", Kind::Text, Effect::AtStart),
        ("password", Kind::Secret, Effect::AtStart),
        ("password_file", Kind::Text, Effect::AtStart),
        ("state_schema", Kind::Text, Effect::AtStart),
        ("tls", Kind::Text, Effect::AtStart),
        ("ca_file", Kind::Text, Effect::AtStart),
        ("max_connections", Kind::Number, Effect::AtStart),
        ("lock_wait", Kind::Text, Effect::AtStart),
        ("start_timeout", Kind::Text, Effect::AtStart),
        ("migrate", Kind::Boolean, Effect::AtStart),
    ],
};

/// The guide's name for the URL. LetAiCode's own is copied from there, with whatever its driver wants to be told.
pub(super) const URL_VARIABLE: &str = "DATABASE_URL";

const FILE_FORMS: &str = "sqlite://folder/file.db (from the working folder) or sqlite:///folder/file.db";

const MILLISECOND: Duration = Duration::from_millis(1);

/// Where the books are kept.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    pub url: DatabaseUrl,
    /// The database of hookledger's own tables, on a server.
    pub state_schema: String,
    pub tls: DatabaseTls,
    /// Certificates of the authorities that are trusted beside those of the machine; absolute.
    pub ca_file: Option<PathBuf>,
    pub max_connections: u32,
    /// How long a statement waits for a lock that another connection holds.
    pub lock_wait: Duration,
    /// How long a start waits for the database.
    pub start_timeout: Duration,
    /// Whether `serve` brings the database up to date.
    pub migrate: bool,
}

/// The database in use. Displays as a URL with an absolute path or a masked password; Debug shows no password either.
#[derive(Debug, Clone)]
pub enum DatabaseUrl {
    /// The embedded database: the absolute path of its file.
    Sqlite(PathBuf),
    /// A platform's own database on MySQL or MariaDB.
    Mysql(MysqlUrl),
}

impl DatabaseUrl {
    /// The file of the embedded database, absolute. None: the database is on a server.
    pub fn sqlite_path(&self) -> Option<&Path> {
        match self {
            DatabaseUrl::Sqlite(path) => Some(path),
            DatabaseUrl::Mysql(_) => None,
        }
    }

    /// The folder in which everything lies that the daemon keeps in files: the embedded database, the generated
    /// secret, the socket. Absolute.
    pub fn state_folder(&self) -> &Path {
        match self {
            DatabaseUrl::Sqlite(path) => path.parent().unwrap_or(Path::new("/")),
            DatabaseUrl::Mysql(url) => url.state_folder(),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DatabaseUrl::Sqlite(path) => write!(formatter, "sqlite://{}", path.display()),
            DatabaseUrl::Mysql(url) => url.fmt(formatter),
        }
    }
}

impl DatabaseSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let mut section = reader.section(KEYS.name);
        let mut url = read_url(&mut section);
        let server_keys = mysql::read(&mut section, url.as_mut());
        let max_connections = section.integer("max_connections", 1..=1000);
        let lock_wait = section.duration("lock_wait", MILLISECOND..=Duration::from_secs(60));
        let start_timeout = section.duration("start_timeout", MILLISECOND..=Duration::from_secs(86_400));
        let migrate = section.boolean("migrate");
        let ServerKeys { state_schema, tls, ca_file } = server_keys?;
        Some(DatabaseSettings {
            url: url?,
            state_schema,
            tls,
            ca_file,
            max_connections: max_connections?,
            lock_wait: lock_wait?,
            start_timeout: start_timeout?,
            migrate: migrate?,
        })
    }
}

/// A parameter that means nothing here is refused where it was written for this program, and told of where it was
/// written for LetAiCode.
fn read_url(section: &mut Section<'_>) -> Option<DatabaseUrl> {
    let (url, foreign) = section.parse("url", parse_written_url)?;
    section.show("url", &url);
    if !foreign.is_empty() {
        let named = mysql_url::with_keys_instead(&foreign);
        if !section.is_from_variable("url", URL_VARIABLE) {
            section.refuse("url", format!("must have no parameters but `socket`; remove: {named}"));
            return None;
        }
        section.warn(format!("{URL_VARIABLE} has parameters that have no effect here: {named}"));
    }
    Some(url)
}

/// Whether somebody who reads the key reads a password.
pub(super) fn holds_password(kind: &ValueKind) -> bool {
    matches!(parse_url(kind), Ok(DatabaseUrl::Mysql(url)) if url.password.is_some())
}

/// For checks across sections, which don't concern parameters.
pub(super) fn parse_url(kind: &ValueKind) -> Parsed<DatabaseUrl> {
    parse_written_url(kind).map(|(url, _)| url)
}

/// The URL, and the names of its parameters that mean nothing here.
///
/// No message repeats more of a URL than its scheme and such names: there may be a password in it.
fn parse_written_url(kind: &ValueKind) -> Parsed<(DatabaseUrl, Vec<String>)> {
    let forms = format!("{FILE_FORMS}, or {}", mysql_url::FORM);
    let text = values::text(kind).map_err(|_| format!("must be a URL in quotes: {forms}"))?;
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("must be a URL: {forms}"));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "sqlite" => Ok((DatabaseUrl::Sqlite(parse_file(rest)?), Vec::new())),
        "mysql" | "mariadb" => MysqlUrl::parse(rest).map(|(url, foreign)| (DatabaseUrl::Mysql(url), foreign)),
        other => {
            let is_plain = !other.is_empty() && other.chars().all(|letter| letter.is_ascii_alphanumeric());
            let what = if is_plain { format!("{other}://") } else { "this kind of URL".to_owned() };
            Err(format!("{what} is not supported by this version; use {forms}"))
        }
    }
}

fn parse_file(rest: &str) -> Parsed<PathBuf> {
    if rest.contains('?') {
        return Err(format!("must have no parameters after `?`: {FILE_FORMS}"));
    }
    if rest == ":memory:" {
        return Err(format!("must be a file: a database in memory would lose the books; use {FILE_FORMS}"));
    }
    let path = values::absolute(rest).map_err(|message| format!("{message}; use {FILE_FORMS}"))?;
    if rest.ends_with('/') || path.file_name().is_none() {
        return Err(format!("must name a file, not a folder: {FILE_FORMS}"));
    }
    Ok(path)
}

//! Settings of the database link. Opening and migrating it is `storage`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ::config::ValueKind;

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::Reader;
use super::values::{self, Parsed};

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "database",
    keys: &[
        ("url", Kind::Text, Effect::AtStart),
        ("max_connections", Kind::Number, Effect::AtStart),
        ("lock_wait", Kind::Text, Effect::AtStart),
        ("start_timeout", Kind::Text, Effect::AtStart),
        ("migrate", Kind::Boolean, Effect::AtStart),
    ],
};

const URL_FORMS: &str = "sqlite://folder/file.db (from the working folder) or sqlite:///folder/file.db";

const MILLISECOND: Duration = Duration::from_millis(1);

/// Where the books are kept.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    pub url: DatabaseUrl,
    pub max_connections: u32,
    /// How long a statement waits for a lock that another connection holds.
    pub lock_wait: Duration,
    /// How long a start waits for the database.
    pub start_timeout: Duration,
    /// Whether `serve` brings the database up to date.
    pub migrate: bool,
}

/// The database in use. Displays as a URL with an absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// The embedded database: the absolute path of its file.
    Sqlite(PathBuf),
}

impl DatabaseUrl {
    /// The file of the embedded database, absolute.
    pub fn path(&self) -> &Path {
        let DatabaseUrl::Sqlite(path) = self;
        path
    }

    /// The folder in which everything lies that the daemon keeps: database, generated secret, socket.
    pub fn state_folder(&self) -> &Path {
        self.path().parent().unwrap_or(Path::new("/"))
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sqlite://{}", self.path().display())
    }
}

impl DatabaseSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let mut section = reader.section(KEYS.name);
        let url = section.parse("url", parse_url);
        let max_connections = section.integer("max_connections", 1..=1000);
        let lock_wait = section.duration("lock_wait", MILLISECOND..=Duration::from_secs(60));
        let start_timeout = section.duration("start_timeout", MILLISECOND..=Duration::from_secs(86_400));
        let migrate = section.boolean("migrate");
        if let Some(url) = &url {
            section.show("url", url);
        }
        Some(DatabaseSettings {
            url: url?,
            max_connections: max_connections?,
            lock_wait: lock_wait?,
            start_timeout: start_timeout?,
            migrate: migrate?,
        })
    }
}

/// No message repeats more of a URL than its scheme: there may be a password in it.
pub(super) fn parse_url(kind: &ValueKind) -> Parsed<DatabaseUrl> {
    let text = values::text(kind).map_err(|_| format!("must be a URL in quotes: {URL_FORMS}"))?;
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(format!("must be a URL: {URL_FORMS}"));
    };
    if scheme != "sqlite" {
        let is_plain = !scheme.is_empty() && scheme.chars().all(|letter| letter.is_ascii_alphanumeric());
        let what = if is_plain { format!("{scheme}://") } else { "this kind of URL".to_owned() };
        return Err(format!("{what} is not supported by this version; use {URL_FORMS}"));
    }
    if rest.contains('?') {
        return Err(format!("must have no parameters after `?`: {URL_FORMS}"));
    }
    if rest == ":memory:" {
        return Err(format!("must be a file: a database in memory would lose the books; use {URL_FORMS}"));
    }
    let path = values::absolute(rest).map_err(|message| format!("{message}; use {URL_FORMS}"))?;
    if rest.ends_with('/') || path.file_name().is_none() {
        return Err(format!("must name a file, not a folder: {URL_FORMS}"));
    }
    Ok(DatabaseUrl::Sqlite(path))
}

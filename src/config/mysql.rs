//! Those settings of the database link that concern a server alone: own schema, TLS, the password apart from the URL.
//!
//! On the embedded database they mean nothing: whoever sets one there is told.

use std::path::PathBuf;

use ::config::ValueKind;
use secrecy::SecretString;

use super::mysql_url::{LONGEST_NAME_CHARS, MysqlUrl, SYSTEM_SCHEMAS, is_system_schema};
use super::reader::Section;
use super::values::{self, Parsed};
use super::{DatabaseUrl, secret};

const TLS_MODES: [(&str, DatabaseTls); 5] = [
    ("off", DatabaseTls::Off),
    ("prefer", DatabaseTls::Prefer),
    ("require", DatabaseTls::Require),
    ("verify-ca", DatabaseTls::VerifyCa),
    ("verify-full", DatabaseTls::VerifyFull),
];

/// Keys that mean nothing on the embedded database.
const SERVER_KEYS: [&str; 5] = ["state_schema", "tls", "ca_file", "password", "password_file"];

const CERTIFICATE_MARK: &str = "-----BEGIN CERTIFICATE-----";

/// How far the way to the database's server must be protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseTls {
    /// In the clear.
    Off,
    /// Encrypted if the server offers it, unchecked; else in the clear.
    Prefer,
    /// Encrypted; the certificate is not checked.
    Require,
    /// The certificate is of an authority that is trusted.
    VerifyCa,
    /// And it is for the host that was asked for.
    VerifyFull,
}

/// What was set beside the URL.
pub(super) struct ServerKeys {
    pub(super) state_schema: String,
    pub(super) tls: DatabaseTls,
    pub(super) ca_file: Option<PathBuf>,
}

/// Reads them, and gives the URL its password. Without a URL only each key alone is looked at.
pub(super) fn read(section: &mut Section<'_>, url: Option<&mut DatabaseUrl>) -> Option<ServerKeys> {
    let state_schema = section.parse("state_schema", parse_state_schema);
    let tls = section.choice("tls", &TLS_MODES);
    let ca_file = section.parse_optional("ca_file", values::path);
    let password = section.parse_optional("password", parse_password);
    let password_file = section.parse_optional("password_file", values::path);
    for (key, path) in [("ca_file", &ca_file), ("password_file", &password_file)] {
        if let Some(Some(path)) = path {
            section.show(key, path.display());
        }
    }
    let (state_schema, tls, ca_file) = (state_schema?, tls?, ca_file?);
    let (password, password_file) = (password?, password_file?);
    match url {
        Some(DatabaseUrl::Sqlite(_)) => warn_of_keys_without_effect(section),
        Some(DatabaseUrl::Mysql(url)) => {
            let checked = [
                check_state_schema(section, &state_schema, url),
                check_protection(section, tls, ca_file.as_ref(), url),
                take_password(section, password, password_file, url),
            ];
            if checked.contains(&None) {
                return None;
            }
        }
        None => {}
    }
    Some(ServerKeys { state_schema, tls, ca_file })
}

fn warn_of_keys_without_effect(section: &mut Section<'_>) {
    for key in SERVER_KEYS {
        if section.is_set(key) {
            section.warn(format!("database.{key} has no effect: database.url names the embedded database"));
        }
    }
}

fn check_state_schema(section: &mut Section<'_>, name: &str, url: &MysqlUrl) -> Option<()> {
    // Some servers take names for equal that differ in case.
    if name.eq_ignore_ascii_case(&url.database) {
        section.refuse(
            "state_schema",
            "must not be the platform's database, which database.url names: hookledger's own tables lie apart from it",
        );
        return None;
    }
    Some(())
}

fn check_protection(
    section: &mut Section<'_>,
    tls: DatabaseTls,
    ca_file: Option<&PathBuf>,
    url: &MysqlUrl,
) -> Option<()> {
    let is_checked = matches!(tls, DatabaseTls::VerifyCa | DatabaseTls::VerifyFull);
    match ca_file {
        Some(path) => {
            let checked = section.read_file("ca_file", path).and_then(|text| check_certificates(&text));
            if let Err(message) = checked {
                section.refuse("ca_file", format!("{}: {message}", path.display()));
                return None;
            }
            if !is_checked {
                section.warn(
                    "database.ca_file has no effect: database.tls checks a certificate only as verify-ca or verify-full",
                );
            }
        }
        None if tls == DatabaseTls::VerifyCa => {
            section.refuse("ca_file", "must name the authority's certificate, since database.tls is \"verify-ca\"");
            return None;
        }
        None => {}
    }
    let risk = match tls {
        DatabaseTls::Off => "cross the network in the clear",
        DatabaseTls::Prefer => "cross the network in the clear if the server offers no TLS, or somebody says so for it",
        _ => return Some(()),
    };
    if !url.is_local() {
        section.warn(format!(
            "database.tls is {} and {} is another machine: the password and the books {risk}; set it to \"require\" or \
             \"verify-full\"",
            if tls == DatabaseTls::Off { "\"off\"" } else { "\"prefer\"" },
            url.host
        ));
    }
    Some(())
}

/// The password has one place; two that disagree would be found out by the server only.
fn take_password(
    section: &mut Section<'_>,
    given: Option<SecretString>,
    path: Option<PathBuf>,
    url: &mut MysqlUrl,
) -> Option<()> {
    if path.is_some() && (given.is_some() || url.password.is_some()) {
        let other = if given.is_some() { "database.password" } else { "the password in database.url" };
        section.refuse("password_file", format!("must not be set beside {other}: keep one of the two"));
        return None;
    }
    if given.is_some() && url.password.is_some() {
        section.refuse("password", "must not be set beside the password in database.url: keep one of the two");
        return None;
    }
    let filed = match path {
        Some(path) => Some(read_password_file(section, path)?),
        None => None,
    };
    if let Some(password) = given.or(filed) {
        url.password = Some(password);
    }
    Some(())
}

fn read_password_file(section: &mut Section<'_>, path: PathBuf) -> Option<SecretString> {
    if secret::is_open_to_others(&path) {
        section
            .warn(format!("{} holds a password and others than its owner can read it: chmod 600 it", path.display()));
    }
    // The end of the line is the editor's; anything else may be part of the password.
    let text = section.read_file("password_file", &path);
    match text.and_then(|text| check_password(text.trim_end_matches(['\r', '\n']))) {
        Ok(password) => Some(password),
        Err(message) => {
            section.refuse("password_file", format!("{}: {message}", path.display()));
            None
        }
    }
}

/// No message repeats what it found here: it may be the password in the wrong shape.
fn parse_password(kind: &ValueKind) -> Parsed<SecretString> {
    match kind {
        ValueKind::String(text) => check_password(text),
        _ => Err("must be text: write it in quotes".to_owned()),
    }
}

fn check_password(password: &str) -> Parsed<SecretString> {
    if password.is_empty() {
        return Err("must not be empty; leave the key out if there is no password".to_owned());
    }
    if password.chars().any(char::is_control) {
        return Err("must be one line without control characters".to_owned());
    }
    Ok(SecretString::from(password))
}

fn check_certificates(text: &str) -> Parsed<()> {
    if text.contains(CERTIFICATE_MARK) {
        return Ok(());
    }
    Err(format!("must be a PEM file with at least one certificate, which begins with {CERTIFICATE_MARK}"))
}

fn parse_state_schema(kind: &ValueKind) -> Parsed<String> {
    let name = values::text(kind)?;
    let is_plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_$".contains(letter));
    if !is_plain || !(1..=LONGEST_NAME_CHARS).contains(&name.len()) {
        return Err(format!(
            "must be 1 to {LONGEST_NAME_CHARS} letters without accents, digits, `_` or `$`; got {}",
            values::describe(kind)
        ));
    }
    if is_system_schema(name) {
        return Err(format!("must be none of the server's own: {}", SYSTEM_SCHEMAS.join(", ")));
    }
    Ok(name.to_owned())
}

//! Reads a token that requests carry in a header, from the configuration itself or from a file of its own.
//!
//! How long one must be is said by its section.

use std::path::PathBuf;

use ::config::ValueKind;

use super::reader::Section;
use super::secret;
use super::values::{self, Parsed};

/// A token, and the key of its section that holds it.
pub(super) struct GivenToken {
    pub(super) text: String,
    pub(super) key: &'static str,
}

/// What `token` or `token_file` of a section holds; both at once are refused. `Some(None)`: neither is set.
pub(super) fn read(section: &mut Section<'_>) -> Option<Option<GivenToken>> {
    read_named(section, "token", "token_file")
}

/// The same under other names.
pub(super) fn read_named(
    section: &mut Section<'_>,
    key: &'static str,
    file_key: &'static str,
) -> Option<Option<GivenToken>> {
    let given = section.parse_optional(key, parse);
    let path = section.parse_optional(file_key, values::path);
    let filed = match path {
        Some(Some(path)) => read_file(section, file_key, path).map(Some),
        Some(None) => Some(None),
        None => None,
    };
    let (given, filed) = (given?, filed?);
    if given.is_some() && filed.is_some() {
        section.refuse(file_key, "must not be set beside the token itself: keep one of the two");
        return None;
    }
    let given = given.map(|text| GivenToken { text, key });
    Some(given.or_else(|| filed.map(|text| GivenToken { text, key: file_key })))
}

fn read_file(section: &mut Section<'_>, key: &str, path: PathBuf) -> Option<String> {
    section.show(key, path.display());
    if secret::is_open_to_others(&path) {
        section.warn(format!("{} holds a token and others than its owner can read it: chmod 600 it", path.display()));
    }
    match section.read_file(key, &path).and_then(|text| check(&text)) {
        Ok(token) => Some(token),
        Err(message) => {
            section.refuse(key, format!("{}: {message}", path.display()));
            None
        }
    }
}

/// No message repeats what it found here: it may be the token in the wrong shape.
fn parse(kind: &ValueKind) -> Parsed<String> {
    match kind {
        ValueKind::String(text) => check(text),
        _ => Err("must be text: write it in quotes".to_owned()),
    }
}

/// White space around a token never counts: a header's value loses it on the way.
fn check(text: &str) -> Parsed<String> {
    let token = text.trim();
    if token.is_empty() {
        return Err("must not be empty; leave the key out if there is none".to_owned());
    }
    if token.chars().any(char::is_control) {
        return Err("must be one line without control characters, since it comes in a header".to_owned());
    }
    Ok(token.to_owned())
}

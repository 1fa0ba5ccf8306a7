//! Settings of the balance question: with which token new-api asks whether a key's owner still has credits.

use std::path::PathBuf;

use ::config::ValueKind;
use secrecy::SecretString;

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::{Reader, Section};
use super::secret;
use super::values::{self, Parsed};

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "balance",
    keys: &[("token", Kind::Secret, Effect::AtReload), ("token_file", Kind::Text, Effect::AtReload)],
};

/// The guide's name for new-api's own token, which opens the question where no other token is set.
pub(super) const ADMIN_TOKEN_VARIABLE: &str = "NEW_API_ADMIN_TOKEN";

/// Fewer characters than this can be guessed; new-api's own tokens are longer.
const SHORT_TOKEN_CHARS: usize = 16;

/// Who may ask for balances.
#[derive(Debug, Clone)]
pub struct BalanceSettings {
    /// What the asker sends as `X-API-Key`. None: nobody can ask.
    pub token: Option<SecretString>,
}

impl BalanceSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let mut section = reader.section(KEYS.name);
        let given = section.parse_optional("token", parse_token);
        let path = section.parse_optional("token_file", values::path);
        let filed = match path {
            Some(Some(path)) => read_token_file(&mut section, path).map(Some),
            Some(None) => Some(None),
            None => None,
        };
        let (given, filed) = (given?, filed?);
        if given.is_some() && filed.is_some() {
            section.refuse("token_file", "must not be set beside balance.token: keep one of the two");
            return None;
        }
        let token = given.or(filed);
        if token.as_ref().is_some_and(|token| token.chars().count() < SHORT_TOKEN_CHARS) {
            section.warn(format!(
                "balance.token has fewer than {SHORT_TOKEN_CHARS} characters and can be guessed: \
                 `hookledger secret` makes a better one"
            ));
        }
        Some(BalanceSettings { token: token.map(SecretString::from) })
    }
}

fn read_token_file(section: &mut Section<'_>, path: PathBuf) -> Option<String> {
    section.show("token_file", path.display());
    if secret::is_open_to_others(&path) {
        section.warn(format!("{} holds a token and others than its owner can read it: chmod 600 it", path.display()));
    }
    match section.read_file("token_file", &path).and_then(|text| check(&text)) {
        Ok(token) => Some(token),
        Err(message) => {
            section.refuse("token_file", format!("{}: {message}", path.display()));
            None
        }
    }
}

/// No message repeats what it found here: it may be the token in the wrong shape.
fn parse_token(kind: &ValueKind) -> Parsed<String> {
    match kind {
        ValueKind::String(text) => check(text),
        _ => Err("must be text: write it in quotes".to_owned()),
    }
}

/// White space around a token never counts: a header's value loses it on the way.
fn check(text: &str) -> Parsed<String> {
    let token = text.trim();
    if token.is_empty() {
        return Err("must not be empty; leave the key out to switch the balance question off".to_owned());
    }
    if token.chars().any(char::is_control) {
        return Err("must be one line without control characters, since it comes in a header".to_owned());
    }
    Ok(token.to_owned())
}

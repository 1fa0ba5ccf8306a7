//! Settings of the event channel: who may send, with which secret, how old an event may be.

use std::path::PathBuf;
use std::time::Duration;

use ::config::ValueKind;
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::{Reader, Section};
use super::secret;
use super::values::{self, Parsed};

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "webhook",
    keys: &[
        ("enabled", Kind::Boolean, Effect::AtReload),
        ("secrets", Kind::Secrets, Effect::AtReload),
        ("secrets_file", Kind::Text, Effect::AtReload),
        ("max_age", Kind::Text, Effect::AtReload),
        ("max_future", Kind::Text, Effect::AtReload),
        ("allow_sources", Kind::List, Effect::AtReload),
    ],
};

const DAY: Duration = Duration::from_secs(86_400);

/// Beyond this, what an attacker recorded stays usable for long if a row of the inbox is cleared.
const UNUSUAL_AGE: Duration = Duration::from_secs(7 * 86_400);

/// Each unsigned request is held against every secret: a handful is a rotation, more is work for an attacker to cause.
const MOST_SECRETS: usize = 16;

/// Whose events are believed.
#[derive(Debug, Clone)]
pub struct WebhookSettings {
    pub enabled: bool,
    /// All are valid at once, so that they can be rotated. May be empty until `ensure_secret`.
    pub secrets: Vec<SecretString>,
    /// How old the `timestamp` of an event may be.
    pub max_age: Duration,
    /// How far ahead of our clock it may be.
    pub max_future: Duration,
    /// Empty: all.
    pub allow_sources: Vec<IpNet>,
}

impl WebhookSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let mut section = reader.section(KEYS.name);
        let enabled = section.boolean("enabled");
        let secrets = read_secrets(&mut section);
        let max_age = section.duration("max_age", Duration::from_secs(1)..=DAY * 3650);
        let max_future = section.duration("max_future", Duration::ZERO..=DAY * 7);
        let allow_sources = section.networks("allow_sources");
        if enabled == Some(false) {
            section.warn("webhook.enabled is false: events are refused, and nothing is charged through them");
        }
        if let Some(age) = max_age.filter(|age| *age > UNUSUAL_AGE) {
            let age = values::show_duration(age);
            section.warn(format!("webhook.max_age is {age}: a recorded request can be sent again that much later"));
        }
        Some(WebhookSettings {
            enabled: enabled?,
            secrets: secrets?,
            max_age: max_age?,
            max_future: max_future?,
            allow_sources: allow_sources?,
        })
    }
}

/// Merges `secrets` and `secrets_file`, each secret once.
fn read_secrets(section: &mut Section<'_>) -> Option<Vec<SecretString>> {
    let listed = section.parse_optional("secrets", parse_secrets);
    let path = section.parse_optional("secrets_file", values::path);
    let filed = match path {
        Some(Some(path)) => read_secrets_file(section, path),
        Some(None) => Some(Vec::new()),
        None => None,
    };
    let mut merged: Vec<SecretString> = Vec::new();
    let mut is_padded = false;
    for secret in listed?.unwrap_or_default().into_iter().chain(filed?) {
        let text = secret.expose_secret();
        is_padded |= text.trim() != text;
        if merged.iter().any(|known| known.expose_secret() == text) {
            section.warn("webhook.secrets holds the same secret twice (webhook.secrets_file counts too): remove one");
        } else {
            merged.push(secret);
        }
    }
    if is_padded {
        section.warn("a secret of webhook.secrets begins or ends with white space, which counts as part of it");
    }
    if merged.len() > MOST_SECRETS {
        section.refuse("secrets", format!("must be at most {MOST_SECRETS} with those of webhook.secrets_file"));
        return None;
    }
    Some(merged)
}

fn read_secrets_file(section: &mut Section<'_>, path: PathBuf) -> Option<Vec<SecretString>> {
    section.show("secrets_file", path.display());
    if secret::is_open_to_others(&path) {
        section.warn(format!("{} holds secrets and others than its owner can read it: chmod 600 it", path.display()));
    }
    match section.read_file("secrets_file", &path).and_then(|text| secret::parse_lines(&text)) {
        Ok(secrets) => Some(secrets),
        Err(message) => {
            section.refuse("secrets_file", format!("{}: {message}", path.display()));
            None
        }
    }
}

/// No message repeats what it found here: it may be a secret in the wrong shape.
fn parse_secrets(kind: &ValueKind) -> Parsed<Vec<SecretString>> {
    let ValueKind::Array(elements) = kind else {
        return Err("must be a list of texts in quotes, such as [\"…\"]".to_owned());
    };
    let secrets = elements.iter().enumerate().map(|(index, element)| {
        let ValueKind::String(text) = &element.kind else {
            return Err(format!("number {} of the list is not text: write it in quotes", index + 1));
        };
        secret::check(text).map_err(|message| format!("number {} of the list {message}", index + 1))?;
        Ok(SecretString::from(text.as_str()))
    });
    values::collect_all(secrets)
}

//! What a reload changes: a whole new configuration over the one in force, key by key.
//!
//! Which keys a reload may change is said in the table of keys alone. Whoever reads a setting at a reload finds it in
//! `Live`; putting the outcome there is `app`'s business.

use std::collections::BTreeMap;
use std::fmt;

use ::config::{Value, ValueKind};
use secrecy::{ExposeSecret, SecretString};

use super::error::ConfigError;
use super::reader::Reader;
use super::sources::Layers;
use super::{Loaded, Settings, keys, read_all, secret};

/// What was written for each key and held by the files that keys name. Debug shows keys alone.
#[derive(Clone, Default)]
pub(super) struct Written {
    pub(super) values: BTreeMap<String, Value>,
    pub(super) files: BTreeMap<String, SecretString>,
}

impl fmt::Debug for Written {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.values.keys()).finish()
    }
}

/// The outcome of a reload without problems.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// In force from now on: what needs a start is as it was at the last one.
    pub loaded: Loaded,
    /// Keys whose values changed and take effect now, as `section.key`.
    pub changed: Vec<String>,
    /// Keys whose values changed and take effect at the next start.
    pub at_next_start: Vec<String>,
}

impl Loaded {
    /// Puts `fresh`, which was loaded whole and without problems, over what is in force.
    ///
    /// Writes nothing: where a start would generate the secret, this tells that it is gone.
    pub fn replaced_by(&self, fresh: Loaded) -> Result<Reloaded, ConfigError> {
        let fixed: Vec<String> = keys::fixed_at_start().collect();
        let (at_next_start, mut changed): (Vec<String>, Vec<String>) =
            self.changed_keys(&fresh).partition(|key| fixed.contains(key));
        let warnings = fresh.warnings;
        let mut values = fresh.written.values;
        for key in &at_next_start {
            match self.written.values.get(key) {
                Some(value) => values.insert(key.clone(), value.clone()),
                None => values.remove(key),
            };
        }
        let layers = Layers { values, problems: Vec::new(), warnings: Vec::new() };
        let mut files = self.written.files.clone();
        files.retain(|key, _| fixed.contains(key));
        let mut loaded = Loaded { warnings, ..read_all(Reader::new(layers).with_files(files))? };
        secret::find_secret(&mut loaded.settings)?;
        if changed.iter().all(|key| !key.starts_with("webhook.secrets")) && !has_same_secrets(self, &loaded.settings) {
            // The generated one has no key of its own.
            changed.push("webhook.secrets".to_owned());
        }
        let [old, new] = [self, &loaded].map(|loaded| loaded.settings.retention.policy.webhook_logs);
        if old != new && changed.iter().all(|key| key != "retention.webhook_logs") {
            // Written as the default is, which beside a platform means something else.
            changed.push("retention.webhook_logs".to_owned());
        }
        Ok(Reloaded { loaded, changed, at_next_start })
    }

    fn changed_keys(&self, fresh: &Loaded) -> impl Iterator<Item = String> {
        let (old, new) = (&self.written, &fresh.written);
        keys::all().map(|(key, _)| key).filter(move |key| {
            let kinds = [old, new].map(|written| written.values.get(key).map(|value| &value.kind));
            let texts = [old, new].map(|written| written.files.get(key).map(ExposeSecret::expose_secret));
            let is_same_value = match kinds {
                [Some(one), Some(other)] => is_same(one, other),
                [one, other] => one.is_none() && other.is_none(),
            };
            !is_same_value || texts[0] != texts[1]
        })
    }
}

/// Where a value was written does not count.
fn is_same(one: &ValueKind, other: &ValueKind) -> bool {
    match (one, other) {
        (ValueKind::Array(one), ValueKind::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(&one.kind, &other.kind))
        }
        _ => one == other,
    }
}

fn has_same_secrets(loaded: &Loaded, settings: &Settings) -> bool {
    let (old, new) = (&loaded.settings.webhook.secrets, &settings.webhook.secrets);
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old.expose_secret() == new.expose_secret())
}

//! The list of keys that exist: what isn't here is refused as unknown, in the file and in the environment alike.
//!
//! Each section declares its own keys beside its struct; meaning and limits belong there too.

use super::{
    admin, balance, database, ledger, log, metrics, newapi, polling, rate_limit, retention, retry, server, supervisor,
    webhook,
};

/// Start of the environment's names for keys: `HOOKLEDGER__SERVER__LISTEN`.
pub(super) const VARIABLE_PREFIX: &str = "HOOKLEDGER__";

/// How the text of an environment variable becomes a value. In a file the types are TOML's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text as it is: durations, addresses, paths, words, decimals.
    Text,
    /// A whole number.
    Number,
    Boolean,
    /// Several texts, separated by commas.
    List,
    /// A list that is never shown, and whose digits stay text.
    Secrets,
    /// Text that is never shown.
    Secret,
}

impl Kind {
    pub(super) fn is_secret(self) -> bool {
        matches!(self, Kind::Secret | Kind::Secrets)
    }
}

/// When a value that was changed takes effect. Each key must say so: whoever reads it decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// With the next reload: its readers look at the settings in force each time.
    AtReload,
    /// With the next start: a listener, a connection or a thread was made with it.
    AtStart,
}

/// One section of the file and its keys, in the order in which they are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct SectionKeys {
    pub(super) name: &'static str,
    pub(super) keys: &'static [(&'static str, Kind, Effect)],
}

/// All sections, in the order of the reference file.
pub(super) const SECTIONS: &[SectionKeys] = &[
    server::KEYS,
    webhook::KEYS,
    rate_limit::KEYS,
    balance::KEYS,
    database::KEYS,
    ledger::KEYS,
    retry::KEYS,
    newapi::KEYS,
    polling::KEYS,
    retention::KEYS,
    supervisor::KEYS,
    metrics::KEYS,
    admin::KEYS,
    log::KEYS,
];

/// Each key as `section.key`, with its kind.
pub(super) fn all() -> impl Iterator<Item = (String, Kind)> {
    SECTIONS
        .iter()
        .flat_map(|section| section.keys.iter().map(|(name, kind, _)| (format!("{}.{name}", section.name), *kind)))
}

/// The keys, as `section.key`, that a reload does not touch.
pub(super) fn fixed_at_start() -> impl Iterator<Item = String> {
    SECTIONS.iter().flat_map(|section| {
        let fixed = section.keys.iter().filter(|(_, _, effect)| *effect == Effect::AtStart);
        fixed.map(|(name, ..)| format!("{}.{name}", section.name))
    })
}

/// The environment's name for a key.
pub(super) fn variable_of(key: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", key.replace('.', "__").to_uppercase())
}

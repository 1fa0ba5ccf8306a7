//! Settings of the log. Setting it up is `telemetry`.

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::Reader;

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "log",
    keys: &[("format", Kind::Text, Effect::AtStart), ("level", Kind::Text, Effect::AtReload)],
};

const FORMATS: [(&str, LogFormat); 4] = [
    ("auto", LogFormat::Auto),
    ("json", LogFormat::Json),
    ("text", LogFormat::Text),
    ("journald", LogFormat::Journald),
];

const LEVELS: [(&str, &str); 5] =
    [("error", "error"), ("warn", "warn"), ("info", "info"), ("debug", "debug"), ("trace", "trace")];

/// What is logged, and in which shape.
#[derive(Debug, Clone)]
pub struct LogSettings {
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

/// The shape of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, the journal's own under systemd, JSON elsewhere.
    Auto,
    Json,
    Text,
    /// Entries of systemd's journal, with their fields.
    Journald,
}

impl LogSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let mut section = reader.section(KEYS.name);
        let format = section.choice("format", &FORMATS);
        let level = section.choice("level", &LEVELS).map(str::to_owned);
        Some(LogSettings { format: format?, level: level? })
    }
}

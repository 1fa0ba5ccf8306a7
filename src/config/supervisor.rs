//! Settings of the restart budget: how often parts may fail before the process gives up.

use std::time::Duration;

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::Reader;

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "supervisor",
    keys: &[("max_restarts", Kind::Number, Effect::AtStart), ("window", Kind::Text, Effect::AtStart)],
};

/// More than `max_restarts` within `window` ends the process with exit code 70.
#[derive(Debug, Clone)]
pub struct SupervisorSettings {
    pub max_restarts: u32,
    pub window: Duration,
}

impl SupervisorSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let mut section = reader.section(KEYS.name);
        let max_restarts = section.integer("max_restarts", 0..=10_000);
        let window = section.duration("window", Duration::from_millis(1)..=Duration::from_secs(86_400));
        Some(SupervisorSettings { max_restarts: max_restarts?, window: window? })
    }
}

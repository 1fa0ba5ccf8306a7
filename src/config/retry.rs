//! Settings of the pauses between attempts to settle an event that could not be settled.

use std::time::Duration;

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::Reader;
use super::values;
use crate::domain::retry::RetryPolicy;

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "retry",
    keys: &[
        ("max_attempts", Kind::Number, Effect::AtReload),
        ("base_delay", Kind::Text, Effect::AtReload),
        ("max_delay", Kind::Text, Effect::AtReload),
    ],
};

const MILLISECOND: Duration = Duration::from_millis(1);

/// The pause doubles from `base_delay` up to `max_delay`.
#[derive(Debug, Clone)]
pub struct RetrySettings {
    /// Errors after which an event is dead.
    pub max_attempts: u32,
    pub base_delay: Duration,
    pub max_delay: Duration,
}

impl RetrySettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let mut section = reader.section(KEYS.name);
        let max_attempts = section.integer("max_attempts", 1..=1000);
        let base_delay = section.duration("base_delay", MILLISECOND..=Duration::from_secs(3600));
        let max_delay = section.duration("max_delay", MILLISECOND..=Duration::from_secs(7 * 86_400));
        if let (Some(base), Some(max)) = (base_delay, max_delay)
            && max < base
        {
            let (base, max) = (values::show_duration(base), values::show_duration(max));
            section.refuse("max_delay", format!("must not be shorter than retry.base_delay, {base}; got {max}"));
        }
        Some(RetrySettings { max_attempts: max_attempts?, base_delay: base_delay?, max_delay: max_delay? })
    }

    /// The same for the domain.
    pub fn policy(&self) -> RetryPolicy {
        let RetrySettings { max_attempts, base_delay, max_delay } = *self;
        RetryPolicy { max_attempts, base_delay, max_delay }
    }
}

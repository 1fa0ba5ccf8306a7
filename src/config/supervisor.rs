//! Settings of supervision: when a part counts as hung, and how often parts may fail before the process gives up.

use std::time::Duration;

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::Reader;

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "supervisor",
    keys: &[
        ("max_restarts", Kind::Number, Effect::AtStart),
        ("window", Kind::Text, Effect::AtStart),
        ("heartbeat", Kind::Text, Effect::AtStart),
        ("hang_timeout", Kind::Text, Effect::AtStart),
    ],
};

/// More than `max_restarts` within `window` ends the process with exit code 70.
#[derive(Debug, Clone)]
pub struct SupervisorSettings {
    pub max_restarts: u32,
    pub window: Duration,
    /// How often each part is looked at.
    pub heartbeat: Duration,
    /// A part that has made no progress for so long is replaced.
    pub hang_timeout: Duration,
}

/// A part that is looked at less often than this would be found hung for want of looks.
const LOOKS_PER_TIMEOUT: u32 = 3;

impl SupervisorSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let mut section = reader.section(KEYS.name);
        let max_restarts = section.integer("max_restarts", 0..=10_000);
        let window = section.duration("window", Duration::from_millis(1)..=Duration::from_secs(86_400));
        let heartbeat = section.duration("heartbeat", Duration::from_millis(10)..=Duration::from_secs(60));
        let hang_timeout = section.duration("hang_timeout", Duration::from_millis(100)..=Duration::from_secs(3600));
        if let (Some(heartbeat), Some(hang_timeout)) = (heartbeat, hang_timeout)
            && hang_timeout < heartbeat * LOOKS_PER_TIMEOUT
        {
            let message =
                format!("must be at least {LOOKS_PER_TIMEOUT} times supervisor.heartbeat, which is {heartbeat:?}");
            section.refuse("hang_timeout", message);
            return None;
        }
        Some(SupervisorSettings {
            max_restarts: max_restarts?,
            window: window?,
            heartbeat: heartbeat?,
            hang_timeout: hang_timeout?,
        })
    }
}

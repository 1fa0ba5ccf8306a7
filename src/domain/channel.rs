//! How the event channel does, judged from few facts: so that an operator sees at a glance whether events come in.

use std::time::Duration;

use super::time::UnixMillis;

/// How long after an event the channel counts as healthy.
pub const FRESH_FOR: Duration = Duration::from_secs(600);

/// What the channel is found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelState {
    /// Events come in.
    Healthy,
    /// None came for a while, which nothing says is wrong.
    Idle,
    /// None came although calls were made.
    Stale,
    /// The operator switched the webhook off.
    Disabled,
    /// The log is the main channel, and events are a bonus.
    Pull,
}

impl ChannelState {
    pub const ALL: [ChannelState; 5] =
        [ChannelState::Healthy, ChannelState::Idle, ChannelState::Stale, ChannelState::Disabled, ChannelState::Pull];

    pub fn as_str(self) -> &'static str {
        match self {
            ChannelState::Healthy => "healthy",
            ChannelState::Idle => "idle",
            ChannelState::Stale => "stale",
            ChannelState::Disabled => "disabled",
            ChannelState::Pull => "pull",
        }
    }

    /// Judges the channel where webhooks are the only way in: then nothing tells silence from loss, so it is never stale.
    pub fn judge(is_enabled: bool, last_event_at: Option<UnixMillis>, now: UnixMillis) -> Self {
        if !is_enabled {
            return ChannelState::Disabled;
        }
        match last_event_at {
            Some(last) if now.since(last) <= FRESH_FOR => ChannelState::Healthy,
            _ => ChannelState::Idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_idle_and_only_the_operator_disables() {
        let now = UnixMillis::new(1_800_000_000_000);
        let ago = |seconds| Some(now.minus(Duration::from_secs(seconds)));
        for (is_enabled, last_event_at, state) in [
            (true, None, ChannelState::Idle),
            (true, ago(0), ChannelState::Healthy),
            (true, ago(600), ChannelState::Healthy),
            (true, ago(601), ChannelState::Idle),
            (false, ago(1), ChannelState::Disabled),
            (false, None, ChannelState::Disabled),
        ] {
            assert_eq!(ChannelState::judge(is_enabled, last_event_at, now), state, "{is_enabled} {last_event_at:?}");
        }
        let set_back = now.minus(Duration::from_secs(3600));
        assert_eq!(ChannelState::judge(true, Some(now), set_back), ChannelState::Healthy, "the clock was set back");
    }
}

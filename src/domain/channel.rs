//! How the event channel does, judged from few facts: so that an operator sees at a glance whether events come in, and
//! the log is read where they don't.

use std::time::Duration;

use super::time::UnixMillis;

/// A row this old says nothing of the channel any more.
const ROWS_COUNT_FOR: Duration = Duration::from_secs(3600);

/// What the channel is found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelState {
    /// Events come in.
    Healthy,
    /// None came for a while, which nothing says is wrong.
    Idle,
    /// None came although calls were made, or too many calls came without theirs.
    Stale,
    /// The operator switched the webhook off, here or in new-api.
    Disabled,
    /// The log is the main channel, and events are a bonus.
    Pull,
}

/// What the judgement rests on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChannelEvidence {
    /// `webhook.enabled`
    pub is_enabled: bool,
    /// `polling.mode = "pull"`
    pub is_pull: bool,
    /// Whether new-api has somewhere to send webhooks to; none where that cannot be seen.
    pub has_webhook_url: Option<bool>,
    /// Only authentic usage events count.
    pub last_event_at: Option<UnixMillis>,
    /// Of calls of the last hour, and how many of them came without their event.
    pub calls: i64,
    pub calls_without_event: i64,
    /// The newest row of a call of ours.
    pub newest_row_at: Option<UnixMillis>,
    /// Since when the log cannot be read; none where it can, or where no gateway is configured.
    pub out_of_reach_since: Option<UnixMillis>,
    /// `polling.stale_after`
    pub stale_after: Duration,
    /// `polling.stale_loss`
    pub stale_loss: f64,
    pub was: Option<ChannelState>,
    pub now: UnixMillis,
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

    /// Events cannot be counted on: the log is read for what they would tell.
    pub fn needs_polling(self) -> bool {
        matches!(self, ChannelState::Stale | ChannelState::Disabled)
    }

    pub fn judge(evidence: &ChannelEvidence) -> Self {
        if evidence.is_pull {
            ChannelState::Pull
        } else if !evidence.is_enabled || evidence.has_webhook_url == Some(false) {
            ChannelState::Disabled
        } else if evidence.loses_too_much() || (evidence.is_silent() && evidence.calls_are_made()) {
            ChannelState::Stale
        } else if evidence.is_silent() {
            ChannelState::Idle
        } else {
            ChannelState::Healthy
        }
    }
}

impl ChannelEvidence {
    /// No event for so long that one would have come if calls were made.
    pub fn is_silent(&self) -> bool {
        self.last_event_at.is_none_or(|last| self.now.since(last) > self.stale_after)
    }

    /// The log has calls younger than the last event, or nobody can say that it has none.
    fn calls_are_made(&self) -> bool {
        let is_newer = |row: UnixMillis| self.last_event_at.is_none_or(|last| row > last);
        let has_rows = self.newest_row_at.is_some_and(|row| is_newer(row) && self.now.since(row) <= ROWS_COUNT_FOR);
        let is_unknown = self.out_of_reach_since.is_some_and(|since| self.now.since(since) >= self.stale_after);
        has_rows || is_unknown
    }

    /// Once it is so, it stays so until the loss is half of what began it.
    fn loses_too_much(&self) -> bool {
        let limit = if self.was == Some(ChannelState::Stale) { self.stale_loss / 2.0 } else { self.stale_loss };
        self.calls > 0 && self.calls_without_event as f64 > limit * self.calls as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis::ZERO;

    fn quiet() -> ChannelEvidence {
        ChannelEvidence {
            is_enabled: true,
            is_pull: false,
            has_webhook_url: None,
            last_event_at: None,
            calls: 0,
            calls_without_event: 0,
            newest_row_at: None,
            out_of_reach_since: None,
            stale_after: Duration::from_secs(600),
            stale_loss: 0.05,
            was: None,
            now: NOW.plus(Duration::from_secs(1_800_000_000)),
        }
    }

    fn ago(secs: u64) -> Option<UnixMillis> {
        Some(quiet().now.minus(Duration::from_secs(secs)))
    }

    #[test]
    fn silence_alone_is_idle_and_only_the_operator_disables() {
        for (evidence, state) in [
            (quiet(), ChannelState::Idle),
            (ChannelEvidence { last_event_at: ago(0), ..quiet() }, ChannelState::Healthy),
            (ChannelEvidence { last_event_at: ago(600), ..quiet() }, ChannelState::Healthy),
            (ChannelEvidence { last_event_at: ago(601), ..quiet() }, ChannelState::Idle),
            (ChannelEvidence { is_enabled: false, last_event_at: ago(1), ..quiet() }, ChannelState::Disabled),
            (
                ChannelEvidence { has_webhook_url: Some(false), last_event_at: ago(1), ..quiet() },
                ChannelState::Disabled,
            ),
            (ChannelEvidence { has_webhook_url: Some(true), last_event_at: ago(1), ..quiet() }, ChannelState::Healthy),
            (ChannelEvidence { is_pull: true, is_enabled: false, ..quiet() }, ChannelState::Pull),
        ] {
            assert_eq!(ChannelState::judge(&evidence), state, "{evidence:?}");
        }
        let set_back = ChannelEvidence { last_event_at: Some(quiet().now.plus(Duration::from_secs(3600))), ..quiet() };
        assert_eq!(ChannelState::judge(&set_back), ChannelState::Healthy, "the clock was set back");
    }

    #[test]
    fn calls_without_events_are_stale() {
        let silent = ChannelEvidence { last_event_at: ago(700), ..quiet() };
        for (evidence, state) in [
            (ChannelEvidence { newest_row_at: ago(650), ..silent }, ChannelState::Stale),
            (ChannelEvidence { newest_row_at: ago(750), ..silent }, ChannelState::Idle),
            (ChannelEvidence { newest_row_at: ago(30), last_event_at: ago(500), ..quiet() }, ChannelState::Healthy),
            (ChannelEvidence { newest_row_at: ago(3601), ..quiet() }, ChannelState::Idle),
            (ChannelEvidence { out_of_reach_since: ago(600), ..silent }, ChannelState::Stale),
            (ChannelEvidence { out_of_reach_since: ago(599), ..silent }, ChannelState::Idle),
            (
                ChannelEvidence { out_of_reach_since: ago(6000), last_event_at: ago(1), ..quiet() },
                ChannelState::Healthy,
            ),
        ] {
            assert_eq!(ChannelState::judge(&evidence), state, "{evidence:?}");
        }
    }

    #[test]
    fn loss_makes_stale_and_half_of_it_ends_that() {
        let losing = |without: i64, was| ChannelEvidence {
            last_event_at: ago(1),
            calls: 1000,
            calls_without_event: without,
            was,
            ..quiet()
        };
        let judge = |without, was| ChannelState::judge(&losing(without, was));
        assert_eq!(judge(50, None), ChannelState::Healthy);
        assert_eq!(judge(51, None), ChannelState::Stale);
        assert_eq!(judge(26, Some(ChannelState::Stale)), ChannelState::Stale);
        assert_eq!(judge(25, Some(ChannelState::Stale)), ChannelState::Healthy);
    }
}

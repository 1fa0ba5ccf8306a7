//! Remembers when the last event came and what the channel is since when; `domain::channel` judges.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::channel::{ChannelEvidence, ChannelState};
use crate::domain::time::UnixMillis;
use crate::polling::ChannelFacts;
use crate::telemetry::metrics;

/// What the channel is, and since when this process knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelLook {
    pub state: ChannelState,
    pub since: UnixMillis,
}

/// Written by every event and by every look; read by whoever asks.
#[derive(Default)]
pub struct Channel {
    /// Unix milliseconds; 0 before the first.
    last_event_at: AtomicI64,
    look: Mutex<Option<ChannelLook>>,
    known: Mutex<(ChannelRules, ChannelFacts)>,
}

/// The operator's part in the judgement.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ChannelRules {
    pub is_pull: bool,
    pub stale_after: Duration,
    pub stale_loss: f64,
}

impl Default for ChannelRules {
    fn default() -> Self {
        ChannelRules { is_pull: false, stale_after: Duration::from_secs(600), stale_loss: 1.0 }
    }
}

impl Channel {
    /// An authentic usage event came in.
    pub fn event_arrived(&self, at: UnixMillis) {
        // A clock that was set back must not hide that events come in: the newest word counts, not the largest.
        self.last_event_at.store(at.as_millis(), Ordering::Relaxed);
        metrics::usage_event_arrived(at.as_secs());
    }

    pub fn last_event_at(&self) -> Option<UnixMillis> {
        Some(self.last_event_at.load(Ordering::Relaxed)).filter(|millis| *millis > 0).map(UnixMillis::new)
    }

    /// What it was found to be last.
    pub fn state(&self) -> Option<ChannelState> {
        self.lock().map(|look| look.state)
    }

    /// From now on it is judged by this.
    pub fn go_by(&self, rules: ChannelRules) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).0 = rules;
    }

    /// What the log says of it.
    pub fn log_says(&self, facts: ChannelFacts) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).1 = facts;
    }

    /// No event came for so long that the log is to be asked whether calls are made.
    pub fn is_silent(&self, now: UnixMillis) -> bool {
        self.evidence(true, now).is_silent()
    }

    fn evidence(&self, is_enabled: bool, now: UnixMillis) -> ChannelEvidence {
        let (rules, facts) = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        ChannelEvidence {
            is_enabled,
            is_pull: rules.is_pull,
            has_webhook_url: facts.has_webhook_url,
            last_event_at: self.last_event_at(),
            calls: facts.loss.rows,
            calls_without_event: facts.loss.without_event,
            newest_row_at: facts.loss.newest_second.map(|second| UnixMillis::new(second.saturating_mul(1000))),
            out_of_reach_since: facts.out_of_reach_since,
            stale_after: rules.stale_after,
            stale_loss: rules.stale_loss,
            was: self.state(),
            now,
        }
    }

    /// Judges anew; a change is logged once.
    pub fn judge(&self, is_enabled: bool, now: UnixMillis) -> ChannelLook {
        // A word from a clock that was ahead is no younger than this look.
        if self.last_event_at().is_some_and(|last| last > now) {
            self.event_arrived(now);
        }
        let state = ChannelState::judge(&self.evidence(is_enabled, now));
        let mut known = self.lock();
        let before = *known;
        let look = before.filter(|look| look.state == state).unwrap_or(ChannelLook { state, since: now });
        *known = Some(look);
        if before != Some(look) {
            metrics::channel_is(state);
            let before = before.map_or("unknown", |look| look.state.as_str());
            tracing::info!(before, state = state.as_str(), "the event channel changed its state");
        }
        look
    }

    fn lock(&self) -> MutexGuard<'_, Option<ChannelLook>> {
        self.look.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Remembers when the last event came and what the channel is since when; `domain::channel` judges.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::channel::ChannelState;
use crate::domain::time::UnixMillis;
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

    /// Judges anew; a change is logged once.
    pub fn judge(&self, is_enabled: bool, now: UnixMillis) -> ChannelLook {
        // A word from a clock that was ahead is no younger than this look.
        if self.last_event_at().is_some_and(|last| last > now) {
            self.event_arrived(now);
        }
        let state = ChannelState::judge(is_enabled, self.last_event_at(), now);
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

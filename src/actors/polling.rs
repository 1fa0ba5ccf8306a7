//! When new-api is probed and its log is read: by the state of the event channel, the settings and the clock.
//!
//! How it is read is `crate::polling`; this part of the Scheduler decides that it is, and tells what was found.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::channel::ChannelRules;
use super::observed::Observed;
use super::source_conditions::{Asked, SourceConditions};
use super::sync_desk::SyncDesk;
use crate::clock::SharedClock;
use crate::config::{Live, PollingMode, Settings};
use crate::domain::channel::ChannelState;
use crate::domain::money::QuotaPerUnit;
use crate::domain::time::UnixMillis;
use crate::gateway::{Gateway, StatedQuota};
use crate::polling::{ChannelFacts, Eagerness, LastHour, LogTurn, Pass, PassError, Report, Source, probe};
use crate::storage::prices::QuotaChange;
use crate::storage::{LogStore, Store, StoreError};
use crate::telemetry::metrics;

/// The figures of what was covered lately are compared again so often.
const RECHECK_EVERY: Duration = Duration::from_secs(86_400);

/// What is known of the gateway, for whoever tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLook {
    /// `newapi.source`
    pub name: String,
    /// Its log is read.
    pub is_read: bool,
    pub version: Option<String>,
    pub quota_per_unit: Option<i64>,
    pub clock_ahead_secs: Option<i64>,
    pub out_of_reach_since: Option<UnixMillis>,
}

/// Everything that reading the log needs. It outlives every Scheduler.
#[derive(Clone)]
pub struct Polling {
    pub store: Arc<dyn Store>,
    pub clock: SharedClock,
    pub live: Live<Settings>,
    pub observed: Arc<Observed>,
    pub source: Source,
    /// Whoever reads the log has it: a pass for all of it, a sync for a piece.
    pub(super) turn: Arc<LogTurn>,
    pub syncs: Arc<SyncDesk>,
    conditions: Arc<SourceConditions>,
    times: Arc<Mutex<Times>>,
    last_hour: Arc<LastHour>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Times {
    probed_at: Option<UnixMillis>,
    passed_at: Option<UnixMillis>,
    rechecked_at: Option<UnixMillis>,
    /// What the channel was at the last look whether a pass is due.
    state: Option<ChannelState>,
    /// Something waits for what only a pass can tell.
    is_awaited: bool,
}

impl Polling {
    pub fn new(store: Arc<dyn Store>, clock: SharedClock, live: Live<Settings>, observed: Arc<Observed>) -> Self {
        let source = Source::new(live.clone());
        let conditions = Arc::new(SourceConditions::new(observed.clone()));
        let (turn, syncs, times, last_hour) = Default::default();
        Polling { store, clock, live, observed, source, turn, syncs, conditions, times, last_hour }
    }

    /// For one life of the Scheduler. Whoever reads the log for an earlier one may keep its turn, and its look at the last
    /// hour, for ever, but commits nothing any more.
    pub fn for_life(&self, store: Arc<dyn Store>) -> Self {
        self.syncs.interrupt();
        Polling { store, turn: Arc::default(), last_hour: Arc::default(), ..self.clone() }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a gateway is configured and its log is to be read.
    fn is_on(&self) -> bool {
        let settings = self.live.get();
        settings.newapi.access.is_some() && settings.polling.mode != PollingMode::Off
    }

    /// The operator's part in judging the channel.
    pub fn rules(&self) -> ChannelRules {
        let settings = self.live.get();
        ChannelRules {
            is_pull: self.is_on() && settings.polling.mode == PollingMode::Pull,
            stale_after: settings.polling.stale_after,
            stale_loss: settings.polling.stale_loss,
        }
    }

    /// Looks at new-api itself, if it is time. What its version and options say is remembered.
    pub async fn probe_if_due(&self) {
        let now = self.clock.now();
        let every = self.live.get().polling.probe_interval;
        if !self.is_on() || !is_due(self.times().probed_at, every, now) {
            return;
        }
        self.times().probed_at = Some(now);
        let gateway = match self.source.gateway() {
            Ok(Some(gateway)) => gateway,
            Ok(None) => return,
            Err(error) => return tracing::error!(%error, "new-api cannot be asked"),
        };
        let found = probe(&self.source, &gateway, self.store.as_ref(), || self.clock.now()).await;
        self.conditions.probed(found, self.clock.now());
        self.tell_channel().await;
    }

    /// Reads the log, if it is time.
    pub async fn pass_if_due(&self) {
        let now = self.clock.now();
        let state = self.observed.channel.state();
        if !self.is_on() {
            return self.rest();
        }
        let is_due = self.is_pass_due(state, now);
        {
            let mut times = self.times();
            times.state = state;
            if !is_due {
                return;
            }
            times.passed_at = Some(now);
        }
        let gateway = match self.source.gateway() {
            Ok(Some(gateway)) => gateway,
            // The probe tells why.
            Ok(None) | Err(_) => return,
        };
        self.pass(gateway, state, now).await;
    }

    fn is_pass_due(&self, state: Option<ChannelState>, now: UnixMillis) -> bool {
        let times = *self.times();
        let polling = &self.live.get().polling;
        let turned = state.is_some_and(ChannelState::needs_polling) && times.state != state;
        let every = match state {
            Some(ChannelState::Pull) => polling.pull_interval,
            Some(state) if state.needs_polling() => match &polling.cron {
                Some(cron) => return turned || cron.is_due(times.passed_at, now),
                None => polling.interval,
            },
            // Only its rows tell silence from loss.
            _ if self.observed.channel.is_silent(now) => polling.stale_after.min(polling.sweep_interval),
            // A call that waits for its row is not to wait for the next sweep.
            _ if times.is_awaited => polling.interval.min(polling.sweep_interval),
            _ => polling.sweep_interval,
        };
        turned || is_due(times.passed_at, every, now)
    }

    async fn pass(&self, gateway: Arc<dyn Gateway>, state: Option<ChannelState>, now: UnixMillis) {
        let settings = self.live.get();
        let is_silent = self.observed.channel.is_silent(now);
        let eagerness = match state {
            Some(ChannelState::Healthy | ChannelState::Idle) | None if !is_silent => Eagerness::Sweep,
            _ => Eagerness::ReadAll,
        };
        let mut pass = self.new_pass(gateway);
        let _turn = self.turn.take().await;
        let started = Instant::now();
        let mut done = pass.run(eagerness).await;
        // Rows that nobody can read hold up nothing else.
        let is_through = matches!(done, Ok(()) | Err(PassError::Unreadable { .. }));
        if is_through && is_due(self.times().rechecked_at, RECHECK_EVERY, now) {
            // At the first pass of a process nothing older is there to be compared.
            let is_first = self.times().rechecked_at.is_none();
            self.times().rechecked_at = Some(now);
            if !is_first || settings.polling.recheck >= settings.polling.lookback {
                done = pass.recheck().await;
            }
        }
        let (outcome, took) = (if done.is_ok() { "done" } else { "failed" }, started.elapsed());
        self.tell_pass(&pass.report, done).await;
        // Whoever sees it counted sees what it found.
        metrics::pass_ended(outcome, took);
    }

    pub(super) fn new_pass(&self, gateway: Arc<dyn Gateway>) -> Pass {
        let settings = self.live.get();
        Pass {
            gateway,
            store: self.store.clone(),
            source: self.source.clone(),
            clock: self.clock.clone(),
            settings: settings.polling.clone(),
            key_grace_secs: i64::try_from(settings.ledger.key_grace.as_secs()).unwrap_or(i64::MAX),
            report: Report::default(),
        }
    }

    pub(super) async fn tell_pass(&self, report: &Report, done: Result<(), PassError>) {
        let now = self.clock.now();
        if let Some(coverage) = report.coverage {
            metrics::coverage_is(coverage.covered_until, coverage.read_until);
        }
        let failed_before = self.observed.reading().last_failure.map(|(_, why)| why);
        self.observed.passed(report.coverage, done.as_ref().map(|()| now).map_err(|error| (now, error.to_string())));
        let tally = report.tally;
        if tally.changed() > 0 || report.disputed > 0 || report.refunded > 0 {
            tracing::info!(
                rows = tally.read(),
                charged = tally.charged,
                tied = tally.tied,
                parked = tally.parked,
                waiting = tally.waiting,
                disputed = report.disputed,
                refunded = report.refunded,
                credits_given_back = report.credits_given_back,
                refunds_open = report.refunds_open,
                failed = tally.failed,
                "new-api's log was read"
            );
        }
        self.conditions.passed(report, now);
        match done {
            Ok(()) => {
                self.source.answered(true, now);
                self.conditions.failed(Asked::Log, None, now);
            }
            Err(PassError::AnotherGateway(why)) => self.conditions.changed(why, now),
            Err(error @ PassError::Unreadable { .. }) => {
                self.source.answered(true, now);
                self.conditions.failed(Asked::Log, None, now);
                // They are met at each pass.
                if failed_before != Some(error.to_string()) {
                    tracing::warn!(%error, "rows of new-api's log are left out: look at them in new-api's database");
                }
            }
            Err(error) => {
                let gateway = error.gateway();
                if gateway.is_some() {
                    self.source.answered(false, now);
                }
                tracing::warn!(%error, "new-api's log was not read to its end; the next pass goes on there");
                let failure = gateway.map(|gateway| (gateway.condition(), gateway.to_string()));
                if failure.is_some() {
                    self.conditions.failed(Asked::Log, failure, now);
                }
            }
        }
        self.tell_channel().await;
    }

    async fn tell_channel(&self) {
        let now = self.clock.now();
        let store: &dyn LogStore = self.store.as_ref();
        // What is younger than what is covered may still become disputed, or find its partner.
        let until = self.observed.reading().coverage.map_or(now.as_secs(), |coverage| coverage.covered_until);
        let looked = async {
            let is_awaited =
                !store.tokens_with_waiting_sides(None, 1).await?.is_empty() || !store.woken_rows(1).await?.is_empty();
            let hour = self.last_hour.look(store, self.source.source_filter(), now, until).await?;
            Ok::<_, StoreError>((hour, is_awaited))
        };
        match looked.await {
            Ok(((loss, agreement), is_awaited)) => {
                self.times().is_awaited = is_awaited;
                let facts = ChannelFacts::of(&self.source, loss);
                self.conditions.compared(facts, agreement, self.rules().is_pull, now);
                self.observed.channel.log_says(facts);
            }
            Err(error) => tracing::warn!(%error, "how many events were lost could not be counted"),
        }
        self.conditions.price_differences(store.noticed().price_differences(), now);
        metrics::moved(store.noticed().take_moved());
    }

    /// The books price by another quota per unit of new-api's from this second on.
    pub fn quota_changed(&self, before: QuotaPerUnit, after: QuotaPerUnit, from_second: i64) {
        let memory = self.source.memory();
        if matches!(memory.quota_per_unit, Some(StatedQuota::Stated(_))) {
            self.conditions.quota_changed((before, after), from_second, self.clock.now());
        }
    }

    /// What is known of its changes of the quota per unit.
    pub fn quota_changes(&self, changes: &[QuotaChange]) {
        self.conditions.quota_changes(changes, self.clock.now());
    }

    /// Nothing where no gateway is configured.
    pub fn look(&self) -> Option<SourceLook> {
        let settings = self.live.get();
        settings.newapi.access.as_ref()?;
        let memory = self.source.memory();
        let gateway = memory.gateway;
        Some(SourceLook {
            name: settings.newapi.source.clone(),
            is_read: settings.polling.mode != PollingMode::Off,
            version: gateway.as_ref().map(|gateway| gateway.version.clone()).filter(|version| !version.is_empty()),
            quota_per_unit: match memory.quota_per_unit {
                Some(StatedQuota::Stated(quota)) => Some(quota.get()),
                _ => None,
            },
            clock_ahead_secs: memory.clock_ahead_secs,
            out_of_reach_since: memory.out_of_reach_since,
        })
    }

    /// Nobody reads the log: no alert is to wait for it.
    fn rest(&self) {
        if self.observed.reading_rests() {
            metrics::coverage_rests();
        }
    }
}

/// Never begun, or so long ago; a clock that was set back stops nothing.
fn is_due(last: Option<UnixMillis>, every: Duration, now: UnixMillis) -> bool {
    last.is_none_or(|last| now < last || now.since(last) >= every)
}

//! When new-api is probed and its log is read: by the state of the event channel, the settings and the clock.
//!
//! How it is read is `crate::polling`; this part of the Scheduler decides that it is, and tells what was found.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::channel::ChannelRules;
use super::conditions::Condition;
use super::observed::Observed;
use crate::clock::SharedClock;
use crate::config::{Live, PollingMode, Settings};
use crate::domain::channel::ChannelState;
use crate::domain::time::UnixMillis;
use crate::gateway::Gateway;
use crate::polling::{ChannelFacts, Eagerness, Pass, PassError, Report, Source, probe};
use crate::storage::{LogStore, Store};
use crate::telemetry::metrics;

/// The figures of what was covered lately are compared again so often.
const RECHECK_EVERY: Duration = Duration::from_secs(86_400);

/// Everything that reading the log needs. It outlives every Scheduler.
#[derive(Clone)]
pub struct Polling {
    pub store: Arc<dyn Store>,
    pub clock: SharedClock,
    pub live: Live<Settings>,
    pub observed: Arc<Observed>,
    pub source: Source,
    times: Arc<Mutex<Times>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Times {
    probed_at: Option<UnixMillis>,
    passed_at: Option<UnixMillis>,
    rechecked_at: Option<UnixMillis>,
    /// What the channel was at the last look whether a pass is due.
    state: Option<ChannelState>,
}

impl Polling {
    pub fn new(store: Arc<dyn Store>, clock: SharedClock, live: Live<Settings>, observed: Arc<Observed>) -> Self {
        let source = Source::new(live.clone());
        Polling { store, clock, live, observed, source, times: Arc::default() }
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
        let found = probe(&self.source, gateway.as_ref(), || self.clock.now()).await;
        let now = self.clock.now();
        self.set(Condition::LoggingOff, found.logging_off, now);
        self.set(Condition::ClockSkew, found.clock_skew, now);
        self.tell_failure(found.failure, now);
        self.tell_channel().await;
    }

    /// Reads the log, if it is time.
    pub async fn pass_if_due(&self) {
        let now = self.clock.now();
        let state = self.observed.channel.state();
        if !self.is_on() {
            return;
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
        let mut pass = Pass {
            gateway,
            store: self.store.clone(),
            source: self.source.clone(),
            clock: self.clock.clone(),
            settings: settings.polling.clone(),
            key_grace_secs: i64::try_from(settings.ledger.key_grace.as_secs()).unwrap_or(i64::MAX),
            report: Report::default(),
        };
        let started = Instant::now();
        let mut done = pass.run(eagerness).await;
        if done.is_ok() && is_due(self.times().rechecked_at, RECHECK_EVERY, now) {
            // At the first pass of a process nothing older is there to be compared.
            let is_first = self.times().rechecked_at.is_none();
            self.times().rechecked_at = Some(now);
            if !is_first || settings.polling.recheck >= settings.polling.lookback {
                done = pass.recheck().await;
            }
        }
        metrics::pass_ended(if done.is_ok() { "done" } else { "failed" }, started.elapsed());
        self.tell_pass(&pass.report, done).await;
    }

    async fn tell_pass(&self, report: &Report, done: Result<(), PassError>) {
        let now = self.clock.now();
        if let Some(coverage) = report.coverage {
            metrics::coverage_is(coverage.covered_until, coverage.read_until);
            self.observed.covered(coverage);
        }
        let tally = report.tally;
        if tally.changed() > 0 || report.disputed > 0 {
            tracing::info!(
                rows = tally.read(),
                charged = tally.charged,
                tied = tally.tied,
                parked = tally.parked,
                waiting = tally.waiting,
                disputed = report.disputed,
                failed = tally.failed,
                "new-api's log was read"
            );
        }
        let made_up = report.ids_made_up.then(|| {
            "the log's row ids are made up for each answer (a ClickHouse store): they are not used, and nothing is lost \
             by it"
                .to_owned()
        });
        self.set(Condition::IdsUnstable, made_up, now);
        match done {
            Ok(()) => {
                self.source.answered(true, now);
                self.tell_failure(None, now);
            }
            Err(error) => {
                let gateway = error.gateway();
                if gateway.is_some() {
                    self.source.answered(false, now);
                }
                tracing::warn!(%error, "new-api's log was not read to its end; the next pass goes on there");
                let failure = gateway.map(|gateway| (gateway.condition(), gateway.to_string()));
                if failure.is_some() {
                    self.tell_failure(failure, now);
                }
            }
        }
        self.tell_channel().await;
    }

    /// Conditions that say why new-api does not answer; at most one of them holds.
    fn tell_failure(&self, failure: Option<(Option<&'static str>, String)>, now: UnixMillis) {
        if let Some((None, reason)) = &failure {
            tracing::warn!(%reason, "new-api could not be looked at");
        }
        for condition in [Condition::TokenRefused, Condition::NotNewApi, Condition::FilterIgnored] {
            let sentence = match &failure {
                Some((Some(name), sentence)) if *name == condition.as_str() => Some(sentence.clone()),
                _ => None,
            };
            self.set(condition, sentence, now);
        }
    }

    async fn tell_channel(&self) {
        let now = self.clock.now();
        let store: &dyn LogStore = self.store.as_ref();
        match ChannelFacts::look(&self.source, store, now).await {
            Ok(facts) => {
                let lost = facts.loss.without_event;
                let sentence = (lost > 0 && !self.rules().is_pull).then(|| {
                    format!(
                        "{lost} of the last hour's {} calls came without their event: the log told of them",
                        facts.loss.rows
                    )
                });
                self.set(Condition::EventsMissing, sentence, now);
                self.observed.channel.log_says(facts);
            }
            Err(error) => tracing::warn!(%error, "how many events were lost could not be counted"),
        }
    }

    fn set(&self, condition: Condition, sentence: Option<String>, now: UnixMillis) {
        self.observed.conditions.set(condition, sentence, now);
    }
}

/// Never begun, or so long ago; a clock that was set back stops nothing.
fn is_due(last: Option<UnixMillis>, every: Duration, now: UnixMillis) -> bool {
    last.is_none_or(|last| now < last || now.since(last) >= every)
}

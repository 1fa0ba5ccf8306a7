//! The Scheduler: on every wake-up it begins what is due. What a step does lies with its owner.
//!
//! tokio-cron-scheduler sends the wake-ups and nothing else: it may drop, double or stop them, so a timer of the
//! actor's own wakes it as well, and only `steps` decides.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

use super::Directory;
use super::conditions::Condition;
use super::guard::{Guard, Look};
use super::ledger::SettleWaiting;
use super::limits::Limits;
use super::logger::CountInbox;
use super::observed::Observed;
use super::polling::Polling;
use super::progress::Wait;
use super::retaining::{self, Cleared};
use super::steps::{Step, StepTimes, Turn};
use crate::clock::SharedClock;
use crate::config::{Live, Settings};
use crate::failpoint;
use crate::gateway::StatedQuota;
use crate::polling::SourceMemory;
use crate::storage::books::BooksError;
use crate::storage::prices::QuotaChange;
use crate::storage::{ConfiguredPrices, HeardQuota, PriceLook, Store, StoreError, Waiting};
use crate::telemetry::metrics::{self, Metrics};

/// Look what is due. Carries nothing.
#[derive(Message)]
#[rtype(result = "()")]
pub struct WakeUp;

/// Every second, for a scheduler of six fields.
const EVERY_SECOND: &str = "* * * * * *";

/// The net below the cron job.
const OWN_TIMER: Duration = Duration::from_secs(2);

/// What the Scheduler is made of.
#[derive(Clone)]
pub struct SchedulerParts {
    pub store: Arc<dyn Store>,
    pub directory: Arc<Directory>,
    pub clock: SharedClock,
    pub limits: Arc<Limits>,
    pub metrics: Metrics,
    pub live: Live<Settings>,
    pub times: Arc<StepTimes>,
    pub observed: Arc<Observed>,
    pub polling: Polling,
}

pub struct Scheduler {
    parts: SchedulerParts,
    turn: Turn,
    guard: Guard,
}

impl Scheduler {
    pub fn new(mut parts: SchedulerParts, guard: Guard) -> Self {
        parts.store = parts.store.fenced(guard.fence());
        parts.polling = parts.polling.for_life(parts.store.clone());
        let turn = parts.times.take_over();
        Scheduler { parts, turn, guard }
    }

    fn finish(&self, step: Step) {
        self.parts.times.finish(self.turn, step);
    }

    fn wake(&mut self, context: &mut Context<Self>) {
        if !self.guard.goes_on(context) {
            return;
        }
        if let Err(fault) = failpoint::hit("scheduler.wake") {
            return self.guard.end(fault.into(), context);
        }
        let now = self.parts.clock.now();
        self.parts.observed.channel.go_by(self.parts.polling.rules());
        self.parts.observed.channel.judge(self.parts.live.get().webhook.enabled, now);
        for step in Step::ALL {
            if self.parts.times.begin_if_due(self.turn, step, now) {
                self.begin(step, context);
            }
        }
    }

    fn begin(&mut self, step: Step, context: &mut Context<Self>) {
        match step {
            // A full or dead mailbox needs no care: the step comes again.
            Step::SettleDue => drop(self.parts.directory.ledger.try_send(SettleWaiting(Waiting::Due))),
            Step::CountInbox => drop(self.parts.directory.logger.try_send(CountInbox)),
            Step::LookAtTokens => return self.look_at_tokens(context),
            Step::LookAtPrices => return self.look_at_prices(context),
            Step::LookForOthers => return self.look_for_others(context),
            Step::Retain => return self.retain(context),
            Step::MeasureDisk => return self.measure_disk(context),
            Step::Upkeep => return self.upkeep(context),
            Step::LookWhetherApart => return self.look_whether_apart(context),
            Step::Probe => return self.probe(context),
            Step::Poll => return self.poll(context),
            Step::Sync => return self.sync(context),
        }
        self.finish(step);
    }

    fn look_at_tokens(&mut self, context: &mut Context<Self>) {
        let store = self.parts.store.clone();
        let work = async move { store.look_at_tokens().await };
        let done = self.guard.watch(Wait::Database, work).into_actor(self).map(|look, scheduler, _| {
            scheduler.finish(Step::LookAtTokens);
            if let Err(error) = look {
                tracing::warn!(%error, "tokens without a key could not be looked at; the next minute will do");
            }
            scheduler.parts.directory.ledger.try_send(SettleWaiting(Waiting::Woken)).ok();
        });
        context.spawn(done);
    }

    fn retain(&mut self, context: &mut Context<Self>) {
        let (store, live, now) = (self.parts.store.clone(), self.parts.live.clone(), self.parts.clock.now());
        let work = async move { retaining::retain(store.as_ref(), &|| live.get().retention.policy, now).await };
        let done = self.guard.watch(Wait::Database, work).into_actor(self).map(|cleared, scheduler, _| {
            scheduler.finish(Step::Retain);
            match cleared {
                Ok(cleared) if cleared == Cleared::default() => {}
                Ok(Cleared { processed, dead, claims, foreign_records, log_rows }) => {
                    tracing::info!(processed, dead, claims, foreign_records, log_rows, "old rows were cleared")
                }
                Err(error) => tracing::warn!(%error, "old rows could not be cleared; the next run goes on"),
            }
        });
        context.spawn(done);
    }

    fn look_at_prices(&mut self, context: &mut Context<Self>) {
        let (store, settings) = (self.parts.store.clone(), self.parts.live.get());
        let configured = configured_prices(&settings, Some(&self.parts.polling.source.memory()));
        let work = async move {
            let look = store.look_at_prices(configured).await?;
            let changes = match look.has_holds {
                true => store.prices().await.map(|prices| prices.quota_changes).map_err(storage_error)?,
                false => Vec::new(),
            };
            Ok((look, changes))
        };
        let done = self.guard.watch(Wait::Database, work).into_actor(self).map(|look, scheduler, _| {
            scheduler.finish(Step::LookAtPrices);
            scheduler.tell_prices(look);
        });
        context.spawn(done);
    }

    fn tell_prices(&mut self, look: Result<(PriceLook, Vec<QuotaChange>), StoreError>) {
        let (look, changes) = match look {
            Ok(found) => found,
            Err(error) => return tracing::warn!(%error, "the rate could not be looked at; the last one holds"),
        };
        if let Some(from_second) = look.changed_from_second {
            tracing::info!(from_second, "a new rate or quota per dollar counts from this second on");
            if let Some((before, after)) = look.quota_change.filter(|_| !look.has_holds) {
                self.parts.polling.quota_changed(before, after, from_second);
            }
        }
        self.parts.polling.quota_changes(&changes);
        let sentence = look.invalid_rate.map(|value| {
            format!(
                "options.UsdToCreditsRate is {value:?}, which is no decimal above 0 with at most six places: the last \
                 good rate holds"
            )
        });
        self.parts.observed.conditions.set(Condition::RateInvalid, sentence, self.parts.clock.now());
    }

    fn look_for_others(&mut self, context: &mut Context<Self>) {
        let store = self.parts.store.clone();
        let work = async move { store.look_for_others().await };
        let done = self.guard.watch(Wait::Database, work).into_actor(self).map(|look, scheduler, _| {
            scheduler.finish(Step::LookForOthers);
            let (observed, now) = (&scheduler.parts.observed, scheduler.parts.clock.now());
            match look {
                Ok(taken_over) => observed.taken_over(taken_over, now),
                Err(error) => {
                    tracing::warn!(%error, "what others have billed could not be looked at; tried again soon")
                }
            }
        });
        context.spawn(done);
    }

    fn look_whether_apart(&mut self, context: &mut Context<Self>) {
        let store = self.parts.store.clone();
        let work = async move { store.look_whether_apart().await };
        let done = self.guard.watch(Wait::Database, work).into_actor(self).map(|look, scheduler, _| {
            scheduler.finish(Step::LookWhetherApart);
            match look {
                Ok(apart) => scheduler.parts.observed.looked_whether_apart(apart.as_ref(), scheduler.parts.clock.now()),
                Err(error) => {
                    tracing::warn!(%error, "whether the schemas belong together could not be looked at; the next hour will do");
                }
            }
        });
        context.spawn(done);
    }

    fn probe(&mut self, context: &mut Context<Self>) {
        let polling = self.parts.polling.clone();
        let work = async move { polling.probe_if_due().await };
        let done = self
            .guard
            .watch(Wait::Gateway, work)
            .into_actor(self)
            .map(|(), scheduler, _| scheduler.finish(Step::Probe));
        context.spawn(done);
    }

    fn poll(&mut self, context: &mut Context<Self>) {
        let polling = self.parts.polling.clone();
        let work = async move { polling.pass_if_due().await };
        let done =
            self.guard.watch(Wait::Gateway, work).into_actor(self).map(|(), scheduler, _| scheduler.finish(Step::Poll));
        context.spawn(done);
    }

    fn sync(&mut self, context: &mut Context<Self>) {
        let polling = self.parts.polling.clone();
        let work = async move { polling.sync_if_asked().await };
        let done =
            self.guard.watch(Wait::Gateway, work).into_actor(self).map(|(), scheduler, _| scheduler.finish(Step::Sync));
        context.spawn(done);
    }

    fn measure_disk(&mut self, context: &mut Context<Self>) {
        let store = self.parts.store.clone();
        let work = async move { store.disk_usage().await };
        let done = self.guard.watch(Wait::Database, work).into_actor(self).map(|usage, scheduler, _| {
            scheduler.finish(Step::MeasureDisk);
            match usage {
                Ok(usage) => metrics::disk_measured(usage),
                Err(error) => tracing::warn!(%error, "the database's disk could not be measured; its gauges are old"),
            }
        });
        context.spawn(done);
    }

    fn upkeep(&mut self, context: &mut Context<Self>) {
        let SchedulerParts { directory, limits, metrics, store, .. } = self.parts.clone();
        limits.tidy();
        metrics::rate_limit_sources(limits.sources());
        metrics.upkeep();
        directory.receiver.report();
        directory.logger.report();
        directory.ledger.report();
        directory.scheduler.report();
        let work = async move { if store.is_writable() { Ok(()) } else { store.probe().await } };
        let done = self.guard.watch(Wait::Database, work).into_actor(self).map(|result, scheduler, _| {
            scheduler.finish(Step::Upkeep);
            if let Err(error) = &result {
                tracing::warn!(%error, "the database does not take writes; tried again in two seconds");
            }
            scheduler.parts.observed.database_tried(result.err().map(|error| error.to_string()));
        });
        context.spawn(done);
    }
}

/// What the operator configured, and what new-api said of its quota per unit, if it was heard; the store dates what
/// changed. Where a gateway is configured and was not heard yet, what the books hold stays.
pub fn configured_prices(settings: &Settings, source: Option<&SourceMemory>) -> ConfiguredPrices {
    let is_alone = settings.newapi.access.is_none();
    let configured = settings.ledger.quota_per_unit;
    let (quota_per_unit, keeps_quota) = match source.and_then(|source| source.quota_per_unit.as_ref()) {
        Some(StatedQuota::Stated(quota)) => (*quota, false),
        Some(StatedQuota::Absent) => (configured, false),
        Some(StatedQuota::Unusable(_)) | None => (configured, !is_alone),
    };
    let is_stated = |source: &&SourceMemory| matches!(source.quota_per_unit, Some(StatedQuota::Stated(_)));
    let heard = source
        .filter(is_stated)
        .and_then(|source| Some(HeardQuota { at: source.quota_heard_at?, former_at: source.former_quota_heard_at }));
    ConfiguredPrices { usd_to_credits: settings.ledger.usd_to_credits, quota_per_unit, keeps_quota, heard }
}

fn storage_error(error: BooksError) -> StoreError {
    match error {
        BooksError::Store(error) => error,
        other => StoreError::Unavailable(other.to_string()),
    }
}

impl Actor for Scheduler {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.wake(context);
        context.run_interval(OWN_TIMER, |scheduler, context| scheduler.wake(context));
    }
}

impl Handler<WakeUp> for Scheduler {
    type Result = ();

    fn handle(&mut self, _: WakeUp, context: &mut Self::Context) {
        self.parts.directory.scheduler.taken();
        self.wake(context);
    }
}

impl Handler<Look> for Scheduler {
    type Result = ();

    fn handle(&mut self, _: Look, context: &mut Self::Context) {
        self.parts.directory.scheduler.taken();
        // What is due is looked at on a wake-up, which came out of the same mailbox.
        self.guard.goes_on(context);
    }
}

/// Starts the cron job that wakes whichever Scheduler lives at the time.
pub async fn start_cron(directory: Arc<Directory>) -> Result<JobScheduler, JobSchedulerError> {
    let cron = JobScheduler::new().await?;
    let job = Job::new(EVERY_SECOND, move |_, _| {
        // Down or full: the next second's wake-up is as good.
        directory.scheduler.try_send(WakeUp).ok();
    })?;
    cron.add(job).await?;
    cron.start().await?;
    Ok(cron)
}

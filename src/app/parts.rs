//! What the running daemon is made of: one value for each actor and for the handlers, tied to their mailboxes.
//!
//! What they do is theirs; in which order they start is `app`'s.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use actix_web::web;
use tokio::sync::Semaphore;

use super::descriptors;
use crate::actors::ledger::{Ledger, LedgerParts};
use crate::actors::limits::Limits;
use crate::actors::logger::{Logger, LoggerParts};
use crate::actors::observed::Observed;
use crate::actors::polling::Polling;
use crate::actors::progress::Progress;
use crate::actors::receiver::{Receiver, ReceiverParts};
use crate::actors::scheduler::{Scheduler, SchedulerParts};
use crate::actors::steps::StepTimes;
use crate::actors::supervisor::{ChildSpec, GiveUp, Supervisor, Told, child};
use crate::actors::{ActorName, Directory};
use crate::clock::SharedClock;
use crate::config::{Live, Settings};
use crate::http::admin::AdminState;
use crate::http::connection::Places;
use crate::http::policy::RequestPolicy;
use crate::http::server::HttpState;
use crate::storage::Store;
use crate::telemetry::metrics::Metrics;

/// Everything that the actors and handlers are made of.
pub(super) struct Parts {
    pub(super) store: Arc<dyn Store>,
    pub(super) directory: Arc<Directory>,
    pub(super) clock: SharedClock,
    pub(super) limits: Arc<Limits>,
    /// What requests are held against.
    pub(super) policy: Live<RequestPolicy>,
    pub(super) observed: Arc<Observed>,
    /// Whether every actor gets on.
    pub(super) progress: Arc<Progress>,
    ledger: LedgerParts,
    logger: LoggerParts,
    receiver: ReceiverParts,
    scheduler: SchedulerParts,
}

impl Parts {
    pub(super) fn new(live: &Live<Settings>, clock: SharedClock, store: Arc<dyn Store>, metrics: Metrics) -> Self {
        let settings = live.get();
        let directory = Arc::new(Directory::new(settings.server.max_in_flight));
        let limits = Arc::new(Limits::new(&settings.rate_limit));
        let observed = Arc::new(Observed::default());
        Parts {
            ledger: LedgerParts {
                store: store.clone(),
                directory: directory.clone(),
                clock: clock.clone(),
                live: live.clone(),
            },
            logger: LoggerParts {
                store: store.clone(),
                directory: directory.clone(),
                clock: clock.clone(),
                live: live.clone(),
                observed: observed.clone(),
            },
            receiver: ReceiverParts {
                directory: directory.clone(),
                clock: clock.clone(),
                limits: limits.clone(),
                observed: observed.clone(),
            },
            scheduler: SchedulerParts {
                store: store.clone(),
                directory: directory.clone(),
                clock: clock.clone(),
                limits: limits.clone(),
                metrics,
                live: live.clone(),
                times: Arc::new(StepTimes::default()),
                observed: observed.clone(),
                polling: Polling::new(store.clone(), clock.clone(), live.clone(), observed.clone()),
            },
            policy: Live::new(RequestPolicy::new(&settings)),
            progress: Arc::new(Progress::new(settings.supervisor.hang_timeout, store.pulses())),
            observed,
            limits,
            store,
            directory,
            clock,
        }
    }

    pub(super) fn http_state(&self, settings: &Settings, is_stopping: Arc<AtomicBool>) -> HttpState {
        HttpState {
            directory: self.directory.clone(),
            store: self.store.clone(),
            clock: self.clock.clone(),
            webhook_path: settings.server.webhook_path.clone(),
            policy: self.policy.clone(),
            in_flight: Semaphore::new(settings.server.max_in_flight),
            is_stopping,
            places: Places::new(descriptors::make_room(settings.server.max_connections)),
        }
    }

    pub(super) fn admin_state(&self, settings: &Settings, http: web::Data<HttpState>) -> AdminState {
        AdminState {
            store: self.store.clone(),
            directory: self.directory.clone(),
            http,
            observed: self.observed.clone(),
            progress: self.progress.clone(),
            limits: self.limits.clone(),
            polling: self.scheduler.polling.clone(),
            started_at: self.clock.now(),
            database_url: settings.database.url.to_string(),
            listeners: OnceLock::new(),
        }
    }

    pub(super) fn supervisor(&self, settings: &Settings, give_up: GiveUp) -> Supervisor {
        let (observed, progress, clock) = (self.observed.clone(), self.progress.clone(), self.clock.clone());
        let told = Told { observed, progress, clock };
        Supervisor::new(settings.supervisor.clone(), self.child_specs(), give_up, told)
    }

    /// One factory an actor, in the order of their start.
    fn child_specs(&self) -> Vec<ChildSpec> {
        let (ledger, logger) = (self.ledger.clone(), self.logger.clone());
        let (receiver, scheduler) = (self.receiver.clone(), self.scheduler.clone());
        vec![
            child(
                &self.directory,
                ActorName::Logger,
                |all| &all.logger,
                move |guard| Logger::new(logger.clone(), guard),
            ),
            child(
                &self.directory,
                ActorName::Ledger,
                |all| &all.ledger,
                move |guard| Ledger::new(ledger.clone(), guard),
            ),
            child(
                &self.directory,
                ActorName::Receiver,
                |all| &all.receiver,
                move |guard| Receiver::new(receiver.clone(), guard),
            ),
            child(
                &self.directory,
                ActorName::Scheduler,
                |all| &all.scheduler,
                move |guard| Scheduler::new(scheduler.clone(), guard),
            ),
        ]
    }
}

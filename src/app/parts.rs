//! What the running daemon is made of: one value for each actor and for the handlers, tied to their mailboxes.
//!
//! What they do is theirs; in which order they start is `app`'s.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::{Actor, Context};
use tokio::sync::Semaphore;

use crate::actors::ledger::{Ledger, LedgerParts};
use crate::actors::limits::Limits;
use crate::actors::logger::{Logger, LoggerParts};
use crate::actors::mailbox::Mailbox;
use crate::actors::receiver::{Receiver, ReceiverParts};
use crate::actors::scheduler::{Scheduler, SchedulerParts};
use crate::actors::steps::StepTimes;
use crate::actors::supervisor::{ChildSpec, Guard};
use crate::actors::{ActorName, Directory};
use crate::clock::SharedClock;
use crate::config::{Live, Settings};
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
            },
            receiver: ReceiverParts { directory: directory.clone(), clock: clock.clone(), limits: limits.clone() },
            scheduler: SchedulerParts {
                store: store.clone(),
                directory: directory.clone(),
                clock: clock.clone(),
                limits: limits.clone(),
                metrics,
                live: live.clone(),
                times: Arc::new(StepTimes::default()),
            },
            policy: Live::new(RequestPolicy::new(&settings)),
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
        }
    }

    /// One factory an actor, in the order of their start.
    pub(super) fn child_specs(&self) -> Vec<ChildSpec> {
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

/// Ties an actor's factory to its mailbox.
fn child<A: Actor<Context = Context<A>> + Send>(
    directory: &Arc<Directory>,
    actor: ActorName,
    mailbox: fn(&Directory) -> &Mailbox<A>,
    make: impl Fn(Guard) -> A + Clone + Send + 'static,
) -> ChildSpec {
    let (for_start, for_withdraw) = (directory.clone(), directory.clone());
    ChildSpec {
        actor,
        start: Box::new(move |arbiter, guard| {
            let (make, mailbox) = (make.clone(), mailbox(&for_start));
            let address = A::start_in_arbiter(arbiter, move |context| {
                context.set_mailbox_capacity(1);
                make(guard)
            });
            mailbox.publish(address);
        }),
        withdraw: Box::new(move || mailbox(&for_withdraw).withdraw()),
    }
}

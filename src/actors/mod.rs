//! The five actors, how they find each other, and how their deaths are noticed.
//!
//! One file an actor, with its messages. An actor keeps nothing that would be missed: what matters is committed, or
//! waits in a caller that notices when the actor dies and takes the other road.

pub mod batching;
pub mod channel;
pub mod conditions;
pub mod guard;
pub mod ledger;
pub mod limits;
pub mod lives;
pub mod logger;
pub mod mailbox;
pub mod observed;
mod own_thread;
pub mod polling;
pub mod progress;
pub mod receiver;
pub mod retaining;
pub mod scheduler;
pub mod sentinel;
pub mod settling;
pub mod source_conditions;
pub mod steps;
pub mod supervisor;
pub mod sync_desk;
pub mod sync_document;
pub mod syncing;

use ledger::Ledger;
use logger::Logger;
use mailbox::Mailbox;
use receiver::Receiver;
use scheduler::Scheduler;

/// The actors that the Supervisor keeps alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ActorName {
    Receiver,
    Logger,
    Ledger,
    Scheduler,
    Supervisor,
}

impl ActorName {
    /// In the order of their declaration.
    pub const ALL: [ActorName; 5] =
        [ActorName::Receiver, ActorName::Logger, ActorName::Ledger, ActorName::Scheduler, ActorName::Supervisor];

    pub const SUPERVISED: [ActorName; 4] =
        [ActorName::Logger, ActorName::Ledger, ActorName::Receiver, ActorName::Scheduler];

    pub fn as_str(self) -> &'static str {
        match self {
            ActorName::Receiver => "receiver",
            ActorName::Logger => "logger",
            ActorName::Ledger => "ledger",
            ActorName::Scheduler => "scheduler",
            ActorName::Supervisor => "supervisor",
        }
    }
}

/// Where each actor is now. Looked up for every message, never kept: a replaced actor has another address.
pub struct Directory {
    pub receiver: Mailbox<Receiver>,
    pub logger: Mailbox<Logger>,
    pub ledger: Mailbox<Ledger>,
    pub scheduler: Mailbox<Scheduler>,
}

impl Directory {
    /// `capacity`: messages that may wait for each of the actors that events pass.
    pub fn new(capacity: usize) -> Self {
        /// Wake-ups carry nothing: one that waits is as good as many.
        const WAKE_UPS: usize = 16;
        Directory {
            receiver: Mailbox::new(ActorName::Receiver, capacity),
            logger: Mailbox::new(ActorName::Logger, capacity),
            ledger: Mailbox::new(ActorName::Ledger, capacity),
            scheduler: Mailbox::new(ActorName::Scheduler, WAKE_UPS),
        }
    }
}

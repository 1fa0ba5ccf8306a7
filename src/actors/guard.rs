//! What each life of an actor carries: its signs of life, the fence around its writes, and the notice of its end.

use std::sync::{Arc, Mutex, PoisonError};

use actix::{Actor, ActorContext, Context, Message};
use tokio::sync::Notify;

use super::ActorName;
use super::progress::{Pulse, Wait, Watched};
use crate::failpoint::{Injected, InjectedFault};
use crate::storage::fence::Fence;
use crate::telemetry::logs;

/// How a life of an actor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Panic,
    /// It ended itself because it could not go on.
    Error,
    /// It made no progress, and was given up.
    Hang,
    /// It stopped, and nobody had asked for it.
    Exit,
}

impl Cause {
    pub const ALL: [Cause; 4] = [Cause::Panic, Cause::Error, Cause::Hang, Cause::Exit];

    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Panic => "panic",
            Cause::Error => "error",
            Cause::Hang => "hang",
            Cause::Exit => "exit",
        }
    }
}

/// Look at your queue: by taking this out of its mailbox, behind everything that came before, an actor shows that it
/// gets on. Sent by the Supervisor at each heartbeat.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Look;

/// Why an actor ends itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It cannot go on, for this reason.
    Error(String),
    Exit,
}

impl From<InjectedFault> for Ending {
    fn from(fault: InjectedFault) -> Self {
        match fault.kind {
            Injected::Exit => Ending::Exit,
            Injected::Error | Injected::Stall => Ending::Error(fault.to_string()),
        }
    }
}

/// The end of one life of one actor.
#[derive(Debug, Clone)]
pub(super) struct Down {
    pub(super) actor: ActorName,
    pub(super) epoch: u64,
    pub(super) cause: Cause,
    /// What it said, if anything.
    pub(super) error: Option<String>,
}

/// Where ends are reported: never lost, whatever state the Supervisor is in. Holds one entry a life at most.
#[derive(Default)]
pub(super) struct Downs {
    reported: Mutex<Vec<Down>>,
    changed: Notify,
}

impl Downs {
    fn report(&self, down: Down) {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).push(down);
        self.changed.notify_one();
    }

    pub(super) fn take(&self) -> Vec<Down> {
        std::mem::take(&mut self.reported.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// A field of every supervised actor: its drop is the notice of the actor's end, also while a panic unwinds.
pub struct Guard {
    pub(super) downs: Arc<Downs>,
    pub(super) actor: ActorName,
    pub(super) fence: Fence,
    pub(super) pulse: Arc<Pulse>,
    pub(super) error: Option<String>,
}

impl Guard {
    /// Called for each message: shows that the actor gets on. False where another life has its place: then it stops.
    pub fn goes_on<A: Actor<Context = Context<A>>>(&self, context: &mut Context<A>) -> bool {
        self.pulse.beat();
        let goes_on = self.fence.is_current();
        if !goes_on {
            context.stop();
        }
        goes_on
    }

    /// Has work seen that the actor awaits.
    pub fn watch<'a, T>(&self, wait: Wait, work: impl Future<Output = T> + 'a) -> Watched<'a, T> {
        self.pulse.watch(wait, work)
    }

    /// For the store that this life writes through.
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Ends this life; the Supervisor begins the next one.
    pub fn end<A: Actor<Context = Context<A>>>(&mut self, ending: Ending, context: &mut Context<A>) {
        if let Ending::Error(error) = ending {
            self.error = Some(error);
        }
        context.stop();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (cause, error) = match self.error.take() {
            _ if std::thread::panicking() => (Cause::Panic, logs::last_panic_here()),
            Some(error) => (Cause::Error, Some(error)),
            None => (Cause::Exit, None),
        };
        self.downs.report(Down { actor: self.actor, epoch: self.fence.epoch(), cause, error });
    }
}

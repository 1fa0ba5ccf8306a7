//! The way to an actor that may be dead, full or replaced: a send is refused at once, never lost in silence.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::dev::{MessageResponse, ToEnvelope};
use actix::{Actor, Addr, Context, Handler, Message};
use arc_swap::ArcSwapOption;

use super::ActorName;
use crate::telemetry::metrics;

/// Why a message did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    #[error("too many messages wait for it")]
    Full,
    #[error("it is being restarted")]
    Down,
}

/// One actor's current address and how much waits for it.
pub struct Mailbox<A: Actor> {
    name: ActorName,
    capacity: usize,
    address: ArcSwapOption<Addr<A>>,
    depth: Arc<AtomicUsize>,
}

impl<A: Actor<Context = Context<A>>> Mailbox<A> {
    pub fn new(name: ActorName, capacity: usize) -> Self {
        Mailbox { name, capacity, address: ArcSwapOption::empty(), depth: Arc::new(AtomicUsize::new(0)) }
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Makes a fresh actor known. Nothing waits for it yet: what waited for the old one is gone.
    pub fn publish(&self, address: Addr<A>) {
        self.depth.store(0, Ordering::Relaxed);
        // One shared address: each clone of an actix address may exceed the mailbox's bound by one.
        self.address.store(Some(Arc::new(address)));
    }

    pub fn withdraw(&self) {
        self.address.store(None);
    }

    pub fn is_up(&self) -> bool {
        self.address.load().as_ref().is_some_and(|address| address.connected())
    }

    /// Sends if the actor lives and has room.
    pub fn try_send<M>(&self, message: M) -> Result<(), Unsent>
    where
        M: Message + Send + 'static,
        M::Result: MessageResponse<A, M> + Send,
        A: Handler<M>,
        A::Context: ToEnvelope<A, M>,
    {
        let guard = self.address.load();
        let address = guard.as_ref().ok_or(Unsent::Down)?;
        self.depth.fetch_add(1, Ordering::Relaxed);
        address.try_send(message).map_err(|error| {
            self.taken();
            match error {
                actix::prelude::SendError::Full(_) => Unsent::Full,
                actix::prelude::SendError::Closed(_) => Unsent::Down,
            }
        })
    }

    /// The actor took one message out.
    pub fn taken(&self) {
        // A message of a replaced actor may still be counted down: never below zero.
        self.depth.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |depth| depth.checked_sub(1)).ok();
    }

    pub fn report(&self) {
        metrics::mailbox_depth(self.name.as_str(), self.depth.load(Ordering::Relaxed));
    }
}

//! The Supervisor: starts each actor from a factory, notices its end, and replaces it with growing pauses and jitter.
//!
//! More ends than the budget allows within the window mean that replacing does not help: then the process is drained
//! and exits with 70, and its own supervisor (systemd) decides. What an actor does is none of its business.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt, Arbiter, ArbiterHandle, AsyncContext, Context, WrapFuture};
use rand::Rng;
use tokio::sync::{Notify, watch};

use super::lives::LastEnd;
use super::mailbox::Mailbox;
use super::observed::Observed;
use super::{ActorName, Directory};
use crate::clock::SharedClock;
use crate::config::SupervisorSettings;
use crate::telemetry::logs;

/// First pause before a replacement, doubled with each end in the window.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How an actor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Panic,
    /// It stopped by itself.
    Exit,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Panic => "panic",
            Cause::Exit => "exit",
        }
    }
}

/// The end of one life of one actor.
#[derive(Debug, Clone)]
struct Down {
    actor: ActorName,
    epoch: u64,
    cause: Cause,
    /// What the panic said, where it was one.
    error: Option<String>,
}

/// Where ends are reported: never lost, whatever state the Supervisor is in. Holds one entry a life at most.
#[derive(Default)]
struct Downs {
    reported: Mutex<Vec<Down>>,
    changed: Notify,
}

impl Downs {
    fn report(&self, down: Down) {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner).push(down);
        self.changed.notify_one();
    }

    fn take(&self) -> Vec<Down> {
        std::mem::take(&mut self.reported.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A field of every supervised actor: its drop is the notice of the actor's end, also while a panic unwinds.
pub struct Guard {
    downs: Arc<Downs>,
    actor: ActorName,
    epoch: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let is_panic = std::thread::panicking();
        let cause = if is_panic { Cause::Panic } else { Cause::Exit };
        let error = is_panic.then(logs::last_panic_here).flatten();
        self.downs.report(Down { actor: self.actor, epoch: self.epoch, cause, error });
    }
}

/// Starts one life of an actor on the given thread and makes its address known.
pub type Factory = Box<dyn Fn(&ArbiterHandle, Guard)>;

struct Child {
    actor: ActorName,
    arbiter: Arbiter,
    start: Factory,
    withdraw: Box<dyn Fn()>,
    epoch: u64,
}

/// What the Supervisor is given for each actor.
pub struct ChildSpec {
    pub actor: ActorName,
    pub start: Factory,
    /// Makes the dead actor's address unknown.
    pub withdraw: Box<dyn Fn()>,
}

/// Called when the budget is used up (with the reason), and when the Supervisor itself ends.
pub type GiveUp = Arc<dyn Fn(String) + Send + Sync>;

/// A way to give up, and where that is noticed: the first reason is kept.
pub fn give_up_channel() -> (GiveUp, watch::Receiver<Option<String>>) {
    let (sender, receiver) = watch::channel(None);
    let give_up: GiveUp = Arc::new(move |reason| {
        // The first reason is the one that counts.
        sender.send_if_modified(|current| current.is_none() && current.replace(reason.clone()).is_none());
    });
    (give_up, receiver)
}

/// Ties an actor's factory to its mailbox.
pub fn child<A: Actor<Context = Context<A>> + Send>(
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

pub struct Supervisor {
    settings: SupervisorSettings,
    children: Vec<Child>,
    downs: Arc<Downs>,
    ends: VecDeque<Instant>,
    give_up: GiveUp,
    observed: Arc<Observed>,
    clock: SharedClock,
}

impl Supervisor {
    pub fn new(
        settings: SupervisorSettings,
        specs: Vec<ChildSpec>,
        give_up: GiveUp,
        observed: Arc<Observed>,
        clock: SharedClock,
    ) -> Self {
        let children = specs.into_iter().map(|ChildSpec { actor, start, withdraw }| Child {
            actor,
            // A thread of its own: one actor's blocked thread must not hold up another.
            arbiter: Arbiter::new(),
            start,
            withdraw,
            epoch: 0,
        });
        Supervisor {
            settings,
            children: children.collect(),
            downs: Arc::default(),
            ends: VecDeque::new(),
            give_up,
            observed,
            clock,
        }
    }

    fn start_child(&mut self, actor: ActorName) {
        let Some(child) = self.children.iter_mut().find(|child| child.actor == actor) else {
            return;
        };
        child.epoch += 1;
        let guard = Guard { downs: self.downs.clone(), actor, epoch: child.epoch };
        (child.start)(&child.arbiter.handle(), guard);
        self.observed.lives.started(actor);
    }

    fn watch(&mut self, context: &mut Context<Self>) {
        let downs = self.downs.clone();
        let next = async move { downs.changed.notified().await };
        let done = next.into_actor(self).map(|(), supervisor, context| {
            for down in supervisor.downs.take() {
                supervisor.replace(down, context);
            }
            supervisor.watch(context);
        });
        context.spawn(done);
    }

    fn replace(&mut self, down: Down, context: &mut Context<Self>) {
        let actor = down.actor;
        let Some(child) = self.children.iter().find(|child| child.actor == actor && child.epoch == down.epoch) else {
            return; // an earlier life: it was replaced already
        };
        (child.withdraw)();
        self.observed.lives.ended(actor, LastEnd { cause: down.cause, at: self.clock.now(), error: down.error });
        let now = Instant::now();
        self.ends.push_back(now);
        while self.ends.front().is_some_and(|end| now.duration_since(*end) > self.settings.window) {
            self.ends.pop_front();
        }
        let (ends, max_restarts) = (self.ends.len(), self.settings.max_restarts);
        if ends > max_restarts as usize {
            let reason = format!(
                "the {} ended ({}): more than {max_restarts} ends of actors within {:?}",
                actor.as_str(),
                down.cause.as_str(),
                self.settings.window
            );
            (self.give_up)(reason);
            return;
        }
        let pause = jittered(pause_after(ends));
        tracing::error!(
            actor = actor.as_str(),
            cause = down.cause.as_str(),
            pause_ms = pause.as_millis(),
            "an actor ended and will be replaced"
        );
        context.run_later(pause, move |supervisor, _| supervisor.start_child(actor));
    }
}

fn pause_after(ends_in_window: usize) -> Duration {
    let doublings = u32::try_from(ends_in_window.saturating_sub(1)).unwrap_or(u32::MAX).min(16);
    FIRST_PAUSE.saturating_mul(2u32.saturating_pow(doublings)).min(LONGEST_PAUSE)
}

/// Half to the whole of a pause.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(rand::rng().random_range(0.5..=1.0))
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        self.observed.lives.started(ActorName::Supervisor);
        for index in 0..self.children.len() {
            self.start_child(self.children[index].actor);
        }
        self.watch(context);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Without it nothing would be replaced any more. After a drain nobody listens to this.
        (self.give_up)("the supervisor itself ended".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_within_the_window() {
        let millis: Vec<u128> = (1..=8).map(|ends| pause_after(ends).as_millis()).collect();
        assert_eq!(millis, [50, 100, 200, 400, 800, 1600, 2000, 2000]);
        assert!(jittered(Duration::from_secs(1)) >= Duration::from_millis(500));
    }
}

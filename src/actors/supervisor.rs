//! The Supervisor: starts each actor from a factory, notices its end and its silence, and replaces it with growing pauses
//! and jitter.
//!
//! More ends than the budget allows within the window mean that replacing does not help: then the process is drained
//! and exits with 70, and its own supervisor (systemd) decides. What an actor does is none of its business. No actor
//! keeps another's address or anything else of it, so that none has to be restarted with another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorContext, ActorFutureExt, Arbiter, ArbiterHandle, AsyncContext, Context, Handler, WrapFuture};
use rand::Rng;
use tokio::sync::watch;

use super::guard::{Cause, Down, Downs, Guard, Look};
use super::lives::LastEnd;
use super::mailbox::Mailbox;
use super::observed::Observed;
use super::progress::{Progress, Pulse};
use super::sentinel::Looks;
use super::{ActorName, Directory, own_thread};
use crate::clock::SharedClock;
use crate::config::SupervisorSettings;
use crate::failpoint;
use crate::storage::fence::Epoch;
use crate::telemetry::{logs, metrics};

/// First pause before a replacement, doubled with each end in the window.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Threads that hang and cannot be ended: more are not left behind.
const MOST_HUNG_THREADS: usize = 16;

/// Starts one life of an actor on the given thread and makes its address known.
pub type Factory = Box<dyn Fn(&ArbiterHandle, Guard)>;

struct Child {
    actor: ActorName,
    arbiter: Arbiter,
    start: Factory,
    withdraw: Box<dyn Fn()>,
    look: Box<dyn Fn()>,
    epoch: Epoch,
    /// The epoch of the life that goes on; none while it is being replaced.
    life: Option<u64>,
    /// The epochs of lives that were given up as hung, and whose threads have not ended.
    hung: Vec<u64>,
}

/// What the Supervisor is given for each actor.
pub struct ChildSpec {
    pub actor: ActorName,
    pub start: Factory,
    /// Makes the dead actor's address unknown.
    pub withdraw: Box<dyn Fn()>,
    /// Has the actor look at its queue.
    pub look: Box<dyn Fn()>,
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
pub fn child<A: Actor<Context = Context<A>> + Handler<Look> + Send>(
    directory: &Arc<Directory>,
    actor: ActorName,
    mailbox: fn(&Directory) -> &Mailbox<A>,
    make: impl Fn(Guard) -> A + Clone + Send + 'static,
) -> ChildSpec {
    let (for_start, for_withdraw, for_look) = (directory.clone(), directory.clone(), directory.clone());
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
        // Where it is full, there is enough in it by which the actor shows that it gets on.
        look: Box::new(move || {
            mailbox(&for_look).try_send(Look).ok();
        }),
    }
}

/// What a Supervisor tells of what it sees.
#[derive(Clone)]
pub struct Told {
    pub observed: Arc<Observed>,
    pub progress: Arc<Progress>,
    pub clock: SharedClock,
}

pub struct Supervisor {
    settings: SupervisorSettings,
    children: Vec<Child>,
    downs: Arc<Downs>,
    ends: VecDeque<Instant>,
    give_up: GiveUp,
    told: Told,
    looks: Looks,
    pulse: Option<Arc<Pulse>>,
}

impl Supervisor {
    pub fn new(settings: SupervisorSettings, specs: Vec<ChildSpec>, give_up: GiveUp, told: Told) -> Self {
        let children = specs.into_iter().map(|ChildSpec { actor, start, withdraw, look }| Child {
            actor,
            // A thread of its own: one actor's blocked thread must not hold up another.
            arbiter: own_thread::begin(),
            start,
            withdraw,
            look,
            epoch: Epoch::default(),
            life: None,
            hung: Vec::new(),
        });
        Supervisor {
            looks: Looks::new(settings.heartbeat, settings.hang_timeout),
            settings,
            children: children.collect(),
            downs: Arc::default(),
            ends: VecDeque::new(),
            give_up,
            told,
            pulse: None,
        }
    }

    fn child(&mut self, actor: ActorName) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.actor == actor)
    }

    fn start_child(&mut self, actor: ActorName) {
        let (downs, pulse) = (self.downs.clone(), self.told.progress.begin(actor));
        let Some(child) = self.child(actor) else { return };
        let fence = child.epoch.advance();
        child.life = Some(fence.epoch());
        let guard = Guard { downs, actor, fence, pulse, error: None };
        (child.start)(&child.arbiter.handle(), guard);
        self.told.observed.lives.started(actor);
    }

    fn watch(&mut self, context: &mut Context<Self>) {
        let downs = self.downs.clone();
        let next = async move { downs.changed().await };
        let done = next.into_actor(self).map(|(), supervisor, context| {
            for down in supervisor.downs.take() {
                supervisor.end(down, context);
            }
            supervisor.watch(context);
        });
        context.spawn(done);
    }

    /// Once a heartbeat: shows that it gets on itself, gives up who hangs, and has the others show themselves.
    fn look(&mut self, context: &mut Context<Self>) {
        self.pulse.iter().for_each(|pulse| pulse.beat());
        // Its end ends the process.
        if failpoint::hit("supervisor.look").is_err() {
            return context.stop();
        }
        let now = Instant::now();
        let is_fair = self.looks.is_fair(now);
        for (actor, age) in self.told.progress.ages(now) {
            metrics::progress_age(actor.as_str(), age);
            if is_fair && self.told.progress.is_hung(actor, now) {
                self.give_up_on(actor, age, context);
            }
        }
        self.children.iter().for_each(|child| (child.look)());
    }

    /// A thread that hangs cannot be ended. It is left behind, and replaced; if it ever wakes, it finds itself fenced.
    fn give_up_on(&mut self, actor: ActorName, age: Duration, context: &mut Context<Self>) {
        let Some(child) = self.child(actor) else { return };
        let Some(epoch) = child.life else { return };
        child.hung.push(epoch);
        let left = std::mem::replace(&mut child.arbiter, own_thread::begin());
        left.stop();
        let error = Some(format!("no progress for {age:.1?}"));
        self.end(Down { actor, epoch, cause: Cause::Hang, error }, context);
        self.tell_hung_threads(actor);
        let hung: usize = self.children.iter().map(|child| child.hung.len()).sum();
        if hung > MOST_HUNG_THREADS {
            (self.give_up)(format!("{hung} threads of actors hang, the {} among them", actor.as_str()));
        }
    }

    fn tell_hung_threads(&mut self, actor: ActorName) {
        let count = self.child(actor).map_or(0, |child| child.hung.len());
        self.told.observed.lives.threads_hang(actor, count);
    }

    /// A life has ended, or was given up: the next one begins, if the budget allows it.
    fn end(&mut self, down: Down, context: &mut Context<Self>) {
        let Down { actor, epoch, cause, error } = down;
        let Some(child) = self.child(actor) else { return };
        if child.life != Some(epoch) {
            // One that was given up as hung has woken and ended.
            child.hung.retain(|hung| *hung != epoch);
            return self.tell_hung_threads(actor);
        }
        child.life = None;
        // Whatever it still asks for, or has asked for, is not committed any more.
        child.epoch.advance();
        (child.withdraw)();
        self.told.progress.end(actor);
        self.told.observed.lives.ended(actor, LastEnd { cause, at: self.told.clock.now(), error: error.clone() });
        let ends = self.count_end();
        let max_restarts = self.settings.max_restarts;
        let said = error.map(|error| format!(": {error}")).unwrap_or_default();
        if ends > max_restarts as usize {
            let (actor, cause, window) = (actor.as_str(), cause.as_str(), self.settings.window);
            (self.give_up)(format!(
                "the {actor} ended ({cause}{said}): more than {max_restarts} ends of actors within {window:?}"
            ));
            return;
        }
        let pause = jittered(pause_after(ends));
        tracing::error!(
            actor = actor.as_str(),
            cause = cause.as_str(),
            pause_ms = pause.as_millis(),
            "an actor ended and will be replaced{said}"
        );
        context.run_later(pause, move |supervisor, _| supervisor.start_child(actor));
    }

    /// How many ends of actors lie in the window, this one included.
    fn count_end(&mut self) -> usize {
        let now = Instant::now();
        self.ends.push_back(now);
        while self.ends.front().is_some_and(|end| now.duration_since(*end) > self.settings.window) {
            self.ends.pop_front();
        }
        self.ends.len()
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
        self.pulse = Some(self.told.progress.begin(ActorName::Supervisor));
        self.told.observed.lives.started(ActorName::Supervisor);
        for index in 0..self.children.len() {
            self.start_child(self.children[index].actor);
        }
        self.watch(context);
        context.run_interval(self.settings.heartbeat, |supervisor, context| supervisor.look(context));
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Without it nothing would be replaced any more. After a drain nobody listens to this.
        let said = if std::thread::panicking() { logs::last_panic_here() } else { None };
        let said = said.map(|said| format!(" ({said})")).unwrap_or_default();
        (self.give_up)(format!("the supervisor itself ended{said}"));
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

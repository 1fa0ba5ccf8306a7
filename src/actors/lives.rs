//! Each actor's lives as the Supervisor saw them, in memory that anybody reads without asking an actor.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::ActorName;
use super::guard::Cause;
use crate::domain::time::UnixMillis;
use crate::telemetry::metrics;

/// How the last life of an actor ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastEnd {
    pub cause: Cause,
    pub at: UnixMillis,
    /// What it said, if anything.
    pub error: Option<String>,
}

/// One actor, up to now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    pub actor: ActorName,
    pub is_up: bool,
    /// How often it ended so, in the order of [`Cause::ALL`].
    pub ends: [u64; Cause::ALL.len()],
    /// Threads of lives that were given up, and that have not ended yet.
    pub hung_threads: usize,
    pub last_end: Option<LastEnd>,
}

/// All actors, in the order of their start.
pub struct Lives {
    lives: Mutex<Vec<Life>>,
}

impl Default for Lives {
    fn default() -> Self {
        let fresh = |actor| Life { actor, is_up: false, ends: [0; 4], hung_threads: 0, last_end: None };
        let lives = [ActorName::Supervisor].into_iter().chain(ActorName::SUPERVISED).map(fresh).collect();
        Lives { lives: Mutex::new(lives) }
    }
}

impl Lives {
    pub fn started(&self, actor: ActorName) {
        metrics::actor_is_up(actor.as_str(), true);
        self.change(actor, |life| life.is_up = true);
    }

    pub fn ended(&self, actor: ActorName, end: LastEnd) {
        metrics::actor_is_up(actor.as_str(), false);
        metrics::actor_restarted(actor.as_str(), end.cause.as_str());
        self.change(actor, |life| {
            life.is_up = false;
            life.ends[end.cause as usize] += 1;
            life.last_end = Some(end);
        });
    }

    /// So many threads of the actor's earlier lives hang.
    pub fn threads_hang(&self, actor: ActorName, count: usize) {
        metrics::threads_hang(actor.as_str(), count);
        self.change(actor, |life| life.hung_threads = count);
    }

    pub fn all(&self) -> Vec<Life> {
        self.lock().clone()
    }

    fn change(&self, actor: ActorName, change: impl FnOnce(&mut Life)) {
        if let Some(life) = self.lock().iter_mut().find(|life| life.actor == actor) {
            change(life);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Life>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

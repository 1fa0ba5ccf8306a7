//! The last resort: a plain thread that looks whether the Supervisor and the owners of the connections get on.
//!
//! Nobody can replace them. The Supervisor's thread is the one that would drain; and while the owner of a writing
//! connection may still commit, nobody may write in its place. So there is nothing to wait for when one of them hangs.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::ActorName;
use super::progress::Progress;

/// What is done when nothing else is left: with the reason.
pub type LastResort = Box<dyn FnOnce(String) + Send>;

/// Looks once a heartbeat, for as long as the process lives.
pub fn start(progress: Arc<Progress>, heartbeat: Duration, last_resort: LastResort) -> io::Result<()> {
    let look = move || {
        let mut looks = Looks::new(heartbeat, progress.hang_timeout());
        loop {
            thread::park_timeout(heartbeat);
            let now = Instant::now();
            let is_fair = looks.is_fair(now);
            if let Some(reason) = lost(&progress).or_else(|| hung(&progress, now).filter(|_| is_fair)) {
                return last_resort(reason);
            }
        }
    };
    thread::Builder::new().name("sentinel".to_owned()).spawn(look).map(drop)
}

fn lost(progress: &Progress) -> Option<String> {
    let owner = progress.lost_owner()?;
    Some(format!("the owner of a writing connection ({}) ended, although nobody had asked for it", owner.name()))
}

fn hung(progress: &Progress, now: Instant) -> Option<String> {
    if let Some(owner) = progress.hung_owner(now) {
        return Some(format!(
            "the owner of a writing connection ({}) hangs: it has made no step for {:?} beyond what it may wait for the \
             database, and nobody can take its place while it may still commit",
            owner.name(),
            owner.stalled(now)
        ));
    }
    let is_hung = progress.is_hung(ActorName::Supervisor, now);
    is_hung
        .then(|| format!("the supervisor hangs: it has made no progress for more than {:?}", progress.hang_timeout()))
}

/// Judges nobody while the looks themselves come late: a process that was stopped, or a machine that slept, finds
/// everybody old, and everybody needs a moment to show himself.
#[derive(Debug)]
pub(super) struct Looks {
    every: Duration,
    patience: Duration,
    last: Instant,
    not_before: Instant,
}

/// How much later than asked for a look may come.
const LATE: Duration = Duration::from_secs(1);

impl Looks {
    pub(super) fn new(every: Duration, patience: Duration) -> Self {
        let now = Instant::now();
        Looks { every, patience, last: now, not_before: now }
    }

    /// Called at each look.
    pub(super) fn is_fair(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.last) > self.every * 2 + LATE {
            self.not_before = now + self.patience;
        }
        self.last = now;
        now >= self.not_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_late_look_everybody_has_time_to_show_himself() {
        let second = Duration::from_secs(1);
        let mut looks = Looks::new(second, second * 15);
        let begin = looks.last;
        assert!(looks.is_fair(begin + second) && looks.is_fair(begin + second * 2));
        let woken = begin + second * 3600;
        assert!(!looks.is_fair(woken));
        let looked: Vec<bool> = (1..=16).map(|secs| looks.is_fair(woken + second * secs)).collect();
        assert_eq!(looked.iter().position(|is_fair| *is_fair), Some(14), "{looked:?}");
    }
}

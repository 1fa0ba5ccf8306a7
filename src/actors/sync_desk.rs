//! Where a sync is asked for and looked at: one at a time, carried out by the Scheduler, whoever asked may have gone.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sync_document::{NewSync, SyncFailure, SyncState, SyncStatus, SyncTrouble, Synced};
use crate::domain::ids::RecordIds;
use crate::domain::time::UnixMillis;
use crate::polling::SyncProgress;

/// Another one is under way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("another sync is under way since {since}: wait until it has ended (GET /admin/v1/sync tells how it stands)")]
pub struct SyncUnderWay {
    pub since: String,
}

/// So many are remembered: whoever asked for one learns its end also where another follows at once.
const MOST_REMEMBERED: usize = 16;

/// The last syncs of this process, and one that was asked for and has not begun.
#[derive(Debug, Default)]
pub struct SyncDesk {
    inner: Mutex<Desk>,
}

#[derive(Debug, Default)]
struct Desk {
    /// Newest last: that one alone may be under way.
    syncs: VecDeque<SyncStatus>,
    asked: Option<NewSync>,
}

impl SyncDesk {
    /// Lays an order on the desk; one that is under way keeps it out.
    pub fn ask(&self, order: NewSync, now: UnixMillis) -> Result<SyncStatus, SyncUnderWay> {
        let mut desk = self.lock();
        let is_under_way = |last: &&SyncStatus| matches!(last.state, SyncState::Waiting | SyncState::Reading);
        if let Some(last) = desk.syncs.back().filter(is_under_way) {
            return Err(SyncUnderWay { since: last.asked_at.clone() });
        }
        let status = SyncStatus {
            id: RecordIds::new().next(now).to_string(),
            state: SyncState::Waiting,
            asked_at: now.to_rfc3339(),
            done_secs: 0,
            total_secs: 0,
            at: None,
            synced: Synced { dry_run: order.dry_run, ..Synced::default() },
            failure: None,
        };
        desk.syncs.push_back(status.clone());
        while desk.syncs.len() > MOST_REMEMBERED {
            desk.syncs.pop_front();
        }
        desk.asked = Some(order);
        Ok(status)
    }

    /// The one of this id; without an id the one that is under way, or the last one of this process.
    pub fn look(&self, id: Option<&str>) -> Option<SyncStatus> {
        let desk = self.lock();
        let is_meant = |sync: &&SyncStatus| id.is_none_or(|id| sync.id == id);
        desk.syncs.iter().rev().find(is_meant).cloned()
    }

    /// Takes the order that waits.
    pub(super) fn begin(self: &Arc<Self>) -> Option<(NewSync, UnderWay)> {
        let mut desk = self.lock();
        let order = desk.asked.take()?;
        let last = desk.syncs.back_mut()?;
        last.state = SyncState::Reading;
        Some((order, UnderWay { id: last.id.clone(), desk: self.clone(), has_ended: false }))
    }

    /// Whoever carried one out was replaced: it is told so, whatever he still does.
    pub(super) fn interrupt(&self) {
        if let Some(last) = self.lock().syncs.back_mut().filter(|last| last.state == SyncState::Reading) {
            last.state = SyncState::Failed;
            last.failure = Some(interrupted());
        }
    }

    pub(super) fn tell(&self, id: &str, progress: SyncProgress) {
        let SyncProgress { rows, charged, done_secs, total_secs, until_second } = progress;
        if let Some(last) = self.lock().read(id) {
            (last.done_secs, last.total_secs) = (done_secs, total_secs);
            last.at = until_second.map(moment);
            (last.synced.read, last.synced.charged) = (rows, charged);
        }
    }

    fn end(&self, id: &str, synced: Option<Synced>, failure: Option<SyncFailure>) {
        if let Some(last) = self.lock().read(id) {
            last.state = if failure.is_none() { SyncState::Done } else { SyncState::Failed };
            last.synced = synced.unwrap_or_else(|| last.synced.clone());
            last.failure = failure;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// The one of this id, while it is being read.
    fn read(&mut self, id: &str) -> Option<&mut SyncStatus> {
        self.syncs.back_mut().filter(|last| last.id == id && last.state == SyncState::Reading)
    }
}

fn interrupted() -> SyncFailure {
    let message = "the part of the daemon that reads the log was restarted in the middle of it; what was charged \
                   stays, and nothing is charged twice: ask again";
    SyncFailure { trouble: SyncTrouble::Interrupted, message: message.to_owned() }
}

/// RFC 3339 of a second, UTC.
pub(super) fn moment(second: i64) -> String {
    UnixMillis::new(second.saturating_mul(1000)).to_rfc3339()
}

/// Held while it is carried out: if its actor dies, it is told as interrupted.
pub(super) struct UnderWay {
    id: String,
    desk: Arc<SyncDesk>,
    has_ended: bool,
}

impl UnderWay {
    pub(super) fn end(mut self, synced: Synced, failure: Option<SyncFailure>) {
        self.has_ended = true;
        self.desk.end(&self.id, Some(synced), failure);
    }

    pub(super) fn tell(&self, progress: SyncProgress) {
        self.desk.tell(&self.id, progress);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.has_ended {
            self.desk.end(&self.id, None, Some(interrupted()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> UnixMillis {
        UnixMillis::new(1_795_500_000_000)
    }

    #[test]
    fn one_at_a_time() {
        let desk = Arc::new(SyncDesk::default());
        assert!(desk.begin().is_none() && desk.look(None).is_none());
        let first = desk.ask(NewSync::default(), now()).unwrap();
        assert!(desk.ask(NewSync::default(), now()).is_err(), "it waits");
        let (_, under_way) = desk.begin().unwrap();
        assert!(desk.begin().is_none() && desk.ask(NewSync::default(), now()).is_err(), "it is read");
        under_way.end(Synced { read: 7, ..Synced::default() }, None);
        let last = desk.look(None).unwrap();
        assert_eq!((last.id == first.id, last.state, last.synced.read), (true, SyncState::Done, 7));
        let second = desk.ask(NewSync::default(), now()).unwrap();
        assert_ne!(second.id, first.id);
        assert_eq!(desk.look(Some(&first.id)).unwrap().synced.read, 7, "the end of the first is told all the same");
        assert_eq!(desk.look(None).unwrap().id, second.id);
    }

    #[test]
    fn what_its_actor_left_is_told_as_interrupted() {
        let desk = Arc::new(SyncDesk::default());
        desk.ask(NewSync::default(), now()).unwrap();
        drop(desk.begin());
        let last = desk.look(None).unwrap();
        assert_eq!((last.state, last.failure.unwrap().trouble), (SyncState::Failed, SyncTrouble::Interrupted));
        assert!(desk.ask(NewSync::default(), now()).is_ok());
    }

    #[test]
    fn one_whose_actor_was_replaced_says_nothing_more() {
        let desk = Arc::new(SyncDesk::default());
        desk.ask(NewSync::default(), now()).unwrap();
        let (_, hung) = desk.begin().unwrap();
        desk.interrupt();
        assert_eq!(desk.look(None).unwrap().failure.unwrap().trouble, SyncTrouble::Interrupted);
        let second = desk.ask(NewSync::default(), now()).unwrap();
        let (_, under_way) = desk.begin().unwrap();
        hung.end(Synced { read: 7, ..Synced::default() }, None);
        let last = desk.look(None).unwrap();
        assert_eq!((last.id == second.id, last.state, last.synced.read), (true, SyncState::Reading, 0));
        under_way.end(Synced::default(), None);
        assert_eq!(desk.look(None).unwrap().state, SyncState::Done);
    }
}

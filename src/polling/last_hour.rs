//! What the books say of the last hour, counted so that it costs a busy platform no more than a quiet one can spare.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::domain::time::UnixMillis;
use crate::storage::log::{Agreement, RowLoss, SourceFilter};
use crate::storage::{LogStore, StoreError};

/// Over how long lost events are counted, and it is judged whether both channels agree.
const HOUR_SECS: i64 = 3600;

/// Counted with one statement: what it sees, the database has to keep for it while it lasts.
const PIECE_SECS: i64 = 300;

/// So long after its end a piece still gains calls all the time.
const SETTLING_SECS: i64 = 60;

/// A look that has taken longer than this leaves pieces to the next ones, which come only when so many times as long has
/// passed.
const LONG_LOOK: Duration = Duration::from_millis(500);
const LONG_LOOKS_APART: u32 = 20;
const LONGEST_APART: Duration = Duration::from_secs(300);

type Found = (RowLoss, Agreement);

/// Looks at the last hour. As long as all of it is counted quickly, it is counted at every look. At 1,000 calls a second
/// that takes some seconds: then each look counts the newest piece, and of the others the one that was counted longest
/// ago, so that those are some minutes old and the oldest may reach out of the hour.
#[derive(Default)]
pub struct LastHour(Mutex<Option<Kept>>);

/// What the looks at one source found.
struct Kept {
    of: SourceFilter,
    looks: u64,
    pieces: BTreeMap<Piece, Counted>,
    /// Good enough until then.
    latest: Option<(Found, Instant)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Count {
    Loss,
    Agreement,
}

/// Five minutes of an hour, each hour cut at the same seconds, and less at both ends of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    count: Count,
    begins_at: i64,
}

struct Counted {
    by_look: u64,
    is_settled: bool,
    found: Found,
}

/// The last second of the hour that is counted.
#[derive(Debug, Clone, Copy)]
struct Hours {
    of_losses: i64,
    of_agreement: i64,
}

impl LastHour {
    /// `covered_until`: the second with which the hour ends over which agreement is judged.
    pub async fn look(
        &self,
        store: &dyn LogStore,
        of: SourceFilter,
        now: UnixMillis,
        covered_until: i64,
    ) -> Result<Found, StoreError> {
        // One look at a time: two would only hold up each other.
        let mut state = self.0.lock().await;
        let began = Instant::now();
        let kept = match &mut *state {
            Some(kept) if kept.of == of => kept,
            other => other.insert(Kept::nothing(of)),
        };
        if let Some((found, until)) = kept.latest
            && began < until
        {
            return Ok(found);
        }
        let hours = Hours { of_losses: now.as_secs(), of_agreement: covered_until };
        kept.begin(hours);
        let mut is_long = false;
        while let Some((piece, is_urgent)) = kept.next(hours)
            && (is_urgent || !is_long)
        {
            let found = piece.count(store, &kept.of, hours).await?;
            kept.counted(piece, hours, found);
            // Of those that can wait, at least one at each look.
            is_long = !is_urgent && began.elapsed() > LONG_LOOK;
        }
        let found = kept.sum();
        let took = began.elapsed();
        kept.latest = (took > LONG_LOOK).then(|| (found, began + (took * LONG_LOOKS_APART).min(LONGEST_APART)));
        Ok(found)
    }
}

impl Hours {
    /// First and last second.
    fn of(self, count: Count) -> (i64, i64) {
        match count {
            Count::Loss => (self.of_losses - HOUR_SECS, self.of_losses),
            Count::Agreement => (self.of_agreement - HOUR_SECS + 1, self.of_agreement),
        }
    }

    fn pieces(self) -> impl Iterator<Item = Piece> {
        [Count::Loss, Count::Agreement].into_iter().flat_map(move |count| {
            let (from, until) = self.of(count);
            let first = from.div_euclid(PIECE_SECS) * PIECE_SECS;
            (first..=until).step_by(PIECE_SECS as usize).map(move |begins_at| Piece { count, begins_at })
        })
    }
}

impl Piece {
    fn last_second(self) -> i64 {
        self.begins_at + PIECE_SECS - 1
    }

    /// What of it lies in its hour.
    fn seconds(self, hours: Hours) -> (i64, i64) {
        let (from, until) = hours.of(self.count);
        (self.begins_at.max(from), self.last_second().min(until))
    }

    async fn count(self, store: &dyn LogStore, of: &SourceFilter, hours: Hours) -> Result<Found, StoreError> {
        let (from, until) = self.seconds(hours);
        Ok(match self.count {
            Count::Loss => (store.row_loss(of, from, until).await?, Agreement::default()),
            Count::Agreement => (RowLoss::default(), store.agreement(from, until).await?),
        })
    }
}

impl Kept {
    fn nothing(of: SourceFilter) -> Self {
        Kept { of, looks: 0, pieces: BTreeMap::new(), latest: None }
    }

    /// Forgets what has left the hour.
    fn begin(&mut self, hours: Hours) {
        self.looks += 1;
        let wanted: Vec<Piece> = hours.pieces().collect();
        self.pieces.retain(|piece, _| wanted.contains(piece));
    }

    /// What this look has not counted yet: first what is unknown or still gains calls, which is urgent, then what was
    /// counted longest ago.
    fn next(&self, hours: Hours) -> Option<(Piece, bool)> {
        let age = |piece: &Piece| self.pieces.get(piece).map_or((false, 0), |known| (known.is_settled, known.by_look));
        let open = hours.pieces().filter(|piece| age(piece).1 < self.looks);
        open.min_by_key(age).map(|piece| (piece, !age(&piece).0))
    }

    fn counted(&mut self, piece: Piece, hours: Hours, found: Found) {
        let (_, until) = hours.of(piece.count);
        let is_settled = piece.last_second() + SETTLING_SECS <= until;
        self.pieces.insert(piece, Counted { by_look: self.looks, is_settled, found });
    }

    fn sum(&self) -> Found {
        let all = self.pieces.values().map(|counted| counted.found);
        all.fold(Found::default(), |sum, found| (sum.0.and(found.0), sum.1.and(found.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: i64 = 1_800_000_123;

    fn hours(until: i64) -> Hours {
        Hours { of_losses: until, of_agreement: until }
    }

    fn look(kept: &mut Kept, until: i64, at_most: usize) -> Vec<Piece> {
        kept.begin(hours(until));
        let mut counted = Vec::new();
        while let Some((piece, is_urgent)) = kept.next(hours(until))
            && (is_urgent || counted.len() < at_most)
        {
            kept.counted(piece, hours(until), Found::default());
            counted.push(piece);
        }
        counted
    }

    fn nothing() -> Kept {
        Kept::nothing(SourceFilter { source: "main".to_owned(), filter: String::new() })
    }

    #[test]
    fn the_pieces_are_the_hour_and_nothing_twice() {
        let pieces: Vec<_> = hours(AT).pieces().collect();
        for (count, first) in [(Count::Loss, AT - HOUR_SECS), (Count::Agreement, AT - HOUR_SECS + 1)] {
            let mut next = first;
            for piece in pieces.iter().filter(|piece| piece.count == count) {
                let (from, until) = piece.seconds(hours(AT));
                assert_eq!(from, next);
                next = until + 1;
            }
            assert_eq!(next, AT + 1);
        }
    }

    #[test]
    fn a_quick_look_counts_everything_again() {
        let mut kept = nothing();
        let first = look(&mut kept, AT, usize::MAX);
        assert_eq!(first, hours(AT).pieces().collect::<Vec<_>>());
        let mut second = look(&mut kept, AT + 1, usize::MAX);
        second.sort();
        assert_eq!(second, first);
    }

    #[test]
    fn a_long_look_counts_what_still_gains_calls_and_each_other_piece_in_its_turn() {
        let mut kept = nothing();
        look(&mut kept, AT, 0);
        let newest = AT.div_euclid(PIECE_SECS) * PIECE_SECS;
        let mut seen = std::collections::BTreeMap::<Piece, u32>::new();
        // So many pieces are settled, of both counts: one look for each.
        let settled = hours(AT).pieces().count() - 2;
        for _ in 0..settled {
            let counted = look(&mut kept, AT + 1, 3);
            assert_eq!(counted.len(), 3);
            assert!(counted[..2].iter().all(|piece| piece.begins_at == newest), "{counted:?}");
            *seen.entry(counted[2]).or_default() += 1;
        }
        assert_eq!(seen.len(), settled);
        assert!(seen.values().all(|times| *times == 1));
    }

    #[test]
    fn a_piece_that_ended_is_counted_whole_before_it_waits_its_turn() {
        let mut kept = nothing();
        look(&mut kept, AT, 0);
        let newest = Piece { count: Count::Loss, begins_at: AT.div_euclid(PIECE_SECS) * PIECE_SECS };
        let end = newest.last_second();
        for until in [end + 1, end + SETTLING_SECS - 1, end + SETTLING_SECS] {
            assert!(look(&mut kept, until, 0).contains(&newest), "{}", until - end);
        }
        assert!(!look(&mut kept, end + SETTLING_SECS + 1, 0).contains(&newest));
    }

    #[test]
    fn what_left_the_hour_does_not_count() {
        let mut kept = nothing();
        look(&mut kept, AT, 0);
        let lost = RowLoss { rows: 1, without_event: 1, newest_second: None };
        for counted in kept.pieces.values_mut() {
            counted.found.0 = lost;
        }
        assert!(kept.sum().0.without_event > 12);
        look(&mut kept, AT + 2 * HOUR_SECS, 0);
        assert_eq!(kept.sum().0.without_event, 0);
    }
}

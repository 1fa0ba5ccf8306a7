//! Complete reading of a closed window: whole seconds, oldest first, every row of each, or an error. Nothing partial
//! passes for whole.
//!
//! The caller takes one piece after the other and commits each before it asks for the next; what it gave up on is read
//! again by another reading.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Gateway;
use super::error::GatewayError;
use super::pass::{self, MOST_ROWS_OF_A_SECOND, Pass, PassEnd};
use super::row::UnreadableRow;
use super::window::Window;
use crate::domain::log_row::{LogRow, RowDigest, RowKind};
use crate::domain::time::UnixMillis;

/// Passes over one second before it counts as restless.
const MOST_PASSES: u32 = 5;

/// The same before a longer window is divided: shorter ones change less.
const MOST_PASSES_BEFORE_DIVIDING: u32 = 3;

/// A window with many rows is halved: how many there are in each half is not known.
const PARTS_OF_MANY: i64 = 2;

/// One that took too long cost a whole timeout: so few of those as possible.
const PARTS_OF_SLOW: i64 = 8;

/// What is known of the ids of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ids {
    /// Nothing yet.
    Unknown,
    /// Real: a row keeps its id.
    Stable,
    /// Made up for each answer: condition `ids_unstable`. No row has a `log_id` from then on.
    MadeUp,
}

/// Seconds that were read completely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Begins where the piece before it ended.
    pub window: Window,
    /// By second; within one in the order in which they were written, as far as the source tells it.
    pub rows: Vec<LogRow>,
    /// Rows of these seconds that are there and cannot be read: somebody should look at them.
    pub unreadable: Vec<UnreadableRow>,
    /// What is known of the source's ids by now.
    pub ids: Ids,
    /// The source's clock before the earliest answer of this piece, if it told.
    pub source_time: Option<UnixMillis>,
}

/// A window could not be read. Asking for the next piece tries it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadingError {
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error("new-api's log changed under {passes} readings of second {second} ({reason}): it is read again later")]
    Restless { second: i64, passes: u32, reason: &'static str },
    #[error("second {second} has more than {limit} rows in new-api's log, which are more than are read at once")]
    TooManyRows { second: i64, limit: u64 },
}

/// A window on its way to pieces.
pub struct Reading {
    gateway: Arc<dyn Gateway>,
    kind: RowKind,
    /// What is still to be read, the next one first. Divided windows take the place of their whole.
    left: VecDeque<Window>,
    ids: Ids,
    /// The row that had the id 1, which real rows have once.
    first_id_row: Option<RowDigest>,
}

/// A window, read or divided.
enum Outcome {
    Piece(Piece),
    Divide(i64),
}

impl Reading {
    /// Reads nothing yet. `ids` is what an earlier reading of this source found.
    pub fn new(gateway: Arc<dyn Gateway>, window: Window, kind: RowKind, ids: Ids) -> Self {
        Reading { gateway, kind, left: VecDeque::from([window]), ids, first_id_row: None }
    }

    /// The next piece; none after the last.
    pub async fn next_piece(&mut self) -> Result<Option<Piece>, ReadingError> {
        while let Some(window) = self.left.front().copied() {
            match self.read(window).await? {
                Outcome::Piece(piece) => {
                    self.left.pop_front();
                    return Ok(Some(piece));
                }
                Outcome::Divide(count) => {
                    self.left.pop_front();
                    window.parts(count).into_iter().rev().for_each(|part| self.left.push_front(part));
                }
            }
        }
        Ok(None)
    }

    /// One pass after the other until one is sure to be whole.
    async fn read(&mut self, window: Window) -> Result<Outcome, ReadingError> {
        let is_divisible = !window.is_single_second();
        let mut earlier = None;
        let mut restless = "";
        let most_passes = if is_divisible { MOST_PASSES_BEFORE_DIVIDING } else { MOST_PASSES };
        for _ in 0..most_passes {
            let end = pass::read(self.gateway.as_ref(), window, self.kind, self.ids == Ids::MadeUp).await;
            let pass = match end {
                Ok(PassEnd::Whole(pass)) => pass,
                Ok(PassEnd::Shifted(reason)) => {
                    (earlier, restless) = (None, reason);
                    continue;
                }
                Ok(PassEnd::TooMany) if is_divisible => return Ok(Outcome::Divide(PARTS_OF_MANY)),
                Ok(PassEnd::TooMany) => {
                    let second = window.from_second();
                    return Err(ReadingError::TooManyRows { second, limit: MOST_ROWS_OF_A_SECOND });
                }
                Err(error) if error.is_too_slow() && is_divisible => return Ok(Outcome::Divide(PARTS_OF_SLOW)),
                Err(error) => return Err(error.into()),
            };
            if !pass.needs_another() {
                return Ok(Outcome::Piece(self.piece(window, pass)));
            }
            let fingerprint = pass.fingerprint();
            if earlier.as_ref() == Some(&fingerprint) {
                return Ok(Outcome::Piece(self.piece(window, pass)));
            }
            (earlier, restless) = (Some(fingerprint), "two passes found different rows");
        }
        if is_divisible {
            return Ok(Outcome::Divide(PARTS_OF_MANY));
        }
        Err(ReadingError::Restless { second: window.from_second(), passes: most_passes, reason: restless })
    }

    fn piece(&mut self, window: Window, pass: Pass) -> Piece {
        self.learn_ids(&pass);
        let Pass { mut rows, mut unreadable, has_real_ids, source_time, .. } = pass;
        // Newest first on the wire. The sort keeps the order within a second.
        rows.reverse();
        rows.sort_by_key(|row| row.second);
        unreadable.sort();
        if !has_real_ids || self.ids == Ids::MadeUp {
            rows.iter_mut().for_each(|row| row.log_id = None);
        }
        Piece { window, rows, unreadable, ids: self.ids, source_time }
    }

    /// Once made up, ids are never believed again.
    fn learn_ids(&mut self, pass: &Pass) {
        let first = pass.rows.iter().find(|row| row.log_id == Some(1)).map(LogRow::digest);
        let is_another_first = matches!((&self.first_id_row, &first), (Some(known), Some(found)) if known != found);
        self.first_id_row = first.or(self.first_id_row.take());
        self.ids = match self.ids {
            Ids::MadeUp => Ids::MadeUp,
            _ if pass.has_made_up_ids || is_another_first => Ids::MadeUp,
            _ if pass.has_real_ids => Ids::Stable,
            unchanged => unchanged,
        };
    }
}

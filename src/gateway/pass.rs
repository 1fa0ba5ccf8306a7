//! One pass over a window, page by page: it is whole, or it says why it is not. When to try again is `reading`.

use std::collections::HashMap;

use super::Gateway;
use super::error::GatewayError;
use super::ids::IdEvidence;
use super::log_page::{BARE_PAGE_ROWS, Dialect, LogPage};
use super::row::UnreadableRow;
use super::window::Window;
use crate::domain::log_row::{LogRow, RowDigest, RowKind};
use crate::domain::time::UnixMillis;

/// A window of several seconds with more rows than this is divided instead of paged deep.
const MANY_ROWS: u64 = 1000;

/// The same where nothing tells how many there are, in full pages.
const MANY_BARE_PAGES: u32 = 20;

/// Rows of one second that are held at once, far beyond what a gateway can serve in it.
pub(super) const MOST_ROWS_OF_A_SECOND: u64 = 1_000_000;

/// How a pass ended.
#[derive(Debug)]
pub(super) enum PassEnd {
    Whole(Pass),
    /// Rows came or went meanwhile: read again.
    Shifted(&'static str),
    /// More rows than are read at once.
    TooMany,
}

/// What a pass has found, newest first.
#[derive(Debug)]
pub(super) struct Pass {
    window: Window,
    pub(super) rows: Vec<LogRow>,
    pub(super) unreadable: Vec<UnreadableRow>,
    pages: u32,
    total: Option<u64>,
    dialect: Option<Dialect>,
    full_page: usize,
    pub(super) has_real_ids: bool,
    pub(super) has_made_up_ids: bool,
    seen_ids: HashMap<i64, RowDigest>,
    /// The earliest that an answer told.
    pub(super) source_time: Option<UnixMillis>,
}

/// What one more page makes of a pass.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    More,
    Whole,
    Shifted(&'static str),
    TooMany,
}

/// Reads the window from its first page to its last.
pub(super) async fn read(
    gateway: &dyn Gateway,
    window: Window,
    kind: RowKind,
    has_made_up_ids: bool,
) -> Result<PassEnd, GatewayError> {
    let mut pass = Pass::new(window, has_made_up_ids);
    loop {
        let page = gateway.page(window, kind, pass.pages).await?;
        match pass.take(page) {
            Step::More => {}
            Step::Whole => return Ok(PassEnd::Whole(pass)),
            Step::Shifted(reason) => return Ok(PassEnd::Shifted(reason)),
            Step::TooMany => return Ok(PassEnd::TooMany),
        }
    }
}

impl Pass {
    fn new(window: Window, has_made_up_ids: bool) -> Self {
        Pass {
            window,
            rows: Vec::new(),
            unreadable: Vec::new(),
            pages: 0,
            total: None,
            dialect: None,
            full_page: BARE_PAGE_ROWS,
            has_real_ids: false,
            has_made_up_ids,
            seen_ids: HashMap::new(),
            source_time: None,
        }
    }

    /// Several answers are one reading only if nothing moved between them. Real ids and a total show that it did not;
    /// where one of them is missing, only a second pass can.
    pub(super) fn needs_another(&self) -> bool {
        self.pages > 1 && (self.total.is_none() || !self.has_real_ids || self.has_made_up_ids)
    }

    /// Equal for two passes that found the same rows.
    pub(super) fn fingerprint(&self) -> (Vec<(i64, RowDigest)>, Vec<UnreadableRow>) {
        let mut rows: Vec<_> = self.rows.iter().map(|row| (row.second, row.digest())).collect();
        rows.sort_unstable();
        // Made-up ids depend on where a row stood.
        let without_id = |row: &UnreadableRow| UnreadableRow { stated_id: None, ..row.clone() };
        let mut unreadable: Vec<_> = self.unreadable.iter().map(without_id).collect();
        unreadable.sort_unstable();
        (rows, unreadable)
    }

    fn count(&self) -> u64 {
        (self.rows.len() + self.unreadable.len()) as u64
    }

    fn take(&mut self, page: LogPage) -> Step {
        self.pages = self.pages.saturating_add(1);
        let length = page.len();
        if self.pages == 1 {
            (self.total, self.dialect) = (page.total, Some(page.dialect));
            self.full_page = self.full_page.max(length);
            // Without real ids a window of one page is sure, and one of several pages never quite.
            let is_without_ids = self.has_made_up_ids || page.ids == IdEvidence::MadeUp;
            let most_rows = match self.window.is_single_second() {
                true => MOST_ROWS_OF_A_SECOND,
                false if is_without_ids => length as u64,
                false => MANY_ROWS,
            };
            if page.total.is_some_and(|total| total > most_rows) {
                return Step::TooMany;
            }
        } else if self.total != page.total || self.dialect != Some(page.dialect) {
            return Step::Shifted("the total changed from page to page");
        }
        self.source_time = [self.source_time, page.source_time].into_iter().flatten().min();
        self.has_real_ids |= page.ids == IdEvidence::Real;
        self.has_made_up_ids |= page.ids == IdEvidence::MadeUp;
        if let Some(reason) = self.look_for_shifts(&page) {
            return Step::Shifted(reason);
        }
        self.rows.extend(page.rows);
        self.unreadable.extend(page.unreadable);
        match self.total {
            Some(total) => self.compare_with(total, length),
            None => self.end_of_bare(length),
        }
    }

    fn compare_with(&self, total: u64, length: usize) -> Step {
        match self.count() {
            count if count == total => Step::Whole,
            count if count > total => Step::Shifted("there were more rows than the total says"),
            _ if length == 0 => Step::Shifted("there were fewer rows than the total says"),
            _ => Step::More,
        }
    }

    fn end_of_bare(&self, length: usize) -> Step {
        if length < self.full_page {
            return Step::Whole;
        }
        let is_deep = self.pages >= MANY_BARE_PAGES && !self.window.is_single_second();
        if is_deep || self.count() > MOST_ROWS_OF_A_SECOND { Step::TooMany } else { Step::More }
    }

    /// Rows that came or went move all that lie behind them from one page to the next.
    fn look_for_shifts(&mut self, page: &LogPage) -> Option<&'static str> {
        for row in &page.rows {
            let Some(id) = row.log_id.filter(|_| !self.has_made_up_ids) else { continue };
            match self.seen_ids.insert(id, row.digest()) {
                None => {}
                Some(digest) if digest == row.digest() => return Some("a row was on two pages"),
                // Two rows, one id: it says nothing.
                Some(_) => self.has_made_up_ids = true,
            }
        }
        let (last, next) = (self.rows.last()?, page.rows.first()?);
        let has_newer_id = match (last.log_id, next.log_id) {
            (Some(last), Some(next)) if !self.has_made_up_ids => next > last,
            _ => true,
        };
        (next.second > last.second && has_newer_id).then_some("a later page began with a newer row")
    }
}

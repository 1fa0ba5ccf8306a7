//! One page of the log: from `data` of an answer to rows, in both shapes that versions of new-api answer.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::error::GatewayError;
use super::ids::{self, IdEvidence};
use super::row::{self, Asked, Outside, UnreadableRow};
use crate::domain::log_row::LogRow;
use crate::domain::time::UnixMillis;

/// How a version of new-api pages its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// An object with a total; pages count from 1.
    Paged,
    /// A bare array of at most ten rows; pages count from 0, and nothing says how many there are.
    Bare,
}

impl Dialect {
    /// The number that this dialect gives to the page `number`, which counts from 0.
    pub(super) fn page_parameter(self, number: u32) -> u64 {
        match self {
            Dialect::Paged => u64::from(number) + 1,
            Dialect::Bare => u64::from(number),
        }
    }
}

/// Rows of a full page in the bare dialect.
pub(super) const BARE_PAGE_ROWS: usize = 10;

/// A page whose rows are all what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPage {
    /// Newest first.
    pub rows: Vec<LogRow>,
    pub unreadable: Vec<UnreadableRow>,
    /// Rows in the whole window. None in the bare dialect.
    pub total: Option<u64>,
    pub dialect: Dialect,
    /// What this answer shows of its rows' ids.
    pub ids: IdEvidence,
    /// The source's clock, by the `Date` of its answer.
    pub source_time: Option<UnixMillis>,
}

impl LogPage {
    /// Rows of the page, readable or not.
    pub fn len(&self) -> usize {
        self.rows.len() + self.unreadable.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Deserialize)]
struct PagedData<'a> {
    page_size: Option<u64>,
    total: Option<u64>,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

/// The items of an answer before they are read.
pub(super) struct RawPage<'a> {
    items: Vec<&'a RawValue>,
    page_rows: u64,
    pub(super) total: Option<u64>,
    pub(super) dialect: Dialect,
}

/// Tells the dialect by the shape.
pub(super) fn split(data: &RawValue) -> Result<RawPage<'_>, GatewayError> {
    let not_a_log = |found: &str| GatewayError::NotNewApi { found: format!("{found} in place of its log") };
    if data.get().starts_with('{') {
        let PagedData { page_size, total, items } =
            serde_json::from_str(data.get()).map_err(|_| not_a_log("an unknown object"))?;
        let total = total.ok_or_else(|| not_a_log("an object without a total"))?;
        let page_rows = page_size.unwrap_or_default();
        return Ok(RawPage {
            items: items.unwrap_or_default(),
            page_rows,
            total: Some(total),
            dialect: Dialect::Paged,
        });
    }
    // An empty list of old versions may be null.
    let items: Option<Vec<&RawValue>> = serde_json::from_str(data.get()).map_err(|_| not_a_log("a single value"))?;
    let page_rows = BARE_PAGE_ROWS as u64;
    Ok(RawPage { items: items.unwrap_or_default(), page_rows, total: None, dialect: Dialect::Bare })
}

impl RawPage<'_> {
    /// Reads every row of the page `number`. One that was not asked for spoils all of them.
    pub(super) fn read(
        self,
        asked: Asked<'_>,
        number: u32,
        source_time: Option<UnixMillis>,
    ) -> Result<LogPage, GatewayError> {
        let (mut rows, mut unreadable, mut stated_ids) = (Vec::new(), Vec::new(), Vec::new());
        for item in &self.items {
            let outcome = row::read(item, asked).map_err(|Outside { filter, found }| GatewayError::FilterIgnored {
                filter,
                kind: asked.kind.number(),
                window: asked.window,
                found,
            })?;
            match outcome {
                Ok(row) => {
                    stated_ids.push(row.log_id.unwrap_or_default());
                    rows.push(row);
                }
                Err(row) => {
                    stated_ids.push(row.stated_id.unwrap_or_default());
                    unreadable.push(row);
                }
            }
        }
        let ids = ids::judge(&stated_ids, self.page_rows.saturating_mul(u64::from(number)));
        Ok(LogPage { rows, unreadable, total: self.total, dialect: self.dialect, ids, source_time })
    }
}

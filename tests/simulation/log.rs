//! The gateway's log, and the gateway that answers from it: rows that come late, pages that shift, answers that fail.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use hookledger::domain::ids::{RemoteKeyId, RequestId};
use hookledger::domain::log_row::{LogRow, RowKind, TaskNote};
use hookledger::domain::money::QuotaPerUnit;
use hookledger::domain::time::UnixMillis;
use hookledger::gateway::{
    Dialect, Gateway, GatewayError, GatewayOptions, GatewayStatus, IdEvidence, LogPage, StatedQuota, Window,
};

use super::scenario::{Call, LogFault, Naming, RowIds, Rules, TaskPart};

/// One row, from when on it can be read.
#[derive(Debug, Clone)]
pub struct Entry {
    pub call: usize,
    pub second: i64,
    pub visible_at: i64,
    /// Once it is there.
    pub id: Option<i64>,
    pub is_gone: bool,
    /// It came within the time after which a second may count as read.
    pub is_on_time: bool,
    row: LogRow,
}

#[derive(Debug, Default)]
pub struct LogState {
    pub entries: Vec<Entry>,
    pub now: i64,
    next_id: i64,
    rules: Option<Rules>,
    fails: u32,
    fails_after: Option<u32>,
    zero_sums: u32,
    shifts: u32,
}

/// Shared by the world, which writes it, and the gateway, which reads it.
#[derive(Debug, Clone, Default)]
pub struct Log(Arc<Mutex<LogState>>);

pub fn model_name(model: usize) -> String {
    // Equal for a collation, and not to us.
    ["gpt-4", "GPT-4", "video"][model % 3].to_owned()
}

/// The call's own request id, as far as the scenario has any.
pub fn request_id(naming: Naming, call: usize) -> Option<String> {
    matches!(naming, Naming::RequestIds(_) | Naming::ForeignIds).then(|| format!("request-{call}"))
}

impl Log {
    pub fn new(rules: &Rules, now: i64) -> Self {
        let log = Log::default();
        *log.lock() = LogState { rules: Some(rules.clone()), now, next_id: 1, ..LogState::default() };
        log
    }

    pub fn lock(&self) -> MutexGuard<'_, LogState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call leaves its row, to be seen after a while.
    pub fn write(&self, call: &Call, second: i64) {
        let Some(after) = call.row_after_secs else { return };
        let mut state = self.lock();
        let naming = state.rules.as_ref().map_or(Naming::None, |rules| rules.naming);
        let lookback = state.rules.as_ref().map_or(0, |rules| rules.lookback_secs);
        let (row, is_on_time) = (row_of(call, second, naming), after < lookback);
        let visible_at = second + after;
        state.entries.push(Entry { call: call.id, second, visible_at, id: None, is_gone: false, is_on_time, row });
        state.appear();
    }

    pub fn at(&self, now: i64) {
        let mut state = self.lock();
        state.now = now;
        state.appear();
    }

    pub fn id_of(&self, call: usize) -> Option<i64> {
        self.lock().entries.iter().find(|entry| entry.call == call).and_then(|entry| entry.id)
    }

    pub fn last_visible_at(&self) -> i64 {
        self.lock().entries.iter().map(|entry| entry.visible_at).max().unwrap_or_default()
    }

    pub fn fault(&self, fault: LogFault) {
        let mut state = self.lock();
        match fault {
            LogFault::Fails(count) => state.fails = count,
            LogFault::SumsAreZero(count) => state.zero_sums = count,
            LogFault::Shifts(count) => state.shifts = count,
            LogFault::FailsAfter(count) => state.fails_after = Some(count),
        }
    }

    pub fn heal(&self) {
        let mut state = self.lock();
        (state.fails, state.fails_after, state.zero_sums, state.shifts) = (0, None, 0, 0);
    }

    /// Whether an answer may fail for its own reasons.
    pub fn is_faulty(&self) -> bool {
        let state = self.lock();
        state.fails > 0 || state.fails_after.is_some() || state.shifts > 0
    }
}

impl LogState {
    /// Rows get their ids in the order in which they are written.
    fn appear(&mut self) {
        let mut due: Vec<usize> = (0..self.entries.len())
            .filter(|place| self.entries[*place].id.is_none() && self.entries[*place].visible_at <= self.now)
            .collect();
        due.sort_by_key(|place| (self.entries[*place].visible_at, self.entries[*place].call));
        for place in due {
            self.entries[place].id = Some(self.next_id);
            self.next_id += 1;
        }
    }

    /// The same rows in another table.
    pub fn renumber(&mut self) {
        let ids = self.entries.iter_mut().filter_map(|entry| entry.id.as_mut());
        ids.for_each(|id| *id += 1_000);
        self.next_id += 1_000;
    }

    /// As a database does that starts again: behind what is left, seen by then or not.
    pub fn restart_ids(&mut self) {
        let left = self.entries.iter().filter(|entry| !entry.is_gone).filter_map(|entry| entry.id);
        self.next_id = left.max().unwrap_or_default() + 1;
    }

    fn found(&self, window: Window, kind: RowKind) -> Vec<LogRow> {
        let ids = self.rules.as_ref().map_or(RowIds::Absent, |rules| rules.row_ids);
        let is_found = |entry: &&Entry| {
            entry.id.is_some() && !entry.is_gone && entry.row.kind == kind && window.contains(entry.second)
        };
        let mut found: Vec<&Entry> = self.entries.iter().filter(is_found).collect();
        match ids {
            RowIds::MadeUp => found.sort_by_key(|entry| std::cmp::Reverse((entry.second, entry.call))),
            _ => found.sort_by_key(|entry| std::cmp::Reverse((entry.id, entry.call))),
        }
        let row = |(place, entry): (usize, &Entry)| {
            let log_id = match ids {
                RowIds::Stable => entry.id,
                RowIds::MadeUp => i64::try_from(place + 1).ok(),
                RowIds::Absent => None,
            };
            LogRow { log_id, ..entry.row.clone() }
        };
        found.into_iter().enumerate().map(row).collect()
    }

    fn may_answer(&mut self) -> Result<(), GatewayError> {
        if self.fails > 0 {
            self.fails -= 1;
            return Err(GatewayError::ServerFailed { status: 502 });
        }
        match self.fails_after {
            Some(0) => {
                (self.fails_after, self.fails) = (None, 1);
                Err(GatewayError::OutOfReach { reason: "the scenario says so".to_owned() })
            }
            left => {
                self.fails_after = left.map(|left| left - 1);
                Ok(())
            }
        }
    }

    /// Rows that were to come later come now.
    fn shift(&mut self) {
        let now = self.now;
        if self.shifts > 0 {
            self.shifts -= 1;
            let late = self.entries.iter_mut().filter(|entry| entry.id.is_none()).min_by_key(|entry| entry.visible_at);
            if let Some(late) = late {
                late.visible_at = now;
            }
            self.appear();
        }
    }
}

fn row_of(call: &Call, second: i64, naming: Naming) -> LogRow {
    let name = |task: usize| Some(Arc::from(format!("task-{task}").as_str()));
    let (kind, quota_units, task) = match call.task {
        None => (RowKind::Consumption, call.units, None),
        Some(TaskPart::Submission { task, named }) => {
            let task_id = if named { name(task) } else { None };
            (RowKind::Consumption, call.units, Some(TaskNote { task_id, is_submission: true, ..TaskNote::default() }))
        }
        Some(TaskPart::Further { task, stated }) => {
            let note = TaskNote { task_id: name(task), pre_consumed_units: Some(stated), ..TaskNote::default() };
            (RowKind::Consumption, call.units, Some(note))
        }
        Some(TaskPart::Refund { task, stated, as_negative }) => {
            let note = TaskNote { task_id: name(task), pre_consumed_units: Some(stated), ..TaskNote::default() };
            let (kind, units) =
                if as_negative { (RowKind::Consumption, -call.units) } else { (RowKind::Refund, call.units) };
            (kind, units, Some(note))
        }
    };
    LogRow {
        second,
        kind,
        token: RemoteKeyId::new(call.token as i64 + 1).unwrap(),
        token_name: Arc::from(format!("token-{}", call.token).as_str()),
        model: Arc::from(model_name(call.model).as_str()),
        prompt_tokens: call.prompt,
        completion_tokens: call.completion,
        quota_units,
        request_id: request_id(naming, call.id).and_then(|id| RequestId::parse(&id).ok()),
        log_id: None,
        task,
    }
}

#[async_trait]
impl Gateway for Log {
    async fn status(&self) -> Result<GatewayStatus, GatewayError> {
        let mut state = self.lock();
        state.may_answer()?;
        let quota = state.rules.as_ref().and_then(|rules| QuotaPerUnit::new(rules.quota_per_unit));
        Ok(GatewayStatus {
            version: "simulated".to_owned(),
            quota_per_unit: quota.map_or(StatedQuota::Absent, StatedQuota::Stated),
            started_at_second: Some(1),
            source_time: Some(UnixMillis::new(state.now * 1000)),
        })
    }

    async fn options(&self) -> Result<GatewayOptions, GatewayError> {
        Err(GatewayError::NotRoot { said: "an administrator asks".to_owned() })
    }

    async fn page(&self, window: Window, kind: RowKind, number: u32) -> Result<LogPage, GatewayError> {
        let mut state = self.lock();
        state.may_answer()?;
        if number > 0 {
            state.shift();
        }
        let rules = state.rules.clone().unwrap();
        let found = state.found(window, kind);
        let skipped = rules.page_rows * number as usize;
        let rows: Vec<LogRow> = found.iter().skip(skipped).take(rules.page_rows).cloned().collect();
        let ids = match (rules.row_ids, rows.as_slice()) {
            (_, []) | (RowIds::Absent, _) => IdEvidence::None,
            (_, [row]) if row.log_id == Some(1) || row.log_id == Some(skipped as i64 + 1) => IdEvidence::None,
            (RowIds::Stable, _) => IdEvidence::Real,
            (RowIds::MadeUp, _) => IdEvidence::MadeUp,
        };
        Ok(LogPage {
            rows,
            unreadable: Vec::new(),
            total: (!rules.is_bare).then_some(found.len() as u64),
            dialect: if rules.is_bare { Dialect::Bare } else { Dialect::Paged },
            ids,
            source_time: Some(UnixMillis::new(state.now * 1000)),
        })
    }

    async fn quota_sum(&self, window: Window) -> Result<i64, GatewayError> {
        let mut state = self.lock();
        state.may_answer()?;
        if state.zero_sums > 0 {
            state.zero_sums -= 1;
            return Ok(0);
        }
        Ok(state.found(window, RowKind::Consumption).iter().map(|row| row.quota_units).sum())
    }

    async fn count(&self, window: Window, kind: RowKind) -> Result<Option<u64>, GatewayError> {
        let mut state = self.lock();
        state.may_answer()?;
        let is_bare = state.rules.as_ref().is_some_and(|rules| rules.is_bare);
        Ok((!is_bare).then(|| state.found(window, kind).len() as u64))
    }
}

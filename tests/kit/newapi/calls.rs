//! What relayed calls and asynchronous tasks leave in the log, and what a sender of webhooks knows of them.

use serde_json::json;

use super::super::events::Usage;
use super::NewApiHandle;
use super::rows::{CONSUMPTION, REFUND, Row};
use super::state::State;
use super::world::World;

/// One call to be relayed: 100 and 50 tokens for nothing, unless it says otherwise.
#[derive(Debug, Clone)]
pub struct Call {
    token_id: i64,
    model: String,
    at_secs: i64,
    prompt_tokens: i64,
    completion_tokens: i64,
    quota: i64,
    request_id: Option<String>,
    is_stream: bool,
    is_late: bool,
}

impl Call {
    /// By that token, logged at that second.
    pub fn new(token_id: i64, model: &str, at_secs: i64) -> Self {
        Call {
            token_id,
            model: model.to_owned(),
            at_secs,
            prompt_tokens: 100,
            completion_tokens: 50,
            quota: 0,
            request_id: None,
            is_stream: false,
            is_late: false,
        }
    }

    pub fn tokens(mut self, prompt: i64, completion: i64) -> Self {
        (self.prompt_tokens, self.completion_tokens) = (prompt, completion);
        self
    }

    pub fn quota(mut self, units: i64) -> Self {
        self.quota = units;
        self
    }

    /// One of the test's own; several calls may share it.
    pub fn request_id(mut self, id: &str) -> Self {
        self.request_id = Some(id.to_owned());
        self
    }

    pub fn streamed(mut self) -> Self {
        self.is_stream = true;
        self
    }

    /// Its row has its id and second, but nobody sees it until [`super::Log::reveal`].
    pub fn late(mut self) -> Self {
        self.is_late = true;
        self
    }
}

/// What a sender of webhooks knows of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    pub token_id: i64,
    pub model: String,
    pub prompt_tokens: i64,
    pub completion_tokens: i64,
    pub quota: i64,
    pub request_id: String,
    /// None: consumption is not logged.
    pub log_id: Option<i64>,
    pub at_secs: i64,
    /// The price in dollars, as a sender writes it that knows no quota.
    pub cost: String,
}

impl Called {
    /// The event of a sender like ours: with quota, request id and the log's id, if there is one.
    pub fn usage(&self, event_id: &str) -> Usage {
        let usage = self.bare_usage(event_id).quota(self.quota).request_id(&self.request_id);
        match self.log_id {
            Some(log_id) => usage.log_id(log_id),
            None => usage,
        }
    }

    /// The event of the current sender: a price in dollars, and no identity of the call.
    pub fn usage_by_cost(&self, event_id: &str) -> Usage {
        self.bare_usage(event_id).cost(&self.cost)
    }

    fn bare_usage(&self, event_id: &str) -> Usage {
        let usage = Usage::new(event_id).at_secs(self.at_secs).remote_key(self.token_id).model(&self.model);
        usage.tokens(self.prompt_tokens, self.completion_tokens)
    }
}

/// An asynchronous task that was charged at its submission.
#[derive(Debug, Clone)]
pub struct Task {
    pub task_id: String,
    pub submission: Called,
}

impl NewApiHandle {
    /// Relays a call: its row of consumption is in the log (unless that is switched off), its token has paid.
    pub fn call(&self, call: &Call) -> Called {
        self.consume(call, |row| row.chat_details())
    }

    /// A test of a channel by an administrator: it has a price and nobody's token. Answers the row's id.
    pub fn test_channel(&self, model: &str, quota: i64, at_secs: i64) -> Option<i64> {
        let mut row = Row::relayed(CONSUMPTION, at_secs, model).token(0, "模型测试").tokens(45, 40).quota(quota);
        row.content = "模型测试".to_owned();
        self.write(row.chat_details()).0
    }

    /// A submission: no token counts, `is_task`, and no `task_id`.
    pub fn submit_task(&self, task_id: &str, call: &Call) -> Task {
        self.submit(task_id, call, &json!({}))
    }

    /// As [`NewApiHandle::submit_task`], by a version that writes the `task_id`.
    pub fn submit_task_with_id(&self, task_id: &str, call: &Call) -> Task {
        self.submit(task_id, call, &json!({ "task_id": task_id }))
    }

    fn submit(&self, task_id: &str, call: &Call, more: &serde_json::Value) -> Task {
        let mut details = json!({
            "group_ratio": 1, "is_task": true, "model_price": 0.2, "request_path": "/v1/videos",
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            details[name] = value.clone();
        }
        let write = |row: Row| row.content("操作 generate").other(&details);
        let submission = self.consume(&call.clone().tokens(0, 0), write);
        Task { task_id: task_id.to_owned(), submission }
    }

    /// The task failed: what its submission cost is given back. Answers the row's id.
    pub fn fail_task(&self, task: &Task, at_secs: i64) -> i64 {
        let details = json!({
            "group_ratio": 1, "model_price": 0.2, "reason": "upstream failed", "task_id": task.task_id,
        });
        let row = self.row_of(task, REFUND, at_secs).quota(task.submission.quota).other(&details);
        self.write(row).0.expect("refunds are always logged")
    }

    /// The task cost something else than its submission: the difference, as consumption or as a refund. None if
    /// there is none, or consumption is not logged.
    pub fn settle_task(&self, task: &Task, actual_quota: i64, at_secs: i64) -> Option<i64> {
        let difference = actual_quota - task.submission.quota;
        if difference == 0 {
            return None;
        }
        let details = json!({
            "actual_quota": actual_quota,
            "group_ratio": 1,
            "model_price": 0.2,
            "pre_consumed_quota": task.submission.quota,
            "task_id": task.task_id,
        });
        let kind = if difference > 0 { CONSUMPTION } else { REFUND };
        let row = self.row_of(task, kind, at_secs).quota(difference.abs()).content("adaptor调整");
        self.write(row.other(&details)).0
    }

    /// As versions wrote it that knew no refunds: consumption of a negative quota. None if that is not logged.
    pub fn refund_as_negative(&self, task: &Task, at_secs: i64) -> Option<i64> {
        let details = json!({ "reason": "upstream failed", "task_id": task.task_id });
        self.write(self.row_of(task, CONSUMPTION, at_secs).quota(-task.submission.quota).other(&details)).0
    }

    /// A refund that says nothing of whose it is. Answers the row's id.
    pub fn refund_midjourney(&self, quota: i64, at_secs: i64) -> i64 {
        let details = json!({ "reason": "构图失败", "task_id": format!("{at_secs}123456") });
        let row = Row::relayed(REFUND, at_secs, "mj_imagine").quota(quota).other(&details);
        self.write(row).0.expect("refunds are always logged")
    }

    fn row_of(&self, task: &Task, kind: i64, at_secs: i64) -> Row {
        let token_id = task.submission.token_id;
        let name = self.token(token_id).name;
        Row::relayed(kind, at_secs, &task.submission.model).token(token_id, &name)
    }

    fn consume(&self, call: &Call, details: impl FnOnce(Row) -> Row) -> Called {
        let name = self.token(call.token_id).name;
        let mut row = Row::relayed(CONSUMPTION, call.at_secs, &call.model).token(call.token_id, &name);
        row = row.tokens(call.prompt_tokens, call.completion_tokens).quota(call.quota);
        row.is_stream = call.is_stream;
        row.request_id.clone_from(&call.request_id);
        let (log_id, request_id) = self.write_as(details(row), call.is_late);
        let per_unit = self.world(|world| {
            pay(world, call);
            world.quota_per_unit()
        });
        Called {
            token_id: call.token_id,
            model: call.model.clone(),
            prompt_tokens: call.prompt_tokens,
            completion_tokens: call.completion_tokens,
            quota: call.quota,
            request_id,
            log_id,
            at_secs: call.at_secs,
            cost: dollars(call.quota, per_unit),
        }
    }

    fn write(&self, row: Row) -> (Option<i64>, String) {
        self.write_as(row, false)
    }

    /// The row's id, unless it is consumption and that is not logged; and its request id.
    fn write_as(&self, mut row: Row, is_late: bool) -> (Option<i64>, String) {
        self.server.change(|state: &mut State| {
            let request_id = row.request_id.take().unwrap_or_else(|| state.new_request_id(row.created_at));
            row.request_id = Some(request_id.clone());
            let is_logged = row.kind != CONSUMPTION || state.world.logs_consumption();
            let log = &mut state.world.log;
            let insert = |row| if is_late { log.insert_hidden(row) } else { log.insert(row) };
            (is_logged.then_some(row).map(insert), request_id)
        })
    }
}

fn pay(world: &mut World, call: &Call) {
    if let Some(token) = world.tokens.get_mut(&call.token_id) {
        token.used_quota += call.quota;
        token.remain_quota -= call.quota;
        token.accessed_time = call.at_secs;
    }
}

/// A price in dollars with up to 12 decimals.
fn dollars(quota: i64, per_unit: i64) -> String {
    let billionths = i128::from(quota) * 1_000_000_000_000 / i128::from(per_unit);
    let sign = if billionths < 0 { "-" } else { "" };
    let (whole, rest) = (billionths.abs() / 1_000_000_000_000, billionths.abs() % 1_000_000_000_000);
    let text = format!("{sign}{whole}.{rest:012}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

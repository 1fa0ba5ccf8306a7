//! An open row of the log as it is kept whole: JSON, the same on every database.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::ids::{RemoteKeyId, RequestId};
use crate::domain::log_row::{LogRow, RowKind, TaskNote};

#[derive(Serialize, Deserialize)]
struct Content {
    second: i64,
    #[serde(rename = "type")]
    kind: i64,
    token: i64,
    token_name: String,
    model: String,
    prompt_tokens: i64,
    completion_tokens: i64,
    quota: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log_id: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<Task>,
}

#[derive(Serialize, Deserialize)]
struct Task {
    task_id: Option<String>,
    is_submission: bool,
    pre_consumed_units: Option<i64>,
    reason: Option<String>,
}

pub fn write(row: &LogRow) -> Result<String, serde_json::Error> {
    let task = row.task.as_ref().map(|task| Task {
        task_id: task.task_id.as_deref().map(str::to_owned),
        is_submission: task.is_submission,
        pre_consumed_units: task.pre_consumed_units,
        reason: task.reason.as_deref().map(str::to_owned),
    });
    serde_json::to_string(&Content {
        second: row.second,
        kind: row.kind.number(),
        token: row.token.get(),
        token_name: row.token_name.to_string(),
        model: row.model.to_string(),
        prompt_tokens: row.prompt_tokens,
        completion_tokens: row.completion_tokens,
        quota: row.quota_units,
        request_id: row.request_id.as_ref().map(ToString::to_string),
        log_id: row.log_id,
        task,
    })
}

/// None where the text is not as we write it.
pub fn read(text: &str) -> Option<LogRow> {
    let content: Content = serde_json::from_str(text).ok()?;
    let task = content.task.map(|task| TaskNote {
        task_id: task.task_id.map(Arc::from),
        is_submission: task.is_submission,
        pre_consumed_units: task.pre_consumed_units,
        reason: task.reason.map(Arc::from),
    });
    Some(LogRow {
        second: content.second,
        kind: RowKind::from_number(content.kind)?,
        token: RemoteKeyId::new(content.token)?,
        token_name: Arc::from(content.token_name),
        model: Arc::from(content.model),
        prompt_tokens: content.prompt_tokens,
        completion_tokens: content.completion_tokens,
        quota_units: content.quota,
        request_id: content.request_id.and_then(|id| RequestId::parse(&id).ok()),
        log_id: content.log_id,
        task,
    })
}

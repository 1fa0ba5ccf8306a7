//! One row as it is on the wire, checked against what was asked for. What cannot be read is reported, never guessed.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::window::Window;
use crate::domain::decimal::Decimal;
use crate::domain::ids::{RemoteKeyId, RequestId};
use crate::domain::log_row::{LogRow, RowKind, TaskNote};

/// A row that was there and could not be read. It counts as a row, and nobody is charged for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnreadableRow {
    /// `created_at`, where that much could be read.
    pub second: Option<i64>,
    /// `id` as stated; it may be made up.
    pub stated_id: Option<i64>,
    /// The field, and what is wrong with it.
    pub reason: String,
}

/// What every row of an answer must be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) window: Window,
    pub(super) kind: RowKind,
    pub(super) group: Option<&'a str>,
    pub(super) username: Option<&'a str>,
}

/// A row that proves that new-api ignores a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outside {
    pub(super) filter: &'static str,
    pub(super) found: String,
}

#[derive(Deserialize)]
struct WireRow<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    token_id: Option<&'a RawValue>,
    #[serde(borrow)]
    token_name: Option<&'a RawValue>,
    #[serde(borrow)]
    model_name: Option<&'a RawValue>,
    #[serde(borrow)]
    username: Option<&'a RawValue>,
    #[serde(borrow)]
    group: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    completion_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    quota: Option<&'a RawValue>,
    #[serde(borrow)]
    request_id: Option<&'a RawValue>,
    #[serde(borrow)]
    other: Option<&'a RawValue>,
}

/// Reads one row. The outer error spoils the whole answer, the inner one this row alone.
pub(super) fn read(item: &RawValue, asked: Asked<'_>) -> Result<Result<LogRow, UnreadableRow>, Outside> {
    let wire = match serde_json::from_str::<WireRow>(item.get()) {
        Ok(wire) if item.get().starts_with('{') => wire,
        // An array would be read by position.
        Ok(_) => return Ok(Err(unreadable(None, None, "the row is no object".to_owned()))),
        Err(error) => return Ok(Err(unreadable(None, None, format!("the row cannot be read: {error}")))),
    };
    let stated_id = wire.id.and_then(|raw| whole("id", Some(raw)).ok());
    let second = match whole("created_at", wire.created_at) {
        Ok(second) => second,
        Err(reason) => return Ok(Err(unreadable(None, stated_id, reason))),
    };
    check_filters(&wire, second, asked)?;
    Ok(log_row(&wire, second, stated_id, asked.kind).map_err(|reason| unreadable(Some(second), stated_id, reason)))
}

fn unreadable(second: Option<i64>, stated_id: Option<i64>, reason: String) -> UnreadableRow {
    UnreadableRow { second, stated_id, reason }
}

/// A type that cannot be read is left to `log_row`: such a row is unreadable, and no proof of anything.
fn check_filters(wire: &WireRow<'_>, second: i64, asked: Asked<'_>) -> Result<(), Outside> {
    if !asked.window.contains(second) {
        return Err(Outside {
            filter: "start_timestamp and end_timestamp",
            found: format!("a row of second {second}"),
        });
    }
    if let Ok(number) = whole("type", wire.kind)
        && number != asked.kind.number()
    {
        return Err(Outside { filter: "type", found: format!("a row of type {number}") });
    }
    for (filter, wanted, raw) in [("group", asked.group, wire.group), ("username", asked.username, wire.username)] {
        let found = raw.and_then(|raw| text(filter, raw).ok());
        if let (Some(wanted), Some(found)) = (wanted, found)
            && !is_same_name(wanted, &found)
        {
            return Err(Outside { filter, found: format!("a row of another {filter}") });
        }
    }
    Ok(())
}

/// The gateway's database may compare without regard to case and to blanks at the end.
fn is_same_name(one: &str, other: &str) -> bool {
    one.trim().to_lowercase() == other.trim().to_lowercase()
}

fn log_row(wire: &WireRow<'_>, second: i64, stated_id: Option<i64>, kind: RowKind) -> Result<LogRow, String> {
    whole("type", wire.kind)?;
    let token = whole("token_id", wire.token_id)?;
    let token = RemoteKeyId::new(token).ok_or_else(|| format!("token_id must not be negative; it is {token}"))?;
    let request_id = wire.request_id.map(|raw| text("request_id", raw)).transpose()?.filter(|id| !id.is_empty());
    let request_id = request_id.map(|id| RequestId::parse(&id).map_err(|error| format!("request_id {error}")));
    let model = wire.model_name.ok_or_else(|| "model_name is missing".to_owned())?;
    let token_name = wire.token_name.and_then(|raw| text("token_name", raw).ok()).unwrap_or_default();
    Ok(LogRow {
        second,
        kind,
        token,
        token_name: token_name.into(),
        model: text("model_name", model)?.into(),
        prompt_tokens: whole("prompt_tokens", wire.prompt_tokens)?,
        completion_tokens: whole("completion_tokens", wire.completion_tokens)?,
        quota_units: whole("quota", wire.quota)?,
        request_id: request_id.transpose()?,
        log_id: stated_id.filter(|id| *id > 0),
        task: wire.other.and_then(task_note),
    })
}

fn whole(field: &str, raw: Option<&RawValue>) -> Result<i64, String> {
    let text = raw.ok_or_else(|| format!("{field} is missing"))?.get();
    text.parse()
        .or_else(|_| Decimal::parse(text).and_then(Decimal::to_whole))
        .map_err(|error| format!("{field} {error}"))
}

fn text(field: &str, raw: &RawValue) -> Result<String, String> {
    serde_json::from_str(raw.get()).map_err(|_| format!("{field} must be text"))
}

/// What a document in a string says of a task. One that cannot be read says nothing.
fn task_note(raw: &RawValue) -> Option<TaskNote> {
    let other = match serde_json::from_str(raw.get()).ok()? {
        Value::String(document) => serde_json::from_str(&document).ok()?,
        other => other,
    };
    let task_id = match other.get("task_id") {
        Some(Value::String(id)) if !id.is_empty() => Some(Arc::from(id.as_str())),
        Some(Value::Number(id)) => Some(Arc::from(id.to_string())),
        _ => None,
    };
    let is_submission = other.get("is_task").and_then(Value::as_bool).unwrap_or(false);
    let pre_consumed_units = other.get("pre_consumed_quota").and_then(Value::as_i64);
    let reason = other.get("reason").and_then(Value::as_str).filter(|reason| !reason.is_empty()).map(Arc::from);
    let note = TaskNote { task_id, is_submission, pre_consumed_units, reason };
    Some(note).filter(|note| *note != TaskNote::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_800_000_000;

    fn asked(kind: RowKind) -> Asked<'static> {
        let window = Window::new(SECOND, SECOND + 9).unwrap();
        Asked { window, kind, group: None, username: None }
    }

    /// A consumption row with some fields replaced, or removed by `null`.
    fn wire(changes: Value) -> Box<RawValue> {
        let mut row = serde_json::json!({
            "id": 41, "user_id": 3, "created_at": SECOND + 1, "type": 2, "content": "", "username": "dora",
            "token_name": "dora-key", "model_name": "gpt-4.1", "quota": 640, "prompt_tokens": 21,
            "completion_tokens": 8, "token_id": 12, "group": "vip", "request_id": "2026-r-1", "other": "{}",
        });
        for (field, value) in changes.as_object().unwrap() {
            row[field] = value.clone();
        }
        RawValue::from_string(row.to_string()).unwrap()
    }

    fn row(changes: Value) -> LogRow {
        read(&wire(changes), asked(RowKind::Consumption)).unwrap().unwrap()
    }

    #[test]
    fn a_consumption_row_is_taken_as_it_is() {
        let read = row(serde_json::json!({}));
        assert_eq!(
            (read.second, read.kind, read.token.get(), read.log_id),
            (SECOND + 1, RowKind::Consumption, 12, Some(41))
        );
        assert_eq!((&*read.token_name, &*read.model), ("dora-key", "gpt-4.1"));
        assert_eq!((read.prompt_tokens, read.completion_tokens, read.quota_units), (21, 8, 640));
        assert_eq!((read.request_id.as_ref().map(RequestId::as_str), read.task), (Some("2026-r-1"), None));
        let negative = row(serde_json::json!({"quota": -640, "token_id": 0, "request_id": "", "id": 0}));
        assert_eq!((negative.quota_units, negative.token.is_nobody()), (-640, true));
        assert_eq!((negative.request_id, negative.log_id), (None, None));
        let old = row(serde_json::json!({"request_id": null, "other": null, "token_name": null}));
        assert_eq!((old.request_id, old.task, &*old.token_name), (None, None, ""));
    }

    #[test]
    fn a_task_is_told_by_a_document_in_a_string() {
        let note = |other: &str| row(serde_json::json!({ "other": other })).task;
        let submitted = TaskNote { is_submission: true, ..TaskNote::default() };
        assert_eq!(note(r#"{"is_task":true,"group_ratio":1}"#), Some(submitted));
        let later = r#"{"task_id":"task_Z9","pre_consumed_quota":90000,"actual_quota":70000,"reason":"\u592a\u957f"}"#;
        let expected = TaskNote {
            task_id: Some("task_Z9".into()),
            is_submission: false,
            pre_consumed_units: Some(90_000),
            reason: Some("太长".into()),
        };
        assert_eq!(note(later), Some(expected));
        assert_eq!(note(r#"{"task_id":1795558000123456}"#).unwrap().task_id.as_deref(), Some("1795558000123456"));
        for nothing in ["", "{", "null", "[]", "{\"task_id\":\"\"}", r#"{"is_task":"yes","pre_consumed_quota":1.5}"#] {
            assert_eq!(note(nothing), None, "{nothing}");
        }
        let object = row(serde_json::json!({"other": {"task_id": "t"}})).task.unwrap();
        assert_eq!(object.task_id.as_deref(), Some("t"));
    }

    #[test]
    fn what_cannot_be_read_is_named_and_not_guessed() {
        for (changes, reason, second) in [
            (serde_json::json!({"created_at": "now"}), "created_at must be a number", None),
            (serde_json::json!({"created_at": null}), "created_at is missing", None),
            (serde_json::json!({"type": null}), "type is missing", Some(SECOND + 1)),
            (serde_json::json!({"quota": 1.5}), "quota must be a whole number", Some(SECOND + 1)),
            (serde_json::json!({"quota": "640"}), "quota must be a number", Some(SECOND + 1)),
            (serde_json::json!({"token_id": null}), "token_id is missing", Some(SECOND + 1)),
            (serde_json::json!({"token_id": -1}), "token_id must not be negative", Some(SECOND + 1)),
            (serde_json::json!({"model_name": 4}), "model_name must be text", Some(SECOND + 1)),
            (serde_json::json!({"model_name": null}), "model_name is missing", Some(SECOND + 1)),
            (serde_json::json!({"prompt_tokens": {}}), "prompt_tokens must be a number", Some(SECOND + 1)),
            (serde_json::json!({"request_id": "r".repeat(192)}), "request_id must be at most 191", Some(SECOND + 1)),
        ] {
            let refused = read(&wire(changes), asked(RowKind::Consumption)).unwrap().unwrap_err();
            assert!(refused.reason.contains(reason), "{refused:?}");
            assert_eq!((refused.second, refused.stated_id), (second, Some(41)));
        }
        for odd in ["[1,2]", "5", "null", r#"{"id":1,"id":2}"#] {
            let item = RawValue::from_string(odd.to_owned()).unwrap();
            assert!(read(&item, asked(RowKind::Consumption)).unwrap().is_err(), "{odd}");
        }
    }

    #[test]
    fn a_row_that_was_not_asked_for_spoils_the_answer() {
        let narrowed = Asked { group: Some("VIP"), username: Some("dora"), ..asked(RowKind::Consumption) };
        assert!(read(&wire(serde_json::json!({})), narrowed).is_ok(), "names of a database that ignores case");
        for (changes, filter) in [
            (serde_json::json!({"created_at": SECOND - 1}), "start_timestamp and end_timestamp"),
            (serde_json::json!({"created_at": SECOND + 10}), "start_timestamp and end_timestamp"),
            (serde_json::json!({"type": 6}), "type"),
            (serde_json::json!({"type": 5, "quota": "x"}), "type"),
            (serde_json::json!({"group": "default"}), "group"),
            (serde_json::json!({"username": "emil"}), "username"),
        ] {
            assert_eq!(read(&wire(changes), narrowed).unwrap_err().filter, filter);
        }
        assert_eq!(read(&wire(serde_json::json!({})), asked(RowKind::Refund)).unwrap_err().found, "a row of type 2");
    }
}

//! The door: raw bytes of a rightly signed body become a `Delivery`, or a refusal that names the field.
//!
//! Whether an event is too old, known or chargeable is decided elsewhere.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::decimal::{Decimal, DecimalError};
use super::event::{Content, Delivery, Notice, NoticeKind, Tokens, UsageEvent};
use super::ids::{EventId, RemoteKeyId, RequestId};
use super::money::{Credits, QuotaUnits};
use super::pricing::Price;
use super::time::UnixMillis;

/// Timestamps from here on are milliseconds: as seconds this is the year 5138, as milliseconds 1973.
const FIRST_MILLIS: i64 = 100_000_000_000;

/// Why a body is refused. The text is answered to the (authenticated) sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("Invalid JSON body: {0}")]
    NotAnObject(String),
    #[error("Missing field: {0}")]
    Missing(&'static str),
    #[error("Invalid field {field}: {problem}")]
    Invalid { field: &'static str, problem: String },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a JSON object")]
struct Envelope<'a> {
    #[serde(borrow)]
    event_id: Option<&'a RawValue>,
    #[serde(borrow)]
    event_type: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    notification_type: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", expecting = "a JSON object")]
struct UsageData<'a> {
    #[serde(borrow)]
    remote_key_id: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    prompt_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    completion_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    total_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    cost: Option<&'a RawValue>,
    #[serde(borrow)]
    credit_cost: Option<&'a RawValue>,
    #[serde(borrow)]
    quota: Option<&'a RawValue>,
    #[serde(borrow)]
    request_id: Option<&'a RawValue>,
    #[serde(borrow)]
    log_id: Option<&'a RawValue>,
}

/// Parses a whole body. `null` counts as absent; unknown fields are ignored; a known field twice is refused.
pub fn parse_body(body: &[u8]) -> Result<Delivery, Malformed> {
    let text = std::str::from_utf8(body).map_err(|_| Malformed::NotAnObject("it is not UTF-8".to_owned()))?;
    if !text.trim_start_matches([' ', '\t', '\r', '\n']).starts_with('{') {
        return Err(Malformed::NotAnObject("it does not begin with {".to_owned()));
    }
    let envelope: Envelope = serde_json::from_str(text).map_err(|error| Malformed::NotAnObject(error.to_string()))?;
    if let (None, None, Some(kind)) = (envelope.event_id, envelope.event_type, envelope.notification_type)
        && let Ok(kind) = serde_json::from_str::<String>(kind.get())
    {
        let event_id = EventId::derived("notification", body);
        return Ok(notice(event_id, NoticeKind::Notification { kind }, text));
    }
    let event_id = EventId::parse(&string("eventId", envelope.event_id)?).map_err(invalid("eventId"))?;
    match string("eventType", envelope.event_type)?.as_str() {
        "usage" => {
            let called_at = timestamp(envelope.timestamp)?;
            usage(event_id, called_at, envelope.data, text).map(Delivery::Usage)
        }
        "ping" => {
            timestamp(envelope.timestamp)?;
            Ok(notice(event_id, NoticeKind::Ping, text))
        }
        other => Ok(notice(event_id, NoticeKind::UnknownType { event_type: other.to_owned() }, text)),
    }
}

fn notice(event_id: EventId, kind: NoticeKind, payload: &str) -> Delivery {
    Delivery::Notice(Notice { event_id, kind, payload: Arc::from(payload) })
}

fn usage(
    event_id: EventId,
    called_at: UnixMillis,
    data: Option<&RawValue>,
    payload: &str,
) -> Result<UsageEvent, Malformed> {
    let data = data.ok_or(Malformed::Missing("data"))?;
    let data: UsageData = serde_json::from_str(data.get())
        .ok()
        .filter(|_| data.get().starts_with('{'))
        .ok_or_else(|| data_problem(data.get()))?;
    let request_id = optional_string("data.requestId", data.request_id)?;
    let request_id = request_id.map(|id| RequestId::parse(&id)).transpose().map_err(invalid("data.requestId"))?;
    let log_id = data.log_id.map(|raw| whole("data.logId", raw)).transpose()?.filter(|id| *id > 0);
    let content = Content {
        remote_key_id: remote_key_id(data.remote_key_id)?,
        model: model(data.model)?,
        tokens: tokens(&data)?,
        price: price(&data)?,
        called_at,
    };
    Ok(UsageEvent { event_id, content, request_id, log_id, payload: Arc::from(payload) })
}

/// Says what is wrong with `data`: not an object, or a field in it twice.
fn data_problem(text: &str) -> Malformed {
    let problem = match serde_json::from_str::<UsageData>(text) {
        Err(error) if text.starts_with('{') => error.to_string(),
        _ => "must be a JSON object".to_owned(),
    };
    Malformed::Invalid { field: "data", problem }
}

fn remote_key_id(raw: Option<&RawValue>) -> Result<RemoteKeyId, Malformed> {
    const FIELD: &str = "data.remoteKeyId";
    let raw = raw.ok_or(Malformed::Missing(FIELD))?;
    if raw.get().starts_with('"') {
        let text = string(FIELD, Some(raw))?;
        return RemoteKeyId::parse(&text).ok_or_else(|| invalid(FIELD)("must be decimal digits without leading zeros"));
    }
    RemoteKeyId::new(whole(FIELD, raw)?).ok_or_else(|| invalid(FIELD)(DecimalError::Negative))
}

fn model(raw: Option<&RawValue>) -> Result<Arc<str>, Malformed> {
    const FIELD: &str = "data.model";
    let model = string(FIELD, raw)?;
    if model.is_empty() {
        return Err(invalid(FIELD)("must not be empty"));
    }
    if model.contains('\0') {
        return Err(invalid(FIELD)("must not contain the character U+0000"));
    }
    Ok(Arc::from(model.as_str()))
}

fn tokens(data: &UsageData) -> Result<Tokens, Malformed> {
    let count = |field: &'static str, raw: &RawValue| {
        i32::try_from(whole(field, raw)?).map_err(|_| invalid(field)("must be at most 2147483647"))
    };
    let required = |field: &'static str, raw: Option<&RawValue>| count(field, raw.ok_or(Malformed::Missing(field))?);
    let prompt = required("data.promptTokens", data.prompt_tokens)?;
    let completion = required("data.completionTokens", data.completion_tokens)?;
    let total = match data.total_tokens {
        Some(raw) => count("data.totalTokens", raw)?,
        None => prompt
            .checked_add(completion)
            .ok_or_else(|| invalid("data.totalTokens")("the sum must be at most 2147483647"))?,
    };
    Ok(Tokens { prompt, completion, total })
}

/// Every price field that is there must be right; quota goes before cost, and cost before creditCost.
fn price(data: &UsageData) -> Result<Price, Malformed> {
    let quota = data.quota.map(|raw| whole("data.quota", raw)).transpose()?;
    let cost = data.cost.map(cost_usd).transpose()?;
    let credit_cost = data.credit_cost.map(credit_cost).transpose()?;
    let quota = quota.and_then(QuotaUnits::new).map(Price::Quota);
    quota.or(cost).or(credit_cost).ok_or(Malformed::Missing("data.quota, data.cost or data.creditCost"))
}

fn cost_usd(raw: &RawValue) -> Result<Price, Malformed> {
    /// Far above what a 32-bit column of credits can hold at any sensible rate.
    const LARGEST_USD: u64 = 1_000_000_000;
    let cost = number("data.cost", raw)?;
    match cost.times_rounded(1) {
        Ok(dollars) if dollars.unsigned_abs() <= LARGEST_USD => Ok(Price::CostUsd(cost)),
        _ => Err(invalid("data.cost")("must be at most 1000000000 US dollars")),
    }
}

fn credit_cost(raw: &RawValue) -> Result<Price, Malformed> {
    let credits = Credits::new(whole("data.creditCost", raw)?);
    let credits = credits.for_column().map_err(|_| invalid("data.creditCost")("must be at most 2147483647"))?;
    Ok(Price::CreditCost(credits))
}

fn timestamp(raw: Option<&RawValue>) -> Result<UnixMillis, Malformed> {
    const FIELD: &str = "timestamp";
    let value = whole(FIELD, raw.ok_or(Malformed::Missing(FIELD))?)?;
    let millis = if value >= FIRST_MILLIS { value } else { value * 1000 };
    if millis > UnixMillis::MAX.as_millis() {
        return Err(invalid(FIELD)("must be Unix seconds or milliseconds before the year 10000"));
    }
    Ok(UnixMillis::new(millis))
}

fn invalid<E: ToString>(field: &'static str) -> impl FnOnce(E) -> Malformed {
    move |problem| Malformed::Invalid { field, problem: problem.to_string() }
}

fn number(field: &'static str, raw: &RawValue) -> Result<Decimal, Malformed> {
    Decimal::parse(raw.get()).map_err(invalid(field))
}

/// A whole number of zero or more.
fn whole(field: &'static str, raw: &RawValue) -> Result<i64, Malformed> {
    number(field, raw)?.to_whole().map_err(invalid(field))
}

fn string(field: &'static str, raw: Option<&RawValue>) -> Result<String, Malformed> {
    let raw = raw.ok_or(Malformed::Missing(field))?;
    serde_json::from_str(raw.get()).map_err(|error| {
        let shaped = raw.get().starts_with('"');
        invalid(field)(if shaped { format!("is not a valid string ({error})") } else { "must be a string".to_owned() })
    })
}

fn optional_string(field: &'static str, raw: Option<&RawValue>) -> Result<Option<String>, Malformed> {
    raw.map(|raw| string(field, Some(raw))).transpose().map(|text| text.filter(|text| !text.is_empty()))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;

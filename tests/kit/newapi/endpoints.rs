//! Each endpoint of new-api that this fake has: from a request and the world to an answer.

use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, request_id};
use super::auth::authenticate;
use super::paging::{self, Habits, PageQuery};
use super::request::{Endpoint, Request};
use super::rows::{MANAGE, Row};
use super::world::{Role, Token, World, is_secret};

/// The answer of a gateway that works, at that second, to the request of that number.
pub fn answer(world: &mut World, request: &Request, habits: Habits, now_secs: i64, number: u64) -> Answer {
    match request.endpoint {
        Endpoint::Status => status(world),
        Endpoint::LogRows => authenticate(world, request, Role::Admin)
            .map_or_else(|refusal| refusal, |_| paging::rows(&world.log, request, habits)),
        Endpoint::LogStat => authenticate(world, request, Role::Admin)
            .map_or_else(|refusal| refusal, |_| paging::statistics(&world.log, request, habits, now_secs)),
        Endpoint::Options => {
            authenticate(world, request, Role::Root).map_or_else(|refusal| refusal, |_| options(world, number))
        }
        Endpoint::OptionUpdate => update_option(world, request, now_secs, number),
        Endpoint::Tokens => match authenticate(world, request, Role::Common) {
            Ok(user) => tokens(world, user.id, request, habits),
            Err(refusal) => refusal,
        },
        Endpoint::TokenUpdate => update_token(world, request),
        Endpoint::Other => other(request),
    }
}

fn status(world: &World) -> Answer {
    Answer::data(&json!({
        "display_in_currency": true,
        "price": 7.3,
        "quota_display_type": "USD",
        "quota_per_unit": world.quota_per_unit(),
        "self_use_mode_enabled": true,
        "setup": true,
        "start_time": world.start_time,
        "system_name": "New API",
        "usd_exchange_rate": 7.3,
        "version": world.version,
    }))
}

/// In another order each time, as the real one's map has none.
fn options(world: &World, number: u64) -> Answer {
    let shown = world.options.iter().filter(|(key, _)| !is_secret(key));
    let mut shown: Vec<Value> = shown.map(|(key, value)| json!({ "key": key, "value": value })).collect();
    if let Some(shift) = number.checked_rem(shown.len() as u64).and_then(|shift| usize::try_from(shift).ok()) {
        shown.rotate_left(shift);
    }
    Answer::data(&shown)
}

#[derive(Deserialize)]
struct OptionUpdate {
    key: String,
    value: Value,
}

/// Leaves a row in the log, as each change of a setting does.
fn update_option(world: &mut World, request: &Request, now_secs: i64, number: u64) -> Answer {
    let (user_id, user_name) = match authenticate(world, request, Role::Root) {
        Ok(user) => (user.id, user.name.clone()),
        Err(refusal) => return refusal,
    };
    let Ok(update) = serde_json::from_slice::<OptionUpdate>(&request.body) else {
        return Answer::refused_with(400, "Invalid parameters");
    };
    let value = match update.value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    world.options.insert(update.key.clone(), value);
    let mut row = Row::new(MANAGE, now_secs)
        .content(&format!("Updated system setting {}", update.key))
        .request_id(&request_id(now_secs, number))
        .other(&json!({
            "admin_info": {
                "admin_id": user_id, "admin_role": 100, "admin_username": user_name, "auth_method": "access_token",
            },
            "op": { "action": "option.update", "params": { "key": update.key } },
        }));
    (row.user_id, row.username) = (user_id, user_name);
    row.ip = "127.0.0.1".to_owned();
    world.log.insert(row);
    Answer::done()
}

fn tokens(world: &World, user_id: i64, request: &Request, habits: Habits) -> Answer {
    let own = world.tokens.values().rev().filter(|token| token.user_id == user_id);
    match PageQuery::of(request, habits.dialect) {
        Ok(query) => Answer::data(&query.cut(own.map(Token::masked))),
        Err(refusal) => refusal,
    }
}

/// What a change of a token does not name is empty, and so is the token's then.
#[derive(Deserialize, Default)]
#[serde(default)]
struct TokenUpdate {
    id: i64,
    status: i64,
    name: String,
    expired_time: i64,
    remain_quota: i64,
    unlimited_quota: bool,
    model_limits_enabled: bool,
    model_limits: String,
    allow_ips: Option<String>,
    group: String,
    cross_group_retry: bool,
}

fn update_token(world: &mut World, request: &Request) -> Answer {
    let user_id = match authenticate(world, request, Role::Common) {
        Ok(user) => user.id,
        Err(refusal) => return refusal,
    };
    let Ok(update) = serde_json::from_slice::<TokenUpdate>(&request.body) else {
        return Answer::refused("Invalid parameters");
    };
    let own = world.tokens.get_mut(&update.id).filter(|token| token.user_id == user_id);
    let Some(token) = own else {
        return Answer::refused("record not found");
    };
    if request.parameter("status_only").is_some_and(|value| !value.is_empty()) {
        token.status = update.status;
    } else {
        token.name = update.name;
        token.expired_time = update.expired_time;
        token.remain_quota = update.remain_quota;
        token.unlimited_quota = update.unlimited_quota;
        token.model_limits_enabled = update.model_limits_enabled;
        token.model_limits = update.model_limits;
        token.allow_ips = update.allow_ips.unwrap_or_default();
        token.group = update.group;
        token.cross_group_retry = update.cross_group_retry;
    }
    Answer::data(&token.masked())
}

/// A path that lacks its last slash leads to the one that has it; everything else is nowhere.
fn other(request: &Request) -> Answer {
    if ["/api/log", "/api/option", "/api/token"].contains(&request.path.as_str()) {
        let query = if request.raw_query.is_empty() { "" } else { "?" };
        let status = if request.method == "GET" { 301 } else { 307 };
        return Answer::redirect(status, &format!("{}/{query}{}", request.path, request.raw_query));
    }
    let message = json!(format!("Invalid URL ({} {})", request.method, request.path));
    let error = format!(r#"{{"message":{message},"type":"invalid_request_error","param":"","code":""}}"#);
    Answer::json(404, &format!(r#"{{"error":{error}}}"#))
}

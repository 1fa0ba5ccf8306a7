//! The balance question: before it relays a call, new-api asks whether the key's owner still has credits.
//!
//! It stands in the way of every call, so it touches no actor and waits for no write: one look at the books, as of
//! the last commit. Nothing about a key is told to someone without the token.

use std::sync::Arc;
use std::time::Instant;

use actix_web::guard::{GuardContext, fn_guard};
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, RETRY_AFTER};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use serde::Serialize;
use serde_json::json;

use super::policy::RequestPolicy;
use super::server::{HttpState, read_only};
use crate::domain::ids::{KeyId, RemoteKeyId};
use crate::domain::time::UnixMillis;
use crate::storage::books::{BooksError, KeyBalance, KeySelector};
use crate::telemetry::metrics;

const TOKEN_HEADER: &str = "X-API-Key";

const PATH_START: &str = "/api/api-keys/";
const PATH_END: &str = "/credit-balance";

/// Adds the two paths, which exist while there is a token with which they can be asked.
pub fn routes(config: &mut web::ServiceConfig) {
    let remote = read_only(format!("{PATH_START}remote/{{id}}{PATH_END}"), web::get().to(by_remote_id));
    let own = read_only(format!("{PATH_START}{{id}}{PATH_END}"), web::get().to(by_id));
    config.service(remote.guard(fn_guard(can_be_asked))).service(own.guard(fn_guard(can_be_asked)));
}

fn can_be_asked(request: &GuardContext<'_>) -> bool {
    request.req_data().get::<Arc<RequestPolicy>>().is_some_and(|policy| policy.balance_token.is_some())
}

/// Whether a path is one of the two.
pub fn is_question(path: &str) -> bool {
    let id = path.strip_prefix(PATH_START).and_then(|rest| rest.strip_suffix(PATH_END));
    let id = id.map(|id| id.strip_prefix("remote/").unwrap_or(id));
    id.is_some_and(|id| !id.is_empty() && !id.contains('/'))
}

/// What became of one question.
enum Outcome {
    Found(KeyBalance),
    MissingToken,
    WrongToken,
    NoSuchKey,
    NotActive,
    SeveralOwners,
    Unavailable(BooksError),
}

type Id = Result<web::Path<String>, actix_web::Error>;

async fn by_id(request: HttpRequest, id: Id, state: web::Data<HttpState>) -> HttpResponse {
    // What cannot be read as text or as an id is no key's.
    let key = id.ok().and_then(|id| KeyId::parse(&id).ok()).map(KeySelector::Id);
    answer(&request, key, &state).await
}

async fn by_remote_id(request: HttpRequest, id: Id, state: web::Data<HttpState>) -> HttpResponse {
    let key = id.ok().and_then(|id| RemoteKeyId::parse(&id)).map(KeySelector::Remote);
    answer(&request, key, &state).await
}

async fn answer(request: &HttpRequest, key: Option<KeySelector>, state: &HttpState) -> HttpResponse {
    let started = Instant::now();
    let outcome = ask(request, key, state).await;
    metrics::balance_answered(outcome.name(), started.elapsed());
    if let Outcome::Unavailable(error) = &outcome {
        tracing::warn!(%error, "a balance could not be read");
    }
    outcome.into_response(state.clock.now())
}

async fn ask(request: &HttpRequest, key: Option<KeySelector>, state: &HttpState) -> Outcome {
    let Some(given) = request.headers().get(TOKEN_HEADER) else { return Outcome::MissingToken };
    if !state.policy_of(request).balance_token.as_ref().is_some_and(|token| token.is(given.as_bytes())) {
        return Outcome::WrongToken;
    }
    let Some(key) = key else { return Outcome::NoSuchKey };
    match state.store.key_balance(key).await {
        Ok(balance) => Outcome::Found(balance),
        Err(BooksError::NoSuchKey(_)) => Outcome::NoSuchKey,
        Err(BooksError::KeyNotActive(_)) => Outcome::NotActive,
        Err(BooksError::SeveralKeyOwners(_)) => Outcome::SeveralOwners,
        Err(error) => Outcome::Unavailable(error),
    }
}

/// The data of an answer, as the protocol names it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BalanceData {
    credit: i64,
    user_id: String,
    key_id: String,
    remote_key_id: Option<i64>,
    label: String,
    last_updated: String,
    timestamp: i64,
}

impl Outcome {
    /// Label of `hookledger_balance_requests_total`.
    fn name(&self) -> &'static str {
        match self {
            Outcome::Found(_) => "found",
            Outcome::MissingToken => "missing_token",
            Outcome::WrongToken => "wrong_token",
            Outcome::NoSuchKey => "unknown_key",
            Outcome::NotActive => "not_active",
            Outcome::SeveralOwners => "ambiguous_key",
            Outcome::Unavailable(_) => "unavailable",
        }
    }

    fn into_response(self, now: UnixMillis) -> HttpResponse {
        let (status, message) = match self {
            Outcome::Found(balance) => return found(balance, now),
            Outcome::MissingToken => (StatusCode::UNAUTHORIZED, "Missing X-API-Key"),
            Outcome::WrongToken => (StatusCode::UNAUTHORIZED, "Invalid X-API-Key"),
            Outcome::NoSuchKey => (StatusCode::NOT_FOUND, "API Key not found"),
            Outcome::NotActive => (StatusCode::FORBIDDEN, "API Key is not active"),
            Outcome::SeveralOwners => (StatusCode::FORBIDDEN, "Several users have this API Key"),
            Outcome::Unavailable(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "Balance could not be read now, please ask again")
            }
        };
        let mut builder = HttpResponseBuilder::new(status);
        builder.insert_header((CACHE_CONTROL, "no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            builder.insert_header((RETRY_AFTER, "1"));
        }
        builder.json(json!({ "success": false, "message": message }))
    }
}

fn found(balance: KeyBalance, now: UnixMillis) -> HttpResponse {
    let data = BalanceData {
        credit: balance.credits,
        user_id: balance.user_id,
        key_id: balance.key_id,
        remote_key_id: balance.remote_key_id.map(RemoteKeyId::get),
        label: balance.label,
        last_updated: balance.last_updated.to_rfc3339(),
        timestamp: now.as_secs(),
    };
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(json!({ "success": true, "data": data }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_paths_are_known_and_no_others() {
        for path in ["/api/api-keys/k1/credit-balance", "/api/api-keys/remote/42/credit-balance"] {
            assert!(is_question(path), "{path}");
        }
        for path in
            ["/api/api-keys/a/b/credit-balance", "/api/api-keys//credit-balance", "/api/api-keys/credit-balance", "/x"]
        {
            assert!(!is_question(path), "{path}");
        }
    }
}

//! The operator's requests over the admin socket: what the command line writes while the daemon runs.
//!
//! Whoever can open the socket may do these; the file's mode is the lock.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, HttpResponseBuilder, web};
use serde::Serialize;
use serde_json::json;

use super::server::AdminState;
use crate::actors::ledger::SettleWaiting;
use crate::actors::settling;
use crate::storage::Waiting;
use crate::storage::books::{BooksError, NewGrant, NewKey, NewReplay, NewUser};

/// Bytes of the largest request.
const MAX_REQUEST_BYTES: usize = 64 * 1024;

/// Adds the routes of `/admin/v1`.
pub fn routes(config: &mut web::ServiceConfig) {
    let json_config = web::JsonConfig::default().limit(MAX_REQUEST_BYTES).error_handler(|error, _| {
        let message = error.to_string();
        let response = HttpResponse::BadRequest().json(json!({ "success": false, "message": message }));
        actix_web::error::InternalError::from_response(error, response).into()
    });
    config
        .app_data(json_config)
        .configure(super::admin_charges::routes)
        .route("/admin/v1/users", web::post().to(add_user))
        .route("/admin/v1/keys", web::post().to(add_key))
        .route("/admin/v1/credits/grants", web::post().to(grant))
        .route("/admin/v1/events/replay", web::post().to(replay));
}

async fn add_user(state: web::Data<AdminState>, user: web::Json<NewUser>) -> HttpResponse {
    answer(state.store.add_user(user.into_inner()).await)
}

async fn add_key(state: web::Data<AdminState>, key: web::Json<NewKey>) -> HttpResponse {
    let added = state.store.add_key(key.into_inner()).await;
    if added.is_ok() {
        // Events that waited for this key are settled at once; if the Ledger is down, a look within a minute wakes them.
        state.directory.ledger.try_send(SettleWaiting(Waiting::Woken)).ok();
    }
    answer(added)
}

async fn grant(state: web::Data<AdminState>, grant: web::Json<NewGrant>) -> HttpResponse {
    answer(state.store.grant(grant.into_inner()).await)
}

async fn replay(state: web::Data<AdminState>, page: web::Json<NewReplay>) -> HttpResponse {
    let replayed = settling::replay(state.store.as_ref(), page.into_inner()).await;
    answer(replayed.map_err(BooksError::from))
}

pub fn answer(result: Result<impl Serialize, BooksError>) -> HttpResponse {
    let error = match result {
        Ok(made) => return HttpResponse::Ok().json(made),
        Err(error) => error,
    };
    let status = match &error {
        BooksError::NoSuchUser(_)
        | BooksError::NoSuchEvent(_)
        | BooksError::NoSuchKey(_)
        | BooksError::NoSuchCharge(_) => StatusCode::NOT_FOUND,
        BooksError::EmailTaken(_)
        | BooksError::RemoteIdTaken { .. }
        | BooksError::IdempotencyConflict(_)
        | BooksError::SeveralCharges { .. }
        | BooksError::NothingLeft(_)
        | BooksError::MoreThanLeft { .. }
        | BooksError::KeyNotActive(_)
        | BooksError::SeveralKeyOwners(_) => StatusCode::CONFLICT,
        BooksError::Invalid(_) => StatusCode::BAD_REQUEST,
        BooksError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    tracing::warn!(status = status.as_u16(), %error, "an operator's request was refused");
    HttpResponseBuilder::new(status).json(json!({ "success": false, "message": error.to_string() }))
}

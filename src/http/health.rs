//! Is it alive, and can it take events? Cheap answers from memory, without authentication.

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::server::HttpState;

/// The process lives: it answers.
pub async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "success": true, "message": "alive" }))
}

/// Events can be taken: for load balancers and systemd.
pub async fn ready(state: web::Data<HttpState>) -> HttpResponse {
    match state.why_not_ready() {
        None => {
            let message = state.what_is_wrong().unwrap_or_else(|| "ready".to_owned());
            HttpResponse::Ok().json(json!({ "success": true, "message": message }))
        }
        Some(reason) => HttpResponse::ServiceUnavailable().json(json!({ "success": false, "message": reason })),
    }
}

/// The guide's health check, beside the events.
pub async fn webhook_health(state: web::Data<HttpState>) -> HttpResponse {
    let timestamp = state.clock.now().to_rfc3339();
    match state.why_not_ready() {
        None => {
            let message = state.what_is_wrong().unwrap_or_else(|| "Webhook service is healthy".to_owned());
            HttpResponse::Ok().json(json!({ "success": true, "message": message, "timestamp": timestamp }))
        }
        Some(reason) => HttpResponse::ServiceUnavailable().json(json!({
            "success": false, "message": reason, "timestamp": timestamp,
        })),
    }
}

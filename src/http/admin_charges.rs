//! The operator's requests about charges and tokens: what was charged, what is given back, and which tokens are nobody's.

use actix_web::{HttpResponse, web};

use super::admin::answer;
use super::server::AdminState;
use crate::domain::accounts::TransactionKind;
use crate::storage::books::{NewAdjustment, NewIgnore};
use crate::storage::charges::{NewRefund, NewReversal};
use crate::storage::refunding;
use crate::telemetry::metrics;

/// Adds the routes of this file.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/admin/v1/charges/refunds", web::post().to(refund))
        .route("/admin/v1/charges/reversals", web::post().to(reverse))
        .route("/admin/v1/credits/adjustments", web::post().to(adjust))
        .route("/admin/v1/keys/ignored", web::post().to(ignore));
}

async fn refund(state: web::Data<AdminState>, new: web::Json<NewRefund>) -> HttpResponse {
    let refunded = refunding::refund(state.store.as_ref(), new.into_inner()).await;
    if let Ok(refunded) = &refunded
        && !refunded.repeated
    {
        metrics::credits_moved(TransactionKind::Refund.as_str(), refunded.credits.unsigned_abs());
    }
    answer(refunded)
}

async fn reverse(state: web::Data<AdminState>, page: web::Json<NewReversal>) -> HttpResponse {
    let page = page.into_inner();
    let is_dry_run = page.dry_run;
    let reversed = refunding::reverse(state.store.as_ref(), page).await;
    if let Ok(reversed) = &reversed
        && !is_dry_run
    {
        metrics::credits_moved(TransactionKind::Refund.as_str(), reversed.credits.unsigned_abs());
    }
    answer(reversed)
}

async fn adjust(state: web::Data<AdminState>, adjustment: web::Json<NewAdjustment>) -> HttpResponse {
    let adjusted = state.store.adjust(adjustment.into_inner()).await;
    if let Ok(adjusted) = &adjusted
        && !adjusted.repeated
    {
        metrics::credits_moved("ADMIN_ADJUST", adjusted.amount.unsigned_abs());
    }
    answer(adjusted)
}

async fn ignore(state: web::Data<AdminState>, ignore: web::Json<NewIgnore>) -> HttpResponse {
    answer(state.store.ignore_token(ignore.into_inner()).await)
}

//! `/admin/v1/openapi.json`: the description of these routes, made of their handlers and of the types they answer with.

use std::sync::OnceLock;

use actix_web::HttpResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Components, InfoBuilder, OpenApi as Document};
use utoipa::{Modify, OpenApi};

use super::Described;
use super::refusal::Refusal;
use super::request::{NoQuery, Query};

const SCHEME: &str = "adminToken";

const ABOUT: &str = "What operators ask and do. The same on the admin socket, where the file's mode is the lock, and, \
                     with `admin.token`, on `server.listen`.";

/// What surrounds the routes: title, version, and how to prove who asks.
pub struct Frame;

impl Modify for Frame {
    fn modify(&self, document: &mut Document) {
        document.info = InfoBuilder::new()
            .title("hookledger, admin routes")
            .description(Some(ABOUT))
            .version(env!("CARGO_PKG_VERSION"))
            .build();
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The setting admin.token. Not asked for on the admin socket."))
            .build();
        let components = document.components.get_or_insert_with(Components::new);
        components.add_security_scheme(SCHEME, SecurityScheme::Http(bearer));
        document.security = Some(vec![SecurityRequirement::new(SCHEME, Vec::<String>::new())]);
    }
}

/// This document.
#[utoipa::path(get, path = "/admin/v1/openapi.json", operation_id = "showDocument", tag = "about",
    responses((status = 200, description = "An OpenAPI document.", body = Object), Refusal))]
pub async fn show(_: Query<NoQuery>) -> HttpResponse {
    static TEXT: OnceLock<String> = OnceLock::new();
    let text = TEXT.get_or_init(|| serde_json::to_string(&Described::openapi()).unwrap_or_default());
    HttpResponse::Ok().content_type("application/json").body(text.as_str())
}

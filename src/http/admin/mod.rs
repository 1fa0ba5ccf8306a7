//! The operators' routes, the same on the admin socket and, behind a token, on the listener for senders.
//!
//! One file a concern. The table below is the only list of routes: the server, the answers to wrong methods and the
//! OpenAPI document are all made of it. Who may ask is `gate.rs`; on the socket, the file's mode is the lock.

mod audit;
mod charges;
mod credits;
mod disputes;
mod events;
mod gate;
mod keys;
mod openapi;
mod prices;
mod refusal;
mod repair;
mod request;
mod status;
mod sync;
mod users;

use std::sync::{Arc, OnceLock};

use actix_web::http::Method;
use actix_web::middleware::from_fn;
use actix_web::{HttpRequest, guard, web};
use utoipa::OpenApi;

use super::policy::RequestPolicy;
use super::server::HttpState;
use crate::actors::Directory;
use crate::actors::limits::Limits;
use crate::actors::observed::Observed;
use crate::actors::polling::Polling;
use crate::actors::progress::Progress;
use crate::domain::time::UnixMillis;
use crate::storage::Store;
use openapi::Frame;
use refusal::Refusal;

pub use status::gather as status_of;

/// Where all of them begin.
const START: &str = "/admin/v1";

/// What the handlers of operators' requests share.
pub struct AdminState {
    pub store: Arc<dyn Store>,
    pub directory: Arc<Directory>,
    /// Of the senders' side: whether events can be taken.
    pub http: web::Data<HttpState>,
    pub observed: Arc<Observed>,
    pub progress: Arc<Progress>,
    pub limits: Arc<Limits>,
    pub polling: Polling,
    pub started_at: UnixMillis,
    /// Without a password.
    pub database_url: String,
    /// Known once all of them are bound.
    pub listeners: OnceLock<Listeners>,
}

/// Where the daemon listens, as it was bound.
#[derive(Debug, Clone, Default)]
pub struct Listeners {
    pub server: String,
    /// None where it is switched off.
    pub metrics: Option<String>,
    pub admin_socket: String,
}

/// Makes, of one list, the server's routes, the patterns that tell a wrong method from an unknown path, and the document.
macro_rules! routes {
    ($($method:ident $path:literal => $file:ident::$handler:ident;)*) => {
        const PATTERNS: &[(&str, &str)] = &[$((stringify!($method), $path)),*];

        fn add_routes(config: &mut web::ServiceConfig) {
            $(config.service(
                web::resource($path.trim_start_matches(START))
                    .guard(guard::Method(Method::$method))
                    .to($file::$handler),
            );)*
            config.default_service(web::to(unrouted));
        }

        #[derive(OpenApi)]
        #[openapi(paths($($file::$handler),*), modifiers(&Frame), components(schemas(refusal::ErrorAnswer)))]
        struct Described;
    };
}

routes! {
    GET "/admin/v1/status" => status::show;
    GET "/admin/v1/users" => users::list;
    POST "/admin/v1/users" => users::add;
    GET "/admin/v1/keys" => keys::list;
    POST "/admin/v1/keys" => keys::add;
    GET "/admin/v1/keys/unmatched" => keys::unmatched;
    GET "/admin/v1/keys/ignored" => keys::ignored;
    POST "/admin/v1/keys/ignored" => keys::ignore;
    POST "/admin/v1/credits/adjustments" => credits::adjust;
    POST "/admin/v1/credits/grants" => credits::grant;
    GET "/admin/v1/credits/{user}" => credits::show;
    GET "/admin/v1/credits/{user}/history" => credits::history;
    POST "/admin/v1/audit/accepted" => audit::accept;
    GET "/admin/v1/charges" => charges::list;
    POST "/admin/v1/charges/refunds" => charges::refund;
    POST "/admin/v1/charges/reversals" => charges::reverse;
    GET "/admin/v1/charges/find" => charges::find;
    GET "/admin/v1/charges/{chargeId}" => charges::show;
    GET "/admin/v1/disputes" => disputes::list;
    POST "/admin/v1/disputes/tie" => disputes::tie;
    POST "/admin/v1/disputes/charge" => disputes::charge;
    POST "/admin/v1/disputes/dismiss" => disputes::dismiss;
    GET "/admin/v1/events" => events::list;
    POST "/admin/v1/events/replay" => events::replay;
    GET "/admin/v1/events/{eventId}" => events::show;
    GET "/admin/v1/prices" => prices::list;
    POST "/admin/v1/prices/quota-changes" => prices::name_quota_change;
    POST "/admin/v1/repair" => repair::repair;
    GET "/admin/v1/sync" => sync::show;
    POST "/admin/v1/sync" => sync::begin;
    GET "/admin/v1/openapi.json" => openapi::show;
}

/// Adds the routes to the admin socket.
pub fn on_socket(config: &mut web::ServiceConfig) {
    config.service(web::scope(START).configure(add_routes));
}

/// Adds the routes to the senders' listener, behind the token. While there is none, the paths are unknown as any other.
pub fn on_server(config: &mut web::ServiceConfig) {
    let is_open = guard::fn_guard(|request| {
        request.req_data().get::<Arc<RequestPolicy>>().is_some_and(|policy| policy.admin_token.is_some())
    });
    config.service(web::scope(START).guard(is_open).wrap(from_fn(gate::only_with_token)).configure(add_routes));
}

/// Whether a path is one of an operator's.
pub fn is_operators(path: &str) -> bool {
    path.strip_prefix(START).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

async fn unrouted(request: HttpRequest) -> Refusal {
    let allowed = methods_at(request.path());
    if allowed.is_empty() { Refusal::NoSuchPath } else { Refusal::WrongMethod { allowed: allowed.join(", ") } }
}

/// The methods that a path takes; none: there is no such path. A slash inside an id is still encoded here.
fn methods_at(path: &str) -> Vec<&'static str> {
    let is_at = |pattern: &str| {
        let (mut wanted, mut found) = (pattern.split('/'), path.split('/'));
        loop {
            match (wanted.next(), found.next()) {
                (None, None) => return true,
                (Some(wanted), Some(found)) if wanted == found => {}
                (Some(wanted), Some(found)) if wanted.starts_with('{') && !found.is_empty() => {}
                _ => return false,
            }
        }
    };
    PATTERNS.iter().filter(|(_, pattern)| is_at(pattern)).map(|(method, _)| *method).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_path_knows_its_methods() {
        assert_eq!(methods_at("/admin/v1/users"), ["GET", "POST"]);
        assert_eq!(methods_at("/admin/v1/events/replay"), ["POST", "GET"], "an event may be called replay");
        assert_eq!(methods_at("/admin/v1/events/a%2Fb"), ["GET"]);
        assert_eq!(methods_at("/admin/v1/events/"), [""; 0]);
        assert_eq!(methods_at("/admin/v1/user"), [""; 0]);
    }

    #[test]
    fn the_document_has_the_routes_of_the_table_and_no_others() {
        let document = serde_json::to_value(Described::openapi()).unwrap();
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                described.insert((method.to_uppercase(), path.clone()));
            }
        }
        let routed: BTreeSet<_> =
            PATTERNS.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
        assert_eq!(described, routed);
    }
}

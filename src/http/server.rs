//! Builds the three listeners: for senders, for the command line, and for Prometheus.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_http::HttpService;
use actix_rt::net::TcpStream;
use actix_service::{IntoServiceFactory, ServiceFactoryExt, map_config};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, Server, ServiceRequest, ServiceResponse, fn_service};
use actix_web::http::ConnectionType;
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, web};
use futures_util::future::ready;
use tokio::sync::Semaphore;

use super::admin::{self, AdminState};
use super::answer::Answer;
use super::connection::{ClientConnection, Deadlines, Places, Progress};
use super::policy::RequestPolicy;
use super::source::{client_address, is_within};
use super::{balance, health, webhook};
use crate::actors::{ActorName, Directory};
use crate::clock::SharedClock;
use crate::config::{Live, ServerSettings};
use crate::storage::Store;
use crate::telemetry::metrics::{self, Metrics};

/// What the handlers of senders' requests share.
pub struct HttpState {
    pub directory: Arc<Directory>,
    pub store: Arc<dyn Store>,
    pub clock: SharedClock,
    pub webhook_path: String,
    /// What requests that begin now are held against.
    pub policy: Live<RequestPolicy>,
    pub in_flight: Semaphore,
    pub is_stopping: Arc<AtomicBool>,
    /// Of clients' connections.
    pub places: Arc<Places>,
}

impl HttpState {
    /// What a request is held against: what was in force when it began.
    pub fn policy_of(&self, request: &HttpRequest) -> Arc<RequestPolicy> {
        RequestPolicy::of(request).unwrap_or_else(|| self.policy.get())
    }

    /// Whether the operator lets events in.
    pub fn is_webhook_enabled(&self) -> bool {
        self.policy.get().intake.is_enabled
    }

    /// What someone has to put right although events can be taken.
    pub fn what_is_wrong(&self) -> Option<String> {
        self.store.apart().map(|apart| format!("events are taken and not settled: {apart}; run `hookledger repair`"))
    }

    /// Why events cannot be taken now; none if they can.
    pub fn why_not_ready(&self) -> Option<String> {
        if self.is_stopping.load(Ordering::Acquire) {
            return Some("the daemon is stopping".to_owned());
        }
        if !self.is_webhook_enabled() {
            return Some("Webhook is disabled".to_owned());
        }
        self.what_cannot_work()
    }

    /// Which part that takes events is not there now, whatever the operator lets in.
    pub fn what_cannot_work(&self) -> Option<String> {
        let actors = [
            (ActorName::Receiver, self.directory.receiver.is_up()),
            (ActorName::Logger, self.directory.logger.is_up()),
        ];
        if let Some((actor, _)) = actors.iter().find(|(_, is_up)| !is_up) {
            return Some(format!("the {} is being restarted", actor.as_str()));
        }
        (!self.store.is_writable()).then(|| "the database does not take writes".to_owned())
    }
}

/// The listener for senders, and for operators who have the token: on sockets that were handed over, or on its own.
pub fn public(
    state: web::Data<HttpState>,
    operators: web::Data<AdminState>,
    settings: &ServerSettings,
    inherited: Vec<TcpListener>,
) -> std::io::Result<(SocketAddr, impl FnOnce() -> Server)> {
    let listeners = if inherited.is_empty() { vec![listen_on(settings.listen)?] } else { inherited };
    for listener in &listeners {
        // What it accepts inherits this.
        rustix::net::sockopt::set_socket_send_buffer_size(listener, UNTAKEN_BYTES)?;
    }
    let bound = listeners.first().map_or(Ok(settings.listen), TcpListener::local_addr)?;
    let workers = worker_count(settings.workers);
    let server = Server::build()
        .workers(workers)
        .max_concurrent_connections(state.places.most().div_ceil(workers))
        .shutdown_timeout(settings.shutdown_timeout.as_secs().max(1))
        .disable_signals();
    let stopping = server.graceful_shutdown_signal();
    let (head, idle) = (settings.header_timeout, settings.keep_alive);
    let service = move || {
        let (stopping, state, routed) = (stopping.clone(), state.clone(), state.clone());
        let operators = operators.clone();
        let app = App::new().configure(move |config| public_routes(config, &routed, &operators));
        let app = app.wrap(from_fn(on_the_road)).into_factory();
        let http = HttpService::build()
            .graceful_shutdown_signal(move || {
                let stopping = stopping.clone();
                async move { stopping.notified().await }
            })
            .client_request_timeout(head)
            .client_disconnect_timeout(Duration::from_secs(1))
            .keep_alive(idle)
            .local_addr(bound)
            .on_connect_ext(|connection: &ClientConnection<TcpStream>, data| {
                data.insert(connection.progress());
            })
            .h1(map_config(app.map_err(|error| error.error_response()), |()| AppConfig::default()));
        let accept = fn_service(move |stream: TcpStream| {
            let deadlines = Deadlines { head, idle, answer: state.policy.get().body_timeout };
            let peer = stream.peer_addr().ok();
            ready(Ok((ClientConnection::new(stream, deadlines, &state.places), peer)))
        });
        accept.and_then(http)
    };
    let server = listeners
        .into_iter()
        .try_fold(server, |server, listener| server.listen("hookledger-clients", listener, service.clone()))?;
    Ok((bound, move || server.run()))
}

/// What the kernel keeps of a connection's answers until its client takes them (the kernel doubles it). By itself it keeps
/// up to megabytes, which count against the memory that the unit may have and show in no figure of the process.
const UNTAKEN_BYTES: usize = 128 * 1024;

/// Operators and Prometheus: more at a time are no use.
const FEW_CONNECTIONS: usize = 64;

fn listen_on(address: SocketAddr) -> std::io::Result<TcpListener> {
    /// Connections that the kernel holds until they are accepted.
    const BACKLOG: i32 = 4096;
    let listener = TcpListener::bind(address)?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

fn public_routes(config: &mut web::ServiceConfig, state: &web::Data<HttpState>, operators: &web::Data<AdminState>) {
    let events = format!("{}/events", state.webhook_path);
    let webhook_health = format!("{}/health", state.webhook_path);
    config
        .app_data(state.clone())
        .app_data(operators.clone())
        .service(
            web::resource(events)
                .route(web::post().to(webhook::receive))
                .default_service(web::to(webhook::wrong_method)),
        )
        .service(read_only(webhook_health, web::get().to(health::webhook_health)))
        .configure(balance::routes)
        .configure(admin::on_server)
        .service(read_only("/healthz".to_owned(), web::get().to(health::alive)))
        .service(read_only("/readyz".to_owned(), web::get().to(health::ready)))
        .default_service(web::to(no_such_path));
}

pub(super) fn read_only(path: String, get: actix_web::Route) -> actix_web::Resource {
    let wrong_method = || async { Answer::WrongMethod { allowed: "GET" }.into_response() };
    web::resource(path).route(get).default_service(web::to(wrong_method))
}

async fn no_such_path() -> HttpResponse {
    Answer::NotFound.into_response()
}

/// What every request passes: its connection knows that it is at work, and whether this answer is the last one.
async fn on_the_road(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let progress = request.request().conn_data::<Progress>().cloned();
    let _at_work = progress.as_ref().map(Progress::begin);
    let state = request.app_data::<web::Data<HttpState>>().cloned();
    let mut response = only_allowed_sources(request, next).await?;
    let head = response.response_mut().head_mut();
    // When it stops, the next request is for whoever listens next.
    if state.is_some_and(|state| state.is_stopping.load(Ordering::Acquire) || state.places.are_scarce()) {
        head.set_connection_type(ConnectionType::Close);
    }
    if let (Some(progress), ConnectionType::Close) = (&progress, head.connection_type()) {
        progress.end();
    }
    Ok(response)
}

/// The first check of all, and the moment from which a request keeps its policy. Health is anybody's to ask; the balance
/// question and operators have tokens of their own.
async fn only_allowed_sources(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let Some(state) = request.app_data::<web::Data<HttpState>>().cloned() else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let policy = state.policy.get();
    policy.keep(&request);
    let allowed = &policy.allow_sources;
    let is_health = matches!(request.path(), "/healthz" | "/readyz")
        || request.path().strip_prefix(state.webhook_path.as_str()) == Some("/health");
    let is_exempt = is_health
        || (policy.admin_token.is_some() && admin::is_operators(request.path()))
        || (policy.balance_token.is_some() && balance::is_question(request.path()));
    if !allowed.is_empty() && !is_exempt {
        let source = client_address(request.request(), &policy.trusted_proxies);
        if !source.is_some_and(|source| is_within(source, allowed)) {
            metrics::webhook_answered(Answer::ForbiddenSource.outcome(), Duration::ZERO);
            let response = Answer::ForbiddenSource.into_response();
            return Ok(request.into_response(response).map_into_boxed_body());
        }
    }
    Ok(next.call(request).await?.map_into_boxed_body())
}

/// The listener for the command line: a socket file that only this user may open.
pub fn admin(listener: UnixListener, state: web::Data<AdminState>) -> std::io::Result<Server> {
    let server = HttpServer::new(move || {
        App::new().app_data(state.clone()).configure(admin::on_socket).default_service(web::to(no_such_path))
    });
    Ok(server
        .workers(1)
        .max_connections(FEW_CONNECTIONS)
        .shutdown_timeout(1)
        .disable_signals()
        .listen_uds(listener)?
        .run())
}

/// Opens the admin socket; a file that nobody listens behind is left over from a crash and is replaced.
pub fn bind_admin_socket(path: &Path) -> std::io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(std::io::Error::new(ErrorKind::AddrInUse, "another daemon listens behind it"));
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
        Ok(_) => return Err(std::io::Error::new(ErrorKind::AlreadyExists, "it is a file and no socket")),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// The listener for Prometheus.
pub fn prometheus(listener: TcpListener, metrics: Metrics) -> std::io::Result<(SocketAddr, Server)> {
    let bound = listener.local_addr()?;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::new(metrics.clone()))
            .service(read_only("/metrics".to_owned(), web::get().to(render)))
            .default_service(web::to(no_such_path))
    });
    Ok((
        bound,
        server
            .workers(1)
            .max_connections(FEW_CONNECTIONS)
            .shutdown_timeout(1)
            .disable_signals()
            .listen(listener)?
            .run(),
    ))
}

async fn render(metrics: web::Data<Metrics>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(metrics.render())
}

fn worker_count(configured: usize) -> usize {
    match configured {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        workers => workers,
    }
}

//! Opens the listeners, each on a socket that the service manager handed over, or on one of its own.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::web;

use super::StartError;
use crate::config::Settings;
use crate::http::admin::{AdminState, Listeners};
use crate::http::server::{self, HttpState};
use crate::systemd::InheritedSockets;
use crate::telemetry::metrics::Metrics;

/// Between the last connection that is taken and the end of those that say nothing, at most.
const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// What serves from now on.
pub(super) struct Listening {
    pub(super) servers: Servers,
    /// For senders.
    pub(super) server: SocketAddr,
    /// The file of the admin socket, where it was made here.
    pub(super) admin_socket: Option<PathBuf>,
}

/// The running servers, and how they end.
pub(super) struct Servers {
    handles: Vec<ServerHandle>,
    /// The senders' socket stays open without us.
    is_kept_open: bool,
}

impl Servers {
    /// Finishes what is under way, for which there is so much time; it is up to the caller to end it then.
    ///
    /// Where the socket stays open, whoever connects from now on is left to the next daemon; whoever was taken before
    /// gets the time to send what he connected for, as the server drops connections that have sent nothing.
    pub(super) async fn stop(&self, within: Duration) {
        if self.is_kept_open {
            for server in &self.handles {
                server.pause().await;
            }
            tokio::time::sleep(last_requests(within)).await;
        }
        for server in &self.handles {
            server.stop(true).await;
        }
    }
}

pub(super) fn listen(
    settings: &Settings,
    inherited: InheritedSockets,
    http: &web::Data<HttpState>,
    operators: &web::Data<AdminState>,
    metrics: Metrics,
) -> Result<Listening, StartError> {
    tell_of_differences(settings, &inherited);
    let InheritedSockets { webhook, metrics: metrics_socket, admin: admin_listener } = inherited;
    let is_kept_open = !webhook.is_empty();
    let mut handles = Vec::new();
    let mut serve = |server: Server| {
        handles.push(server.handle());
        actix::spawn(server);
    };
    let (server, public) = server::public(http.clone(), operators.clone(), &settings.server, webhook)
        .map_err(|error| StartError::Listen(settings.server.listen, error))?;
    let metrics_listener = match (metrics_socket, settings.metrics.listen) {
        (Some(socket), _) => Some(socket),
        (None, Some(address)) => {
            Some(TcpListener::bind(address).map_err(|error| StartError::MetricsListen(address, error))?)
        }
        (None, None) => None,
    };
    let mut metrics_listen = None;
    if let Some(listener) = metrics_listener {
        let wanted = settings.metrics.listen.unwrap_or(server);
        let (bound, prometheus) =
            server::prometheus(listener, metrics).map_err(|error| StartError::MetricsListen(wanted, error))?;
        serve(prometheus);
        metrics_listen = Some(bound.to_string());
        tracing::info!(address = %bound, "metrics are served at /metrics");
    }
    let path = &settings.admin.socket;
    let own_socket = admin_listener.is_none().then(|| path.clone());
    let admin = match admin_listener {
        Some(listener) => Ok(listener),
        None => server::bind_admin_socket(path),
    };
    let admin = admin
        .and_then(|listener| server::admin(listener, operators.clone()))
        .map_err(|error| StartError::AdminSocket(path.clone(), error))?;
    serve(admin);
    let told =
        Listeners { server: server.to_string(), metrics: metrics_listen, admin_socket: path.display().to_string() };
    operators.listeners.set(told).ok();
    // The last: whoever hears that we are ready finds everything else open.
    serve(public());
    Ok(Listening { servers: Servers { handles, is_kept_open }, server, admin_socket: own_socket })
}

/// Most of a short stop is for what is under way.
fn last_requests(within: Duration) -> Duration {
    LAST_REQUESTS.min(within / 4)
}

/// The socket counts, and the setting is what the commands of this machine go by.
fn tell_of_differences(settings: &Settings, inherited: &InheritedSockets) {
    let addresses: Vec<SocketAddr> = inherited.webhook.iter().filter_map(|socket| socket.local_addr().ok()).collect();
    for address in &addresses {
        tracing::info!(%address, "events are taken on a socket that the service manager keeps open");
    }
    let listen = settings.server.listen;
    if !addresses.is_empty() && !addresses.contains(&listen) {
        tracing::warn!(
            %listen,
            "server.listen is not the address of the socket that was handed over, which counts: set it to the same, as \
             `hookledger send` goes by it"
        );
    }
    let is_public = addresses.iter().any(|address| !address.ip().is_loopback());
    if is_public && listen.ip().is_loopback() && settings.webhook.allow_sources.is_empty() {
        tracing::warn!(
            "other machines can reach the socket that was handed over, and webhook.allow_sources is empty: put it behind \
             a proxy that speaks TLS, or list who may send"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_stop_is_not_used_up_by_waiting_for_requests() {
        let waits = [1, 2, 20].map(|secs| last_requests(Duration::from_secs(secs)).as_millis());
        assert_eq!(waits, [250, 500, 1000]);
    }
}

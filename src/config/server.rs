//! Settings of the HTTP listener. Who may send and how often is `webhook` and `rate_limit`.

use std::net::SocketAddr;
use std::time::Duration;

use ::config::ValueKind;
use ipnet::IpNet;

use super::keys::{Effect, Kind, SectionKeys};
use super::reader::Reader;
use super::values::{self, Parsed};

pub(super) const KEYS: SectionKeys = SectionKeys {
    name: "server",
    keys: &[
        ("listen", Kind::Text, Effect::AtStart),
        ("workers", Kind::Number, Effect::AtStart),
        ("webhook_path", Kind::Text, Effect::AtStart),
        ("max_body_bytes", Kind::Number, Effect::AtReload),
        ("max_connections", Kind::Number, Effect::AtStart),
        ("max_in_flight", Kind::Number, Effect::AtStart),
        ("header_timeout", Kind::Text, Effect::AtStart),
        ("body_timeout", Kind::Text, Effect::AtReload),
        ("keep_alive", Kind::Text, Effect::AtStart),
        ("ack_timeout", Kind::Text, Effect::AtReload),
        ("shutdown_timeout", Kind::Text, Effect::AtStart),
        ("trusted_proxies", Kind::List, Effect::AtReload),
    ],
};

/// Paths that the daemon answers itself.
const TAKEN_PATHS: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/admin"];

const MILLISECOND: Duration = Duration::from_millis(1);
const TEN_MINUTES: Duration = Duration::from_secs(600);
const HOUR: Duration = Duration::from_secs(3600);

/// new-api gives up on a webhook after ten seconds; the answer must be out before.
const LONGEST_ACK: Duration = Duration::from_secs(9);

const LARGEST_BODY_BYTES: i64 = 16 * 1024 * 1024;

/// How the daemon listens and how long it waits.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    pub listen: SocketAddr,
    /// Threads that serve requests; 0: one per core.
    pub workers: usize,
    /// Events are at `…/events`, health at `…/health`. Starts with a slash, doesn't end with one.
    pub webhook_path: String,
    pub max_body_bytes: usize,
    pub max_connections: usize,
    /// Requests at work at once; more are answered 503.
    pub max_in_flight: usize,
    pub header_timeout: Duration,
    pub body_timeout: Duration,
    pub keep_alive: Duration,
    /// How long an answer waits for the settlement.
    pub ack_timeout: Duration,
    /// How long a stopping daemon waits for requests at work.
    pub shutdown_timeout: Duration,
    /// Whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<IpNet>,
}

impl ServerSettings {
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let mut section = reader.section(KEYS.name);
        let listen = section.parse("listen", parse_listen);
        let workers = section.integer("workers", 0..=1024);
        let webhook_path = section.parse("webhook_path", parse_webhook_path);
        let max_body_bytes = section.integer("max_body_bytes", 1024..=LARGEST_BODY_BYTES);
        let max_connections = section.integer("max_connections", 1..=1_000_000);
        let max_in_flight = section.integer("max_in_flight", 1..=1_000_000);
        let header_timeout = section.duration("header_timeout", MILLISECOND..=TEN_MINUTES);
        let body_timeout = section.duration("body_timeout", MILLISECOND..=TEN_MINUTES);
        let keep_alive = section.duration("keep_alive", MILLISECOND..=HOUR);
        let ack_timeout = section.duration("ack_timeout", MILLISECOND..=LONGEST_ACK);
        let shutdown_timeout = section.duration("shutdown_timeout", MILLISECOND..=HOUR);
        let trusted_proxies = section.networks("trusted_proxies");
        if trusted_proxies.iter().flatten().any(|network| network.prefix_len() == 0) {
            section.warn(
                "server.trusted_proxies holds every address: any sender can then name its own source in \
                 X-Forwarded-For and pass webhook.allow_sources and the rate limits",
            );
        }
        Some(ServerSettings {
            listen: listen?,
            workers: workers?,
            webhook_path: webhook_path?,
            max_body_bytes: max_body_bytes?,
            max_connections: max_connections?,
            max_in_flight: max_in_flight?,
            header_timeout: header_timeout?,
            body_timeout: body_timeout?,
            keep_alive: keep_alive?,
            ack_timeout: ack_timeout?,
            shutdown_timeout: shutdown_timeout?,
            trusted_proxies: trusted_proxies?,
        })
    }
}

pub(super) fn parse_listen(kind: &ValueKind) -> Parsed<SocketAddr> {
    values::address(values::text(kind)?)
}

fn parse_webhook_path(kind: &ValueKind) -> Parsed<String> {
    let path = values::text(kind)?;
    let got = values::describe(kind);
    let Some(segments) = path.strip_prefix('/') else {
        return Err(format!("must start with a slash, such as /api/webhooks; got {got}"));
    };
    if path.ends_with('/') {
        return Err(format!("must not end with a slash, such as /api/webhooks; got {got}"));
    }
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-._~/".contains(letter);
    if !path.chars().all(is_plain) {
        return Err(format!("must consist of letters, digits, `-`, `.`, `_`, `~` and slashes; got {got}"));
    }
    // Clients resolve such segments before they send, so the route would never be met.
    if segments.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(format!("must not have empty parts, `.` or `..` between its slashes; got {got}"));
    }
    let taken = TAKEN_PATHS
        .iter()
        .find(|taken| path.strip_prefix(**taken).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    match taken {
        Some(taken) => Err(format!("must not lie at {taken}, which has a meaning of its own; got {got}")),
        None => Ok(path.to_owned()),
    }
}

//! Combinations that no section can see alone. What concerns one section is checked there.

use std::net::SocketAddr;

use super::reader::Reader;
use super::{
    DatabaseUrl, NewApiSettings, PollingMode, PollingSettings, WebhookSettings, admin, database, ledger, metrics,
    polling, server, values, webhook,
};

/// Two listeners on one address would fail at start, with a message that blames another program.
pub(super) fn listeners_are_apart(reader: &mut Reader) {
    let server = reader.peek("server.listen", server::parse_listen);
    let metrics = reader.peek("metrics.listen", metrics::parse_listen).flatten();
    if let (Some(server), Some(metrics)) = (server, metrics)
        && collide(server, metrics)
    {
        let message =
            format!("must not be the address of server.listen, {server}: choose another port, or \"\" for off");
        reader.section(metrics::KEYS.name).refuse("listen", message);
    }
}

/// `[::]` takes IPv4 as well, `0.0.0.0` doesn't take IPv6. Port 0 is a fresh one each time.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let covers =
        |wide: SocketAddr, narrow: SocketAddr| wide.ip().is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4());
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || covers(one, other) || covers(other, one))
}

/// Legal, since a signature is asked for anyway; but the secret's traffic then crosses a network in the clear.
pub(super) fn public_listener_is_limited(reader: &mut Reader) {
    let listen = reader.peek("server.listen", server::parse_listen);
    let sources = reader.peek("webhook.allow_sources", values::networks);
    if let (Some(listen), Some(sources)) = (listen, sources)
        && !listen.ip().is_loopback()
        && sources.is_empty()
    {
        reader.section(server::KEYS.name).warn(format!(
            "server.listen is {listen}, which other machines can reach, and webhook.allow_sources is empty: \
             put the port behind a proxy that speaks TLS, or list who may send"
        ));
    }
}

/// A socket made in the database's place would be a lost database, or cut everybody off from the server.
pub(super) fn socket_is_not_the_database(reader: &mut Reader) {
    let socket = reader.peek("admin.socket", values::path);
    let url = reader.peek("database.url", database::parse_url);
    let (Some(socket), Some(url)) = (socket, url) else { return };
    let message = match url {
        DatabaseUrl::Sqlite(path) if socket == path => "must not be the file of database.url: choose another path",
        DatabaseUrl::Mysql(url) if Some(&socket) == url.socket.as_ref() => {
            "must not be the server's socket in database.url: choose another path"
        }
        _ => return,
    };
    reader.section(admin::KEYS.name).refuse("socket", message);
}

/// Beside a server there is no folder that is sure to stay, and a fresh secret at each start would refuse every event.
pub(super) fn server_has_secrets(reader: &mut Reader, webhook: Option<&WebhookSettings>) {
    let url = reader.peek("database.url", database::parse_url);
    if let (Some(webhook), Some(DatabaseUrl::Mysql(_))) = (webhook, url)
        && webhook.secrets.is_empty()
    {
        let message = "must be set, or webhook.secrets_file: a secret is generated only beside the embedded database, \
                       and database.url names a server; `hookledger secret` makes one";
        reader.section(webhook::KEYS.name).refuse("secrets", message);
    }
}

/// The embedded database has one writer, whatever was asked for.
pub(super) fn shards_have_a_server(reader: &mut Reader) {
    let url = reader.peek("database.url", database::parse_url);
    let mut section = reader.section(ledger::KEYS.name);
    if let Some(DatabaseUrl::Sqlite(_)) = url
        && section.is_set("shards")
    {
        section.warn("ledger.shards has no effect: the embedded database, which database.url names, has one writer");
    }
}

/// Where the log is to be the main channel, there must be a log.
pub(super) fn pulling_has_a_source(
    reader: &mut Reader,
    newapi: Option<&NewApiSettings>,
    polling: Option<&PollingSettings>,
) {
    if let (Some(newapi), Some(polling)) = (newapi, polling)
        && polling.mode == PollingMode::Pull
        && newapi.access.is_none()
    {
        let message =
            "must not be \"pull\" without newapi.base_url: set it, with newapi.access_token and newapi.user_id";
        reader.section(polling::KEYS.name).refuse("mode", message);
    }
}

//! Combinations that no section can see alone. What concerns one section is checked there.

use std::net::SocketAddr;

use super::reader::Reader;
use super::{admin, database, metrics, server, values};

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

/// A socket made in the database's place would be a lost database.
pub(super) fn socket_is_not_the_database(reader: &mut Reader) {
    let socket = reader.peek("admin.socket", values::path);
    let url = reader.peek("database.url", database::parse_url);
    if let (Some(socket), Some(url)) = (socket, url)
        && socket == url.path()
    {
        reader.section(admin::KEYS.name).refuse("socket", "must not be the file of database.url: choose another path");
    }
}

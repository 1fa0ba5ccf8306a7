//! Who sent a request: the peer, or whom a trusted proxy says it forwards for.

use std::net::IpAddr;

use actix_web::HttpRequest;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "X-Forwarded-For";

/// Believes `X-Forwarded-For` from trusted proxies alone: its last address that is none of them.
pub fn client_address(request: &HttpRequest, trusted_proxies: &[IpNet]) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip().to_canonical();
    let headers = request.headers().get_all(FORWARDED_FOR);
    let forwarded: Vec<&str> =
        headers.filter_map(|value| value.to_str().ok()).flat_map(|list| list.split(',')).collect();
    Some(resolve(peer, &forwarded, trusted_proxies))
}

/// True if the address lies in one of the networks, IPv4 in its mapped form included.
pub fn is_within(address: IpAddr, networks: &[IpNet]) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

fn resolve(peer: IpAddr, forwarded: &[&str], trusted_proxies: &[IpNet]) -> IpAddr {
    let mut client = peer;
    for hop in forwarded.iter().rev() {
        if !is_within(client, trusted_proxies) {
            break;
        }
        match parse_hop(hop.trim()) {
            Some(address) => client = address,
            // What a trusted proxy wrote and we cannot read ends the chain at that proxy.
            None => break,
        }
    }
    client
}

/// An address as proxies write it: plain, with a port, or bracketed.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let plain = text.parse::<IpAddr>().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    plain.or_else(with_port).or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<IpNet> = vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        let client = |peer: &str, forwarded: &[&str]| resolve(peer.parse().unwrap(), forwarded, &trusted).to_string();
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9", "a stranger's word counts nothing");
        assert_eq!(client("127.0.0.1", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &["6.6.6.6", " 198.51.100.1", "10.1.2.3"]), "198.51.100.1");
        assert_eq!(client("127.0.0.1", &["nonsense", "10.1.2.3"]), "10.1.2.3");
        assert_eq!(client("127.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("127.0.0.1", &[]), "127.0.0.1");
    }
}

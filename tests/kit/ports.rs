//! Loopback ports that stay ours while nobody listens, so that a killed daemon comes back on the same one.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::wait::wait_until;

/// Below the range from which the system takes the ports of outgoing connections.
const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;

/// How many of them were handed out by this process.
static HANDED_OUT: AtomicU32 = AtomicU32::new(0);

/// A loopback address on which nobody listens, handed out once by this process.
pub fn free_address() -> SocketAddr {
    // Processes begin far apart, so that two runs of the tests seldom meet.
    let start = std::process::id().wrapping_mul(7919);
    for _ in 0..COUNT {
        let index = start.wrapping_add(HANDED_OUT.fetch_add(1, Ordering::SeqCst)) % COUNT;
        let port = u16::try_from(FIRST + index).expect("the range ends below 65536");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("every port from {FIRST} on is taken");
}

/// Listens on one of them. A program that another test is just starting holds for an instant what was open here, the
/// listener that found the address free as well.
pub fn listen(address: SocketAddr) -> TcpListener {
    wait_until("a free address can be listened on", Duration::from_secs(5), || TcpListener::bind(address).ok())
}

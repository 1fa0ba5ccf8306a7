//! Loopback ports that stay ours while nobody listens, so that a killed daemon comes back on the same one.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
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
        if !is_listened_on(address) {
            return address;
        }
    }
    panic!("every port from {FIRST} on is taken");
}

/// Whether anybody listens there. Asked as a client asks: to find out by listening would keep the address from the next
/// one for as long as a program that another test is just starting holds what was open here.
pub fn is_listened_on(address: SocketAddr) -> bool {
    let connected = TcpStream::connect_timeout(&address, Duration::from_secs(5));
    !connected.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Listens on one of them. Who listened there before may be held for an instant, by a program that another test is just
/// starting.
pub fn listen(address: SocketAddr) -> TcpListener {
    wait_until("a free address can be listened on", Duration::from_secs(30), || TcpListener::bind(address).ok())
}

//! A TCP proxy on loopback that breaks the link between two programs whenever a test says so.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::ports::{free_address, is_listened_on, listen};
use super::wait::{Deadline, wait_until};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SWITCH_TIMEOUT: Duration = Duration::from_secs(30);

/// Forwards until told otherwise. Ends with everything that it forwards when it goes out of scope.
#[derive(Debug)]
pub struct Proxy {
    handle: ProxyHandle,
}

impl Proxy {
    pub fn start(upstream: SocketAddr) -> Self {
        let address = free_address();
        let listener = listen(address);
        let link = Arc::new(Link { address, upstream, state: Mutex::default(), changed: Condvar::new() });
        link.state().is_listening = true;
        let accepting = Arc::clone(&link);
        thread::spawn(move || accept_until_stopped(&accepting, listener));
        Proxy { handle: ProxyHandle { link } }
    }

    /// Controls the same proxy from another thread.
    pub fn handle(&self) -> ProxyHandle {
        self.handle.clone()
    }
}

impl Deref for Proxy {
    type Target = ProxyHandle;

    fn deref(&self) -> &ProxyHandle {
        &self.handle
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.handle.link.change(|state| state.door = Door::Stopped);
        self.handle.link.wake_the_door();
        self.cut();
    }
}

/// What a test can do to the link.
#[derive(Debug, Clone)]
pub struct ProxyHandle {
    link: Arc<Link>,
}

impl ProxyHandle {
    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.link.address
    }

    /// Everything as at the start: new connections are taken, bytes pass whole and at once.
    pub fn forward(&self) {
        self.link.change(|state| {
            state.delay = Duration::ZERO;
            state.truncations = [None; 2];
            state.door = Door::Open;
        });
        wait_until("the proxy listens again", SWITCH_TIMEOUT, || self.link.state().is_listening.then_some(()));
    }

    /// Holds each piece back for this long, in both directions.
    pub fn delay(&self, duration: Duration) {
        self.link.change(|state| state.delay = duration);
    }

    /// Cuts every connection there is. New ones are taken.
    pub fn cut(&self) {
        self.link.change(|state| {
            for (_, pair) in std::mem::take(&mut state.connections) {
                pair.cut();
            }
        });
    }

    /// On the connections there are nothing gets through any more, and neither side is told: as behind a firewall that
    /// has forgotten them. New ones are as any.
    pub fn fall_silent(&self) {
        self.link.change(|state| state.silent_until = state.taken);
    }

    /// New connections are refused, as if nobody listened; those there are stay.
    pub fn refuse(&self) {
        self.link.change(|state| state.door = Door::Refusing);
        self.link.wake_the_door();
        // A program that another test is just starting holds the listener for an instant.
        let refuses = || !self.link.state().is_listening && !is_listened_on(self.address());
        wait_until("the proxy refuses", SWITCH_TIMEOUT, || refuses().then_some(()));
    }

    /// As if the network went down: nothing gets through, nothing new begins.
    pub fn refuse_and_cut(&self) {
        self.refuse();
        self.cut();
    }

    /// Cuts each connection as soon as this many bytes more have gone from the client to the server on it.
    pub fn truncate_to_server(&self, bytes: usize) {
        self.truncate(Direction::ToServer, bytes);
    }

    /// Cuts each connection as soon as this many bytes more have gone from the server to the client on it.
    pub fn truncate_to_client(&self, bytes: usize) {
        self.truncate(Direction::ToClient, bytes);
    }

    fn truncate(&self, direction: Direction, bytes: usize) {
        self.link.change(|state| {
            state.truncations_made += 1;
            state.truncations[direction as usize] = Some(Truncation { number: state.truncations_made, bytes });
        });
    }

    /// Connections that were taken, ever.
    pub fn connections_taken(&self) -> u64 {
        self.link.state().taken
    }

    /// Connections that are open now.
    pub fn connections_open(&self) -> usize {
        self.link.state().connections.len()
    }
}

#[derive(Debug)]
struct Link {
    address: SocketAddr,
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    door: Door,
    is_listening: bool,
    delay: Duration,
    /// By direction.
    truncations: [Option<Truncation>; 2],
    truncations_made: u64,
    connections: BTreeMap<u64, Pair>,
    taken: u64,
    /// The last connection on which nothing gets through.
    silent_until: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Door {
    #[default]
    Open,
    Refusing,
    Stopped,
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    ToServer,
    ToClient,
}

/// Told apart by its number, so that each connection counts anew for each order.
#[derive(Debug, Clone, Copy)]
struct Truncation {
    number: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Pair {
    client: TcpStream,
    server: TcpStream,
}

impl Pair {
    fn cut(&self) {
        for stream in [&self.client, &self.server] {
            drop(stream.shutdown(Shutdown::Both)); // it may be closed already
        }
    }
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Makes a waiting `accept` return, so that it looks at the door.
    fn wake_the_door(&self) {
        drop(TcpStream::connect_timeout(&self.address, CONNECT_TIMEOUT)); // nobody listens: nothing to wake
    }

    /// Adds a connection while the door is open; a second one of each stream is kept for cutting.
    fn admit(&self, client: &TcpStream, server: &TcpStream) -> io::Result<Option<u64>> {
        let pair = Pair { client: client.try_clone()?, server: server.try_clone()? };
        let mut state = self.state();
        if state.door == Door::Stopped {
            return Ok(None);
        }
        state.taken += 1;
        let number = state.taken;
        state.connections.insert(number, pair);
        Ok(Some(number))
    }

    fn remove(&self, number: u64) {
        let removed = self.state().connections.remove(&number);
        if let Some(pair) = removed {
            pair.cut();
        }
        self.changed.notify_all();
    }

    /// Waits as long as pieces are to be held back; false if the connection was cut meanwhile.
    fn hold_back(&self, number: u64) -> bool {
        let mut state = self.state();
        let mut waited = Duration::ZERO;
        loop {
            if !state.connections.contains_key(&number) {
                return false;
            }
            if number <= state.silent_until {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let Some(rest) = state.delay.checked_sub(waited).filter(|rest| !rest.is_zero()) else {
                return true;
            };
            let step = Deadline::after(rest);
            let woken = self.changed.wait_timeout(state, rest);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            waited += rest.saturating_sub(step.remaining());
        }
    }
}

fn accept_until_stopped(link: &Arc<Link>, first: TcpListener) {
    let mut listener = first;
    loop {
        while let Ok((client, _)) = listener.accept() {
            if link.state().door != Door::Open {
                break;
            }
            let link = Arc::clone(link);
            thread::spawn(move || drop(connect_through(&link, client)));
        }
        drop(listener);
        let mut state = link.state();
        state.is_listening = false;
        while state.door == Door::Refusing {
            state = link.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.door == Door::Stopped {
            return;
        }
        listener = listen(link.address);
        state.is_listening = true;
    }
}

fn connect_through(link: &Arc<Link>, client: TcpStream) -> io::Result<()> {
    let server = TcpStream::connect_timeout(&link.upstream, CONNECT_TIMEOUT)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let Some(number) = link.admit(&client, &server)? else {
        return Ok(());
    };
    let answers = (server.try_clone()?, client.try_clone()?);
    let answering = Arc::clone(link);
    let back = thread::spawn(move || pump(&answering, number, Direction::ToClient, answers.0, answers.1));
    pump(link, number, Direction::ToServer, client, server);
    drop(back.join()); // it ends when its side closes or the connection is cut
    link.remove(number);
    Ok(())
}

/// Moves bytes one way until that way ends; an orderly end is passed on, and the other way stays.
fn pump(link: &Link, number: u64, direction: Direction, mut from: TcpStream, mut to: TcpStream) {
    let mut counted = (0, 0);
    let mut buffer = [0; 16 * 1024];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => {
                drop(to.shutdown(Shutdown::Write)); // it may be closed already
                return;
            }
            Ok(count) => count,
            Err(_) => return link.remove(number),
        };
        if !link.hold_back(number) {
            return;
        }
        let truncation = link.state().truncations[direction as usize];
        let allowed = truncation.map(|truncation| {
            if counted.0 != truncation.number {
                counted = (truncation.number, 0);
            }
            truncation.bytes.saturating_sub(counted.1)
        });
        let passing = allowed.map_or(count, |allowed| allowed.min(count));
        counted.1 += passing;
        if to.write_all(&buffer[..passing]).is_err() || allowed.is_some_and(|allowed| allowed <= count) {
            return link.remove(number);
        }
    }
}

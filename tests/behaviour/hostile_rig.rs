//! A daemon under siege: good events through it all, and what it holds of memory and descriptors.

use std::io;
use std::time::Duration;

use crate::intake::rig::{Body, processed};
use crate::kit::daemon::{Daemon, DaemonOptions};
use crate::kit::process::{open_descriptors, resident_kib};
use crate::kit::wait::{poll, wait_until};
use crate::kit::wire::{Connection, http_request};

/// Above every deadline that these tests set.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// Descriptors beside those of clients that may come and go: the database's, and good events' own connections.
const OTHER_DESCRIPTORS: usize = 24;

/// What one connection may hold in the worst case, a full buffer of requests included; and what may come and go beside.
const KIB_EACH: u64 = 512;
const OTHER_KIB: u64 = 48 * 1024;

const CREDITS: i64 = 1_000_000;

/// The daemon, and what it held before anybody came.
pub struct Siege {
    pub daemon: Daemon,
    user: String,
    charged: i64,
    descriptors: usize,
    kib: u64,
}

/// A request that costs nothing.
pub fn health() -> Vec<u8> {
    http_request("GET", "/healthz", &[], b"")
}

/// Options with deadlines that a test can wait for, and that a good event keeps on a busy machine.
pub fn impatient() -> DaemonOptions {
    DaemonOptions::new().set("HOOKLEDGER__SERVER__HEADER_TIMEOUT", "4s").set("HOOKLEDGER__SERVER__BODY_TIMEOUT", "4s")
}

impl Siege {
    #[track_caller]
    pub fn begin(options: DaemonOptions) -> Self {
        let daemon = Daemon::start(options);
        let user = daemon.add_user("a@example.com", CREDITS);
        daemon.add_key(&user, 1);
        let mut siege = Siege { daemon, user, charged: 0, descriptors: 0, kib: 0 };
        // What is opened and allocated once is there by then.
        siege.good("before");
        siege.descriptors = open_descriptors(siege.daemon.pid());
        siege.kib = resident_kib(siege.daemon.pid());
        siege
    }

    /// An event on a connection of its own is settled and answered.
    #[track_caller]
    pub fn good(&mut self, what: &str) {
        let mut connection = self.daemon.connection();
        self.good_on(&mut connection, what);
    }

    /// An event on this connection is settled and answered.
    #[track_caller]
    pub fn good_on(&mut self, connection: &mut Connection, what: &str) {
        let (request, event_id) = self.next_event();
        let answer = connection.request(&request).unwrap_or_else(|error| panic!("{what}: no answer: {error}"));
        processed(&event_id).assert_met(what, &answer);
    }

    /// A rightly signed event of one credit that will be answered 200, and its id.
    pub fn next_event(&mut self) -> (Vec<u8>, String) {
        self.charged += 1;
        let event_id = format!("good-{}", self.charged);
        (self.daemon.signed_request(Body::usage(&event_id).json()), event_id)
    }

    /// So many more events of one credit each were answered 200.
    pub fn sent_elsewhere(&mut self, events: i64) {
        self.charged += events;
    }

    /// So many connections at once, each of which was sent these bytes.
    #[track_caller]
    pub fn crowd(&self, count: usize, sent: &[u8]) -> Vec<Connection> {
        let open = || {
            let mut connection = self.daemon.connection();
            connection.send(sent).expect("the start is taken");
            connection
        };
        (0..count).map(|_| open()).collect()
    }

    /// Memory and descriptors are those of so many connections at most.
    #[track_caller]
    pub fn assert_within(&self, connections: usize) {
        let descriptors = open_descriptors(self.daemon.pid());
        let most = self.descriptors + connections + OTHER_DESCRIPTORS;
        assert!(descriptors <= most, "{descriptors} descriptors, at most {most} for {connections} connections");
        let kib = resident_kib(self.daemon.pid());
        let most = self.kib + connections as u64 * KIB_EACH + OTHER_KIB;
        assert!(kib <= most, "{kib} KiB, at most {most} for {connections} connections, {} before", self.kib);
    }

    /// The daemon has let go of every client, although the clients have not.
    #[track_caller]
    pub fn wait_alone(&self, what: &str) {
        let alone = poll(TIMEOUT, || (self.held() <= OTHER_DESCRIPTORS).then_some(()));
        assert!(alone.is_some(), "{what}: {} connections are still held", self.held());
    }

    fn held(&self) -> usize {
        open_descriptors(self.daemon.pid()).saturating_sub(self.descriptors)
    }

    /// Every good event was charged once, and nothing else was.
    #[track_caller]
    pub fn assert_charged(&self) {
        assert_eq!(self.daemon.books().balance(&self.user), CREDITS - self.charged, "credits left");
        assert_eq!(self.daemon.books().count("usage_records"), self.charged, "usage records");
    }

    #[track_caller]
    pub fn end(mut self) {
        self.good("afterwards");
        self.assert_charged();
        self.daemon.books().assert_whole();
        self.assert_within(0);
    }
}

/// Sends these bytes again and again, one at a time with a pause of the kind that keeps a connection in use, until the
/// server closes; false if it does not within [`TIMEOUT`].
pub fn trickle_until_closed(connection: &mut Connection, bytes: &[u8]) -> bool {
    const PACE: Duration = Duration::from_millis(50);
    connection.set_timeout(PACE);
    let mut endless = bytes.iter().cycle();
    let closed = poll(TIMEOUT, || {
        let byte = *endless.next()?;
        if connection.send(&[byte]).is_err() {
            return Some(());
        }
        match connection.read_to_end() {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => None,
            _ => Some(()),
        }
    });
    closed.is_some()
}

/// Waits until the server has closed this connection; what it had answered before.
#[track_caller]
pub fn closed(connection: &mut Connection, what: &str) -> Vec<u8> {
    connection.set_timeout(TIMEOUT);
    match connection.read_to_end() {
        Ok(answer) => answer,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => panic!("{what}: still open after {TIMEOUT:?}"),
        Err(_) => Vec::new(),
    }
}

/// Waits for a condition of the daemon's.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    wait_until(what, TIMEOUT, || holds().then_some(()));
}

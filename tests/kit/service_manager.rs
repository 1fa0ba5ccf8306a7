//! A service manager as a daemon sees one: hears what it is told (`NOTIFY_SOCKET`), and keeps sockets open for it
//! (`LISTEN_FDS`). No systemd is needed.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::daemon::{Daemon, DaemonOptions};
use super::wait::wait_until;

/// What makes a daemon speak to the manager of its folder.
pub const SOCKET_NAME: &str = "notify";

const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks whether the test is over.
const LOOK: Duration = Duration::from_millis(50);

/// Puts standard input where a service manager puts its first socket, and becomes the daemon.
const HAND_OVER: &str = r#"name=$1; shift; exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; \
[ -z "$name" ] || export LISTEN_FDNAMES="$name"; exec "$@""#;

/// Lets the daemon tell a manager at the usual place how it does.
pub fn managed(options: DaemonOptions) -> DaemonOptions {
    options.set("NOTIFY_SOCKET", format!("{{folder}}/{SOCKET_NAME}"))
}

/// Hears a daemon, from before its start on.
#[derive(Debug)]
pub struct FakeManager {
    heard: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeManager {
    /// Listens in the folder of a daemon whose options are [`managed`].
    pub fn of(daemon: &Daemon) -> Self {
        let socket = bind(daemon);
        socket.set_read_timeout(Some(LOOK)).expect("a timeout can be set");
        let (heard, is_over) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicBool>::default());
        let (hears, ends) = (heard.clone(), is_over.clone());
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 64 * 1024];
            while !ends.load(Ordering::SeqCst) {
                match socket.recv(&mut buffer) {
                    Ok(length) => {
                        let text = String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned();
                        hears.lock().unwrap_or_else(PoisonError::into_inner).push(text);
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(error) => panic!("the manager's socket failed: {error}"),
                }
            }
        });
        FakeManager { heard, is_over, thread: Some(thread) }
    }

    /// Every message so far, in order.
    pub fn messages(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many messages have this line.
    pub fn count(&self, line: &str) -> usize {
        self.messages().iter().filter(|message| message.lines().any(|one| one == line)).count()
    }

    /// Waits for the first message that has a line which begins so, after the first `skipped` messages.
    #[track_caller]
    pub fn wait_for(&self, start: &str, skipped: usize) -> String {
        let found = || self.messages().into_iter().skip(skipped).find(|one| has_line(one, start));
        wait_until(&format!("{start} is heard, among {:?}", self.messages()), PATIENCE, found)
    }

    /// Waits until the last status told is one that the test wants.
    #[track_caller]
    pub fn wait_for_status(&self, what: &str, is_wanted: impl Fn(&str) -> bool) -> String {
        wait_until(what, PATIENCE, || self.status().filter(|status| is_wanted(status)))
    }

    /// The status that was told last.
    pub fn status(&self) -> Option<String> {
        let messages = self.messages();
        let mut lines = messages.iter().rev().flat_map(|message| message.lines());
        lines.find_map(|line| line.strip_prefix("STATUS=")).map(str::to_owned)
    }
}

impl Drop for FakeManager {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            drop(thread.join()); // a panic here would hide the test's own
        }
    }
}

/// A manager's socket that nobody reads.
pub fn bind(daemon: &Daemon) -> UnixDatagram {
    UnixDatagram::bind(daemon.folder().join(SOCKET_NAME)).expect("the manager can listen")
}

pub fn has_line(message: &str, start: &str) -> bool {
    message.lines().any(|line| line.starts_with(start))
}

impl Daemon {
    /// Lets its next start take over a listening socket under this name, as from a socket unit; empty: without a name.
    pub fn hand_over(&mut self, socket: TcpListener, name: &str) {
        self.set_wrapper(&["sh", "-c", HAND_OVER, "sh", name]);
        self.keep_socket(socket);
    }
}

//! Tells the service manager how the daemon does, in the words of sd_notify(3).
//!
//! A thread of its own sends them: a service manager that does not read must hold up nobody here. What cannot be sent in
//! time is left out, and the next word is the one that counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use sd_notify::NotifyState;

/// Where the service manager listens, if there is one.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// Words that wait for a service manager which does not read.
const MOST_WAITING: usize = 64;

/// How long the end of the process waits for its last words to be sent.
const LAST_WORDS: Duration = Duration::from_millis(500);

enum Word {
    Say(String),
    /// Everything before it was sent, or will not be.
    Sent(SyncSender<()>),
}

/// Whoever started this process and wants to know how it does; or nobody. Clones speak to the same one.
#[derive(Clone, Default)]
pub struct ServiceManager {
    words: Option<SyncSender<Word>>,
    is_ready: Arc<AtomicBool>,
    is_reload_refused: Arc<AtomicBool>,
}

impl ServiceManager {
    /// The one that the environment names.
    pub fn from_environment() -> Self {
        if std::env::var_os(SOCKET_VARIABLE).is_none() {
            return ServiceManager::default();
        }
        let (words, waiting) = sync_channel(MOST_WAITING);
        let send_all = move || {
            let mut is_told = false;
            for word in waiting {
                let text = match word {
                    Word::Say(text) => text,
                    Word::Sent(reply) => {
                        reply.try_send(()).ok();
                        continue;
                    }
                };
                // Once: where one word does not get through, the next hardly will.
                if let Err(error) = sd_notify::notify(&[NotifyState::Custom(&text)])
                    && !std::mem::replace(&mut is_told, true)
                {
                    tracing::warn!(%error, "the service manager cannot be told how the daemon does");
                }
            }
        };
        // Without a thread nothing is said; a service manager that waits for it then says so.
        let thread = std::thread::Builder::new().name("service-manager".to_owned()).spawn(send_all);
        ServiceManager { words: thread.is_ok().then_some(words), ..ServiceManager::default() }
    }

    pub fn is_there(&self) -> bool {
        self.words.is_some()
    }

    /// The start goes on, and may take so much longer.
    pub fn starting(&self, status: &str, at_most: Duration) {
        self.say(&[NotifyState::Status(&one_line(status)), extension(at_most)]);
    }

    /// Events can be taken.
    pub fn ready(&self, status: &str) {
        self.is_ready.store(true, Ordering::Release);
        self.say(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// How it does, in one line.
    pub fn status(&self, status: &str) {
        self.say(&[NotifyState::Status(&one_line(status))]);
    }

    /// Its parts get on with their work.
    pub fn is_alive(&self) {
        self.say(&[NotifyState::Watchdog]);
    }

    /// The configuration is being read anew. Nothing before it was ready: then that is part of the start.
    pub fn reloading(&self) {
        if !self.is_ready.load(Ordering::Acquire) {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.say(&[NotifyState::Reloading, now]),
            // Newer service managers want both or neither.
            Err(error) => tracing::warn!(%error, "the service manager cannot be told of the reload"),
        }
    }

    /// The reload is over, and changed what is in force or nothing.
    pub fn reloaded(&self, is_applied: bool) {
        self.is_reload_refused.store(!is_applied, Ordering::Release);
        if self.is_ready.load(Ordering::Acquire) {
            self.say(&[NotifyState::Ready]);
        }
    }

    /// Whether the last reload changed nothing because something was wrong: a service manager has no word for that.
    pub fn is_reload_refused(&self) -> bool {
        self.is_reload_refused.load(Ordering::Acquire)
    }

    /// What is under way is finished, which may take so long.
    pub fn stopping(&self, status: &str, at_most: Duration) {
        self.say(&[NotifyState::Stopping, NotifyState::Status(&one_line(status)), extension(at_most)]);
    }

    fn say(&self, states: &[NotifyState<'_>]) {
        let Some(words) = &self.words else { return };
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        // Full: it does not read, and will be told the next time.
        words.try_send(Word::Say(lines.join("\n"))).ok();
    }

    /// Before the process ends: what was said so far is sent, if whoever hears it listens.
    pub fn finish(&self) {
        let Some(words) = &self.words else { return };
        let (reply, sent) = sync_channel(1);
        if words.try_send(Word::Sent(reply)).is_ok() {
            sent.recv_timeout(LAST_WORDS).ok();
        }
    }
}

/// Within how long the service manager wants to hear that the daemon is alive; none if it does not ask.
pub fn watchdog_timeout() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|timeout| !timeout.is_zero())
}

fn extension(at_most: Duration) -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(u32::try_from(at_most.as_micros()).unwrap_or(u32::MAX))
}

/// A line break would begin another word.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}
